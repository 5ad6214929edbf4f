"""The webhook handler against a real HTTP server: the request, the signature, and what each answer means."""

import asyncio
import base64
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from apptrack_handlers import webhook
from apptrack_handlers.webhook import Webhook

from apptrack_ingest import Accepted, Duplicate, Rejected, RetryLater
from apptrack_ingest.errors import ConfigError, HandlerError
from apptrack_ingest.handoff import build, close
from apptrack_ingest.testing import A_MOMENT, A_PDF, FakeAts, a_document, an_application

APPLICATION = an_application()
KEY_1, KEY_2 = ("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
NOW = A_MOMENT.timestamp()


@pytest.fixture
def ats() -> Iterator[FakeAts]:
    with FakeAts() as ats:
        yield ats


class Made:
    """Makes handlers, and closes them after the test."""

    def __init__(self) -> None:
        self.handlers: list[Webhook] = []

    def __call__(self, url: str, **settings: Any) -> Webhook:
        self.handlers.append(Webhook(Webhook.Settings.model_validate({"url": url} | settings), clock=lambda: NOW))
        return self.handlers[-1]


@pytest.fixture
async def make() -> AsyncIterator[Made]:
    made = Made()
    yield made
    for handler in made.handlers:
        await handler.close()


async def reason_and_delay(handler: Webhook) -> tuple[str, float | None]:
    with pytest.raises(RetryLater) as caught:
        await handler.handle(APPLICATION)
    return caught.value.reason, caught.value.after


@pytest.mark.parametrize(
    ("status", "about"), [(429, "ats"), (502, "ats"), (503, "ats"), (504, "ats"), (500, None), (408, None), (301, None)]
)
async def test_it_says_which_answers_speak_of_the_ats_as_a_whole(
    ats: FakeAts, make: Made, status: int, about: str | None
) -> None:
    ats.answers.append((status, {}, b""))
    with pytest.raises(RetryLater) as caught:
        await make(ats.url).handle(APPLICATION)
    assert caught.value.about == about


async def test_an_ats_that_is_not_there_is_the_ats_as_a_whole(make: Made) -> None:
    with pytest.raises(RetryLater) as caught:
        await make("http://127.0.0.1:9/").handle(APPLICATION)
    assert caught.value.about == "ats"


async def test_a_large_document_goes_out_as_it_is(ats: FakeAts, make: Made) -> None:
    """Its base64 is made in pieces: none may be padded but the last."""
    content = bytes(range(256)) * 3000 + b"x"
    large = replace(APPLICATION.documents[0], content=content)
    await make(ats.url).handle(replace(APPLICATION, documents=(large, *APPLICATION.documents[1:])))
    sent = json.loads(ats.requests[0].body)["documents"]
    assert base64.b64decode(sent[0]["content"], validate=True) == content
    assert len(sent) == len(APPLICATION.documents)


# --- the request ----------------------------------------------------------------------------------------------------------


async def test_json_with_the_documents_inline(ats: FakeAts, make: Made) -> None:
    assert await make(ats.url, headers={"X-Tenant": "t1"}).handle(APPLICATION) == Accepted("ats-40809163")
    (request,) = ats.requests
    assert request.path == "/applications"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-tenant"] == "t1"
    assert request.headers["user-agent"] == "apptrack-ingest"
    assert "webhook-signature" not in request.headers
    assert base64.b64decode(json.loads(request.body)["documents"][0]["content"]) == A_PDF


async def test_multipart_with_a_part_for_each_document(ats: FakeAts, make: Made) -> None:
    documents = (a_document('Jane "JD" Doe\r\nX: y.pdf'), a_document("履歴書.txt", b"\r\n--x\0"))
    await make(ats.url, format="multipart").handle(an_application(documents=documents))
    (request,) = ats.requests
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    heads = re.findall(rb"Content-Disposition: (.*?)\r\nContent-Type: (.*?)\r\n\r\n", request.body)
    assert heads == [
        (b'form-data; name="application"', b"application/json"),
        (b'form-data; name="document-1"; filename="Jane %22JD%22 Doe%0D%0AX: y.pdf"', b"application/pdf"),
        (f'form-data; name="document-2"; filename="{documents[1].name}"'.encode(), b"application/octet-stream"),
    ]
    assert b"\r\n--x\0\r\n" in request.body
    assert b'"part": "document-2"' in request.body
    assert ats.held()[0].documents == frozenset(document.sha256 for document in documents)


async def test_credentials_in_the_url_are_sent_as_basic_authentication(ats: FakeAts, make: Made) -> None:
    await make(ats.url.replace("//", "//me:p%40ss@") + "?key=k").handle(APPLICATION)
    assert ats.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert ats.requests[0].path == "/applications?key=k"


async def test_a_large_application_is_made_a_request_beside_the_loop(
    ats: FakeAts, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small one is not: a thread would cost more than it saves."""
    threads = []
    beside = asyncio.to_thread

    async def to_thread(function: Any, *args: Any) -> Any:
        threads.append(function)
        return await beside(function, *args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    handler, documents = make(ats.url), (a_document(content=b"x" * (webhook.SMALL + 1)),)
    await handler.handle(APPLICATION)
    assert not threads
    for large in (an_application(documents=documents, raw=b""), an_application(raw=b"x" * (webhook.SMALL + 1))):
        await handler.handle(large)
    assert len(threads) == 2


async def test_the_account_s_own_headers_stand_in_the_place_of_the_usual(ats: FakeAts, make: Made) -> None:
    await make(ats.url, headers={"User-Agent": "ours", "Authorization": "Bearer t"}, secrets=[KEY_1]).handle(
        APPLICATION
    )
    (request,) = ats.requests
    names = ("user-agent", "authorization", "accept-encoding", "content-length")
    assert [request.headers[name] for name in names] == ["ours", "Bearer t", "identity", str(len(request.body))]


# --- the signature --------------------------------------------------------------------------------------------------------


def test_the_specification_s_own_example() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = webhook.signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, [b'{"test": ', b"2432232314}"], [key])
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def sample_of_the_guide() -> Any:
    """The verification that docs/handlers.md tells receivers to use."""
    guide = (Path(__file__).parents[3] / "docs" / "handlers.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(import base64.*?)```", guide, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return namespace["verified"]


@pytest.mark.parametrize("shape", ["json", "multipart"])
async def test_a_receiver_can_verify_with_either_key_during_a_rotation(ats: FakeAts, make: Made, shape: str) -> None:
    await make(ats.url, secrets=[KEY_1, KEY_2], format=shape).handle(APPLICATION)
    (request,) = ats.requests
    assert request.headers["webhook-id"] == APPLICATION.idempotency_key
    assert request.headers["webhook-timestamp"] == str(int(NOW))
    verified = sample_of_the_guide()
    for key in (KEY_1, KEY_2):
        assert verified(request.headers, request.body, key, now=NOW)
    assert not verified(request.headers, request.body + b" ", KEY_1, now=NOW)
    assert not verified(request.headers, request.body, KEY_1, now=NOW + 3600)
    assert not verified(request.headers, request.body, "whsec_" + base64.b64encode(b"3" * 32).decode(), now=NOW)
    assert not verified({}, request.body, KEY_1, now=NOW)


# --- the answers ----------------------------------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "verdict"),
    [
        (200, JSON, b'{"remote_id": "a-1"}', Accepted("a-1")),
        (201, JSON, b'{"remote_id": 17}', Accepted("17")),
        (202, {}, b"", Accepted(None)),
        (200, {"Content-Type": "text/html"}, b"<p>thanks", Accepted(None)),
        (200, JSON, b'{"remote_id": {"no": "id"}}', Accepted(None)),
        (200, JSON, b'{"remote_id": true}', Accepted(None)),
        (200, JSON, b'["remote_id"]', Accepted(None)),
        (200, JSON, b'{"remote_id": "cut off', Accepted(None)),
        (200, JSON, b"[" * 60_000, Accepted(None)),
        (200, JSON | {"Content-Encoding": "gzip"}, b'{"remote_id": "a-1"}', Accepted(None)),
        (409, JSON, b'{"remote_id": "a-1"}', Duplicate("a-1")),
        (409, {}, b"had it", Duplicate(None)),
        (400, JSON, b'{"message": "no such\\njob"}', Rejected("the ATS answered 400: no such job")),
        (422, {"Content-Type": "text/plain"}, b"no \0 name", Rejected("the ATS answered 422: no name")),
        (404, {"Content-Type": "text/html"}, b"<h1>Not Found</h1>", Rejected("the ATS answered 404")),
        (410, {}, b"", Rejected("the ATS answered 410")),
        (400, {}, b"x" * 1_000_000, Rejected("the ATS answered 400: " + "x" * webhook.MAX_REASON)),
    ],
)
async def test_verdicts(
    ats: FakeAts,
    make: Made,
    status: int,
    headers: dict[str, str],
    body: bytes,
    verdict: Accepted | Duplicate | Rejected,
) -> None:
    ats.answers.append((status, headers, body))
    assert await make(ats.url).handle(APPLICATION) == verdict


@pytest.mark.parametrize(
    ("status", "retry_after", "delay"),
    [
        (429, "120", 120.0),
        (503, "0", 0.0),
        (503, format_datetime(A_MOMENT.replace(hour=10, minute=30), usegmt=True), 3600.0),
        (503, format_datetime(A_MOMENT.replace(hour=8), usegmt=True), 0.0),
        (503, "soon", None),
        (503, "-5", None),
        (503, "9" * 50, None),
        (429, None, None),
        (500, None, None),
        (408, None, None),
        (425, None, None),
    ],
)
async def test_answers_that_mean_later(
    ats: FakeAts, make: Made, status: int, retry_after: str | None, delay: float | None
) -> None:
    ats.answers.append((status, {"Retry-After": retry_after} if retry_after else {}, b"busy"))
    assert await reason_and_delay(make(ats.url)) == (f"the ATS answered {status}: busy", delay)


async def test_more_statuses_can_be_made_to_mean_later(ats: FakeAts, make: Made) -> None:
    handler = make(ats.url, retry_statuses=[401, 409])
    for status in (401, 409):
        ats.answers.append((status, {}, b""))
        assert await reason_and_delay(handler) == (f"the ATS answered {status}", None)
    ats.answers.append((408, {}, b""))
    assert await handler.handle(APPLICATION) == Rejected("the ATS answered 408")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(ats: FakeAts, make: Made, status: int) -> None:
    ats.answers.append((status, {"Location": ats.url}, b""))
    reason, _ = await reason_and_delay(make(ats.url))
    assert reason == f"the ATS answered {status}: redirects are not followed, set `url` to the new address"
    assert len(ats.requests) == 1


async def test_an_answer_that_does_not_come(ats: FakeAts, make: Made) -> None:
    ats.answers.append("stall")
    assert await reason_and_delay(make(ats.url, timeout=1.0)) == ("no answer from the ATS within 1 seconds", None)
    assert len(ats.requests) == 1
    assert await make(ats.url).handle(APPLICATION) == Accepted("ats-40809163")


async def test_an_ats_that_hangs_up(make: Made) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reason, _ = await reason_and_delay(make(f"http://127.0.0.1:{port}/"))
    assert reason.startswith("the ATS was not reached: ")


# --- secrets --------------------------------------------------------------------------------------------------------------


async def test_no_secret_in_logs_reasons_or_reprs(ats: FakeAts, make: Made, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hunter2-hunter2"
    ats.answers.append((400, {}, f"bad key {secret} for user:{secret}@".encode()))
    headers = {"Authorization": f"Bearer {secret}-token"}
    urls = [
        ats.url.replace("//", f"//user:{secret}@") + f"?{secret}",
        f"http://user:{secret}@ats.invalid/?{secret}",
        f"https://user:{secret}@{ats.url.removeprefix('http://')}?{secret}",
    ]
    said = []
    for url in urls:
        handler = make(url, headers=headers, secrets=[KEY_1])
        try:
            said.append(repr(await handler.handle(APPLICATION)))
        except RetryLater as error:
            said.append(error.reason)
        said.append(repr(handler.settings))
    everything = caplog.text + "".join(str(record.args) for record in caplog.records) + "\n".join(said)
    assert secret not in everything
    assert KEY_1 not in everything
    assert "400: bad key ********" in everything


@pytest.mark.parametrize("said", ["unknown key {0}", "bad token {1}", "no path /hooks/{2}", "{3} {1}", "me:{4}"])
async def test_no_piece_of_a_secret_is_repeated(ats: FakeAts, make: Made, said: str) -> None:
    """A rejection's reason goes to idibu: neither a part of the URL or of a header, nor a half of one at the cut."""
    pieces = ["query-5ecret", "token-5ecret", "path-5ecret", "x" * (webhook.MAX_REASON - 6), "pass-5ecret"]
    url = ats.url.replace("//", f"//me:{pieces[4]}@").replace("/applications", f"/hooks/{pieces[2]}?key={pieces[0]}")
    ats.answers.append((400, {}, said.format(*pieces).encode()))
    verdict = await make(url, headers={"Authorization": f"Bearer {pieces[1]}"}).handle(APPLICATION)
    assert isinstance(verdict, Rejected)
    assert "***" in verdict.reason and "5ecret" not in verdict.reason and "token-" not in verdict.reason


async def test_nothing_but_our_own_time_out_ends_an_exchange(ats: FakeAts, make: Made) -> None:
    """httpx has time-outs of its own, 5 seconds without a byte, unless it is told to have none."""
    handler = make(ats.url, timeout=60)
    await handler.handle(APPLICATION)
    async with handler._clients.one() as client:
        assert client.timeout == httpx.Timeout(None)


# --- TLS ------------------------------------------------------------------------------------------------------------------


async def test_certificates_are_checked_by_setting(make: Made, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert found
        await reader.readexactly(int(found[1]))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context, ssl_shutdown_timeout=1)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        reason, _ = await reason_and_delay(make(url))
        assert "CERTIFICATE_VERIFY_FAILED" in reason
        assert await make(url, verify=False).handle(APPLICATION) == Accepted(None)
        assert await make(url, ca_bundle=tmp_path / "ca.pem").handle(APPLICATION) == Accepted(None)


def test_a_bundle_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(HandlerError, match="could not be made: SSLError"):
        build("webhook", {"url": "https://ats", "ca_bundle": str(tmp_path / "ca.pem")})


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "missing"),
        ({"url": "ats.example/in"}, "must be a URL"),
        ({"url": "ftp://ats.example/in"}, "must be a URL"),
        ({"url": "https://"}, "must be a URL"),
        ({"url": "https://ats:port"}, "no URL"),
        ({"url": "https://ats", "secrets": ["whsec_short"]}, "openssl rand"),
        ({"url": "https://ats", "secrets": [KEY_1.removeprefix("whsec_")]}, "openssl rand"),
        ({"url": "https://ats", "secrets": ["whsec_" + "!" * 40]}, "openssl rand"),
        ({"url": "https://ats", "format": "xml"}, "'json' or 'multipart'"),
        ({"url": "https://ats", "timeout": -1}, "greater than 0"),
        ({"url": "https://ats", "headers": {"Content-Type": "x"}}, "sets itself"),
        ({"url": "https://ats", "headers": {"webhook-id": "x"}}, "sets itself"),
        ({"url": "https://ats", "headers": {"X Y": "x"}}, "no HTTP field name"),
        ({"url": "https://ats", "headers": {"X-Y": "a\r\nX-Z: b"}}, "on one line"),
        ({"url": "https://ats", "ca_bundle": "/no/such/file"}, "file"),
    ],
)
def test_mistakes_in_the_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build("webhook", settings)


async def test_keys_from_a_file_one_a_line(ats: FakeAts, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEY_1}\n{KEY_2}\n")
    handler = build("webhook", {"url": ats.url, "secrets_file": str(tmp_path / "keys")})
    await handler.handle(APPLICATION)
    await close(handler)
    assert ats.requests[0].headers["webhook-signature"].count("v1,") == 2
