"""Opens the databases that the spool's contract is tested on: a further one is one more line in DATABASES."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.spool.sqlite import open_spool


async def open_sqlite(directory: Path) -> Spool:
    return open_spool(directory / "data" / "spool.sqlite3", clock=lambda: 5000.0)


DATABASES: dict[str, Callable[[Path], Awaitable[Spool]]] = {
    "sqlite": open_sqlite,
}

Opener = Callable[[], Awaitable[Spool]]
Database = Callable[[Path], contextlib.AbstractAsyncContextManager[Opener]]


@pytest.fixture(params=list(DATABASES))
def database(request: pytest.FixtureRequest) -> Database:
    """Gives, for a directory, a function that opens one more handle on the same spool; all are closed at the end."""

    @contextlib.asynccontextmanager
    async def opened(directory: Path) -> AsyncIterator[Opener]:
        async with contextlib.AsyncExitStack() as stack:

            async def another() -> Spool:
                spool = await DATABASES[request.param](directory)
                stack.push_async_callback(spool.close)
                return spool

            yield another

    return opened


@pytest.fixture
async def another(database: Database, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens one more handle on the test's spool, as a second process would."""
    async with database(tmp_path) as opener:
        yield opener


@pytest.fixture
async def spool(another: Opener) -> Spool:
    """The spool under test."""
    return await another()
