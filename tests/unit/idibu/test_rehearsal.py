"""A rehearsal is the request that would be sent, word for word, with nothing sent and no secret in it."""

import contextlib
import re
from collections.abc import Awaitable, Callable

import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu import Client, IdibuError, ReportStatus, StatusUpdate, rehearse
from apptrack_ingest.idibu.http import Http, Reply, Values
from apptrack_ingest.idibu.rehearsal import MASK
from apptrack_ingest.idibu.sandbox import Sandbox

from .test_every_call import CALLS, HASH, PARTNER, PASSWORD, SECRETS

ROOT = "https://ws.idibu.com"


class Watched(Http):
    """Connections that remember what was sent over them."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str, Values, Values]] = []

    async def exchange(
        self, method: str, url: str | SecretStr, params: Values, form: Values | None, deadline: float
    ) -> Reply:
        self.sent.append((method, _bare(url), params, form or {}))
        return await super().exchange(method, url, params, form, deadline)


def _bare(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def unmasked(values: dict[str, str], sent: Values) -> dict[str, str]:
    """What was rehearsed, each mask filled with what was sent in its place."""
    return {name: _filled(value, _bare(sent[name])) for name, value in values.items()}


def _filled(shown: str, sent: str) -> str:
    pattern = re.escape(shown).replace(re.escape(MASK), "([^<]+)")
    found = re.fullmatch(pattern, sent, re.DOTALL)
    return sent if found else f"{shown!r} is not {sent!r}"


@pytest.mark.parametrize("name", CALLS)
async def test_it_is_what_is_sent(sandbox: Sandbox, name: str) -> None:
    call = CALLS[name]
    rehearsed = await rehearse(call, sandbox.base_url, SecretStr(HASH), partner=PARTNER)
    assert sandbox.requests() == []
    http = Watched()
    async with Client(sandbox.base_url, SecretStr(HASH), http=http, partner=PARTNER) as client:
        await _although_it_may_fail(call, client)
    await http.close()
    method, url, params, form = http.sent[0]
    assert (rehearsed.method, rehearsed.url.rstrip("*")) == (method, url if MASK not in rehearsed.url else _parent(url))
    assert unmasked(rehearsed.query, params) == {key: _bare(value) for key, value in params.items()}
    assert unmasked(rehearsed.form, form) == {key: _bare(value) for key, value in form.items()}
    shown = f"{rehearsed}{rehearsed!r}{rehearsed.document}"
    assert MASK in shown
    assert not [secret for secret in (*SECRETS, PASSWORD, "s3cr3t", "w0rd") if secret in shown]


async def _although_it_may_fail(call: Callable[[Client], Awaitable[object]], client: Client) -> None:
    """An empty sandbox refuses some calls; they were sent all the same."""
    with contextlib.suppress(IdibuError):
        await call(client)


def _parent(url: str) -> str:
    return url.rpartition("/")[0] + "/"


async def test_as_a_person_reads_it() -> None:
    update = StatusUpdate(ReportStatus.FAIL, error_message="no & no")
    shown = str(await rehearse(lambda client: client.post_status(7, update), ROOT, SecretStr("a-hash")))
    assert shown == (
        "POST https://ws.idibu.com/ws/rest/v1/applicant-status/7?hash=********\n"
        "<applicant>\n  <status>fail</status>\n  <error-message>no &amp; no</error-message>\n</applicant>"
    )
    shown = str(await rehearse(lambda client: client.service.view_credits(), ROOT, None, partner=PARTNER))
    assert shown.startswith(f"GET {ROOT}/ws/rest/v1/service/viewCredits?data=…&count=100&offset=0\n<idibu>\n  <partner")


async def test_what_is_no_xml_is_shown_as_it_is_or_not_at_all() -> None:
    shown = await rehearse(lambda client: client.post_status(7, "no XML"), ROOT, SecretStr("a-hash"))
    assert shown.document == "no XML"


async def test_the_limits_hold_and_something_must_be_asked() -> None:
    with pytest.raises(ValueError, match="partner's id"):
        await rehearse(lambda client: client.service.get_cc_email(), ROOT, SecretStr("a-hash"))

    async def nothing(_client: Client) -> None:
        pass

    with pytest.raises(ValueError, match="asks nothing"):
        await rehearse(nothing, ROOT, None)
