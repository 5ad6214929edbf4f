"""The write-ahead log goes into the database beside the commits, and cannot grow without end."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from apptrack_ingest.model import Arrival, Message
from apptrack_ingest.spool.sqlite import checkpoints, connection, open_spool
from apptrack_ingest.spool.sqlite.checkpoints import ENOUGH, LAST_RESORT, Checkpoints
from apptrack_ingest.spool.sqlite.connection import connect

Mail = Callable[..., Message]


class Watched:
    """Connections that tell of each checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = threading.Semaphore(0)
        self.made = 0

    def __call__(self) -> sqlite3.Connection:
        self.made += 1
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.set_trace_callback(lambda sql: self.done.release() if "wal_checkpoint" in sql else None)
        return connection


def test_it_comes_when_enough_was_written_and_not_before(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "db")
    kept = Checkpoints(watched)
    kept.wrote(1)
    assert watched.made == 0
    for _ in range(2):
        kept.wrote(ENOUGH)
        assert watched.done.acquire(timeout=10)
    kept.close()
    assert watched.made == 1


def test_a_fault_is_outlived(tmp_path: Path) -> None:
    watched, tried = Watched(tmp_path / "db"), threading.Semaphore(0)

    def fails_once() -> sqlite3.Connection:
        tried.release()
        if not watched.made:
            watched.made += 1
            raise sqlite3.OperationalError("disk I/O error")
        return watched()

    kept = Checkpoints(fails_once)
    kept.wrote(ENOUGH)
    assert tried.acquire(timeout=10)
    kept.wrote(ENOUGH)
    assert watched.done.acquire(timeout=10)
    kept.close()


async def test_commits_leave_the_log_to_it(database: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "ENOUGH", 10**9)
    spool = open_spool(database)
    before = database.stat().st_size
    for n in range(200):
        await spool.put(mail(b"x" * 10_000), [Arrival("acme", n, True)])
    assert database.stat().st_size == before
    with contextlib.closing(connect(database, 10)) as reader:
        assert reader.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == LAST_RESORT
        _, pages, moved = reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert pages == moved > 1000
    await spool.close()


async def test_one_that_never_comes_does_not_let_the_log_grow_without_end(
    database: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "ENOUGH", 10**9)
    monkeypatch.setattr(connection, "LAST_RESORT", 100)
    spool = open_spool(database)
    for n in range(100):
        await spool.put(mail(b"x" * 10_000), [Arrival("acme", n, True)])
    assert database.with_name("spool.sqlite3-wal").stat().st_size < 200 * 4200
    await spool.close()
