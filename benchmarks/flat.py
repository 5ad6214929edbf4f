"""Shows that a spool with 1,000,000 applications costs what one with 1,000 does: `python benchmarks/flat.py [--rows N]`.

Both are filled alike, with a history, a flood of one account, a long line of one applicant, strangers, reports that wait;
then each question is asked of the small and of the large one by turns. What a spool is asked for in dozens is rolled back,
so that each time it finds the same; what is done one by one is committed. Prints the medians of the processor's time that it
took, here and in the server, and their ratio.
Exits with 1 where a ratio is above FLAT, twice in a row: one that is, is measured once more.
"""

import argparse
import asyncio
import contextlib
import inspect
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres import MISSING, Server, programs

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import (
    Arrival,
    Envelope,
    HeldReason,
    Message,
    Report,
    ReportState,
    ReportStatus,
    Stage,
    State,
)
from apptrack_ingest.spool import postgres, sqlite
from apptrack_ingest.spool.contract import Action, Facts, Filter, Pause, ReportSettlement, Settlement
from apptrack_ingest.spool.postgres import counts as pg_counts
from apptrack_ingest.spool.postgres import hand_off as pg_hand_off
from apptrack_ingest.spool.postgres import messages as pg_messages
from apptrack_ingest.spool.postgres import migrations as pg_migrations
from apptrack_ingest.spool.postgres import pauses as pg_pauses
from apptrack_ingest.spool.postgres import people as pg_people
from apptrack_ingest.spool.postgres import reports as pg_reports
from apptrack_ingest.spool.postgres import untrusted as pg_untrusted
from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.sqlite import counts, hand_off, messages, migrations, pauses, people, reports, untrusted
from apptrack_ingest.spool.sqlite.connection import connect

FEW, FLAT = 1_000, 1.2
ROUNDS = 15
BEGIN, STEP = 1_700_000_000, 10
"""When the first mail came, and the seconds between two: a large spool has a longer history, not a faster one."""
NEWEST = 200
"""Of the mails those of the last minutes, for three accounts: what there is to do now, in both spools the same."""
SHOWN = 10

FILL = """
INSERT INTO messages (id, received_at, sender, recipients, peer, helo, smtputf8, size, sha256)
    SELECT n, {begin} + n * {step}, '', '[]', '192.0.2.1', 'mx', 1 = 0, 200, 'x' FROM numbers;
INSERT INTO bodies (message_id, raw) SELECT n, {raw} FROM numbers;
INSERT INTO applications (id, message_id, account, applicant_id, trusted, trust_note, state, reason, client_reference,
        candidate_name{folded}, portal_name, content_digest, received_at, due_at, settled_at, delivered_at, attempts)
    SELECT n, n,
        CASE WHEN n > {old} OR k < 50 THEN CASE n % 3 WHEN 0 THEN 'acme' WHEN 1 THEN 'blue' ELSE 'red' END
             WHEN k < 75 THEN 'flood' WHEN k < 80 THEN 'line' WHEN k < 95 THEN 'acme' ELSE 'flood' END,
        CASE WHEN n > {old} THEN n WHEN k BETWEEN 75 AND 79 THEN 1 WHEN k BETWEEN 80 AND 89 THEN NULL ELSE n END,
        NOT (k BETWEEN 80 AND 89), '',
        CASE WHEN n > {old} OR k BETWEEN 50 AND 79 THEN 'received' WHEN k BETWEEN 80 AND 89 THEN 'held'
             WHEN k BETWEEN 90 AND 94 THEN 'failed' ELSE 'delivered' END,
        CASE WHEN n <= {old} AND k BETWEEN 80 AND 89 THEN 'untrusted' END,
        'REF-' || (n / 20), 'Jane Doe ' || n{jane}, CASE n % 2 WHEN 0 THEN 'Seek' ELSE 'Indeed' END,
        CASE WHEN n <= {old} THEN 'v1:' || n END, {begin} + n * {step},
        CASE WHEN n > {old} OR k BETWEEN 50 AND 79 THEN {begin} + n * {step} END,
        CASE WHEN n > {old} OR k BETWEEN 50 AND 79 THEN NULL ELSE {begin} + n * {step} + 5 END,
        CASE WHEN n <= {old} AND (k < 50 OR k >= 95) THEN {begin} + n * {step} + 5 END, 1
    FROM (SELECT n, n % 100 AS k FROM numbers) with_kind;
INSERT INTO reports (application_id, account, applicant_id, status, remote_id, date_processed, state, created_at, due_at)
    SELECT id, account, id, CASE state WHEN 'failed' THEN 'fail' ELSE 'success' END, 'ats', received_at,
        CASE WHEN id % 100 < 50 THEN 'confirmed' WHEN state = 'failed' THEN 'failed' ELSE 'due' END,
        received_at, CASE WHEN id % 100 >= 95 THEN received_at END
    FROM applications WHERE state IN ('delivered', 'failed') ORDER BY id;
INSERT INTO attempts (application_id, kind, number, token, worker, started_at, ended_at, code)
    SELECT id, 'hand-off', 1, 1, 'w', received_at, received_at + 5, 'delivered' FROM applications
    WHERE settled_at IS NOT NULL ORDER BY id
"""

AS_PUT = (
    "INSERT INTO puts (id, received_at, sender, recipients, peer, helo, smtputf8, size, evidence, warnings, crc32,"
    " applications, raw) SELECT m.id, m.received_at, m.sender, m.recipients, m.peer, m.helo, m.smtputf8, m.size, '[]', '[]',"
    " 0, '[]', b.raw FROM messages m JOIN bodies b ON b.message_id = m.id",
    "DELETE FROM bodies",
)
"""Has bodies where a put leaves them."""

# --- questions -------------------------------------------------------------------------------------------------------

WORK = {"worker": "bench", "now": 9e9, "lease": 60.0, "limit": SHOWN}
ONE = {**WORK, "limit": 1}
EVERY = ["acme", "blue", "red", "flood", "line"]
FULL = {"flood": 0, "line": 0}
FACTS = Facts("REF-1", "Jane Doe", "jane@x.example", "Cook", "Seek", "v1:aa")

Question = Callable[[Any, Any, "Rows"], Any]
"""What is asked: of the modules of a database, on a connection, knowing what rows there are."""


@dataclass(slots=True)
class Rows:
    """How many rows there are, and of each kind how many something was done to."""

    number: int
    used: Counter[int] = field(default_factory=Counter)

    def of_kind(self, kind: int, *, of: int = 5) -> int:
        """The next row of those that FILL makes of a kind, of which there are some in every hundred."""
        number = self.used[kind]
        self.used[kind] += 1
        return 100 * (number // of) + kind + number % of

    def mail(self) -> Message:
        """One that comes now."""
        return Message(Envelope("", ("cv@acme.example",), "192.0.2.1"), float(BEGIN + self.number * STEP), b"raw")

    def lately(self) -> float:
        """When the last two hundred begin to come."""
        return float(BEGIN + (self.number - 200) * STEP)


def chained(*steps: Callable[[Any], Any]) -> Any:
    """One step after the other, each with what the one before gave, where they wait and where they do not."""

    async def waiting(value: Any, left: tuple[Callable[[Any], Any], ...]) -> Any:
        value = await value
        for step in left:
            value = step(value)
            value = await value if inspect.isawaitable(value) else value
        return value

    value: Any = None
    for place, step in enumerate(steps):
        value = step(value)
        if inspect.isawaitable(value):
            return waiting(value, steps[place + 1 :])
    return value


def settled(m: Any, c: Any, room: dict[str, int], report: bool = True) -> Any:
    """Claims one and settles it as delivered, with a report."""
    told = Report(4711, ReportStatus.SUCCESS, 2e9) if report else None
    outcome = Settlement(Event.DELIVER, "delivered", facts=FACTS, report=told)
    return chained(
        lambda _: m.hand_off.claim(c, room=room, solo=False, **ONE),
        lambda claims: m.hand_off.settle(c, claims[0], outcome, now=9e9),
    )


def told(m: Any, c: Any) -> Any:
    confirmed = ReportSettlement(ReportState.CONFIRMED, "confirmed")
    return chained(
        lambda _: m.reports.claim(c, accounts=EVERY, **ONE),
        lambda claims: m.reports.settle(c, claims[0], confirmed, now=9e9),
    )


def paused(m: Any, c: Any) -> Any:
    return chained(
        lambda _: m.pauses.pause(c, Pause("flood", Stage.HAND_OFF, "r", 1.0, None, actor="jo")),
        lambda _: m.hand_off.claim(c, room={}, solo=False, **WORK),
    )


def crashed(m: Any, c: Any) -> Any:
    return chained(
        lambda _: m.hand_off.claim(c, room={}, solo=False, **WORK),
        lambda _: m.hand_off.reap(c, now=9.1e9, reports_for=EVERY),
    )


QUESTIONS: dict[str, Question] = {
    "put": lambda m, c, n: m.messages.put(c, n.mail(), [Arrival("acme", 1, True), Arrival("line", 1, True)]),
    "put, stranger": lambda m, c, n: m.messages.put(c, n.mail(), [Arrival("acme", None, False)]),
    "claim, by turns": lambda m, c, n: m.hand_off.claim(c, room={}, solo=False, **WORK),
    "claim, flood full": lambda m, c, n: m.hand_off.claim(c, room=FULL, solo=False, **WORK),
    "claim, flood paused": lambda m, c, n: paused(m, c),
    "claim, flood alone": lambda m, c, n: m.hand_off.claim(
        c, room={"acme": 0, "blue": 0, "red": 0}, solo=False, **WORK
    ),
    "claim, no strangers": lambda m, c, n: m.hand_off.claim(c, room={}, untrusted=0, solo=False, **WORK),
    "claim, alone": lambda m, c, n: m.hand_off.claim(c, room={}, solo=True, **WORK),
    "next due": lambda m, c, n: m.counts.next_due(c, now=9e9, accounts=EVERY),
    "next due, flood full": lambda m, c, n: m.counts.next_due(
        c, now=9e9, accounts=EVERY, full=["flood", "line"], untrusted=False
    ),
    "settle": lambda m, c, n: settled(m, c, FULL),
    "settle, long line": lambda m, c, n: settled(m, c, {"flood": 0, "acme": 0, "blue": 0, "red": 0}),
    "claim reports": lambda m, c, n: m.reports.claim(c, accounts=EVERY, **WORK),
    "settle report": lambda m, c, n: told(m, c),
    "reap": lambda m, c, n: crashed(m, c),
    "delivered before": lambda m, c, n: m.hand_off.delivered_before(c, "acme", 3),
    "act: retry": lambda m, c, n: m.people.act(c, n.of_kind(90), Action(Event.RETRY, "jo"), now=9e9),
    "act: release": lambda m, c, n: m.people.act(c, n.of_kind(80), Action(Event.RELEASE, "jo"), now=9e9),
    "story": lambda m, c, n: m.people.story(c, 3),
    "load": lambda m, c, n: m.untrusted.load(c),
    "backlog": lambda m, c, n: m.counts.backlog(c, now=9e9),
    "erase finished": lambda m, c, n: m.messages.erase_finished(c, before=8e9, limit=SHOWN, now=9e9),
    "discard untrusted": lambda m, c, n: m.untrusted.discard(c, before=8e9, limit=1, now=9e9),
}

KEPT = {
    "put",
    "put, stranger",
    "settle",
    "settle, long line",
    "settle report",
    "act: retry",
    "act: release",
    "discard untrusted",
}
"""What is committed: each has another row of which there are enough even in the small spool."""

FILTERS: dict[str, Callable[[Rows], Filter]] = {
    "find": lambda n: Filter(limit=SHOWN),
    "find state": lambda n: Filter(states=(State.FAILED,), limit=SHOWN),
    "find states": lambda n: Filter(states=(State.FAILED, State.HELD), limit=SHOWN),
    "find received": lambda n: Filter(states=(State.RECEIVED,), limit=SHOWN),
    "find reason": lambda n: Filter(reasons=(HeldReason.UNTRUSTED,), limit=SHOWN),
    "find no such reason": lambda n: Filter(reasons=(HeldReason.CRASH_LOOP,), limit=SHOWN),
    "find report": lambda n: Filter(report_states=(ReportState.FAILED,), limit=SHOWN),
    "find reports": lambda n: Filter(report_states=(ReportState.FAILED, ReportState.DUE), limit=SHOWN),
    "find no such report": lambda n: Filter(report_states=(ReportState.REFUSED,), limit=SHOWN),
    "find account": lambda n: Filter(account="line", limit=SHOWN),
    "find unrouted": lambda n: Filter(account="", limit=SHOWN),
    "find account, state": lambda n: Filter(account="blue", states=(State.DELIVERED,), limit=SHOWN),
    "find account, none": lambda n: Filter(account="blue", states=(State.FAILED,), limit=SHOWN),
    "find account, report": lambda n: Filter(account="acme", report_states=(ReportState.FAILED,), limit=SHOWN),
    "find applicant": lambda n: Filter(applicant_id=3, limit=SHOWN),
    "find reference": lambda n: Filter(client_reference="REF-3", limit=SHOWN),
    "find portal": lambda n: Filter(portal="Seek", limit=SHOWN),
    "find no such portal": lambda n: Filter(portal="none", limit=SHOWN),
    "find candidate": lambda n: Filter(candidate="jane", limit=SHOWN),
    "find since": lambda n: Filter(since=n.lately(), limit=SHOWN),
    "find since, state": lambda n: Filter(since=n.lately(), states=(State.FAILED,), limit=SHOWN),
    "find until": lambda n: Filter(until=BEGIN + 300.0 * STEP, limit=SHOWN),
    "find page": lambda n: Filter(states=(State.FAILED,), before_id=600, limit=SHOWN),
    "find oldest": lambda n: Filter(states=(State.FAILED,), oldest_first=True, after_id=100, limit=SHOWN),
}
QUESTIONS.update({name: lambda m, c, n, f=f: m.people.find(c, f(n)) for name, f in FILTERS.items()})  # type: ignore[misc]


# --- spools ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Spool:
    """One spool: `ask` asks it a question, gives the seconds it took, and takes back what it changed unless it is KEPT."""

    rows: int
    ask: Callable[[str], Awaitable[float]]


SQLITE = SimpleNamespace(
    counts=counts,
    hand_off=hand_off,
    messages=messages,
    pauses=pauses,
    people=people,
    reports=reports,
    untrusted=untrusted,
)
POSTGRES = SimpleNamespace(
    counts=pg_counts,
    hand_off=pg_hand_off,
    messages=pg_messages,
    pauses=pg_pauses,
    people=pg_people,
    reports=pg_reports,
    untrusted=pg_untrusted,
)


def statements_of(rows: int, numbers: str, raw: str, *folded: str) -> Iterator[str]:
    """What fills a spool; the steps of the schema that come after it build indexes and counts at once."""
    column, value = folded or ("", "")
    filled = FILL.format(begin=BEGIN, step=STEP, old=rows - NEWEST, raw=raw, folded=column, jane=value)
    yield from (statement.replace("FROM numbers", f"FROM {numbers} numbers") for statement in filled.split(";\n"))


@contextlib.contextmanager
def first_steps(module: Any, number: int) -> Iterator[None]:
    """A program that knows no more than the schema's first steps."""
    every = module.MIGRATIONS
    module.MIGRATIONS = every[:number]
    try:
        yield
    finally:
        module.MIGRATIONS = every


@contextlib.asynccontextmanager
async def in_sqlite(directory: Path, rows: int) -> AsyncIterator[Spool]:
    path = directory / f"{rows}" / "spool.sqlite3"
    path.parent.mkdir()
    numbers = f"(WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows}) SELECT n FROM c)"  # noqa: S608
    with contextlib.closing(connect(path, 10.0)) as connection, first_steps(migrations, 2):
        connection.execute("PRAGMA journal_mode = WAL")
        migrations.migrate(connection)
        connection.execute("BEGIN")
        for statement in statements_of(rows, numbers, "zeroblob(200)"):
            connection.execute(statement)
        connection.execute("COMMIT")
    await sqlite.open_spool(path).close()
    with contextlib.closing(connect(path, 10.0)) as connection:
        for statement in AS_PUT:
            connection.execute(statement)
        known = Rows(rows)

        def work(name: str) -> None:
            connection.execute("BEGIN IMMEDIATE")
            QUESTIONS[name](SQLITE, connection, known)
            if name in KEPT:
                connection.execute("COMMIT")

        async def ask(name: str) -> float:
            try:
                return await timed(lambda: work(name))
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

        yield Spool(rows, ask)


@contextlib.asynccontextmanager
async def in_postgres(server: Server, rows: int) -> AsyncIterator[Spool]:
    url = server.url(server.make())
    with first_steps(pg_migrations, 1):
        await opened(url)
    connection = await asyncpg.connect(
        url, server_settings=postgres.Options(statement_timeout=3600.0).server_settings()
    )
    numbers = f"(SELECT n FROM generate_series(1::bigint, {rows}) n)"  # noqa: S608
    # Without indexes and foreign keys at first: what comes after it makes them at once.
    indexes = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'"
    )
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['indexname']}")
    await connection.execute("SET session_replication_role = replica")
    folded = (", candidate_folded", ", 'jane doe ' || n")
    for statement in statements_of(rows, numbers, r"decode(repeat('00', 200), 'hex')", *folded):
        await connection.execute(statement)
    await connection.execute("SET session_replication_role = DEFAULT")
    for index in indexes:
        await connection.execute(index["indexdef"])
    for table in ("messages", "applications", "reports", "attempts"):
        await connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"  # noqa: S608
        )
    await connection.execute("ANALYZE")
    await opened(url)
    await connection.execute("VACUUM FULL ANALYZE")
    process = connection.get_server_pid()

    known = Rows(rows)

    async def work(name: str) -> None:
        await connection.execute("BEGIN")
        await QUESTIONS[name](POSTGRES, Statements(connection), known)  # type: ignore[arg-type]
        if name in KEPT:
            await connection.execute("COMMIT")

    async def ask(name: str) -> float:
        try:
            return await timed(lambda: work(name), process)
        finally:
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK")

    try:
        yield Spool(rows, ask)
    finally:
        await connection.close()


async def opened(url: str) -> None:
    """Takes the schema's steps."""
    spool = postgres.open_spool(url, options=postgres.Options(statement_timeout=3600.0))
    await spool._door.ask(lambda s: s.one("SELECT 1"))
    await spool.close()


async def timed(ask: Callable[[], Any], server: int | None = None) -> float:
    """The processor's seconds it takes, of this thread and of the server's process: others use the machine as well."""
    began = time.thread_time() + _server_time(server)
    answer = ask()
    if inspect.isawaitable(answer):
        await answer
    return time.thread_time() + _server_time(server) - began


def _server_time(server: int | None) -> float:
    """Seconds a process has been at work (Linux: Documentation/scheduler/sched-stats.rst)."""
    if server is None:
        return 0.0
    return int(Path(f"/proc/{server}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


# --- measuring -------------------------------------------------------------------------------------------------------


async def compared(question: str, few: Spool, many: Spool, rounds: int) -> tuple[float, float]:
    """The medians of both in seconds, asked by turns."""
    times: dict[int, list[float]] = {few.rows: [], many.rows: []}
    for spool in (few, many):  # what is looked up once
        await spool.ask(question)
    for turn in range(rounds):
        for spool in (few, many) if turn % 2 else (many, few):
            times[spool.rows].append(await spool.ask(question))
    return median(times[few.rows]), median(times[many.rows])


async def measure(name: str, few: Spool, many: Spool, rounds: int) -> list[str]:
    """Prints a table; the questions that are not flat."""
    print(f"{name}, milliseconds{'':12}{few.rows:>12,}{many.rows:>12,}{'ratio':>8}", flush=True)
    steep: list[str] = []
    for question in QUESTIONS:
        small, large = await compared(question, few, many, rounds)
        if large > FLAT * small:
            small, large = await compared(question, few, many, rounds)
        steep += [f"{name}: {question}"] if large > FLAT * small else []
        print(f"  {question:32}{small * 1000:12.3f}{large * 1000:12.3f}{large / small:8.2f}", flush=True)
    return steep


async def main(rows: int, rounds: int, databases: list[str]) -> int:
    steep: list[str] = []
    if "sqlite" in databases:
        with tempfile.TemporaryDirectory() as name:
            async with in_sqlite(Path(name), FEW) as few, in_sqlite(Path(name), rows) as many:
                steep += await measure("SQLite", few, many, rounds)
    if "postgres" in databases:
        found = programs()
        if found is None:
            print(MISSING)
            return 1
        server = Server(found)
        try:
            server.start()
            async with in_postgres(server, FEW) as few, in_postgres(server, rows) as many:
                steep += await measure("PostgreSQL", few, many, rounds)
        finally:
            server.remove()
    print(f"above {FLAT}: {', '.join(steep) or 'none'}")
    return 1 if steep else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="applications in the large spool")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each question is asked of each")
    parser.add_argument("--database", action="append", choices=["sqlite", "postgres"], help="only this one")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server goes too
    sys.exit(asyncio.run(main(options.rows, options.rounds, options.database or ["sqlite", "postgres"])))
