"""Group commit: one writer thread in which everything that waits shares one transaction and one fsync."""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from apptrack_ingest.errors import SpoolUnavailable

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

MOST_AT_ONCE = 128
"""Operations in one transaction: enough that fsync no longer matters, few enough that the first one's answer is soon."""


@dataclass(slots=True)
class _Job:
    operation: Operation[Any]
    future: Future[Any] = field(default_factory=Future)


class GroupCommitter:
    """Runs operations in its thread, several in one transaction; each is answered only after the commit.

    An operation that raises an error of ours undoes itself alone (a savepoint); a fault of the database undoes the
    whole transaction, and then each operation is tried once more on its own, so that one that cannot pass (a mail too
    large for what is left of the disk) takes no other along.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str = "spool-writer") -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, operation: Operation[T]) -> T:
        """Runs one operation and returns its result, committed. Raises what it raised, or SpoolUnavailable.

        Cancelling the caller withdraws an operation that has not begun; one under way is committed all the same.
        """
        if self._closed:
            raise SpoolUnavailable("the spool is closed")
        job = _Job(operation)
        self._jobs.put(job)
        result: T = await asyncio.wrap_future(job.future)
        return result

    async def close(self) -> None:
        """Commits what waits and ends the thread."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- in the thread

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._commit(batch)
            except BaseException as error:  # noqa: BLE001 - the thread must outlive whatever it is: nobody would restart it
                self._undo(error)
                self._fail(batch, error)
        self._disconnect()

    def _fail(self, batch: list[_Job], error: BaseException) -> None:
        for job in batch:
            if not job.future.done():
                job.future.set_exception(_unavailable(error))

    def _next_batch(self) -> list[_Job] | None:
        first = self._jobs.get()
        if first is None:
            return None
        batch = [first]
        with contextlib.suppress(queue.Empty):
            while len(batch) < MOST_AT_ONCE:
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)
                    break
                batch.append(job)
        return batch

    def _commit(self, batch: list[_Job]) -> None:
        begun = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not begun:
            return
        try:
            answers = self._transaction(begun)
        except (sqlite3.Error, OSError, MemoryError) as error:
            self._undo(error)
            # A lock is nobody's own fault: to wait for it again for each would keep the last one waiting for minutes.
            if len(begun) == 1 or _is_lock(error):
                for job in begun:
                    job.future.set_exception(_unavailable(error))
            else:
                self._one_by_one(begun)
            return
        for job, answer in zip(begun, answers, strict=True):
            answer(job.future)

    def _one_by_one(self, jobs: list[_Job]) -> None:
        for job in jobs:
            try:
                (answer,) = self._transaction([job])
            except (sqlite3.Error, OSError, MemoryError) as error:
                self._undo(error)
                job.future.set_exception(_unavailable(error))
            else:
                answer(job.future)

    def _transaction(self, jobs: list[_Job]) -> list[Callable[[Future[Any]], None]]:
        """Runs the jobs between BEGIN and COMMIT; returns how to answer each once the commit has succeeded."""
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        answers = [_in_savepoint(connection, job.operation) for job in jobs]
        connection.execute("COMMIT")
        return answers

    def _undo(self, error: BaseException) -> None:
        """Rolls back; after anything but a lock the connection is made anew, for its state is not known for certain."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        if not _is_lock(error):
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _in_savepoint(connection: sqlite3.Connection, operation: Operation[Any]) -> Callable[[Future[Any]], None]:
    connection.execute("SAVEPOINT operation")
    try:
        result = operation(connection)
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError, MemoryError) as fault:
        if not isinstance(fault, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        failure: Exception = fault
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller of this one operation
        failure = error
    else:
        connection.execute("RELEASE operation")
        return lambda future: future.set_result(result)
    connection.execute("ROLLBACK TO operation")
    connection.execute("RELEASE operation")
    return lambda future: future.set_exception(failure)


def _is_lock(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _unavailable(error: BaseException) -> SpoolUnavailable:
    """SQLite's own messages name no data of ours ("disk I/O error", "database is locked"), so they may be shown."""
    return SpoolUnavailable(f"{type(error).__name__}: {error}")
