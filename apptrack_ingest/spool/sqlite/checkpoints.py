"""Brings the write-ahead log into the database beside the commits, which would otherwise wait for it now and then.

SQLite does that within whichever COMMIT has made the log long (1,000 pages): 10 to 40 ms for the mails in that commit, on a
slow disk far more. Here a thread with a connection of its own does it while commits go on. As it never holds them up, it
may not catch up with writers who never pause, so that the log could not begin anew: from LAST_RESORT pages on, COMMIT does
what little is left.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress

LAST_RESORT = 8000
"""Pages of the write-ahead log (32 MB) from which on a COMMIT brings the rest into the database itself."""

ENOUGH = 1000
"""Pages that are worth a checkpoint, which costs two syncs."""

_PER_TRANSACTION, _PER_OPERATION = 10, 3
"""Pages that a transaction writes at least (the ends of tables and indexes), and more for each operation in it: about, for
SQLite does not tell. The log's true length is what LAST_RESORT looks at."""


class Checkpoints:
    """A thread that checkpoints when enough was written; it begins with the first need."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._pages = 0
        self._due = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def wrote(self, operations: int) -> None:
        """Counts a transaction, and wakes the thread when it is time."""
        self._pages += _PER_TRANSACTION + _PER_OPERATION * operations
        if self._pages < ENOUGH:
            return
        self._pages = 0
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="spool-checkpoints", daemon=True)
            # No thread can be had: what waits for this commit's answer must not be told of it, and COMMIT does it instead.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
        self._due.set()

    def close(self) -> None:
        """Ends the thread, after the checkpoint it may be at."""
        self._closed = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while self._due.wait() and not self._closed:
            self._due.clear()
            # A fault here is met by the next commit, too, and told there; a checkpoint left out costs nothing but room.
            with suppress(sqlite3.Error, OSError):
                connection = connection or self._connect()
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if connection is not None:
            connection.close()
