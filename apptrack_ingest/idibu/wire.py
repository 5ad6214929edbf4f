"""HTTP/1.1 over connections that are kept, for one kind of use: a request, its whole answer, the next one.

httpx's own transport serves every kind of use, on two event loops, with two protocols, through proxies; half of what a
worker's loop took went into it. This one is plugged in below httpx where no proxy is in between (see `http.Http`). h11 reads
and writes the protocol, as it does there.
"""

import asyncio
import select
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator

import h11
import httpx

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

Origin = tuple[bytes, bytes, int]


class Wire(httpx.AsyncBaseTransport):
    """The connections to all servers. Errors are httpx's, or OSError."""

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        self._trust = trust
        self._places = asyncio.Semaphore(AT_ONCE)
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._busy: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and returns the head of its answer; the body is read from its stream, which must be closed."""
        await self._places.acquire()
        connection = None
        try:
            connection = await self._connection(request.url)
            await connection.send(request)
            head = await connection.head()
        except BaseException as error:
            self._release(connection, kept=False)
            if isinstance(error, h11.RemoteProtocolError | EOFError):
                raise httpx.RemoteProtocolError(type(error).__name__) from None
            raise
        return httpx.Response(head.status_code, headers=head.headers.raw_items(), stream=_Body(self, connection))

    async def aclose(self) -> None:
        """Closes all connections; an exchange under way ends with an error."""
        for connection in (*self._busy, *(one for several in self._idle.values() for one in several)):
            connection.close()
        self._idle.clear()

    async def _connection(self, url: httpx.URL) -> "_Connection":
        origin = (url.raw_scheme, url.raw_host, url.port or (443 if url.scheme == "https" else 80))
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
        loop = asyncio.get_running_loop()
        try:
            _, opened = await loop.create_connection(
                lambda: _Connection(origin),
                host.decode("ascii"),
                port,
                ssl=trust,
                happy_eyeballs_delay=NEXT_ADDRESS_AFTER,
            )
        except OSError as error:
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


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time on it."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._protocol = h11.Connection(h11.CLIENT, _LARGEST_HEAD)
        self._transport: asyncio.Transport
        self._read = bytearray()
        self._ended = self._asleep = False
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._asleep:  # nobody asked for anything: it would be taken for the next answer
            self.close()
            return
        self._read += data
        if len(self._read) > _MOST_AHEAD:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # -- one exchange

    async def send(self, request: httpx.Request) -> None:
        """The whole request, in one piece."""
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        body = await request.aread()
        parts = (self._protocol.send(event) for event in (head, h11.Data(body), h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in parts if part))

    async def head(self) -> h11.Response:
        """The head of the answer; informational ones before it are passed over (RFC 9110, 15.2)."""
        while isinstance(event := await self._event(), h11.InformationalResponse):
            pass
        if not isinstance(event, h11.Response):
            raise EOFError
        return event

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def _event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            while not self._read and not self._ended:
                self._waiting = asyncio.get_running_loop().create_future()
                await self._waiting
            self._protocol.receive_data(bytes(self._read))
            self._read.clear()
            self._transport.resume_reading()
        return event

    # -- between two

    def sleep(self, idle: "list[_Connection]") -> bool:
        """Waits for its next use for a while; False where the server has had enough of it, or said more than asked."""
        finished = self._protocol.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        if not finished or self._protocol.trailing_data[0] or self._read or self._transport.is_closing():
            return False
        self._protocol.start_next_cycle()

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


class _Body(httpx.AsyncByteStream):
    """An answer's body; closing it gives the connection back, for further use when it was read to its end."""

    def __init__(self, wire: Wire, connection: _Connection) -> None:
        self._wire, self._connection = wire, connection
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._connection.chunks():
                yield chunk
        except (h11.RemoteProtocolError, EOFError) as error:
            raise httpx.RemoteProtocolError(type(error).__name__) from None

    async def aclose(self) -> None:
        """Gives the connection back, once."""
        if not self._closed:
            self._closed = True
            self._wire._release(self._connection, kept=True)
