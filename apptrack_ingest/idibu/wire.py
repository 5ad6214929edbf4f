"""HTTP/1.1 over connections that are kept, for one kind of use: a request, its whole answer, the next one.

httpx serves every kind of use, on two event loops, with two protocols, through proxies; half of what a worker's loop took
went into it. This stands in its place where no proxy is in between (see `http.Http`). h11 reads the protocol, as it does
there, but for the plainest of answers (`plain`), and errors are httpx's.
"""

import asyncio
import re
import select
import socket
import ssl
from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple, cast

import h11
import httpx
from aiohappyeyeballs import start_connection

from apptrack_ingest.idibu import plain
from apptrack_ingest.idibu.plain import Headers

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
_BODILESS = frozenset({"HEAD", "CONNECT"})
"""Their answers have no body, whatever the Content-Length says (RFC 9112, 6.3)."""

Origin = tuple[bytes, bytes, int]


class _Request(NamedTuple):
    method: str
    target: bytes
    headers: Headers
    body: bytes

    def written(self) -> bytes:
        fields = b"".join([b"%s: %s\r\n" % field for field in self.headers])
        return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (self.method.encode(), self.target, fields, self.body)


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
        target = path + b"?" + query.encode("ascii") if query else path
        request = _Request(method, target, ((b"Host", host), *headers, *_length(method, body)), body)
        await self._places.acquire()
        connection = None
        try:
            connection = await self._connection(origin)
            connection.send(request)
            status, received = await connection.head()
        except BaseException as error:
            self._release(connection, kept=False)
            if isinstance(error, h11.RemoteProtocolError | EOFError):
                raise httpx.RemoteProtocolError(type(error).__name__) from None
            raise
        return Answer(self, connection, status, received)

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
        self._transport: asyncio.Transport
        self._request: _Request
        self._received = bytearray()  # and nobody has made sense of yet
        self._ended = False
        self._plain: plain.Answer | None = None
        self._protocol: h11.Connection | None = None  # of an exchange whose answer is not plain
        self._ahead = 0
        self._asleep = False
        self._look: select.poll | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._asleep:  # nobody asked for anything: it would be taken for the next answer
            self.close()
            return
        if self._protocol is None:
            self._received += data
        else:
            self._protocol.receive_data(data)
        self._ahead += len(data)
        if self._ahead > _MOST_AHEAD:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        if self._protocol is not None:
            self._protocol.receive_data(b"")
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # -- one exchange

    def send(self, request: _Request) -> None:
        """The whole request, in one piece."""
        self._request = request
        if not self._transport.is_closing():  # else its end is what is read next
            self._transport.write(request.written())

    async def head(self) -> tuple[int, Headers]:
        """Status and headers of the answer; informational ones before it are passed over (RFC 9110, 15.2)."""
        while not (self._received or self._ended):
            await self._more()
        self._plain = await self._plain_answer()
        if self._plain is None:
            return await self._head_by(self._handed_over())
        return self._plain.status, self._plain.headers

    async def _plain_answer(self) -> plain.Answer | None:
        if self._request.method in _BODILESS:
            return None
        for _ in range(plain.LOOKS):
            try:
                return plain.read(self._received)
            except plain.Unfinished:
                if self._ended:
                    break
            await self._more()
        return None

    def _handed_over(self) -> h11.Connection:
        """h11, brought to where we are: the request sent, so much received."""
        method, target, headers, body = self._request
        self._protocol = protocol = h11.Connection(h11.CLIENT, _LARGEST_HEAD)
        protocol.send(h11.Request(method=method, target=target, headers=list(headers)))
        if body:
            protocol.send(h11.Data(body))
        protocol.send(h11.EndOfMessage())
        if self._received:
            protocol.receive_data(bytes(self._received))
            self._received.clear()
        if self._ended:
            protocol.receive_data(b"")
        return protocol

    async def _head_by(self, protocol: h11.Connection) -> tuple[int, Headers]:
        while isinstance(event := await self._event(protocol), h11.InformationalResponse):
            pass
        if not isinstance(event, h11.Response):
            raise EOFError
        return event.status_code, event.headers.raw_items()

    async def body(self, most: int) -> bytes | None:
        """All of it; None where that is more than so many bytes."""
        if self._protocol is not None:
            return await self._body_by(self._protocol, most)
        answer, self._plain = self._plain, None
        if answer is None or len(answer.body) > most:
            return None
        del self._received[: answer.end]
        return answer.body

    async def _body_by(self, protocol: h11.Connection, most: int) -> bytes | None:
        found = bytearray()
        while isinstance(event := await self._event(protocol), h11.Data):
            found += event.data
            if len(found) > most:
                return None
        return bytes(found)

    async def _event(self, protocol: h11.Connection) -> object:
        while (event := protocol.next_event()) is h11.NEED_DATA:
            await self._more()
        return event

    async def _more(self) -> None:
        """Until something comes, or the end."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._read_on()
        await self._waiting

    def _read_on(self) -> None:
        self._ahead = 0
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # -- between two

    def sleep(self, idle: "list[_Connection]") -> bool:
        """Waits for its next use for a while; False where the server has had enough of it, or said more than asked."""
        if not self._finished() or self._transport.is_closing():
            return False
        self._protocol = None
        self._read_on()

        def expire() -> None:
            idle.remove(self)
            self.close()

        self._asleep, self._timer = True, asyncio.get_running_loop().call_later(KEPT_FOR, expire)
        return True

    def _finished(self) -> bool:
        """Whether the answer was read to its end, and nothing came behind it."""
        if self._protocol is None:
            return self._plain is None and not self._received
        done = self._protocol.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        return done and not self._protocol.trailing_data[0]

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
        if self._look is None:
            self._look = select.poll()
            self._look.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._look.poll(0))

    def close(self) -> None:
        """Closes it at once: nothing that is still to be sent matters."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()


class Answer:
    """What came back so far; closing it gives the connection back, for further use when it was read to its end."""

    def __init__(self, wire: Wire, connection: _Connection, status: int, headers: Headers) -> None:
        self._wire, self._connection = wire, connection
        self._closed = False
        self.status, self.headers = status, headers

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
