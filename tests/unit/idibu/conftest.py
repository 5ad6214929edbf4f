"""A sandbox on a real socket with a clock that stands still, and a client for it."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu import Client, Partner
from apptrack_ingest.idibu.sandbox import Sandbox, running

HASH = "0123456789abcdef-s3cr3t/+ü"
PARTNER = Partner(77, SecretStr("p4rtner <w0rd> & /+ü"))


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    hashes = {HASH: "acme", "other-hash": "other"}
    async with running(Sandbox(hashes, clock=lambda: 1_700_000_000.0, partner=PARTNER)) as running_one:
        yield running_one


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[Client]:
    async with Client(sandbox.base_url, SecretStr(HASH), timeout=10, partner=PARTNER) as connected:
        yield connected


@pytest.fixture
def raw_server() -> Callable[[bytes], contextlib.AbstractAsyncContextManager[str]]:
    """A server that answers each connection with the same bytes, whatever it is asked; gives its base URL."""

    @contextlib.asynccontextmanager
    async def serving(answer: bytes) -> AsyncIterator[str]:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    return serving


@pytest.fixture
def everything_of() -> Callable[[BaseException | None], str]:
    """All a careless reporter of errors could print: the whole chain, with every frame's variables."""

    def shown(error: BaseException | None) -> str:
        if error is None:
            return ""
        frames = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        own = f"{error!s} {error!r} {error.args} {vars(error)}"
        return frames + own + shown(error.__cause__) + shown(error.__context__)

    return shown
