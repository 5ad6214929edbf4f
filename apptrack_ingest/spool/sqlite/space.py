"""Space that erased things took: given back to the file system, and the log emptied of what they were."""

import contextlib
import sqlite3
from pathlib import Path

from apptrack_ingest.spool.sqlite.connection import connect

PATIENCE = 1.0
"""Seconds for which emptying the log may keep writers waiting."""


def give_back(connection: sqlite3.Connection, *, keep: int, limit: int) -> int:
    """Moves pages from the file's end into free ones before them and cuts the file; see the contract. The file itself is
    cut at the next checkpoint (SQLite, "PRAGMA incremental_vacuum"; the file is made with auto_vacuum = INCREMENTAL)."""
    size, free = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_size", "freelist_count"))
    pages = min(free - keep // size, limit // size)
    if pages <= 0:
        return 0
    connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
    left = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    return (free - left) * size


def empty_log(database: Path, *, tries: int = 1) -> None:
    """Brings the write-ahead log into the database and cuts it to nothing, so that no earlier state of a page is left in
    it: not even behind the end of a log that began anew, which a short one never gets to. Raises OSError where somebody
    read for longer than we waited."""
    with contextlib.closing(connect(database, PATIENCE)) as connection:
        for _ in range(tries):
            if not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                return
    raise BlockingIOError("the write-ahead log is being read")
