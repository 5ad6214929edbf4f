"""Group commit: one writer thread in which everything that waits shares one transaction and one fsync."""

import asyncio
import contextlib
import errno
import math
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.spool.sqlite.waiting import Waiting, tell

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

MOST_AT_ONCE = 128
"""Operations in one transaction: enough that fsync no longer matters, few enough that the first one's answer is soon."""

MOST_BYTES = 8 << 20
"""Bytes of bodies after which a transaction takes no more, for the same reason."""


MOST_LATE = 256 << 10
"""Bytes of an item that may join a transaction which had to wait: its own writing and sync within the turn take less of the
others' time than a turn of its own would."""


class Together(Protocol):
    """Operations of one kind that cost less when they are done together."""

    @property
    def light(self) -> int:
        """Bytes of an item below which `prepare` writes nothing: it may be prepared within a transaction."""

    def prepare(self, items: Sequence[Any]) -> None:
        """What can be done before the transaction, while others may have theirs. May be called again for the same item.
        Raises OSError or MemoryError where it cannot be done: then none of them is."""

    def run(self, connection: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
        """Does them within the transaction; returns their results."""

    def complete(self, connection: sqlite3.Connection) -> None:
        """Does within the transaction, before its operations, what `run` left for later, or a part of it."""

    def completed(self) -> None:
        """That was committed."""

    def incomplete(self, error: BaseException) -> bool:
        """That could not be committed by itself, nor could others with it: whether a smaller part may be."""

    def ended(self, *, kept: bool) -> None:
        """Called when all that was prepared is committed or given up; `kept` where nothing was given up. Raises nothing."""


class Surroundings(Protocol):
    """What goes on around every transaction of a writer."""

    def turn(self) -> AbstractContextManager[bool]:
        """Around BEGIN to COMMIT: waits until other processes are done; gives whether there were any."""

    def committed(self, connection: sqlite3.Connection, operations: int) -> None:
        """After a COMMIT, before anybody is answered. Raises nothing."""


@dataclass(slots=True, kw_only=True)
class _Job(Waiting):
    """An operation, or an item for `Together`, and who waits for its result."""

    operation: Operation[Any] | None = None
    item: Any = None
    weight: int = 0
    done: bool = False  # and committed


@dataclass(slots=True)
class _NoNeighbours:
    """No surroundings, for a writer without neighbours."""

    def turn(self) -> AbstractContextManager[bool]:
        return contextlib.nullcontext(False)

    def committed(self, connection: sqlite3.Connection, operations: int) -> None:
        pass


class GroupCommitter:
    """Runs operations in its thread, several in one transaction; each is answered only after the commit.

    Where an operation raises an error of ours, all are undone and run once more, each with a savepoint, so that it undoes
    itself alone; where none does there is no savepoint, which takes two statements and a copy of every page that changes
    after it. A fault of the database undoes the whole transaction, and then each operation is tried once more on its own,
    so that one that cannot pass (a mail too large for what is left of the disk) takes no other along; what `together` left
    for later is one of them. An operation must bear to be run again. What comes while a transaction waits for its turn joins
    it, but for items that take long to write.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        together: Together | None = None,
        around: Surroundings | None = None,
        name: str = "spool-writer",
    ) -> None:
        self._connect = connect
        self._together = together
        self._around = around or _NoNeighbours()
        self._connection: sqlite3.Connection | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._late: list[_Job] = []
        self._first_of_next: _Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, operation: Operation[T]) -> T:
        """Runs one operation and returns its result, committed. Raises what it raised, or SpoolUnavailable.

        Cancelling the caller withdraws an operation that has not begun; one under way is committed all the same.
        """
        result: T = await self._answer_to(operation, None, 0)
        return result

    def add(self, item: object, weight: int) -> asyncio.Future[Any]:
        """The same for an item that `together` does; `weight` are the bytes it has to write."""
        return self._answer_to(None, item, weight)

    def _answer_to(self, operation: Operation[Any] | None, item: object, weight: int) -> asyncio.Future[Any]:
        if self._closed:
            raise SpoolUnavailable("the spool is closed")
        loop = asyncio.get_running_loop()
        job = _Job(loop, loop.create_future(), operation=operation, item=item, weight=weight)
        self._jobs.put(job)
        return job.future

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
                _fail([job for job in (*batch, *self._late) if job.error is None], error)
            tell((*batch, *self._late))
            # What was kept is not to stay in memory until the next mail comes.
            del batch
            self._late.clear()
        self._disconnect()

    def _next_batch(self) -> list[_Job] | None:
        first, self._first_of_next = self._first_of_next or self._jobs.get(), None
        if first is None:
            return None
        return [first, *self._more([first])]

    def _more(self, batch: Sequence[_Job], below: float = math.inf) -> Iterator[_Job]:
        """What waits already, until that is enough beside the batch, or one comes that is not below so many bytes."""
        many, weight = len(batch), sum(job.weight for job in batch)
        with contextlib.suppress(queue.Empty):
            while self._first_of_next is None and many < MOST_AT_ONCE and weight < MOST_BYTES:
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)
                    return
                if job.weight >= below:
                    self._first_of_next = job
                    return
                many, weight = many + 1, weight + job.weight
                yield job

    def _commit(self, batch: list[_Job]) -> None:
        begun = [job for job in batch if not job.future.cancelled()]
        try:
            if begun:
                self._all(begun)
        finally:
            if self._together is not None:
                self._together.ended(kept=all(job.done for job in (*begun, *self._late) if job.operation is None))

    def _all(self, jobs: list[_Job]) -> None:
        """In one transaction, or after a fault each in its own."""
        error = self._tried(jobs, self._late)
        if error is None:
            return
        jobs = [*jobs, *self._late]
        operations = any(job.operation for job in jobs)
        # A lock is nobody's own fault: to wait for it again for each would keep the last one waiting for minutes.
        if _is_lock(error) or (len(jobs) == 1 and not (operations and self._together)):
            _fail(jobs, error)
            return
        # Where what was left for later cannot be done by itself either, it may be to blame for all.
        blamed = operations and self._together is not None and not self._completed_alone(self._together)
        if blamed and self._tried(jobs, alone=True) is None:
            return
        for job in jobs:
            job.error = None
            error = self._tried([job], alone=True)
            if error is not None:
                _fail([job], error)

    def _completed_alone(self, together: Together) -> bool:
        """Does what was left for later by itself; less of it where all is too much for what is left of the disk."""
        error = self._tried([])
        while error is not None and not _is_lock(error) and together.incomplete(error):
            error = self._tried([])
        return error is None

    def _tried(self, jobs: list[_Job], late: list[_Job] | None = None, *, alone: bool = False) -> BaseException | None:
        """Commits the jobs and, put into `late`, those that come while they wait for their turn; or undoes them all and
        returns the fault. `alone`: without what `together` left for later."""
        try:
            self._transaction(jobs, late, alone)
        except (sqlite3.Error, OSError, MemoryError) as error:
            self._undo(error)
            return error
        return None

    def _transaction(self, jobs: list[_Job], late: list[_Job] | None, alone: bool) -> None:
        """Runs the jobs between BEGIN and COMMIT."""
        self._prepare(jobs)
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        with self._around.turn() as waited:
            if late is not None:
                below = MOST_LATE if waited else self._light
                late += (job for job in self._more(jobs, below) if not job.future.cancelled())
                self._prepare(late)
                jobs = [*jobs, *late]
            connection.execute("BEGIN IMMEDIATE")
            completes = not alone and (not jobs or any(job.operation for job in jobs))
            completed = self._together if completes else None
            if not self._run_all(connection, jobs, completed):
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                self._run_each(connection, jobs, completed)
            connection.execute("COMMIT")
        if completed is not None:
            completed.completed()
        for job in jobs:
            job.done = job.error is None
        self._around.committed(connection, len(jobs))

    @property
    def _light(self) -> float:
        return math.inf if self._together is None else self._together.light

    def _prepare(self, jobs: list[_Job]) -> None:
        added = [job.item for job in jobs if job.operation is None]
        if added and self._together is not None:
            self._together.prepare(added)

    def _run_all(self, connection: sqlite3.Connection, jobs: list[_Job], completed: Together | None) -> bool:
        """Runs all jobs, items first; False, with all to be undone, where one of them is at fault, which is rare. What
        `completed` left for later comes between the two."""
        added = [job for job in jobs if job.operation is None]
        try:
            if added:
                for job, result in zip(added, self._together_run(connection, added), strict=True):
                    job.result = result
            if completed is not None:
                completed.complete(connection)
            for job in jobs:
                if job.operation is not None:
                    job.result = job.operation(connection)
        except Exception as error:
            if not _is_own(error):
                raise
            return False
        return True

    def _run_each(self, connection: sqlite3.Connection, jobs: list[_Job], completed: Together | None) -> None:
        """The same with a savepoint for each job, so that one that is at fault undoes itself alone."""
        for job in jobs:
            if job.operation is None:
                self._run_one(connection, job)
        if completed is not None:
            completed.complete(connection)
        for job in jobs:
            if job.operation is not None:
                self._run_one(connection, job)

    def _run_one(self, connection: sqlite3.Connection, job: _Job) -> None:
        connection.execute("SAVEPOINT operation")
        try:
            job.result = job.operation(connection) if job.operation else self._together_run(connection, [job])[0]
        except Exception as error:
            if not _is_own(error):
                raise
            job.error = error
            connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")

    def _together_run(self, connection: sqlite3.Connection, jobs: list[_Job]) -> Sequence[Any]:
        assert self._together is not None
        return self._together.run(connection, [job.item for job in jobs])

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


def _is_own(error: Exception) -> bool:
    """Whether it is the fault of the operation, and not of the database or the machine."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return True
    return not isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError | OSError | MemoryError)


def _fail(jobs: Sequence[_Job], error: BaseException) -> None:
    for job in jobs:
        job.error = SpoolUnavailable(_told(error), code=code_of(error))


def _is_lock(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def code_of(error: BaseException) -> str:
    """SQLite's or the system's name of the error, for the log."""
    named = getattr(error, "sqlite_errorname", None) or errno.errorcode.get(getattr(error, "errno", None) or 0)
    return str(named or type(error).__name__)


def _told(error: BaseException) -> str:
    """SQLite's own messages name no data of ours ("disk I/O error", "database is locked"), so they may be shown."""
    return f"{type(error).__name__}: {error}"
