"""One door to idibu's web services over HTTP: a deadline, a size limit, no redirects, and secrets that stay secret.

idibu's secrets travel in URLs. They are taken out of their wrapping in one place only, httpx's own log lines keep
nothing but the host, and every error is made here of words that hold neither URL nor secret. Errors are raised where no
exception of httpx is being handled, so none hangs on to ours as its context (its request would hold the URL).
"""

import asyncio
import html
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote, quote_plus
from urllib.request import getproxies

import httpx
from pydantic import SecretStr

from apptrack_ingest.errors import IdibuError, IdibuNotUnderstood, IdibuUnreachable
from apptrack_ingest.idibu.plain import Headers
from apptrack_ingest.idibu.proxied import Proxied
from apptrack_ingest.idibu.wire import Wire
from apptrack_ingest.idibu.xml import MAX_BYTES

LONGEST_RETRY_AFTER = 24 * 3600.0
"""Seconds; a server that asks for more (or a clock that is wrong) must not park a report for weeks."""

Values = Mapping[str, str | SecretStr]

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,40}/[A-Za-z0-9.+-]{1,60}")
_HEADERS: Headers = (
    (b"User-Agent", b"apptrack-ingest"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
    (b"Connection", b"keep-alive"),
)
_FORM = (b"Content-Type", b"application/x-www-form-urlencoded")
_ENCODED = [quote_plus(bytes((byte,))) for byte in range(256)]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: HTTP status, media type (empty when there is none to speak of), body, seconds to wait, and the
    server's own time (RFC 9110, 6.6.1), in epoch seconds."""

    status: int
    media_type: str
    body: bytes = field(repr=False)
    retry_after: float | None = None
    date: float | None = None

    def __str__(self) -> str:
        return f"HTTP {self.status}, {self.media_type or 'no type'}, {len(self.body)} bytes"


class Answer(Protocol):
    """The head of an answer, and what is to be read behind it."""

    status: int
    headers: Headers

    async def body(self, most: int) -> bytes | None:
        """As `wire.Answer.body`."""
        ...

    async def close(self) -> None:
        """As `wire.Answer.close`."""
        ...


class Door(Protocol):
    """Where requests go out: the connections, or what stands in their place."""

    async def exchange(
        self, method: str, url: str | SecretStr, params: Values, form: Values | None, deadline: float
    ) -> Reply:
        """As `Http.exchange`."""
        ...

    async def close(self) -> None:
        """As `Http.close`."""
        ...


class Http:
    """The connections to idibu, shared by all accounts (at most 16 at once).

    Proxies and certificates named by the environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE ...) are honoured, for many
    machines reach the Internet no other way; loopback addresses are always reached directly. No cookie is kept:
    one account's session must not travel with another account's request.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        _quieten()
        self._now = now
        self._closed = False
        # httpx knows proxies; without any, the wire is lighter and loads no certificates before it must.
        self._wire: Wire | Proxied = Proxied() if getproxies() else Wire()

    async def exchange(
        self, method: str, url: str | SecretStr, params: Values, form: Values | None, deadline: float
    ) -> Reply:
        """One request and its whole answer within `deadline` seconds; `url`, `params` and `form` may be wrapped secrets.

        Raises IdibuUnreachable when no answer came, IdibuNotUnderstood when it is too large or encoded.
        """
        outcome = await self._attempt(method, url, params, form, deadline)
        if isinstance(outcome, IdibuError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Closes all connections; an exchange under way ends as unreachable."""
        self._closed = True
        await self._wire.close()

    async def _sent(self, method: str, url: str, params: dict[str, str], form: dict[str, str] | None) -> Answer:
        headers = _HEADERS if form is None else (*_HEADERS, _FORM)
        return await self._wire.ask(method, url, encoded(params), headers, encoded(form or {}).encode())

    async def _attempt(
        self, method: str, url: str | SecretStr, params: Values, form: Values | None, deadline: float
    ) -> Reply | IdibuError:
        if self._closed:
            return IdibuUnreachable("the connections to idibu are closed")
        try:
            async with asyncio.timeout(deadline):
                return await self._read(
                    await self._sent(method, _open(url), _bare(params), _bare(form) if form else None)
                )
        except TimeoutError:
            return IdibuUnreachable(f"no answer within {deadline:g} seconds")
        except httpx.ConnectError as error:  # its words are the resolver's and the TLS library's: worth reading
            return IdibuUnreachable(redact(f"no connection: {error}", params, form)[:300])
        # ValueError: a host name that cannot be encoded; RuntimeError: closed in the middle.
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError, RuntimeError) as error:
            return IdibuUnreachable(f"the exchange broke off ({type(error).__name__})")

    async def _read(self, answer: Answer) -> Reply | IdibuError:
        """The body as it comes over the wire: nothing is decompressed, so nothing can swell."""
        try:
            head = _fields(answer.headers)
            if head.get("content-encoding", "identity").strip().lower() != "identity":
                return IdibuNotUnderstood(f"HTTP {answer.status}: a compressed answer nobody asked for")
            body = await answer.body(MAX_BYTES)
            if body is None:
                return IdibuNotUnderstood(f"HTTP {answer.status}: an answer of more than {MAX_BYTES} bytes")
            kind, date = _media_type(head.get("content-type", "")), _date(head.get("date", ""))
            wait = self._retry_after(head["retry-after"]) if "retry-after" in head else None
            return Reply(answer.status, kind, body, wait, date)
        finally:
            await answer.close()

    def _retry_after(self, value: str) -> float | None:
        """Retry-After in seconds (RFC 9110, 10.2.3: a number or a date); None when missing, past or nonsense."""
        value = value.strip()
        seconds = float(value) if re.fullmatch("[0-9]{1,12}", value) else self._seconds_until(value)
        return None if seconds is None or seconds < 0 else min(seconds, LONGEST_RETRY_AFTER)

    def _seconds_until(self, date: str) -> float | None:
        at = _date(date)
        return None if at is None else at - self._now()


def _fields(headers: Headers) -> dict[str, str]:
    """By name in lower case; what stands there more than once is one list (RFC 9110, 5.3)."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key, text = name.lower().decode("latin-1"), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


@lru_cache(8)  # all answers of one second say the same
def _date(text: str) -> float | None:
    """A date of a header in epoch seconds; None where it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def redact(text: str, *values: Values | None) -> str:
    """`text` without the secrets in `values`, however they are encoded or capitalised."""
    for secret in _secrets(values):
        spellings = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret)}
        for spelling in sorted(spellings, key=len, reverse=True):
            text = re.sub(re.escape(spelling), "***", text, flags=re.IGNORECASE)
    return text


def _secrets(values: tuple[Values | None, ...]) -> list[str]:
    """Longest first, so that a secret that contains another leaves no rest."""
    found = {v.get_secret_value() for some in values if some for v in some.values() if isinstance(v, SecretStr)}
    return sorted(found - {""}, key=len, reverse=True)


def _bare(values: Values) -> dict[str, str]:
    return {key: _open(value) for key, value in values.items()}


def encoded(values: Mapping[str, str]) -> str:
    """What `urllib.parse.urlencode` makes of them, in a third of the time. Raises ValueError where a text has no UTF-8."""
    return "&".join([f"{_quoted(key)}={_quoted(value)}" for key, value in values.items()])


def _quoted(text: str) -> str:
    return "".join(map(_ENCODED.__getitem__, text.encode()))


def _open(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _media_type(text: str) -> str:
    found = _MEDIA_TYPE.match(text)
    return found[0].lower() if found else ""


def _quieten() -> None:
    """Keeps URLs, and headers that may repeat them, out of the log lines of httpx and the library below it."""
    logging.getLogger("httpx").addFilter(_host_only)  # the same filter twice is added once
    for protocol in ("http11", "http2", "proxy"):
        logging.getLogger(f"httpcore.{protocol}").addFilter(_nothing)


def _host_only(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(f"{a.scheme}://{a.host}" if isinstance(a, httpx.URL) else a for a in record.args)
    return True


def _nothing(_record: logging.LogRecord) -> bool:
    return False
