"""What holds for each of the client's calls: every fault has its error, and no secret comes out of any."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import quote, quote_plus

import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu import (
    AccountChanges,
    Addressing,
    Advert,
    Board,
    ByClientReference,
    ById,
    Client,
    IdibuBusy,
    IdibuError,
    IdibuNotUnderstood,
    IdibuRefused,
    IdibuUnauthorized,
    IdibuUnreachable,
    JobConfig,
    LockBoards,
    NewAccount,
    Partner,
    Retry,
    StatusUpdate,
)
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.model import ReportStatus

HASH = "0123456789abcdef-s3cr3t/+ü"
PARTNER = Partner(77, SecretStr("p4rtner <w0rd> & /+ü"))
PASSWORD = "l0gin-pa55"
SECRETS = (HASH, PARTNER.password.get_secret_value())

ACCOUNT = NewAccount(
    *("newby", SecretStr(PASSWORD), "Ann", "Oh", "ann@example.com", "Newby", "1 High Street", "UK", "X1", "+44 1"),
    www="https://example.com",
)
ADVERT = Advert(7, "Job title", "Job description", "REF-1", (Board(10),))
LOCKED = JobConfig(lockboards=LockBoards.YES)
KEY = ByClientReference("C-1")


async def read(listed: object) -> None:
    async for _ in listed:  # type: ignore[attr-defined]
        pass


CALLS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "post_status": lambda client: client.post_status(1, StatusUpdate(ReportStatus.SUCCESS)),
    "get_status": lambda client: client.get_status(1),
    "get_status by query": lambda client: client.get_status(1, Addressing.QUERY),
    "statuses": lambda client: read(client.statuses()),
    "by_remote_id": lambda client: read(client.by_remote_id("*")),
    "applicants": lambda client: read(client.applicants.listed()),
    "newaccount": lambda client: client.service.new_account(ACCOUNT),
    "accounts": lambda client: read(client.service.accounts()),
    "accountdetails": lambda client: client.service.account_details(1001),
    "updateaccount": lambda client: client.service.update_account(AccountChanges(password=SecretStr(PASSWORD))),
    "list": lambda client: client.service.list_services(),
    "add": lambda client: client.service.add_services(["aptrack"]),
    "remove": lambda client: client.service.remove_services(["aptrack"]),
    "viewCredits": lambda client: client.service.view_credits(),
    "setCredits": lambda client: client.service.set_credits(5),
    "incrementCredits": lambda client: client.service.increment_credits(1),
    "setccemail": lambda client: client.service.set_cc_email(["a@example.com"]),
    "getccemail": lambda client: client.service.get_cc_email(),
    "ADD": lambda client: client.jobs.add("C-1", ADVERT, LOCKED),
    "UPDATE": lambda client: client.jobs.update(KEY, ADVERT, LOCKED),
    "REPOST": lambda client: client.jobs.repost(KEY, ADVERT, LOCKED),
    "QUICKREPOST": lambda client: client.jobs.quick_repost(KEY),
    "DELETE": lambda client: client.jobs.delete(ById(31003390)),
    "CANCEL": lambda client: client.jobs.cancel([1802]),
}
"""In an order in which each of them succeeds."""

KNOW_THE_PASSWORD = {"newaccount", "updateaccount"}
NEVER_REPEATED = {"newaccount", "incrementCredits", "ADD", "REPOST", "QUICKREPOST"}

FAULTS = [
    (Step(fault=Fault.ERROR), IdibuNotUnderstood, True),
    (Step(fault=Fault.ERROR, status=404), IdibuNotUnderstood, False),
    (Step(fault=Fault.HTML), IdibuNotUnderstood, True),
    (Step(fault=Fault.EMPTY), IdibuNotUnderstood, True),
    (Step(fault=Fault.EMPTY, status=401), IdibuUnauthorized, False),
    (Step(fault=Fault.FAILED), IdibuRefused, False),
    (Step(fault=Fault.FAILED, status=500), IdibuRefused, True),
    (Step(fault=Fault.UNAUTHORIZED), IdibuUnauthorized, False),
    (Step(fault=Fault.BUSY, retry_after="7"), IdibuBusy, True),
    (Step(fault=Fault.ERROR, status=503), IdibuBusy, True),
    (Step(fault=Fault.REDIRECT, text="/elsewhere"), IdibuNotUnderstood, False),
    (Step(fault=Fault.CLOSE), IdibuUnreachable, True),
    (Step(fault=Fault.HANG), IdibuUnreachable, True),
    (Step(status=500), IdibuNotUnderstood, True),
]


def leaks(text: str) -> list[str]:
    spellings = {way(secret) for secret in SECRETS for way in (str, quote, quote_plus)}
    parts = {"s3cr3t", "w0rd"}
    return [one for one in spellings | parts if one.lower() in text.lower()]


async def test_each_succeeds_where_nothing_is_wrong(sandbox: Sandbox, client: Client) -> None:
    for call in CALLS.values():
        await call(client)
    named = {request.call for request in sandbox.requests()} - {"applicant-status"}
    assert named == {name for name in CALLS if "status" not in name and name != "by_remote_id"}


def client_for(step: Step, sandbox: Sandbox) -> Client:
    """One that has little patience where it is put to the test, and much where the machine is busy."""
    timeout = 0.5 if step.fault is Fault.HANG else 30.0
    return Client(sandbox.base_url, SecretStr(HASH), timeout=timeout, partner=PARTNER)


@pytest.mark.parametrize(("step", "error", "temporary"), FAULTS, ids=str)
async def test_each_fault_has_its_error_at_each_call(
    sandbox: Sandbox, step: Step, error: type[IdibuError], temporary: bool
) -> None:
    before = sandbox.accounts()
    sandbox.misbehave(step.model_copy(update={"times": None}))
    async with client_for(step, sandbox) as client:
        outcomes = await asyncio.gather(*(call(client) for call in CALLS.values()), return_exceptions=True)
    if step.fault is not None:  # else it was done, and only the HTTP status belies it
        assert (sandbox.applicants(), sandbox.accounts(), sandbox.jobs()) == ([], before, [])
    for name, outcome in zip(CALLS, outcomes, strict=True):
        assert isinstance(outcome, IdibuError), name
        refused_as_such = step.fault is None and isinstance(outcome, IdibuRefused)
        assert isinstance(outcome, error) or refused_as_such, name
        assert outcome.temporary is temporary, name


async def test_what_was_done_although_the_answer_was_lost(sandbox: Sandbox, client: Client) -> None:
    sandbox.misbehave(
        Step(fault=Fault.CLOSE, saves=True, call="ADD"), Step(fault=Fault.HTML, saves=True, call="setccemail")
    )
    with pytest.raises(IdibuUnreachable):
        await CALLS["ADD"](client)
    with pytest.raises(IdibuNotUnderstood):
        await CALLS["setccemail"](client)
    assert [job.client_reference for job in sandbox.jobs()] == ["C-1"]
    assert sandbox.accounts()[0].cc == ("a@example.com",)
    with pytest.raises(IdibuRefused, match="already in the system"):
        await CALLS["ADD"](client)


async def test_only_what_is_safe_is_repeated(sandbox: Sandbox) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    retry = Retry(attempts=3, first=1.0, sleep=sleep)
    async with Client(sandbox.base_url, SecretStr(HASH), partner=PARTNER, retry=retry) as client:
        for name, call in CALLS.items():
            waits.clear()
            asked = len(sandbox.requests())
            sandbox.misbehave(Step(fault=Fault.ERROR, times=2))
            if name in NEVER_REPEATED:
                with pytest.raises(IdibuNotUnderstood):
                    await call(client)
                assert waits == [], name
                sandbox.misbehave()
                await call(client)
            else:
                await call(client)
                assert (waits, len(sandbox.requests()) >= asked + 3) == ([1.0, 2.0], True), name


@pytest.mark.parametrize(
    ("step", "waits"),
    [
        (Step(fault=Fault.CLOSE, times=None), [1.0, 2.0, 4.0]),
        (Step(fault=Fault.BUSY, retry_after="7", times=None), [7.0, 7.0, 7.0]),
        (Step(fault=Fault.BUSY, retry_after="31", times=None), []),
        (Step(fault=Fault.FAILED, times=None), []),
        (Step(fault=Fault.UNAUTHORIZED, times=None), []),
        (Step(fault=Fault.REDIRECT, text="/", times=None), []),
    ],
    ids=str,
)
async def test_waits_between_attempts(sandbox: Sandbox, step: Step, waits: list[float]) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    sandbox.misbehave(step)
    retry = Retry(attempts=4, longest=30.0, sleep=sleep)
    async with Client(sandbox.base_url, SecretStr(HASH), retry=retry) as client:
        with pytest.raises(IdibuError):
            await client.get_status(1)
    assert waited == waits


ECHO = f"Not for {HASH} of {quote_plus(HASH)} by {SECRETS[1]} or {SECRETS[1].upper()} with {PASSWORD}"


@pytest.mark.parametrize(
    "step",
    [
        Step(fault=Fault.FAILED, text=ECHO),
        Step(fault=Fault.FAILED, text="x" * 480 + ECHO, status=401),
        Step(fault=Fault.REDIRECT, text=f"/?{quote(ECHO)}"),
        Step(fault=Fault.HTML),
        Step(fault=Fault.CLOSE),
        Step(fault=Fault.HANG),
    ],
    ids=lambda step: step.fault,
)
async def test_no_secret_of_any_call_comes_out(
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    everything_of: Callable[[BaseException | None], str],
    step: Step,
) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox.misbehave(step.model_copy(update={"times": None}))
    client = client_for(step, sandbox)
    outcomes = await asyncio.gather(*(call(client) for call in CALLS.values()), return_exceptions=True)
    for name, outcome in zip(CALLS, outcomes, strict=True):
        assert isinstance(outcome, IdibuError), name
        assert outcome.__context__ is None, name
        shown = everything_of(outcome)
        found = leaks(shown) or (name in KNOW_THE_PASSWORD and PASSWORD in shown)
        assert not found, name
    assert not leaks(caplog.text + str([vars(record) for record in caplog.records]))
    held = repr([client, vars(client), vars(client.service), vars(client.jobs), ACCOUNT, PARTNER])
    assert not leaks(held) and PASSWORD not in held
    kept = repr([request.data for request in sandbox.requests()])
    assert not leaks(kept) and PASSWORD not in kept
    await client.close()


async def test_what_came_instead_is_shown_cut_and_without_secrets_or_addresses() -> None:
    page = f"<html><head><title>Proxy\n  error</title></head><body>{ECHO} for ann@example.com {'x' * 500}</body></html>"

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + page.encode())
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, SecretStr(HASH)) as client:
            with pytest.raises(IdibuNotUnderstood) as raised:
                await client.get_status(1)
    start, _, shown = raised.value.detail.partition("; it begins ")
    assert start.startswith("HTTP 200, text/html, ")
    assert shown.startswith('"Proxy error Not for *** of *** by ')
    assert "ann@" not in shown and HASH not in shown
    assert shown.endswith('…"') and len(shown) == 122


async def test_a_sandbox_told_of_no_one_has_an_account_and_a_partner() -> None:
    async with (
        running() as sandbox,
        Client(sandbox.base_url, SecretStr("sandbox"), partner=Partner(1, SecretStr("sandbox"))) as client,
    ):
        assert [one.username async for one in client.service.accounts()] == ["default"]
