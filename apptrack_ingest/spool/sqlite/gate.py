"""Lets processes that write the same database go one after the other, in about the order they came.

SQLite alone lets whoever finds the database locked sleep, longer each time up to 100 ms, while the one that has just
committed begins its next transaction at once: with two busy intakes, single mails waited over half a second. A file lock
(flock(2)) wakes the next one as soon as the last one is done. It is a courtesy, not a safeguard: SQLite's own lock
decides, so whoever cannot have this one in time goes on without it.
"""

import fcntl
import os
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path

PATIENCE = 2.0
"""Seconds to stand in line: far more than a transaction takes, so that past it somebody must have stopped in the middle."""


class Gate(AbstractContextManager[bool]):
    """One process's place in the line before a file; for one thread at a time. Without the file nobody waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._waiter: _Waiter | None = None
        self._waited = False
        self._passed = False

    def passed(self) -> AbstractContextManager[bool]:
        """Waits for its turn, and holds up the others within; gives whether there was anybody to wait for."""
        return self

    def __enter__(self) -> bool:
        self._waited = False
        self._passed = self._enter()
        return self._waited

    def __exit__(self, *_: object) -> None:
        if self._passed and self._file is not None:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leaves the line for good."""
        file, self._file = self._file, None
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.close()
        elif file is not None:
            os.close(file)

    @property
    def _in_line(self) -> bool:
        return self._waiter is not None and self._waiter.in_line

    def _enter(self) -> bool:
        if self._in_line:
            return False  # who stopped in the middle has not gone on yet: once was enough to wait for that
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            self._waited = True
        except OSError:
            return False
        return self._got_it_in_time()

    def _got_it_in_time(self) -> bool:
        if self._waiter is None and self._file is not None:
            with suppress(RuntimeError):  # no thread can be had
                self._waiter = _Waiter(self._file)
        return self._waiter is not None and self._waiter.got_it(PATIENCE)


class _Waiter:
    """flock(2) knows no time-out: a thread waits, and gives back what it got when nobody waits for it any more. It closes
    the file, for nobody else knows when it needs it no longer."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._asked = threading.Semaphore(0)
        self._got = threading.Event()
        self._change = threading.Lock()
        self._wanted = False
        self._closed = False
        self.in_line = False
        threading.Thread(target=self._run, name="spool-gate", daemon=True).start()

    def got_it(self, patience: float) -> bool:
        """Waits so many seconds for the lock; may be asked again."""
        with self._change:
            self._wanted = True
            if not self.in_line:
                self.in_line = True
                self._asked.release()
        got = self._got.wait(patience)
        with self._change:
            self._wanted = False
            if not got and not self._got.is_set():
                return False
            self._got.clear()
            self.in_line = False
        return True

    def close(self) -> None:
        """Ends the thread, once it has no lock to wait for."""
        self._closed = True
        self._asked.release()

    def _run(self) -> None:
        while self._asked.acquire() and not self._closed:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX)
            with self._change:
                if self._wanted:
                    self._got.set()
                    continue
                with suppress(OSError):
                    fcntl.flock(self._file, fcntl.LOCK_UN)
                self.in_line = False
        os.close(self._file)
