"""A spool on a file of its own, and mails to put into it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from apptrack_ingest.model import Envelope, Message
from apptrack_ingest.spool.sqlite import SqliteSpool, open_spool


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool.sqlite3"


@pytest.fixture
async def spool(database: Path) -> AsyncIterator[SqliteSpool]:
    spool = open_spool(database)
    yield spool
    await spool.close()


@pytest.fixture
def mail() -> Callable[[bytes], Message]:
    def made(raw: bytes = b"hello") -> Message:
        return Message(Envelope("", ("cv@acme.example",), "192.0.2.1"), 1000.0, raw)

    return made
