"""The spool on one SQLite file: WAL, synchronous=FULL, one writer thread with group commit, one reader thread."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from apptrack_ingest.deadlines import ends_within
from apptrack_ingest.errors import SpoolError, SpoolUnavailable
from apptrack_ingest.model import Arrival, Backlog, Message, ReportState, State
from apptrack_ingest.spool.contract import (
    Action,
    Claim,
    Delivered,
    Due,
    Facts,
    Filter,
    Load,
    Outcome,
    Reaped,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Story,
    Summary,
)
from apptrack_ingest.spool.sqlite import (
    bodies,
    counts,
    entering,
    hand_off,
    marks,
    messages,
    outcomes,
    people,
    reports,
    space,
    untrusted,
)
from apptrack_ingest.spool.sqlite.around import Around, removed
from apptrack_ingest.spool.sqlite.commit import GroupCommitter
from apptrack_ingest.spool.sqlite.connection import connect
from apptrack_ingest.spool.sqlite.decisions import Decisions
from apptrack_ingest.spool.sqlite.filesystem import refuse_network_filesystem
from apptrack_ingest.spool.sqlite.hints import Hints
from apptrack_ingest.spool.sqlite.migrations import migrate, version_of
from apptrack_ingest.spool.sqlite.putting import Put, Puts
from apptrack_ingest.spool.sqlite.reading import Reader
from apptrack_ingest.spool.tables import COPYING, unfinished

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds for which a question about what is in the ledger waits for other mail to be entered there."""

INCREMENTAL = 2
"""SQLite's number for auto_vacuum = INCREMENTAL."""

BUSY_SECONDS = 10.0
"""How long a commit waits for another process's; beyond it the database counts as locked."""


def open_spool(database: Path, *, clock: Callable[[], float] = time.time) -> "SqliteSpool":
    """Opens the spool's file as `make_fit` does, and returns the spool."""
    return SqliteSpool(database, make_fit(database), clock)


def make_fit(database: Path, *, copying: bool = False) -> Path:
    """Makes the spool's file on first use and takes missing migrations; returns the directory of its large bodies.

    The data directory is made with mode 0700 and the file with 0600. Raises SpoolError where the file lies on a network
    file system, was written by a newer release or is an unfinished copy (unless `copying`), SpoolUnavailable where it
    cannot be opened.
    """
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_network_filesystem(database.parent)
        with contextlib.suppress(FileExistsError):
            # Never opened where it exists: to close a file drops the locks of all its connections in this process (fcntl).
            os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with _one_opens(database), contextlib.closing(_connect(database)) as connection:
            # To say it again writes to the file, which a full disk does not let happen.
            if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection)
            if not copying and marks.starting(connection, COPYING):
                raise unfinished(str(database))
            return bodies.directory_of(connection)
    except (sqlite3.Error, OSError) as error:
        raise SpoolUnavailable(f"{database}: {error}; check the directory's owner, mode and free space") from None


@contextlib.contextmanager
def _one_opens(database: Path) -> Iterator[None]:
    """Lets processes open one after the other: SQLite waits for no lock while it turns a new file's WAL on, but fails."""
    number = os.open(f"{database}-opening", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _connect(database: Path) -> sqlite3.Connection:
    return connect(database, BUSY_SECONDS)


def _connect_to_write(database: Path) -> sqlite3.Connection:
    """What it takes to undo one operation of many stays in memory (16 pages are enough for SQLite to make a file for it)."""
    connection = _connect(database)
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


@dataclass(frozen=True, slots=True)
class _NotEntered:
    """Instead of an answer: messages up to this one were put, and are not entered yet."""

    newest: int


class SqliteSpool(Decisions):
    """The spool contract on SQLite; see `contract.Spool` for every method's meaning."""

    def __init__(self, database: Path, directory: Path, clock: Callable[[], float]) -> None:
        self.database = database
        self._clock, self._directory = clock, directory
        self._hints = Hints(database.parent / "hints")
        self._puts = Puts(directory, self._hints.send)
        self._around = Around(database, lambda: _connect(database))
        self._writer = GroupCommitter(lambda: _connect_to_write(database), together=self._puts, around=self._around)
        self._reader = Reader(lambda: _connect(database))
        self._under_way: set[asyncio.Future[None]] = set()
        self._erased = False  # since the log was emptied

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Asks with all that was put before entered in the ledger. Raises SpoolUnavailable where it cannot be: an answer
        that leaves out accepted mail is worse than none."""
        found = await self._look(lambda c: _NotEntered(newest) if (newest := entering.newest(c)) else question(c))
        if not isinstance(found, _NotEntered):
            return found
        await self._enter(found.newest)
        return await self._look(question)

    async def _read_known(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Asks about what is in the ledger; answered even where the rest cannot be entered."""
        newest = await self._look(entering.newest)
        if newest:
            self._under_way.add(task := asyncio.ensure_future(self._enter(newest)))
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody has to be told
            await ends_within(task, PATIENCE)
        return await self._look(question)

    async def _look(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Asks what has nothing to do with what was put last."""
        return await self._reader.ask(question)

    async def _enter(self, newest: int) -> None:
        """Enters what was put, up to this message. Raises SpoolUnavailable where that cannot be done."""
        before, last = -1, 0
        while before < last < newest or before < 0:
            # Every operation of the writer is preceded by it.
            before, last = last, await self._writer.do(entering.entered)
        if last < newest:
            raise SpoolUnavailable(
                f"mails that came in last are safe, but cannot be entered in the ledger: {self._puts.stuck or 'unknown'};"
                " make room on its disk, or see what `apptrack-ingest spool check` finds"
            )

    async def prepare(self) -> None:
        await self._look(version_of)

    # -- receive

    def put(self, message: Message, arrivals: Sequence[Arrival]) -> Awaitable[int]:
        return self._writer.add(Put(message, arrivals), len(message.raw))

    # -- hand off

    async def claim(
        self,
        *,
        worker: str,
        now: float,
        lease: float,
        limit: int,
        room: Mapping[str, int] | None = None,
        untrusted: int | None = None,
        solo: bool = False,
    ) -> list[Claim]:
        return await self._writer.do(
            lambda c: hand_off.claim(
                c,
                worker=worker,
                now=now,
                lease=lease,
                limit=limit,
                room=room or {},
                untrusted=untrusted,
                solo=solo,
            )
        )

    async def renew(
        self, claims: Sequence[Claim | ReportClaim], *, now: float, lease: float
    ) -> list[Claim | ReportClaim]:
        def renew_all(connection: sqlite3.Connection) -> list[Claim | ReportClaim]:
            return [claim for claim in claims if not _renew(connection, claim, now + lease)]

        return await self._writer.do(renew_all)

    async def delivered_before(self, account: str, applicant_id: int) -> list[Delivered]:
        return await self._look(lambda c: hand_off.delivered_before(c, account, applicant_id))

    async def to_work_on(self, claim: Claim) -> tuple[bytes, list[Delivered]]:
        def found(connection: sqlite3.Connection) -> tuple[bytes, list[Delivered]]:
            raw = bodies.fetch(connection, claim.message_id, self._directory)
            if claim.account is None or claim.applicant_id is None:
                return raw, []
            return raw, hand_off.delivered_before(connection, claim.account, claim.applicant_id)

        return await self._look(found)

    async def raw(self, message_id: int) -> bytes:
        return await self._read_known(lambda c: bodies.fetch(c, message_id, self._directory))

    async def settle(self, claim: Claim, settlement: Settlement, *, now: float) -> None:
        await self._writer.do(lambda c: hand_off.settle(c, claim, settlement, now=now))

    async def reap(self, *, now: float, reports_for: Collection[str]) -> list[Reaped]:
        def reap_all(connection: sqlite3.Connection) -> list[Reaped]:
            reports.reap(connection, now=now)
            return hand_off.reap(connection, now=now, reports_for=reports_for)

        return await self._writer.do(reap_all)

    async def abandon(self, worker: str, *, now: float) -> int:
        def abandon_all(connection: sqlite3.Connection) -> int:
            return sum(
                connection.execute(
                    f"UPDATE {table} INDEXED BY {table}_in_attempt SET lease_until = ?"  # noqa: S608 - our own constants
                    " WHERE in_attempt = 1 AND lease_worker = ? AND lease_until > ?",
                    (now, worker, now),
                ).rowcount
                for table in ("applications", "reports")
            )

        return await self._writer.do(abandon_all)

    # -- report

    async def claim_reports(
        self, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
    ) -> list[ReportClaim]:
        return await self._writer.do(
            lambda c: reports.claim(c, worker=worker, now=now, lease=lease, limit=limit, accounts=accounts)
        )

    async def settle_report(self, claim: ReportClaim, settlement: ReportSettlement, *, now: float) -> ReportState:
        return await self._writer.do(lambda c: reports.settle(c, claim, settlement, now=now))

    # -- both

    async def next_due(
        self,
        *,
        now: float,
        accounts: Collection[str],
        full: Collection[str] = (),
        untrusted: bool = True,
        roughly: bool = False,
    ) -> Due:
        def found(connection: sqlite3.Connection) -> Due:
            return counts.next_due(connection, now=now, accounts=accounts, full=full, untrusted=untrusted)

        def rough(connection: sqlite3.Connection) -> Due | None:
            missing = entering.missing(connection)  # first: what is entered in between is found among the rest
            if missing <= 0 or self._puts.stuck:
                return found(connection)
            return replace(found(connection), hand_off=now) if missing <= entering.MOST_AT_ONCE else None

        due = await self._look(rough) if roughly else None
        return due if due is not None else await self._read_known(found)

    def listen(self, wake: Callable[[], None]) -> None:
        self._hints.listen(wake)

    # -- people

    async def act(self, application_id: int, action: Action, *, now: float) -> State:
        state = await self._writer.do(lambda c: people.act(c, application_id, action, now=now))
        self._hints.send()
        return state

    async def retry_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        def retry(connection: sqlite3.Connection) -> None:
            application_id = reports.retry(connection, report_id, now=now)
            people.record(connection, application_id, now, actor, f"retry report {report_id}", note)

        await self._writer.do(retry)
        self._hints.send()

    async def drop_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        def drop(connection: sqlite3.Connection) -> None:
            application_id = reports.drop(connection, report_id, now=now)
            people.record(connection, application_id, now, actor, f"discard report {report_id}", note)

        await self._writer.do(drop)

    async def outcomes(self, account: str, applicants: Collection[int]) -> list[Outcome]:
        return await self._read(lambda c: outcomes.outcomes(c, account, applicants))

    async def arrived(self, account: str, applicants: Collection[int]) -> set[int]:
        return await self._read(lambda c: outcomes.arrived(c, account, applicants))

    async def tell_again(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        def tell(connection: sqlite3.Connection) -> None:
            application_id = outcomes.tell_again(connection, report_id, now=now)
            people.record(connection, application_id, now, actor, f"tell report {report_id} again", note)

        await self._writer.do(tell)
        self._hints.send()

    async def update_facts(self, application_id: int, facts: Facts, applicant_id: int | None) -> None:
        await self._writer.do(lambda c: people.update_facts(c, application_id, facts, applicant_id))

    async def find(self, wanted: Filter) -> list[Summary]:
        return await self._read(lambda c: people.find(c, wanted))

    async def count(self, wanted: Filter) -> int:
        return await self._read(lambda c: people.count(c, wanted))

    async def story(self, application_id: int) -> Story:
        return await self._read_known(lambda c: people.story(c, application_id))

    async def backlog(self) -> Backlog:
        return await self._read(lambda c: counts.backlog(c, now=self._clock()))

    async def load(self) -> Load:
        return await self._read(untrusted.load)

    async def mark(self, key: str) -> float | None:
        return await self._look(lambda c: marks.get(c, key))

    async def set_mark(self, key: str, at: float) -> None:
        await self._writer.do(lambda c: marks.put(c, key, at))

    async def take_mark(self, key: str, at: float, *, after: float) -> bool:
        return await self._writer.do(lambda c: marks.take(c, key, at, after=after))

    async def erase_finished(self, *, before: float, limit: int) -> int:
        now = self._clock()
        digests = await self._read(lambda c: messages.digests_due(c, before=before, limit=limit))
        erased = await self._writer.do(
            lambda c: messages.erase_finished(c, before=before, limit=limit, now=now, digests=digests)
        )
        self._erased = self._erased or erased > 0
        if erased < limit:
            await asyncio.to_thread(removed, self._sweep)
        return erased

    def _sweep(self) -> None:
        with contextlib.closing(_connect(self.database)) as connection:
            bodies.sweep(connection)
        if self._erased:
            space.empty_log(self.database)
            self._erased = False

    async def discard_untrusted(self, *, before: float, limit: int, now: float) -> int:
        discarded = await self._writer.do(lambda c: untrusted.discard(c, before=before, limit=limit, now=now))
        self._erased = self._erased or discarded > 0
        return discarded

    async def check_writable(self) -> None:
        await self.set_mark("writable", self._clock())
        await self._read(entering.entered)

    async def close(self) -> None:
        await self._writer.close()
        self._hints.close()
        self._puts.close()
        await asyncio.to_thread(self._around.close)
        await self._reader.close()


def _renew(connection: sqlite3.Connection, claim: Claim | ReportClaim, until: float) -> bool:
    if isinstance(claim, Claim):
        return hand_off.renew(connection, claim, until)
    return reports.renew(connection, claim, until)


__all__ = ["SpoolError", "SqliteSpool", "open_spool"]
