"""The sandbox's HTTP server: a guest in somebody else's event loop, which takes no signals and can break connections."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Generator

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol


@contextlib.asynccontextmanager
async def serving(app: Starlette, host: str, port: int, stop: Callable[[], None]) -> AsyncIterator[str]:
    """Serves `app`, and gives its URL; at the end `stop` is called for requests that hang.

    Raises OSError when it cannot listen.
    """
    listening = await _bound(host, port)
    server = _server(app)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    await _first(server.accepting, task)
    try:
        yield _url(listening)
    finally:
        stop()
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """uvicorn as a guest in somebody else's process: it takes no signals, and says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(H11Protocol):
    """Lets the application reach the connection, to break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _server(app: Starlette) -> _Server:
    """No access log: the hash is in the URLs."""
    return _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )


async def _bound(host: str, port: int) -> socket.socket:
    """A bound socket, made with IPPROTO_TCP: with protocol 0 asyncio leaves Nagle's delay on."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


async def _first(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Returns when the event is set; raises what the task raises before."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
