"""A long backlog must not slow the spool down: the steps of SQLite's machine that each question takes are counted."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Envelope, Message, Report, ReportState, ReportStatus
from apptrack_ingest.spool import sqlite
from apptrack_ingest.spool.contract import Action, Filter, ReportSettlement, Settlement
from apptrack_ingest.spool.sqlite import counts, hand_off, messages, migrations, people, reports, untrusted

FEW, MANY = 400, 1600
Question = Callable[[sqlite3.Connection], object]


def claim(connection: sqlite3.Connection) -> object:
    return hand_off.claim(connection, worker="w", now=9e9, lease=60, limit=20, room={}, solo=False)


def claim_reports(connection: sqlite3.Connection) -> object:
    return reports.claim(connection, worker="w", now=9e9, lease=60, limit=20, accounts=["acme"])


def settle(connection: sqlite3.Connection) -> object:
    """With all that the triggers do."""
    (claimed,) = hand_off.claim(connection, worker="w", now=9e9, lease=60, limit=1, room={}, solo=False)
    report = Report(0, ReportStatus.SUCCESS, 3000.0)
    return hand_off.settle(connection, claimed, Settlement(Event.DELIVER, "delivered", report=report), now=9e9)


def settle_report(connection: sqlite3.Connection) -> object:
    (claimed,) = reports.claim(connection, worker="w", now=9e9, lease=60, limit=1, accounts=["acme"])
    return reports.settle(connection, claimed, ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=9e9)


def erase(connection: sqlite3.Connection) -> object:
    return messages.erase_finished(connection, before=2000.0, limit=100, now=9e9)


ASKED_OFTEN: dict[str, Question] = {
    "claim": claim,
    "claim_reports": claim_reports,
    "reap": lambda c: hand_off.reap(c, now=1.0, reports_for=[]),
    "erase": erase,
    "delivered_before": lambda c: hand_off.delivered_before(c, "acme", 3),
    "find": lambda c: people.find(c, Filter(limit=20)),
    "story": lambda c: people.story(c, 5),
    "settle": settle,
    "reports-settle": settle_report,
    "next-due": lambda c: counts.next_due(c, now=9e9, accounts=["acme"]),
    "backlog": lambda c: counts.backlog(c, now=9e9),
    "load": untrusted.load,
    "act": lambda c: people.act(c, 1, Action(Event.HOLD, "jo"), now=9e9),
    "put": lambda c: messages.put(
        c, Message(Envelope("", (), "192.0.2.1"), 3001.0, b"raw"), [Arrival("acme", 3, True)]
    ),
}
"""What must cost the same however much waits."""


@contextlib.contextmanager
def filled(path: Path, number: int) -> Iterator[sqlite3.Connection]:
    """A database in which two applications of each applicant wait, and a report of each."""
    with contextlib.closing(sqlite._connect(path)) as connection:
        migrations.migrate(connection)
        connection.execute("BEGIN")
        for n in range(number):
            mail = Message(Envelope("", (), "192.0.2.1"), 3000.0 + n, b"raw")
            messages.put(connection, mail, [Arrival("acme", n // 2, True)])
            reports.insert(connection, n + 1, Report(n // 2, ReportStatus.SUCCESS, 3000.0), 3000.0 + n)
        connection.execute("COMMIT")
        yield connection


def steps(connection: sqlite3.Connection, question: Question) -> int:
    """Tens of virtual machine instructions that a question takes; what it changed is taken back."""
    count = 0

    def one() -> int:
        nonlocal count
        count += 1
        return 0

    connection.execute("BEGIN")
    connection.set_progress_handler(one, 10)
    question(connection)
    connection.set_progress_handler(None, 10)
    connection.execute("ROLLBACK")
    return count


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    directory = tmp_path_factory.mktemp("scale")
    with filled(directory / "few", FEW) as few, filled(directory / "many", MANY) as many:
        yield few, many


@pytest.mark.parametrize("name", ASKED_OFTEN)
def test_what_is_asked_often_costs_the_same_with_any_backlog(
    databases: tuple[sqlite3.Connection, sqlite3.Connection], name: str
) -> None:
    few, many = (steps(connection, ASKED_OFTEN[name]) for connection in databases)
    assert many <= 1.5 * few + 20
