"""Stands between a spool and its server, to cut them off from each other at a chosen moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Passes on what it is sent until told otherwise; its clients use `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = str(Path(parse_qs(parts.query)["host"][0]) / ".s.PGSQL.5432")
        self._database = parts.path
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.cut_behind: bytes | None = None
        """Once a client has sent this, the server still gets it, but its answer is lost with the connection."""
        self.cut_before: bytes | None = None
        """Once a client sends this, the server does not get it, and the connection is lost."""
        self.silent = False
        """Nothing is passed on any more, and nobody is told."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://owner@127.0.0.1:{port}{self._database}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        behind, before = await asyncio.open_unix_connection(self._socket)
        lost = asyncio.Event()
        with suppress(OSError):
            async with asyncio.TaskGroup() as group:
                back = group.create_task(self._answers(behind, writer, lost))
                await self._questions(reader, before, lost)
                back.cancel()
        for end in (before, writer):
            end.transport.abort()

    async def _questions(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while data := await source.read(65536):
            if self.silent:
                continue
            if self.cut_before is not None and self.cut_before in data:
                self.cut_before = None
                return
            cut = self.cut_behind is not None and self.cut_behind in data
            if cut:
                self.cut_behind, self.silent = None, True
            to.write(data)
            await to.drain()
            if cut:
                async with asyncio.timeout(30):
                    await lost.wait()
                self.silent = False
                return
        to.close()

    async def _answers(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while data := await source.read(65536):
            if self.silent:
                lost.set()
                continue
            to.write(data)
            await to.drain()
        to.close()


@asynccontextmanager
async def between(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the server of a URL."""
    proxy = Proxy(url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
