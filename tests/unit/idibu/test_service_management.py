"""Service management beyond its document's examples: limits before sending, idibu's refusals, the sandbox's strictness."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu import (
    AccountChanges,
    Client,
    IdibuNotUnderstood,
    IdibuRefused,
    IdibuUnauthorized,
    NewAccount,
    Partner,
    PartnerUnauthorized,
)
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Fault, Step

HASH = SecretStr("0123456789abcdef-s3cr3t/+ü")
OTHER = SecretStr("other-hash")
ACCOUNT = NewAccount(
    *("newby", SecretStr("pa55w0rd"), "Ann", "Oh", "ann@example.com", "Newby", "1 High Street", "UK", "X1", "+44 1"),
    www="https://example.com",
)
RawServer = Callable[[bytes], AbstractAsyncContextManager[str]]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"username": "x" * 33}, "username"),
        ({"username": ""}, "username"),
        ({"password": SecretStr("x" * 33)}, "password"),
        ({"password": SecretStr("")}, "password"),
        ({"email": "ann at example.com"}, "email"),
        ({"company_name": " "}, "company_name"),
        ({"www": ""}, "www"),
    ],
)
def test_limits_of_a_new_account(changes: dict[str, Any], field: str) -> None:
    assert replace(ACCOUNT, username="x" * 32, password=SecretStr("x" * 32))
    with pytest.raises(ValueError, match=field) as raised:
        replace(ACCOUNT, **changes)
    assert "ann at" not in str(raised.value) and "xxx" not in str(raised.value)


def test_limits_of_changes() -> None:
    for wrong in ({}, {"password": SecretStr("x" * 33)}, {"email": "nobody"}):
        with pytest.raises(ValueError, match=r"change|password|email"):
            AccountChanges(**wrong)
    for partner in ((0, "p"), (1, "")):
        with pytest.raises(ValueError, match="partner"):
            Partner(partner[0], SecretStr(partner[1]))


async def test_nothing_beyond_a_limit_is_sent(sandbox: Sandbox, client: Client) -> None:
    service = client.service
    for call in (
        service.set_cc_email(["a@example.com", "b@example.com,c"]),
        service.set_cc_email("a@example.com"),
        service.add_services([]),
        service.add_services(["a", " "]),
        service.remove_services("aptrack"),
        service.set_credits(-1),
        service.account_details(0),
    ):
        with pytest.raises(ValueError):
            await call
    assert not sandbox.requests()


async def test_who_is_missing(sandbox: Sandbox) -> None:
    async with Client(sandbox.base_url, HASH) as no_partner:
        with pytest.raises(ValueError, match="partner"):
            await no_partner.service.get_cc_email()
    async with Client(sandbox.base_url, None, partner=Partner(77, SecretStr("p"))) as no_account:
        with pytest.raises(ValueError, match="hash"):
            await no_account.service.get_cc_email()
        with pytest.raises(ValueError, match="hash"):
            await no_account.get_status(1)
        with pytest.raises(ValueError, match="hash"):
            await no_account.jobs.cancel([1])
    assert not sandbox.requests()


async def test_wrong_credentials(sandbox: Sandbox, client: Client) -> None:
    right = "p4rtner <w0rd> & /+ü"
    for partner in (Partner(77, SecretStr("wr0ng")), Partner(78, SecretStr(right))):
        async with Client(sandbox.base_url, HASH, partner=partner) as stranger:
            with pytest.raises(PartnerUnauthorized) as raised:
                await stranger.service.get_cc_email()
        assert not raised.value.temporary
    with pytest.raises(IdibuUnauthorized, match="Invalid client-hash") as wrong_hash:
        await client.service.get_cc_email(SecretStr("n0-such-hash"))
    assert type(wrong_hash.value) is IdibuUnauthorized
    sandbox.misbehave(Step(fault=Fault.EMPTY, status=403))
    with pytest.raises(PartnerUnauthorized):
        await client.service.get_cc_email()


async def test_idibu_judges_what_its_document_leaves_open(client: Client) -> None:
    await client.service.new_account(ACCOUNT)
    await client.service.set_credits(990, OTHER)
    for call, words in (
        (client.service.new_account(ACCOUNT), "already taken"),
        (client.service.set_credits(11), "Not enough credits"),
        (client.service.increment_credits(-1), "Not enough credits"),
        (client.service.account_details(9), "Invalid client-id"),
    ):
        with pytest.raises(IdibuRefused, match=words) as raised:
            await call
        assert not raised.value.temporary


def _bare(fields: str, password: str = "p4rtner &lt;w0rd&gt; &amp; /+ü") -> str:
    return f"<idibu><partner-password>{password}</partner-password><exempt-id>77</exempt-id>{fields}</idibu>"


LONG = f"<client-hash>other-hash</client-hash><password>{'x' * 33}</password>"


@pytest.mark.parametrize(
    ("method", "data", "words"),
    [
        ("getccemail", None, "No data"),
        ("getccemail", "<idibu>", "The data is no valid XML"),
        ("getccemail", "<query/>", "The data is no query"),
        ("getccemail", _bare("", password=""), "Invalid partner-password"),
        ("getccemail", _bare(""), "Invalid client-hash"),
        ("getCCemail", _bare(""), "Unknown method"),
        ("viewCredits", _bare(""), "Unknown method"),
        ("newaccount", _bare("<username>u</username>"), "Missing: password, firstname"),
        ("updateaccount", _bare(LONG), "The password is longer than 32 characters"),
        ("updateaccount", _bare("<client-hash>other-hash</client-hash><email>x</email>"), "Invalid email address"),
        ("setccemail", _bare("<client-hash>other-hash</client-hash><cc-email>x</cc-email>"), "Invalid email address"),
        ("setCredits", _bare("<client-hash>other-hash</client-hash><credits>1.5</credits>"), "Invalid credits"),
        ("add", _bare("<client-hash>other-hash</client-hash>"), "No services"),
    ],
)
async def test_the_sandbox_refuses(sandbox: Sandbox, method: str, data: str | None, words: str) -> None:
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        answer = await http.post(f"/ws/rest/v1/service/{method}", data={} if data is None else {"data": data})
    assert f"<response><message>{words}" in answer.text
    assert "<status>failed</status>" in answer.text
    (told,) = sandbox.requests()
    assert (told.call, told.answer.startswith(f"failed: {words}"), told.change) == (method, True, None)


@pytest.mark.parametrize("count", ["0", "101", "x"])
async def test_the_sandbox_holds_pages_to_their_limits(sandbox: Sandbox, count: str) -> None:
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        form = {"data": _bare(""), "count": count}
        assert "Invalid count or offset" in (await http.post("/ws/rest/v1/service/accounts", data=form)).text


@pytest.mark.parametrize(
    ("inner", "names"),
    [
        ("<services>aptrack</services>", ("aptrack",)),
        ("<services>aptrack, posting</services>", ("aptrack", "posting")),
        ("<services>a</services><services>b</services>", ("a", "b")),
        ("<services><service>a</service><service>b</service></services>", ("a", "b")),
        ("<service>a</service><service>b</service><service>a</service>", ("a", "b")),
        ("<services/>", ()),
        ("", ()),
    ],
)
async def test_services_in_every_shape(raw_server: RawServer, inner: str, names: tuple[str, ...]) -> None:
    body = f"<idibu><response>{inner}</response><status>success</status></idibu>".encode()
    async with (
        raw_server(b"HTTP/1.0 200 OK\r\n\r\n" + body) as url,
        Client(url, HASH, partner=Partner(1, SecretStr("p"))) as client,
    ):
        services = await client.service.list_services()
    assert services.names == names
    assert inner in services.xml


LACKING = {
    "response": "",
    "client": "<response/>",
    "id": "<response><client><client-hash>s3cr3t-hash</client-hash><client-id>x</client-id></client></response>",
    "hash": "<response><client><client-id>1</client-id></client></response>",
}


def lacking(what: str) -> bytes:
    return f"HTTP/1.0 200 OK\r\n\r\n<idibu>{LACKING[what]}<status>success</status></idibu>".encode()


@pytest.mark.parametrize("what", LACKING)
async def test_a_success_that_lacks_what_was_asked_for_is_not_understood(
    raw_server: RawServer, everything_of: Callable[[BaseException | None], str], what: str
) -> None:
    async with (
        raw_server(lacking(what)) as url,
        Client(url, HASH, partner=Partner(1, SecretStr("p"))) as client,
    ):
        with pytest.raises(IdibuNotUnderstood) as raised:
            await client.service.account_details(1)
    leaked = "s3cr3t-hash" in everything_of(raised.value)
    assert not leaked


async def test_what_was_changed_survives_and_no_secret_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "told.jsonl"
    partner = Partner(5, SecretStr("p4ss-of-partner"))
    sandbox = Sandbox({"hash-of-acme": "acme"}, file, partner=partner)
    async with running(sandbox), Client(sandbox.base_url, SecretStr("hash-of-acme"), partner=partner) as client:
        created = await client.service.new_account(ACCOUNT)
        await client.service.set_cc_email(["a@example.com"], created.client_hash)
        await client.service.add_services(["aptrack"])
        await client.service.set_credits(4)
        await client.service.view_credits()
        before = sandbox.accounts()
    again = Sandbox({"hash-of-acme": "acme"}, file, partner=partner)
    assert again.accounts() == before
    assert [account.cc for account in before] == [(), ("a@example.com",)]
    again.store.close()
    kept = file.read_text(encoding="utf-8") + repr(sandbox.requests())
    secrets = ("p4ss-of-partner", "hash-of-acme", "pa55w0rd", created.client_hash.get_secret_value())
    assert not [secret for secret in secrets if secret in kept]


async def test_the_pages_show_no_secret(sandbox: Sandbox, client: Client) -> None:
    created = await client.service.new_account(ACCOUNT)
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        shown = "".join([(await http.get(f"/{page}")).text for page in ("", "sandbox/accounts", "sandbox/requests")])
    assert "newby" in shown
    secrets = ("w0rd>", "pa55w0rd", HASH.get_secret_value(), created.client_hash.get_secret_value())
    assert not [secret for secret in secrets if secret in shown]
