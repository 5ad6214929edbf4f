"""The connections below httpx: used again when that is safe, closed when it is not, never more than there may be."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import h11
import httpx
import pytest
import trustme

from apptrack_ingest.idibu.wire import AT_ONCE, Wire
from apptrack_ingest.idibu.xml import MAX_BYTES

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts connections; `answering` is called for each request on one."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.connections = 0
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self.answering(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def serving(answering: Answering, trust: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answering)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=trust)
    scheme = "https" if trust else "http"
    server.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    yield server
    listening.close()


def saying(*answers: bytes) -> Answering:
    """The same to every request, in pieces."""

    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            writer.write(answer)
            await writer.drain()
            await asyncio.sleep(0)

    return answering


async def ask(wire: Wire, url: str, method: str = "GET") -> bytes:
    async with asyncio.timeout(20):
        answer = await wire.ask(method, url)
        try:
            return await answer.body(MAX_BYTES) or b""
        finally:
            await answer.close()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire()
    yield wire
    await wire.close()


async def test_one_connection_serves_one_request_after_the_other(wire: Wire) -> None:
    async with serving(saying(ANSWER)) as server:
        assert [await ask(wire, server.url) for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1


async def test_an_answer_may_come_in_any_pieces(wire: Wire) -> None:
    head = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    async with serving(saying(*(whole[at : at + 1] for at in range(len(whole))))) as server:
        assert await ask(wire, server.url) == b"abcd"
        assert await ask(wire, server.url) == b"abcd"
        assert server.connections == 1


async def test_the_body_of_a_plain_answer_may_come_later(wire: Wire) -> None:
    async with serving(saying(ANSWER[:-2], b"o", b"k")) as server:
        assert [await ask(wire, server.url) for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1


async def test_a_plain_answer_in_more_pieces_than_are_looked_at(wire: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"

    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (head, *[b"okok"] * 10):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(answering) as server:
        assert [await ask(wire, server.url) for _ in range(2)] == [b"ok" * 20] * 2
        assert server.connections == 1


async def test_a_plain_answer_too_long_for_whoever_asks(wire: Wire) -> None:
    async with serving(saying(ANSWER)) as server:
        answer = await wire.ask("GET", server.url)
        assert await answer.body(1) is None
        await answer.close()
        assert await ask(wire, server.url) == b"ok"
        assert server.connections == 2


async def test_an_answer_to_head_has_no_body_whatever_its_length(wire: Wire) -> None:
    async with serving(saying(ANSWER[:-2])) as server:
        assert await ask(wire, server.url, "HEAD") == b""
        assert await ask(wire, server.url, "HEAD") == b""
        assert server.connections == 1


async def test_plain_and_other_answers_follow_each_other_on_one_connection(wire: Wire) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    other = chunked.replace(b"3\r\n", b"3;x=y\r\n")
    answers = iter([ANSWER, chunked, other, ANSWER, other, chunked, other, other, ANSWER])

    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))

    async with serving(answering) as server:
        said = [await ask(wire, server.url) for _ in range(9)]
        assert said == [b"ok", b"abc", b"abc", b"ok", b"abc", b"abc", b"abc", b"abc", b"ok"]
        assert server.connections == 1


@pytest.mark.parametrize("body", [b"", b"data=%3Capplicant%3E"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_written_as_h11_would(wire: Wire, method: str, body: bytes) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(len(body)))
        writer.write(ANSWER)

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/a"
        answer = await wire.ask(method, url, "b=c", ((b"Content-Type", b"text/plain"),), body)
        await answer.close()
    headers: list[tuple[str, bytes | str]] = [("Host", httpx.URL(url).netloc), ("Content-Type", "text/plain")]
    if body or method == "POST":
        headers.append(("Content-Length", str(len(body))))
    protocol = h11.Connection(h11.CLIENT)
    events = (h11.Request(method=method, target="/a?b=c", headers=headers), h11.Data(body), h11.EndOfMessage())
    assert heard == [b"".join(protocol.send(event) or b"" for event in events)]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ],
    ids=["said", "old", "more than asked"],
)
async def test_a_connection_that_is_not_fit_is_not_used_again(wire: Wire, answer: bytes) -> None:
    async with serving(saying(answer)) as server:
        assert [await ask(wire, server.url) for _ in range(2)] == [b"ok"] * 2
        assert server.connections == 2


async def test_a_connection_closed_or_talking_in_between_is_not_used_again(wire: Wire) -> None:
    last: list[asyncio.StreamWriter] = []

    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last[:] = [writer]
        writer.write(ANSWER)

    async with serving(answering) as server:
        await ask(wire, server.url)
        last[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        assert await ask(wire, server.url) == b"ok"
        last[0].close()
        await last[0].wait_closed()
        assert await ask(wire, server.url) == b"ok"
        assert server.connections == 3


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"no HTTP\r\n\r\n", ANSWER[:-1]], ids=repr)
async def test_what_is_no_answer_is_an_error_of_httpx(wire: Wire, answer: bytes) -> None:
    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with serving(answering) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(wire, server.url)


async def test_nobody_there(wire: Wire) -> None:
    async with serving(saying(ANSWER)) as server:
        pass
    with pytest.raises(httpx.ConnectError):
        await ask(wire, server.url)


async def test_an_address_that_does_not_answer_is_not_waited_for_where_there_is_another(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine whose IPv6 leads nowhere: its packets vanish, and nobody says so."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, contextlib.ExitStack() as stack:
        for _ in range(3):  # its queue is full: from now on the kernel drops whoever wants to connect
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(silent.getsockname())
        async with serving(saying(ANSWER)) as server:
            port = int(server.url.rpartition(":")[2].strip("/"))

            really = loop.getaddrinfo

            async def resolve(host: str, *args: object, **named: object) -> list[tuple[object, ...]]:
                if host != "ws.idibu.example":
                    return await really(host, *args, **named)
                addresses = [silent.getsockname(), ("127.0.0.1", port)]
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

            monkeypatch.setattr(loop, "getaddrinfo", resolve)
            assert await ask(wire, f"http://ws.idibu.example:{port}/") == b"ok"


async def test_an_answer_not_read_to_its_end_costs_its_connection(wire: Wire) -> None:
    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)) as server:
        answer = await wire.ask("GET", server.url)
        assert await answer.body(100_000) is None
        await answer.close()
        assert [len(await ask(wire, server.url)) for _ in range(3)] == [1_000_000] * 3
        assert server.connections == 2


async def test_no_more_connections_than_there_may_be_and_none_lost_by_cancelling(wire: Wire) -> None:
    go, asked = asyncio.Event(), asyncio.Semaphore(0)

    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.release()
        await go.wait()
        writer.write(ANSWER)

    async with serving(answering) as server:
        tasks = [asyncio.create_task(ask(wire, server.url)) for _ in range(AT_ONCE + 4)]
        async with asyncio.timeout(20):
            for _ in range(AT_ONCE):
                await asked.acquire()
        assert server.connections == AT_ONCE
        for task in tasks[:4]:
            task.cancel()
        go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one for one in done if one == b"ok"] == [b"ok"] * AT_ONCE
        assert await asyncio.gather(*(ask(wire, server.url) for _ in range(AT_ONCE))) == [b"ok"] * AT_ONCE


async def test_closing_ends_what_is_under_way(wire: Wire) -> None:
    asked = asyncio.Event()

    async def answering(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()

    async with serving(answering) as server:
        task = asyncio.create_task(ask(wire, server.url))
        await asked.wait()
        await wire.close()
        with pytest.raises(httpx.RemoteProtocolError):
            await task


async def test_certificates_are_checked() -> None:
    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    async with serving(saying(ANSWER), theirs) as server:
        trusting, usual = Wire(ours), Wire()
        assert [await ask(trusting, server.url) for _ in range(2)] == [b"ok"] * 2
        assert server.connections == 1
        with pytest.raises(httpx.ConnectError):
            await ask(usual, server.url)
        await trusting.close()
        await usual.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://ws.idibu.example",
        "https://ws.idibu.example:443/ws/rest/v1/applicant-status/7",
        "http://WS.idibu.example:8080/a%2Fb~c",
        "http://[::1]:81/ä b/c",
        "http://bücher.example/50%/?x=ü#z",
    ],
)
async def test_a_url_is_asked_for_as_httpx_would(wire: Wire, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    sent: list[bytes] = []

    async def resolve(host: str, port: int, **_: object) -> str:
        opened[:] = [host, port]
        return "an address"

    async def connect(addresses: str, **_: object) -> str:
        assert addresses == "an address"
        return "a socket"

    async def create_connection(
        protocol: Callable[[], object], *, sock: str, ssl: object, server_hostname: str | None
    ) -> tuple[object, ...]:
        assert sock == "a socket" and (server_hostname is None) == (ssl is None)
        made = protocol()
        made.connection_made(Recording(sent))  # type: ignore[attr-defined]
        made.data_received(ANSWER)  # type: ignore[attr-defined]
        return None, made

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr("apptrack_ingest.idibu.wire.start_connection", connect)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    assert await ask(wire, url) == b"ok"
    expected = httpx.Request("GET", url)
    port = expected.url.port or (443 if expected.url.scheme == "https" else 80)
    assert opened == [expected.url.raw_host.decode(), port]
    assert sent == [b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (expected.url.raw_path, expected.headers["Host"].encode())]


class Recording(asyncio.Transport):
    """A connection that leads nowhere."""

    def __init__(self, sent: list[bytes]) -> None:
        self._sent = sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sent.append(bytes(data))

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass
