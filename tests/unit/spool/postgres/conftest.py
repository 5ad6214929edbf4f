"""A spool in an empty database of a real PostgreSQL, and what is put into it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest
from postgres import Server, postgres_server

from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.spool.contract import Filter, Spool
from apptrack_ingest.spool.postgres import Options, PostgresSpool, open_spool

__all__ = ["postgres_server"]

IMPATIENT = Options(connections=2, connect_timeout=2.0, free_timeout=0.3, lock_timeout=2.0, statement_timeout=3.0)

Put = Callable[..., Awaitable[int]]


@pytest.fixture
def impatient() -> Options:
    """For faults that a test wants to see the end of."""
    return IMPATIENT


@pytest.fixture
def url(postgres_server: Server) -> Iterator[str]:
    """The URL of an empty database."""
    with postgres_server.lent() as lent:
        yield lent


@pytest.fixture
async def spool(url: str) -> AsyncIterator[PostgresSpool]:
    spool = open_spool(url, clock=lambda: 5000.0, options=IMPATIENT)
    yield spool
    await spool.close()


@pytest.fixture
async def other(url: str, spool: PostgresSpool) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection beside the spool's, to a database whose tables are there."""
    await spool.prepare()
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
def put() -> Put:
    """Puts a mail of one application; returns the application's id."""

    async def put(
        spool: Spool, applicant_id: int | None = 7, account: str | None = "acme", *, at: float = 1000.0
    ) -> int:
        mail = Message(Envelope("", ("cv@acme.example",), "192.0.2.1"), at, b"hello")
        message_id = await spool.put(mail, [Arrival(account, applicant_id, True)])
        (found,) = [s for s in await spool.find(Filter(limit=1000)) if s.message_id == message_id]
        return found.application_id

    return put
