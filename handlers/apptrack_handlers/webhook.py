"""Hands each application to an HTTP endpoint of the ATS, signed as Standard Webhooks 1.0 says (standardwebhooks.com)."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import pybase64
from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, field_validator

from apptrack_handlers.clients import KEPT_FOR, Clients
from apptrack_ingest import Accepted, Application, Duplicate, Rejected, RetryLater, Verdict, to_payload

MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read; more is not needed for a remote id or a reason."""
PIECE = 64 * 1024
"""Bytes of a body that are sent in one go."""
SMALL = 256 * 1024
"""Bytes of an application whose request is made on the loop: that takes a millisecond at most, which a thread, its start and
the quarrel about the interpreter, costs as well."""
MAX_REASON = 500
OF_THE_ATS = {429, 502, 503, 504}
"""Answers that speak of the ATS as a whole; a 500 may be about one application (RFC 9110, 15.6; RFC 6585, 4)."""
AWAY = {502, 503, 504}
"""Answers of who stands before the ATS, or of one that is overloaded."""
MIN_SECRET = 8
"""Characters; a shorter piece of a URL or header is hardly a secret, and hiding it would spoil the reason's words."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: what a field name may be made of
_OURS = {"host", "content-type", "content-length", "transfer-encoding", "accept-encoding"}
_SENT = httpx.Request("POST", "http://sent/")
_REASON_KEYS = ("reason", "message", "error", "detail", "title")


class Webhook:
    """Posts each application to `url`."""

    class Settings(BaseModel):
        """`url` may hold credentials and is treated as a secret. `secrets` (`whsec_` and base64) sign every request, each
        with a signature of its own, so that a key can be replaced without a gap. `format`: `json` with the documents
        inline, or `multipart` with a part for each. `timeout` in seconds, for the whole exchange. `headers` are added.
        `retry_statuses`: answers that mean "later" beside 429 and 5xx, although they begin with 4.
        `verify` off trusts any certificate; `ca_bundle` is a file of the authorities to trust instead of the usual."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        url: SecretStr
        secrets: list[SecretStr] = []
        format: Literal["json", "multipart"] = "json"
        timeout: float = Field(default=30.0, gt=0)
        headers: dict[str, SecretStr] = {}
        retry_statuses: set[int] = {408, 425}
        verify: bool = True
        ca_bundle: FilePath | None = None

        @field_validator("url")
        @classmethod
        def _is_http(cls, url: SecretStr) -> SecretStr:
            try:
                parsed = httpx.URL(url.get_secret_value())
            except httpx.InvalidURL:
                raise ValueError("it is no URL") from None
            if parsed.scheme not in ("http", "https") or not parsed.host:
                raise ValueError("it must be a URL that begins with https:// or http://")
            return url

        @field_validator("secrets")
        @classmethod
        def _are_keys(cls, secrets: list[SecretStr]) -> list[SecretStr]:
            if not all(_is_key(secret.get_secret_value()) for secret in secrets):
                raise ValueError(
                    "each must be `whsec_` and 24 to 64 bytes in base64; make one: echo whsec_$(openssl rand -base64 32)"
                )
            return secrets

        @field_validator("headers")
        @classmethod
        def _are_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
            for name, value in headers.items():
                if not _TOKEN.fullmatch(name) or name.lower() in _OURS or name.lower().startswith("webhook-"):
                    raise ValueError("a name is no HTTP field name, or one that the handler sets itself")
                text = value.get_secret_value()
                if not text.isascii() or not text.isprintable():
                    raise ValueError("the values must be printable ASCII on one line")
            return headers

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._clock = clock
        url = settings.url.get_secret_value()
        self._keys = [_key(secret.get_secret_value()) for secret in settings.secrets]
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._secrets = _secrets(url, headers.values())
        self._url = httpx.URL(url)
        self._headers = httpx.Headers({"user-agent": "apptrack-ingest"})
        self._headers.update(headers)
        self._trust = _trust(settings)
        self._clients = Clients(self._client)  # how many at a time the account says (`concurrency`)
        _keep_urls_out_of_logs()

    async def handle(self, application: Application) -> Verdict:
        """Post the application and read the answer; docs/handlers.md has the table of answers and verdicts."""
        try:
            async with asyncio.timeout(self.settings.timeout):
                small = _size(application) <= SMALL
                request = self._request(application) if small else await asyncio.to_thread(self._request, application)
                answer = await self._ask(request)
        except (TimeoutError, httpx.TimeoutException):
            raise RetryLater(f"no answer from the ATS within {self.settings.timeout:g} seconds") from None
        except httpx.HTTPError as error:
            words = self._redacted(f"the ATS was not reached: {type(error).__name__}: {error}")
            raise RetryLater(words, about="ats") from None
        return self._verdict(answer)

    async def check(self) -> str:
        """Whether the endpoint is there: by a HEAD. Any answer of its own will do, for many take a POST alone."""
        request = httpx.Request("HEAD", self._url, headers=self._headers)
        try:
            async with asyncio.timeout(self.settings.timeout):
                answer = await self._ask(request)
        except (TimeoutError, httpx.TimeoutException):
            raise RetryLater(f"no answer from the ATS within {self.settings.timeout:g} seconds") from None
        except httpx.HTTPError as error:
            raise RetryLater(self._redacted(f"the ATS was not reached: {type(error).__name__}: {error}")) from None
        if answer.status in AWAY:
            raise RetryLater(f"the ATS answers with HTTP {answer.status}")
        return f"the endpoint answers (HTTP {answer.status} to a HEAD)"

    async def close(self) -> None:
        """Close the connections that were kept open."""
        await self._clients.close()

    def _request(self, application: Application) -> httpx.Request:
        shape = _multipart if self.settings.format == "multipart" else _json
        kind, body = shape(application)
        ours = {"accept-encoding": "identity", "content-type": kind, "content-length": str(sum(map(len, body)))}
        if self._keys:
            ours |= signed(application.idempotency_key, int(self._clock()), body, self._keys)
        headers = httpx.Headers(self._headers)
        headers.update(ours)
        return httpx.Request("POST", self._url, headers=headers, content=_sent(body))

    async def _ask(self, request: httpx.Request) -> "_Answer":
        async with self._clients.one() as client:
            response = await client.send(request, stream=True)
            try:
                return _Answer(response.status_code, response.headers, await _beginning(response))
            finally:
                await response.aclose()
                # A response and its stream hold each other, and the response the request: do not wait for the collector.
                response.request = _SENT

    def _client(self) -> httpx.AsyncClient:
        # Without `timeout` httpx would give up after 5 seconds without a byte, whatever our own deadline is.
        return httpx.AsyncClient(
            verify=self._trust,
            follow_redirects=False,
            timeout=None,  # noqa: S113
            limits=httpx.Limits(keepalive_expiry=KEPT_FOR),
        )

    def _verdict(self, answer: "_Answer") -> Verdict:
        if 200 <= answer.status < 300:
            return Accepted(answer.remote_id())
        # Redacted before it is cut, so that no half of a secret stays at the end.
        words = self._redacted(answer.words())[:MAX_REASON]
        said = f"the ATS answered {answer.status}{words and ': ' + words}"
        if answer.status < 400:
            raise RetryLater(f"{said}: redirects are not followed, set `url` to the new address")
        if answer.status >= 500 or answer.status == 429 or answer.status in self.settings.retry_statuses:
            after = _seconds(answer.headers.get("retry-after", ""), self._clock())
            raise RetryLater(said, after=after, about="ats" if answer.status in OF_THE_ATS else None)
        return Duplicate(answer.remote_id()) if answer.status == 409 else Rejected(said)

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "********")
        return text


class _Answer:
    """What the ATS said, as far as we listen."""

    def __init__(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._text = body.decode(errors="replace")

    def remote_id(self) -> str | None:
        """The `remote_id` of a JSON object, text or a whole number; None when there is no such thing."""
        value = self._json().get("remote_id")
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None

    def words(self) -> str:
        """What to quote in a reason, of any length: a JSON object's own words, or plain text; never a page of HTML."""
        values = (self._json().get(key) for key in _REASON_KEYS)
        words = next((value for value in values if isinstance(value, str) and value), None)
        if words is None and "html" not in self.headers.get("content-type", ""):
            words = self._text
        return " ".join("".join(char if char.isprintable() else " " for char in words or "").split())

    def _json(self) -> dict[str, Any]:
        try:
            value = json.loads(self._text)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


async def _beginning(response: httpx.Response) -> bytes:
    """At most MAX_ANSWER bytes; nothing of a compressed body, which we did not ask for and which could be a bomb."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return b""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk[: MAX_ANSWER - len(body)]
        if len(body) >= MAX_ANSWER:
            break
    return bytes(body)


def _seconds(retry_after: str, now: float) -> float | None:
    """RFC 9110, 10.2.3: whole seconds or a date; None for anything else."""
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10:
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except (ValueError, OverflowError):
        return None


# --- the request --------------------------------------------------------------------------------------------------------


def _size(application: Application) -> int:
    """At least what is to be made a request of: the texts are in the mail too, the documents need not be (of an archive)."""
    return len(application.raw) + sum(len(document.content) for document in application.documents)


class _Body:
    """A body that is made anew, piece by piece, each time it is gone through (for its length, its signature, the wire).
    Whole it would be in memory beside the documents, and each layer below would copy it."""

    def __init__(self, make: Callable[[], Iterator[bytes]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[bytes]:
        piece = bytearray()
        for part in self._make():
            piece += part
            if len(piece) >= PIECE:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)


async def _sent(body: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece


def _json(application: Application) -> tuple[str, _Body]:
    """The payload with documents inline; they are put in last, for json would make three copies of them."""
    place = secrets.token_hex(16)
    payload = to_payload(application, documents="names")
    for described in payload["documents"]:
        described["content"] = place
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    first, *pieces = text.split(place.encode())

    def make() -> Iterator[bytes]:
        yield first
        for document, piece in zip(application.documents, pieces, strict=True):
            yield from _base64(document.content)
            yield piece

    return "application/json", _Body(make)


def _base64(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 3 * PIECE):  # a multiple of 3 bytes needs no padding
        yield pybase64.b64encode(content[start : start + 3 * PIECE])


def _multipart(application: Application) -> tuple[str, _Body]:
    """A part `application` with the JSON, and a part for each document, named there under `part`."""
    payload = to_payload(application, documents="names")
    files: list[tuple[str, tuple[str | None, bytes, str]]] = []
    for number, (document, described) in enumerate(zip(application.documents, payload["documents"], strict=True), 1):
        described["part"] = f"document-{number}"
        kind = document.sniffed_type or "application/octet-stream"
        files.append((described["part"], (document.name, document.content, kind)))
    parts = [("application", (None, json.dumps(payload).encode(), "application/json")), *files]
    request = httpx.Request("POST", "http://not.sent/", files=parts)
    stream = request.stream
    assert isinstance(stream, Iterable)  # of bytes in memory, which it goes through anew each time
    return request.headers["content-type"], _Body(lambda: iter(stream))


def signed(message_id: str, timestamp: int, body: Iterable[bytes], keys: list[bytes]) -> dict[str, str]:
    """The three headers of Standard Webhooks, with one signature for each key; `timestamp` in seconds, `body` in pieces."""
    head = f"{message_id}.{timestamp}.".encode()

    def signature(key: bytes) -> str:
        made = hmac.new(key, head, hashlib.sha256)
        for piece in body:
            made.update(piece)
        return base64.b64encode(made.digest()).decode("ascii")

    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature(key)}" for key in keys),
    }


def _is_key(secret: str) -> bool:
    try:
        return secret.startswith("whsec_") and 24 <= len(_key(secret)) <= 64
    except binascii.Error:
        return False


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def _secrets(url: str, headers: Iterable[str]) -> list[str]:
    """What must not be repeated, the longest first: the URL and the header values, and their parts, which an ATS may
    quote alone (`no such path: /hooks/…`, `unknown key …`, `bad token …`)."""
    parts = urlsplit(url)
    whole = {url, parts.netloc.rpartition("@")[0], parts.password or "", parts.query, *headers}
    pieces = {parts.path, *(value for _, value in parse_qsl(parts.query))}
    pieces |= {step for step in parts.path.split("/") if any(char.isdigit() for char in step)}  # /candidates is a word
    pieces |= {word for value in headers for word in value.split()}
    found = whole | {piece for piece in pieces if len(piece) >= MIN_SECRET}
    return sorted((found | {unquote(secret) for secret in found}) - {""}, key=len, reverse=True)


def _trust(settings: Webhook.Settings) -> ssl.SSLContext:
    """Made once and at the start: reading the authorities' certificates takes a tenth of a second."""
    if settings.verify and settings.ca_bundle:
        return ssl.create_default_context(cafile=settings.ca_bundle)
    return httpx.create_ssl_context(verify=settings.verify)


def _at_least_a_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _keep_urls_out_of_logs() -> None:
    """httpx logs every URL at INFO, httpcore headers at DEBUG: drop those records where they arise."""
    for name in (
        "httpx",
        "httpcore.connection",
        "httpcore.http11",
        "httpcore.http2",
        "httpcore.proxy",
        "httpcore.socks",
    ):
        logging.getLogger(name).addFilter(_at_least_a_warning)
