"""Opens the databases that the spool's contract is tested on: a further one is one more line in DATABASES."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path

import pytest
from postgres import postgres_server, shared
from prepared import prepared

from apptrack_ingest.spool import postgres, sqlite
from apptrack_ingest.spool.contract import Spool

__all__ = ["postgres_server"]


Opener = Callable[[], Awaitable[Spool]]
Database = Callable[[Path], AbstractAsyncContextManager[Opener]]


@contextmanager
def sqlite_in(directory: Path) -> Iterator[Callable[[], Spool]]:
    database = prepared(directory / "data" / "spool.sqlite3")
    yield lambda: sqlite.open_spool(database, clock=lambda: 5000.0)


@contextmanager
def postgres_in(_: Path) -> Iterator[Callable[[], Spool]]:
    with shared().lent() as url:
        yield lambda: postgres.open_spool(url, clock=lambda: 5000.0)


DATABASES: dict[str, Callable[[Path], AbstractContextManager[Callable[[], Spool]]]] = {
    "sqlite": sqlite_in,
    "postgres": postgres_in,
}


@pytest.fixture(params=list(DATABASES))
def database(request: pytest.FixtureRequest) -> Database:
    """Gives, for a directory, a function that opens one more handle on the same spool; all are closed at the end."""
    if request.param == "postgres":
        request.getfixturevalue("postgres_server")

    @asynccontextmanager
    async def opened(directory: Path) -> AsyncIterator[Opener]:
        with DATABASES[request.param](directory) as opens:
            async with AsyncExitStack() as stack:

                async def another() -> Spool:
                    spool = opens()
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
