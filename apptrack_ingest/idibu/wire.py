"""HTTP/1.1 over connections that are kept, for one kind of use: a request, its whole answer, the next one.

httpx serves every kind of use, on two event loops, with two protocols, through proxies; half of what a worker's loop took
went into it. This stands in its place where no proxy is in between (see `http.Http`). h11 reads and writes the protocol, as
it does there, and errors are httpx's.
"""

import asyncio
import re
import select
import socket
import ssl
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import h11
import httpx
from aiohappyeyeballs import start_connection

AT_ONCE = 16
"""Connections at a time; further requests wait."""

KEPT = 8
"""Connections to one server that are kept without anything to do."""

KEPT_FOR = 3.0
"""Seconds until we close such a connection: Apache and Node close it after five, most servers later, and one that did so
while a request was on its way would cost that request."""

NEXT_ADDRESS_AFTER = 0.25
"""Seconds until the next address of a server is tried beside one that does not answer (RFC 8305, 5): on a machine whose IPv6
leads nowhere the first would take all the time there is."""

_MOST_AHEAD = 64 * 1024
"""Bytes that are read before somebody asks for them."""

_LARGEST_HEAD = 100 * 1024

_PLAIN_PATH = re.compile(r"/(?:[A-Za-z0-9/._~-]|%[0-9A-Fa-f]{2})*")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_END = h11.EndOfMessage()

Origin = tuple[bytes, bytes, int]
Headers = Sequence[tuple[bytes, bytes]]


class Wire:
    """The connections to all servers. Errors are httpx's, or OSError."""

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        self._trust = trust
        self._places = asyncio.Semaphore(AT_ONCE)
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._busy: set[_Connection] = set()

    async def ask(self, method: str, url: str, query: str = "", headers: Headers = (), body: bytes = b"") -> "Answer":
        """Sends a request and returns the head of its answer, which must be closed; `query` (encoded) is added to the URL,
        Host and Content-Length to the headers."""
        origin, host, path = _place(url)
        request = h11.Request(
            method=method,
            target=path + b"?" + query.encode("ascii") if query else path,
            headers=[(b"Host", host), *headers, *_length(method, body)],
        )
        await self._places.acquire()
        connection = None
        try:
            connection = await self._connection(origin)
            connection.send(request, body)
            head = await connection.head()
        except BaseException as error:
            self._release(connection, kept=False)
            if isinstance(error, h11.RemoteProtocolError | EOFError):
                raise httpx.RemoteProtocolError(type(error).__name__) from None
            raise
        return Answer(self, connection, head)

    async def close(self) -> None:
        """Closes all connections; an exchange under way ends with an error."""
        for connection in (*self._busy, *(one for several in self._idle.values() for one in several)):
            connection.close()
        self._idle.clear()

    async def _connection(self, origin: Origin) -> "_Connection":
        kept = self._idle[origin]
        while kept:
            connection = kept.pop()
            if connection.awake():
                self._busy.add(connection)
                return connection
        connection = await self._opened(origin)
        self._busy.add(connection)
        return connection

    async def _opened(self, origin: Origin) -> "_Connection":
        scheme, host, port = origin
        trust = self._context() if scheme == b"https" else None
        loop, name = asyncio.get_running_loop(), host.decode("ascii")
        try:
            addresses = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            sock = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_AFTER)
            _, opened = await loop.create_connection(
                lambda: _Connection(origin), sock=sock, ssl=trust, server_hostname=name if trust else None
            )
        except (OSError, RuntimeError) as error:  # uvloop raises the latter of an address that it cannot make sense of
            raise httpx.ConnectError(str(error)) from None
        return opened

    def _context(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = httpx.create_ssl_context()
            self._trust.set_alpn_protocols(["http/1.1"])
        return self._trust

    def _release(self, connection: "_Connection | None", *, kept: bool) -> None:
        self._places.release()
        if connection is None:
            return
        self._busy.discard(connection)
        idle = self._idle[connection.origin]
        if kept and len(idle) < KEPT and connection.sleep(idle):
            idle.append(connection)
        else:
            connection.close()


def _place(url: str) -> tuple[Origin, bytes, bytes]:
    """Where a URL leads: the server, what the Host header calls it, and the path."""
    slash = url.find("/", url.find("://") + 3)
    server, path = (url, "/") if slash < 0 else (url[:slash], url[slash:])
    origin, host = _server(server)
    # httpx knows how to write what is not plain.
    return origin, host, path.encode() if _PLAIN_PATH.fullmatch(path) else httpx.URL(url).raw_path


@lru_cache(64)
def _server(url: str) -> tuple[Origin, bytes]:
    found = httpx.URL(url)
    return (found.raw_scheme, found.raw_host, found.port or (443 if found.scheme == "https" else 80)), found.netloc


def _length(method: str, body: bytes) -> Headers:
    return ((b"Content-Length", b"%d" % len(body)),) if body or method in _WITH_BODY else ()


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time on it."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._protocol = h11.Connection(h11.CLIENT, _LARGEST_HEAD)
        self._transport: asyncio.Transport
        self._ahead = 0
        self._asleep = False
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._asleep:  # nobody asked for anything: it would be taken for the next answer
            self.close()
            return
        self._protocol.receive_data(data)
        self._ahead += len(data)
        if self._ahead > _MOST_AHEAD:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.receive_data(b"")
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # -- one exchange

    def send(self, request: h11.Request, body: bytes) -> None:
        """The whole request, in one piece."""
        parts = (self._protocol.send(event) for event in (request, h11.Data(body), _END))
        if not self._transport.is_closing():  # else its end is what is read next
            self._transport.write(b"".join(part for part in parts if part))

    async def head(self) -> h11.Response:
        """The head of the answer; informational ones before it are passed over (RFC 9110, 15.2)."""
        while isinstance(event := await self._event(), h11.InformationalResponse):
            pass
        if not isinstance(event, h11.Response):
            raise EOFError
        return event

    async def body(self, most: int) -> bytes | None:
        """All of it; None where that is more than so many bytes."""
        found = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            found += event.data
            if len(found) > most:
                return None
        return bytes(found)

    async def _event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._waiting = asyncio.get_running_loop().create_future()
            self._read_on()
            await self._waiting
        return event

    def _read_on(self) -> None:
        self._ahead = 0
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # -- between two

    def sleep(self, idle: "list[_Connection]") -> bool:
        """Waits for its next use for a while; False where the server has had enough of it, or said more than asked."""
        finished = self._protocol.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        if not finished or self._protocol.trailing_data[0] or self._transport.is_closing():
            return False
        self._protocol.start_next_cycle()
        self._read_on()

        def expire() -> None:
            idle.remove(self)
            self.close()

        self._asleep, self._timer = True, asyncio.get_running_loop().call_later(KEPT_FOR, expire)
        return True

    def awake(self) -> bool:
        """Ends the waiting; False where the server closed meanwhile, or said something unasked."""
        if self._timer is not None:
            self._timer.cancel()
        self._asleep = False
        fit = not self._transport.is_closing() and not self._has_something()
        if not fit:
            self.close()
        return fit

    def _has_something(self) -> bool:
        """Whether its end, or anything else, is there for us to read and the loop has not come to it yet."""
        look = select.poll()
        look.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(look.poll(0))

    def close(self) -> None:
        """Closes it at once: nothing that is still to be sent matters."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()


class Answer:
    """What came back so far; closing it gives the connection back, for further use when it was read to its end."""

    def __init__(self, wire: Wire, connection: _Connection, head: h11.Response) -> None:
        self._wire, self._connection = wire, connection
        self._closed = False
        self.status: int = head.status_code
        self.headers: Headers = head.headers.raw_items()

    async def body(self, most: int) -> bytes | None:
        """All of it; None where that is more than `most` bytes. Closed meanwhile, or not whole: RemoteProtocolError."""
        try:
            return await self._connection.body(most)
        except (h11.RemoteProtocolError, EOFError) as error:
            raise httpx.RemoteProtocolError(type(error).__name__) from None

    async def close(self) -> None:
        """Gives the connection back, once."""
        if not self._closed:
            self._closed = True
            self._wire._release(self._connection, kept=True)
