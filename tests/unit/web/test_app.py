"""The pages answer truly and at once, whatever the spool does."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.metrics import Surroundings
from apptrack_ingest.model import Backlog, State
from apptrack_ingest.web.app import BACKLOG_FOR, READY_FOR, Probe, create_app


class Process:
    """A process to be probed, whose spool and clock are told what to do."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.failed: tuple[str, ...] = ()
        self.alive = True
        self.counted = 0
        self.checked = 0
        self.trouble: Callable[[], Awaitable[None]] | None = None
        self.accounts: tuple[str, ...] = ("acme",)

    def probe(self, deadline: float = 5.0) -> Probe:
        return Probe(
            failed_checks=self._failed_checks,
            backlog=self._backlog,
            surroundings=lambda: Surroundings(accounts=self.accounts),
            alive=self._alive,
            clock=lambda: self.time,
            monotonic=lambda: self.time,
            deadline=deadline,
        )

    async def _failed_checks(self) -> tuple[str, ...]:
        self.checked += 1
        if self.trouble:
            await self.trouble()
        return self.failed

    async def _backlog(self) -> Backlog:
        self.counted += 1
        if self.trouble:
            await self.trouble()
        return Backlog({("acme", State.RECEIVED): 2}, {}, {}, {"acme": 999_990.0}, {}, {}, 10)

    async def _alive(self) -> bool:
        if self.trouble:
            await self.trouble()
        return self.alive


def client(process: Process, deadline: float = 5.0) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_app(process.probe(deadline)))
    return httpx.AsyncClient(transport=transport, base_url="http://tested")


async def spool_gone() -> None:
    raise SpoolUnavailable("locked")


async def bug() -> None:
    raise KeyError("unexpected")


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_alive_and_not() -> None:
    process = Process()
    async with client(process) as http:
        assert (await http.get("/livez")).status_code == 200
        process.alive = False
        assert (await http.get("/livez")).status_code == 503
        process.trouble = bug
        assert (await http.get("/livez")).status_code == 503


async def test_ready_and_each_failed_check_by_its_code() -> None:
    process = Process()
    async with client(process) as http:
        ready = await http.get("/readyz")
        process.failed = ("worker-down", "spool-not-writable")
        process.time += READY_FOR
        not_ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "failed": []})
    assert not_ready.status_code == 503
    assert not_ready.json() == {"ready": False, "failed": ["spool-not-writable", "worker-down"]}
    assert not_ready.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(spool_gone, "spool-unavailable"), (bug, "check-failed"), (hangs, "no-answer-in-time")],
)
async def test_checks_that_cannot_be_made_have_failed(trouble: Callable[[], Awaitable[None]], code: str) -> None:
    process = Process()
    process.trouble = trouble
    async with client(process, deadline=0.05) as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["failed"]) == (503, [code])


async def test_metrics_show_the_backlog() -> None:
    process = Process()
    async with client(process) as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "apptrack_scrape_ok 1.0" in answer.text
    assert 'apptrack_oldest_seconds{account="acme",stage="hand-off"} 10.0' in answer.text.replace(
        'stage="hand-off",account="acme"', 'account="acme",stage="hand-off"'
    )


@pytest.mark.parametrize("trouble", [spool_gone, bug, hangs])
async def test_metrics_survive_a_spool_that_fails_or_hangs(trouble: Callable[[], Awaitable[None]]) -> None:
    process = Process()
    process.trouble = trouble
    async with client(process, deadline=0.05) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert "apptrack_scrape_ok 0.0" in answer.text
    assert "apptrack_messages_received_total" in answer.text
    assert "apptrack_oldest_seconds{" not in answer.text


async def test_scrapes_cannot_load_the_database() -> None:
    process = Process()
    async with client(process) as http:
        await asyncio.gather(*(http.get("/metrics") for _ in range(20)))
        assert process.counted == 1
        process.time += BACKLOG_FOR - 0.1
        await http.get("/metrics")
        assert process.counted == 1
        process.time += 0.1
        await http.get("/metrics")
        assert process.counted == 2


async def test_a_hanging_spool_is_not_asked_again_by_each_scrape() -> None:
    process = Process()
    process.trouble = hangs
    async with client(process, deadline=0.05) as http:
        await asyncio.gather(*(http.get("/metrics") for _ in range(5)), *(http.get("/readyz") for _ in range(5)))
    assert (process.counted, process.checked) == (1, 1)


async def test_a_reload_changes_the_accounts_shown() -> None:
    process = Process()
    async with client(process) as http:
        await http.get("/metrics")
        process.accounts = ("acme", "bolt")
        assert 'apptrack_reporting_without_hash{account="bolt"} 0.0' in (await http.get("/metrics")).text


async def test_the_index_names_the_pages_and_nothing_else_is_there() -> None:
    async with client(Process()) as http:
        assert (await http.get("/")).text == "apptrack-ingest: /livez /readyz /metrics\n"
        assert (await http.get("/console")).status_code == 404
        assert (await http.post("/metrics", content=json.dumps({}))).status_code == 405
        assert (await http.head("/livez")).status_code == 200


async def test_a_spool_that_cannot_be_asked_is_told_once_however_often_the_pages_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = Process()

    async def down() -> None:
        raise SpoolUnavailable("no connection", code="ECONNREFUSED")

    async with client(process) as pages:
        for trouble in (down, down, down, None, down):
            process.trouble = trouble
            process.time += 60
            await pages.get("/readyz")
            await pages.get("/metrics")
    events = [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]
    assert sorted(events) == ["backlog not counted"] * 2 + ["readiness not known"] * 2
