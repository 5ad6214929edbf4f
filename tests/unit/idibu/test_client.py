"""The client against the sandbox, over real sockets: every quirk, every fault."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from pydantic import SecretStr

from apptrack_ingest.errors import (
    IdibuError,
    IdibuNotUnderstood,
    IdibuRefused,
    IdibuUnauthorized,
    IdibuUnreachable,
)
from apptrack_ingest.idibu.client import Client, IdibuBusy
from apptrack_ingest.idibu.sandbox import Sandbox
from apptrack_ingest.idibu.sandbox_script import Fault, Quirk, Step
from apptrack_ingest.model import ReportStatus

SUCCESS = "<applicant><status>success</status><remote-id>R-1 é</remote-id></applicant>"
FAIL = "<applicant><status>fail</status><error-message>eaten &amp; gone</error-message></applicant>"


async def test_what_is_posted_can_be_read_back(sandbox: Sandbox, client: Client) -> None:
    await client.post_status(123, FAIL)
    await client.post_status(123, SUCCESS)
    one = await client.get_status(123)
    assert one and (one.id, one.status, one.remote_id, one.error_message) == (123, ReportStatus.SUCCESS, "R-1 é", None)
    assert str(one.date_processed) == "2023-11-14 22:13:20"
    posted, again, read = sandbox.requests(123)
    assert (posted.data, posted.account, again.data, read.method) == (FAIL, "acme", SUCCESS, "GET")


@pytest.mark.parametrize("quirk", [*Quirk, None])
async def test_quirks_are_survived(sandbox: Sandbox, client: Client, quirk: Quirk | None) -> None:
    every = frozenset(Quirk) - {Quirk.LOG_ERRORS, Quirk.SHORT}  # all that go together
    quirks = every if quirk is None else frozenset({quirk})
    sandbox.misbehave(
        Step(quirks=quirks, times=2), Step(fault=Fault.FAILED, quirks=quirks, text="Not today"), Step(quirks=quirks)
    )
    await client.post_status(7, FAIL)
    one = await client.get_status(7)
    assert one and one.error_message == "eaten & gone"
    with pytest.raises(IdibuRefused, match=r"^Not today$"):
        await client.post_status(7, SUCCESS)
    with pytest.raises(IdibuRefused, match=r"^Unknown status$"):
        await client.post_status(7, "<applicant><status>failed</status></applicant>")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step(fault=Fault.ERROR), IdibuNotUnderstood),
        (Step(fault=Fault.ERROR, status=503, retry_after="7"), IdibuBusy),
        (Step(fault=Fault.HTML), IdibuNotUnderstood),
        (Step(fault=Fault.HTML, status=403), IdibuUnauthorized),
        (Step(fault=Fault.EMPTY), IdibuNotUnderstood),
        (Step(fault=Fault.EMPTY, status=401), IdibuUnauthorized),
        (Step(fault=Fault.FAILED), IdibuRefused),
        (Step(fault=Fault.FAILED, status=500), IdibuRefused),
        (Step(fault=Fault.FAILED, text="Hash is wrong"), IdibuUnauthorized),
        (Step(fault=Fault.UNAUTHORIZED), IdibuUnauthorized),
        (Step(fault=Fault.UNAUTHORIZED, status=403), IdibuUnauthorized),
        (Step(fault=Fault.BUSY), IdibuBusy),
        (Step(fault=Fault.REDIRECT, text="/ws/rest/v1/applicant-status/5"), IdibuNotUnderstood),
        (Step(fault=Fault.CLOSE), IdibuUnreachable),
        (Step(status=500), IdibuNotUnderstood),
        (Step(status=204), IdibuNotUnderstood),
    ],
    ids=str,
)
async def test_faults_have_their_errors(sandbox: Sandbox, client: Client, step: Step, error: type[IdibuError]) -> None:
    sandbox.misbehave(step)
    with pytest.raises(IdibuError) as raised:
        await client.post_status(5, SUCCESS)
    assert type(raised.value) is error
    await client.post_status(5, SUCCESS)
    assert len(sandbox.requests(5)) == 2  # a redirect is not followed, nothing is sent again by itself


async def test_no_answer_in_time(sandbox: Sandbox) -> None:
    sandbox.misbehave(Step(fault=Fault.HANG, saves=True))
    async with Client(sandbox.base_url, SecretStr("other-hash"), timeout=1.0) as hasty:
        with pytest.raises(IdibuUnreachable, match=r"no answer within 1(\.0)? seconds?"):
            await hasty.post_status(5, SUCCESS)
    (held,) = sandbox.applicants("other")  # idibu had taken it: the repetition must do no harm
    assert held.status == "success"


async def test_wrong_hash(sandbox: Sandbox) -> None:
    async with Client(sandbox.base_url, SecretStr("wrong-one")) as stranger:
        for status in (200, 401, 403):
            sandbox.wrong_hash_status = status
            with pytest.raises(IdibuUnauthorized):
                await stranger.post_status(5, SUCCESS)
    assert not sandbox.applicants()


async def test_all_statuses_are_paged_through(sandbox: Sandbox, client: Client) -> None:
    for number in range(1, 26):
        await client.post_status(
            number, f"<applicant><status>success</status><remote-id>R{number}</remote-id></applicant>"
        )
    assert [one.id async for one in client.statuses()] == list(range(1, 26))
    assert [one.id async for one in client.statuses(offset=20, page=2)] == [21, 22, 23, 24, 25]
    assert [one.id async for one in client.by_remote_id("R1*", page=3)] == [1, *range(10, 20)]
    assert [one.id async for one in client.by_remote_id("R1")] == [1]
    assert [one.id async for one in client.by_remote_id("none")] == []


async def test_a_service_that_repeats_its_page_for_ever_ends(
    raw_server: Callable[[bytes], AbstractAsyncContextManager[str]],
) -> None:
    page = b"<response><applicant><id>1</id><status>success</status></applicant></response>"
    answer = b"HTTP/1.0 200 OK\r\n\r\n<idibu>%s<status>success</status></idibu>" % page
    async with raw_server(answer) as url, Client(url, SecretStr("h")) as client:
        assert [one.id async for one in client.statuses()] == [1]
        assert await client.get_status(2) is None


async def test_unknown_applicant(client: Client) -> None:
    with pytest.raises(IdibuRefused, match="Applicant not found"):
        await client.get_status(99)


@pytest.mark.parametrize(
    "url", ["", "idibu.com", "ftp://idibu.com", "http://", "http://u:p@idibu.com", "http://a/?b", "http://a:x"]
)
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="base URL must be") as raised:
        Client(url, SecretStr("h"))
    assert "u:p" not in str(raised.value)


def test_an_empty_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="hash"):
        Client("https://ws.idibu.com", SecretStr(""))
