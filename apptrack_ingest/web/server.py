"""Runs the pages by uvicorn on our own event loop, under our own signals and with our own log."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from apptrack_ingest.errors import CannotListen, ConfigError, Problem

_STOP_WITHIN = 2
"""Seconds a request under way may take to finish at the end."""

_MOST_CONNECTIONS = 100
"""Beyond so many at a time uvicorn answers 503: health pages need few, and each one holds memory."""


class WebServer:
    """One listening socket and the application behind it."""

    def __init__(self, app: ASGIApp) -> None:
        self._server = _Server(_config(app))
        self._task: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens and serves; returns the port (the real one for 0). Raises ConfigError naming web.host or web.port."""
        listening = await _listen(host, port)
        real_port: int = listening.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name="web")
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            listening.close()
            self._task.result()
        return real_port

    async def stop(self) -> None:
        """Closes the socket, lets requests under way finish for a moment, and returns when nothing is left."""
        if self._task is None:
            return
        self._server.end()
        await self._task
        self._task = None


class _Server(uvicorn.Server):
    """uvicorn without its hand on our signals and its ten looks a second; with events for its beginning and its end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._told_to_end = asyncio.Event()

    def end(self) -> None:
        """Ends `serve`."""
        self.should_exit = True
        self._told_to_end.set()

    async def main_loop(self) -> None:
        """Once a second the date of the answers is brought up to date; nothing else needs a look."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._told_to_end.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes none: SIGTERM and SIGINT belong to the service, which stops everything in order."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then says so."""
        await super().startup(sockets)
        self.ready.set()


def _config(app: ASGIApp) -> uvicorn.Config:
    # No access log, whoever attaches a handler: query strings do not belong there, and a probe is no event.
    logging.getLogger("uvicorn.access").disabled = True
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_WITHIN,
    )


async def _listen(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ConfigError([Problem("web.host", repr(host), "no address of this machine; try 127.0.0.1")]) from None
    family, kind, protocol, _, address = found[0]
    # With the protocol named: asyncio switches Nagle's algorithm off only where it knows that it is TCP.
    listening = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(socket.SOMAXCONN)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        refusal = CannotListen if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) else ConfigError
        raise refusal([_problem(error, host, port)]) from None
    return listening


def _problem(error: OSError, host: str, port: int) -> Problem:
    if error.errno == errno.EADDRINUSE:
        return Problem(
            "web.port", str(port), "another program listens on this port; choose another, or 0 for a free one"
        )
    if error.errno == errno.EACCES:
        return Problem("web.port", str(port), "this port is reserved for root; choose one over 1023")
    return Problem("web.host", repr(host), f"cannot be listened on: {error.strerror}; try 127.0.0.1")
