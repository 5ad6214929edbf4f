"""The reporter against the sandbox: each thing idibu or the network does is one result, and nothing is raised."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.model import Report, ReportStatus
from apptrack_ingest.report.reporter import (
    Confirmed,
    Destination,
    NotReached,
    Refused,
    Reporter,
    Result,
    Unauthorized,
)

REPORT = Report(5, ReportStatus.FAIL, 1_464_955_919.0, "R1", "eaten & gone")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running(Sandbox({"hash-a": "a", "hash-b": "b"})) as running_one:
        yield running_one


@pytest.fixture
async def reporter(sandbox: Sandbox) -> AsyncIterator[Reporter]:
    reporter = Reporter(now=lambda: 0.0)
    reporter.configure({name: Destination(sandbox.base_url, SecretStr(f"hash-{name}")) for name in "ab"})
    yield reporter
    await reporter.close()


async def test_reports_stand_with_their_account(sandbox: Sandbox, reporter: Reporter) -> None:
    sent = await asyncio.gather(reporter.send("a", REPORT), reporter.send("b", REPORT))
    assert list(sent) == [Confirmed(), Confirmed()]
    for account in "ab":
        (held,) = sandbox.applicants(account)
        assert (held.id, held.status, held.remote_id, held.error_message) == (5, "fail", "R1", "eaten & gone")
        assert held.date_processed == "2016-06-03 12:11:59"


@pytest.mark.parametrize(
    ("step", "result"),
    [
        (Step(fault=Fault.FAILED, text="Not today"), Refused("refused", "Not today")),
        (Step(fault=Fault.FAILED, text="Wrong hash"), Unauthorized("Wrong hash")),
        (Step(fault=Fault.UNAUTHORIZED), Unauthorized("Invalid hash")),
        (Step(fault=Fault.EMPTY, status=403), Unauthorized("HTTP 403, no type, 0 bytes: an empty body")),
        (Step(fault=Fault.EMPTY), NotReached("not-understood", "HTTP 200, no type, 0 bytes: an empty body")),
        (Step(fault=Fault.BUSY, retry_after="90"), NotReached("busy", "HTTP 429, text/plain, 9 bytes", 90.0)),
        (Step(fault=Fault.ERROR, status=503), NotReached("busy", "HTTP 503, text/plain, 21 bytes", None)),
    ],
    ids=str,
)
async def test_each_answer_has_its_result(sandbox: Sandbox, reporter: Reporter, step: Step, result: Result) -> None:
    sandbox.misbehave(step)
    assert await reporter.send("a", REPORT) == result
    assert "hash-a" not in repr(result)
    assert await reporter.send("a", REPORT) == Confirmed()


async def test_a_broken_connection_is_not_reached(sandbox: Sandbox, reporter: Reporter) -> None:
    sandbox.misbehave(Step(fault=Fault.CLOSE))
    result = await reporter.send("a", REPORT)
    assert isinstance(result, NotReached)
    assert (result.code, result.after) == ("unreachable", None)
    assert result.detail.startswith("the exchange broke off")


async def test_an_account_without_destination_and_one_without_network(sandbox: Sandbox, reporter: Reporter) -> None:
    reporter.configure({"c": Destination("http://no-such-host.invalid", SecretStr("h"))})
    assert (await reporter.send("a", REPORT)) == NotReached("no-destination", "the account has no hash to report with")
    assert isinstance(await reporter.send("c", REPORT), NotReached)
    assert not sandbox.requests()


async def test_a_reload_drops_nothing_under_way() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n<idibu><status>success</status></idibu>")
        writer.close()

    reporter = Reporter()
    async with await asyncio.start_server(slow, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        reporter.configure({"a": Destination(url, SecretStr("old"))})
        under_way = asyncio.create_task(reporter.send("a", REPORT))
        await asyncio.wait_for(asked.wait(), 10)
        reporter.configure({"b": Destination(url, SecretStr("new"))})
        go_on.set()
        assert await asyncio.wait_for(under_way, 10) == Confirmed()
        assert await reporter.send("b", REPORT) == Confirmed()
    await reporter.close()


async def test_a_mistake_in_one_destination_changes_none(sandbox: Sandbox, reporter: Reporter) -> None:
    with pytest.raises(ValueError, match="base URL"):
        reporter.configure({"a": Destination("nowhere", SecretStr("s3cr3t"))})
    assert await reporter.send("a", REPORT) == Confirmed()


async def test_after_closing_everything_is_not_reached(sandbox: Sandbox) -> None:
    reporter = Reporter()
    destination = Destination(sandbox.base_url, SecretStr("hash-a"), timeout=30)
    reporter.configure({"a": destination})
    sandbox.misbehave(Step(fault=Fault.HANG))
    under_way = asyncio.create_task(reporter.send("a", REPORT))
    await sandbox.wait_until(lambda told: bool(told.requests()))
    await reporter.close()
    assert isinstance(await asyncio.wait_for(under_way, 10), NotReached)
    assert isinstance(await reporter.send("a", REPORT), NotReached)
    assert "hash-a" not in repr(destination) + repr(vars(reporter))
