"""The door to idibu: what peers may do to it, and what must never come out of it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from apptrack_ingest.errors import IdibuError, IdibuNotUnderstood, IdibuUnreachable
from apptrack_ingest.idibu.calls import Request, judged
from apptrack_ingest.idibu.client import DETAIL_LIMIT, Client, IdibuBusy
from apptrack_ingest.idibu.http import LONGEST_RETRY_AFTER, Http, Reply, encoded, redact
from apptrack_ingest.idibu.sandbox import Sandbox
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.idibu.xml import MAX_BYTES

HASH = "0123456789abcdef-s3cr3t/+ü"
RawServer = Callable[[bytes], AbstractAsyncContextManager[str]]
Everything = Callable[[BaseException | None], str]
DOCUMENT = "<applicant><status>success</status></applicant>"
SAVED = b"<idibu><status>success</status></idibu>"
NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def leaks(text: str) -> bool:
    spellings = {HASH, quote(HASH), quote(HASH, safe=""), quote_plus(HASH), "0123456789abcdef", "s3cr3t"}
    return any(spelling.lower() in text.lower() for spelling in spellings)


async def refusing_port() -> str:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"http://127.0.0.1:{port}"


async def failure(url: str, timeout: float = 10) -> IdibuError:
    async with Client(url, SecretStr(HASH), timeout) as client:
        with pytest.raises(IdibuError) as raised:
            await client.post_status(5, DOCUMENT)
        assert not leaks(repr(client) + str(vars(client)))
    assert raised.value.__context__ is None
    return raised.value


@pytest.mark.parametrize("proxies", [False, True], ids=["direct", "httpx"])
@pytest.mark.parametrize(
    "step",
    [
        None,
        Step(fault=Fault.HANG),
        Step(fault=Fault.CLOSE),
        Step(fault=Fault.ERROR),
        Step(fault=Fault.FAILED, text=f"No applicant for hash {HASH.upper()} or {quote_plus(HASH)}"),
        Step(fault=Fault.FAILED, text=f"{'x' * (DETAIL_LIMIT - 20)}{HASH}"),
        Step(fault=Fault.REDIRECT, text=f"/elsewhere?hash={HASH}"),
        Step(fault=Fault.BUSY, retry_after="x"),
    ],
    ids=str,
)
async def test_the_hash_is_in_no_log_and_no_error(
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    everything_of: Everything,
    monkeypatch: pytest.MonkeyPatch,
    step: Step | None,
    proxies: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    if proxies:  # then httpx's own connections are used, which log
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    if step:
        sandbox.misbehave(step)
        error = await failure(sandbox.base_url, timeout=1 if step.fault is Fault.HANG else 10)
        assert not leaks(everything_of(error))
    else:
        async with Client(sandbox.base_url, SecretStr(HASH)) as client:
            await client.post_status(5, DOCUMENT)
    assert not leaks(caplog.text + str([vars(record) for record in caplog.records]))
    answered = not step or step.fault not in (Fault.HANG, Fault.CLOSE)
    assert ("HTTP Request: POST http://127.0.0.1" in caplog.text) is (proxies and answered)


async def test_the_hash_stays_secret_where_nobody_answers(
    caplog: pytest.LogCaptureFixture, everything_of: Everything
) -> None:
    caplog.set_level(logging.DEBUG)
    for url in ("http://no-such-host.invalid", f"http://{'a' * 64}.invalid", await refusing_port()):
        error = await failure(url)
        assert type(error) is IdibuUnreachable
        assert not leaks(everything_of(error))
    assert not leaks(caplog.text + str([vars(record) for record in caplog.records]))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", IdibuUnreachable),
        (b"garbage " + HASH.encode() + b"\r\n\r\n", IdibuUnreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + SAVED, IdibuUnreachable),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_BYTES + 1) + SAVED, IdibuNotUnderstood),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + SAVED, IdibuNotUnderstood),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::bad\r\nContent-Length: 0\r\n\r\n", IdibuNotUnderstood),
        (b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n", IdibuNotUnderstood),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: \xff;\r\nRetry-After: \xff\r\nSet-Cookie: \xff=;;=\r\n\r\n",
            IdibuNotUnderstood,
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", IdibuUnreachable),
    ],
    ids=lambda value: value[:70].decode(errors="replace") if isinstance(value, bytes) else None,
)
async def test_any_answer_is_one_of_our_errors(
    raw_server: RawServer, everything_of: Everything, answer: bytes, error: type[IdibuError]
) -> None:
    async with raw_server(answer) as url:
        raised = await failure(url)
    assert type(raised) is error
    assert not leaks(everything_of(raised))


async def test_the_deadline_covers_an_answer_that_trickles() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.02)

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        error = await failure(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.3)
    assert error.detail == "no answer within 0.3 seconds"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("0", 0.0),
        ("-5", None),
        ("soon", None),
        ("1e3", None),
        ("99999999999", LONGEST_RETRY_AFTER),
        ("9" * 30, None),
        ("Tue, 14 Nov 2023 22:15:20 GMT", 120.0),
        ("Tue, 14 Nov 2023 22:11:20 GMT", None),
        ("Tue, 14 Nov 2056 22:11:20 GMT", LONGEST_RETRY_AFTER),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
    ],
)
async def test_retry_after(sandbox: Sandbox, value: str | None, seconds: float | None) -> None:
    http = Http(now=lambda: NOW)
    client = Client(sandbox.base_url, SecretStr(HASH), http=http)
    sandbox.misbehave(Step(fault=Fault.BUSY, retry_after=value), Step(fault=Fault.BUSY, retry_after=value, status=503))
    for _ in range(2):
        with pytest.raises(IdibuBusy) as raised:
            await client.post_status(5, DOCUMENT)
        assert raised.value.after == seconds
    await client.close()  # leaves what it shares open
    await Client(sandbox.base_url, SecretStr(HASH), http=http).post_status(5, DOCUMENT)
    await http.close()
    with pytest.raises(IdibuUnreachable, match="closed"):
        await client.post_status(5, DOCUMENT)


async def test_no_cookie_comes_back() -> None:
    heads: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.0 200 OK\r\nSet-Cookie: session=of-one-account; Path=/\r\n\r\n" + SAVED)
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, SecretStr(HASH)) as client:
            await client.post_status(1, DOCUMENT)
            await client.post_status(2, DOCUMENT)
    assert len(heads) == 2
    assert b"ookie" not in b"".join(heads)


async def test_loopback_is_reached_without_the_proxy_of_the_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with Client(sandbox.base_url, SecretStr(HASH)) as client:
        await client.post_status(1, DOCUMENT)
    async with Client("http://idibu.invalid", SecretStr(HASH)) as client:
        with pytest.raises(IdibuUnreachable, match="no connection"):
            await client.post_status(1, DOCUMENT)


async def test_closing_ends_what_is_under_way(sandbox: Sandbox) -> None:
    sandbox.misbehave(Step(fault=Fault.HANG))
    http = Http()
    client = Client(sandbox.base_url, SecretStr(HASH), http=http)
    under_way = asyncio.create_task(client.post_status(5, DOCUMENT))
    await sandbox.wait_until(lambda told: bool(told.requests(5)))
    await http.close()
    with pytest.raises(IdibuUnreachable):
        await asyncio.wait_for(under_way, 10)


@given(st.dictionaries(st.text(), st.text()))
def test_values_are_encoded_as_by_the_standard_library(values: dict[str, str]) -> None:
    assert encoded(values) == urlencode(values)


def test_redaction_takes_out_every_spelling() -> None:
    secrets: dict[str, str | SecretStr] = {
        "a": SecretStr("abc"),
        "b": SecretStr("abc/d e"),
        "c": SecretStr(""),
        "d": "plain",
    }
    assert redact("abc/d e, ABC%2FD%20E, abc%2Fd+e, Abc, plain", secrets, None) == "***, ***, ***, ***, plain"
    assert redact("a &amp; b, a%20%26%20B", {"": SecretStr("a & b")}) == "***, ***"


def test_a_secret_echoed_as_a_media_type_is_taken_out() -> None:
    request = Request("GET", "/", {"hash": SecretStr("h4sh.of-acme")})
    for status in (200, 403, 429, 500):
        with pytest.raises(IdibuError) as raised:
            judged(request, Reply(status, "text/h4sh.of-acme", b""))
        assert "h4sh" not in str(raised.value) and f"HTTP {status}, text/***" in str(raised.value)
