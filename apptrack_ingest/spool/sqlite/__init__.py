"""The spool on one SQLite file: WAL, synchronous=FULL, one writer thread with group commit, one reader thread."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

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
    Pause,
    Reaped,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Story,
    Summary,
)
from apptrack_ingest.spool.rows import storable
from apptrack_ingest.spool.sqlite import bodies, counts, hand_off, messages, people, reports, untrusted
from apptrack_ingest.spool.sqlite.commit import GroupCommitter
from apptrack_ingest.spool.sqlite.filesystem import refuse_network_filesystem
from apptrack_ingest.spool.sqlite.hints import Hints
from apptrack_ingest.spool.sqlite.migrations import migrate

T = TypeVar("T")

BUSY_SECONDS = 10.0
"""How long a commit waits for another process's; beyond it the database counts as locked."""


def open_spool(database: Path, *, clock: Callable[[], float] = time.time) -> "SqliteSpool":
    """Opens (and on first use makes) the spool's file, takes missing migrations, and returns the spool.

    The directory is made with mode 0700 and the file with 0600. Raises SpoolError where the file lies on a network file
    system or was written by a newer release, SpoolUnavailable where it cannot be opened.
    """
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_network_filesystem(database.parent)
        with contextlib.suppress(FileExistsError):
            # Never opened where it exists: to close a file drops the locks of all its connections in this process (fcntl).
            os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with _one_opens(database), contextlib.closing(_connect(database)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection)
    except (sqlite3.Error, OSError) as error:
        raise SpoolUnavailable(f"{database}: {error}; check the directory's owner, mode and free space") from None
    return SqliteSpool(database, clock)


@contextlib.contextmanager
def _one_opens(database: Path) -> Iterator[None]:
    """Lets processes open one after the other: SQLite waits for no lock while it turns a new file's WAL on, but fails."""
    number = os.open(f"{database}-opening", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


class _Connection(sqlite3.Connection):
    """Keeps any text, see `storable`."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(sql, parameters)
        except UnicodeEncodeError:
            return super().execute(sql, _storable(parameters))


def _storable(parameters: Mapping[str, object] | Sequence[object]) -> Any:
    if isinstance(parameters, Mapping):
        return {name: _storable([value])[0] for name, value in parameters.items()}
    return [storable(value) if isinstance(value, str) else value for value in parameters]


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        database, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    connection.row_factory = sqlite3.Row
    connection.create_function("fold", 1, lambda text: text.casefold() if text else text, deterministic=True)
    # FULL: a commit survives the loss of power, not only of the process (SQLite, "PRAGMA synchronous", WAL mode).
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    return connection


class SqliteSpool:
    """The spool contract on SQLite; see `contract.Spool` for every method's meaning."""

    def __init__(self, database: Path, clock: Callable[[], float]) -> None:
        self.database = database
        self._clock = clock
        self._writer = GroupCommitter(lambda: _connect(database))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        self._reading: sqlite3.Connection | None = None
        self._closed = False
        self._hints = Hints(database.parent / "hints")

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise SpoolUnavailable("the spool is closed")
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._ask, question)

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._reading is None:
                self._reading = _connect(self.database)
                self._reading.execute("PRAGMA query_only = ON")
            return question(self._reading)
        except sqlite3.Error as error:
            if self._reading is not None:
                self._reading.close()
                self._reading = None
            raise SpoolUnavailable(f"{type(error).__name__}: {error}") from None

    # -- receive

    async def put(self, message: Message, arrivals: Sequence[Arrival]) -> int:
        message_id = await self._writer.do(lambda c: messages.put(c, message, arrivals))
        self._hints.send()
        return message_id

    # -- hand off

    async def claim(
        self,
        *,
        worker: str,
        now: float,
        lease: float,
        limit: int,
        room: Mapping[str, int] | None = None,
        solo: bool = False,
    ) -> list[Claim]:
        return await self._writer.do(
            lambda c: hand_off.claim(c, worker=worker, now=now, lease=lease, limit=limit, room=room or {}, solo=solo)
        )

    async def renew(
        self, claims: Sequence[Claim | ReportClaim], *, now: float, lease: float
    ) -> list[Claim | ReportClaim]:
        def renew_all(connection: sqlite3.Connection) -> list[Claim | ReportClaim]:
            return [claim for claim in claims if not _renew(connection, claim, now + lease)]

        return await self._writer.do(renew_all)

    async def delivered_before(self, account: str, applicant_id: int) -> list[Delivered]:
        return await self._read(lambda c: hand_off.delivered_before(c, account, applicant_id))

    async def raw(self, message_id: int) -> bytes:
        return await self._read(lambda c: bodies.fetch(c, message_id))

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
                    f"UPDATE {table} SET lease_until = ? WHERE in_attempt = 1 AND lease_worker = ? AND lease_until > ?",  # noqa: S608
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

    async def pause(self, pause: Pause) -> None:
        await self._writer.do(lambda c: reports.pause(c, pause))

    async def resume(self, account: str) -> bool:
        ended = await self._writer.do(lambda c: reports.resume(c, account))
        self._hints.send()
        return ended

    async def pauses(self) -> list[Pause]:
        return await self._read(reports.pauses)

    # -- both

    async def next_due(self, *, now: float, accounts: Collection[str]) -> Due:
        return await self._read(lambda c: counts.next_due(c, now=now, accounts=accounts))

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

    async def update_facts(self, application_id: int, facts: Facts, applicant_id: int | None) -> None:
        await self._writer.do(lambda c: hand_off.keep_facts(c, application_id, facts, applicant_id))

    async def find(self, wanted: Filter) -> list[Summary]:
        return await self._read(lambda c: people.find(c, wanted))

    async def story(self, application_id: int) -> Story:
        return await self._read(lambda c: people.story(c, application_id))

    async def backlog(self) -> Backlog:
        return await self._read(counts.backlog)

    async def load(self) -> Load:
        return await self._read(untrusted.load)

    async def mark(self, key: str) -> float | None:
        row = await self._read(lambda c: c.execute("SELECT at FROM marks WHERE key = ?", (key,)).fetchone())
        return float(row["at"]) if row else None

    async def set_mark(self, key: str, at: float) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO marks (key, at) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = excluded.at", (key, at)
            )

        await self._writer.do(write)

    async def erase_finished(self, *, before: float, limit: int) -> int:
        now = self._clock()
        return await self._writer.do(lambda c: messages.erase_finished(c, before=before, limit=limit, now=now))

    async def discard_untrusted(self, *, before: float, limit: int, now: float) -> int:
        return await self._writer.do(lambda c: untrusted.discard(c, before=before, limit=limit, now=now))

    async def check_writable(self) -> None:
        await self.set_mark("writable", self._clock())

    async def close(self) -> None:
        self._hints.close()
        await self._writer.close()
        self._closed = True
        await asyncio.to_thread(self._reader.shutdown)
        if self._reading is not None:
            self._reading.close()
            self._reading = None


def _renew(connection: sqlite3.Connection, claim: Claim | ReportClaim, until: float) -> bool:
    if isinstance(claim, Claim):
        return hand_off.renew(connection, claim, until)
    return reports.renew(connection, claim, until)


__all__ = ["SpoolError", "SqliteSpool", "open_spool"]
