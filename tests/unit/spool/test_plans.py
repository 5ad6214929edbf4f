"""How SQLite finds what it is asked for (EXPLAIN QUERY PLAN): by the index that is meant, never by looking at all rows."""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apptrack_ingest.lifecycle import EarlyRule, Event
from apptrack_ingest.model import HeldReason, Report, ReportState, ReportStatus, State
from apptrack_ingest.spool.contract import Action, Claim, EarlyReport, Facts, Filter, ReportSettlement, Settlement
from apptrack_ingest.spool.sqlite import (
    counts,
    early,
    hand_off,
    messages,
    migrations,
    open_spool,
    outcomes,
    people,
    reports,
    tombstones,
    untrusted,
)

Question = Callable[[sqlite3.Connection], object]
WORK = {"worker": "w", "now": 9e9, "lease": 60.0, "limit": 4}
FACTS = Facts("REF-1", "Jane Doe", "jane@x.example", "Cook", "Seek", "v1:aa")
SUCCESS = Report(1, ReportStatus.SUCCESS, 1000.0)


def settle(connection: sqlite3.Connection) -> None:
    """A claim with an outcome, its facts and its report; then the report's end."""
    for claim in hand_off.claim(connection, **WORK):  # type: ignore[arg-type]
        delivered = Settlement(Event.DELIVER, "delivered", facts=FACTS, report=SUCCESS)
        hand_off.settle(connection, claim, delivered, now=9e9)
    for claimed in reports.claim(connection, accounts=["acme"], **WORK):  # type: ignore[arg-type]
        reports.settle(connection, claimed, ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=9e9)


def renew(connection: sqlite3.Connection) -> None:
    (claim,) = hand_off.claim(connection, **{**WORK, "limit": 1})  # type: ignore[arg-type]
    assert isinstance(claim, Claim)
    hand_off.renew(connection, claim, 9e9)


def crash(connection: sqlite3.Connection) -> None:
    hand_off.claim(connection, **WORK)  # type: ignore[arg-type]
    reports.claim(connection, accounts=["acme"], **WORK)  # type: ignore[arg-type]
    reports.reap(connection, now=9.1e9)
    hand_off.reap(connection, now=9.1e9, reports_for=["acme"])


def decide(connection: sqlite3.Connection) -> None:
    people.act(connection, 3, Action(Event.RETRY, "jo"), now=9e9)
    people.act(connection, 4, Action(Event.ROUTE, "jo", account="acme", applicant_id=1), now=9e9)


def report_waiting(connection: sqlite3.Connection) -> None:
    """Of what waits, and of what was told with a time that is over; and of a failed attempt."""
    rule = EarlyRule(after=60.0, window=10.0)
    early.report_waiting(connection, "acme", rule, now=8e9, limit=4)
    early.report_waiting(connection, "acme", rule, now=8.1e9, limit=4)
    failed = EarlyReport(Report(1, ReportStatus.FAIL, 1000.0), 9.5e9)
    for claim in hand_off.claim(connection, **WORK):  # type: ignore[arg-type]
        hand_off.settle(connection, claim, Settlement(Event.POSTPONE, "x", early=failed), now=9e9)


def tell_again(connection: sqlite3.Connection) -> None:
    """The report of an application, which idibu had confirmed."""
    applicant_id = connection.execute("SELECT applicant_id FROM applications WHERE id = 1").fetchone()[0]
    reports.insert(connection, 1, Report(applicant_id, ReportStatus.SUCCESS, 1000.0), 1000.0)
    report_id = connection.execute("SELECT max(id) FROM reports").fetchone()[0]
    connection.execute("UPDATE reports SET state = 'confirmed' WHERE id = ?", (report_id,))
    outcomes.tell_again(connection, report_id, now=9e9)


QUESTIONS: dict[str, tuple[Question, set[str]]] = {
    "report-waiting": (
        report_waiting,
        {"applications_unannounced", "applications_announced", "applications_delivered", "reports_open"},
    ),
    "claim": (lambda c: hand_off.claim(c, **WORK), {"applications_front", "applications_in_attempt"}),  # type: ignore[arg-type]
    "claim-solo": (lambda c: hand_off.claim(c, solo=True, **WORK), {"applications_front"}),  # type: ignore[arg-type]
    "claim-room": (
        lambda c: hand_off.claim(c, room={"acme": 0}, untrusted=1, **WORK),  # type: ignore[arg-type]
        {"applications_front"},
    ),
    "next-due": (
        lambda c: counts.next_due(c, now=9e9, accounts=["acme"], full=["blue"]),
        {"applications_front", "applications_in_attempt", "reports_due", "reports_in_attempt"},
    ),
    "settle": (
        settle,
        {"applications_front", "attempts_by_application", "attempts_by_report", "reports_open", "reports_due"},
    ),
    "renew": (renew, {"applications_front"}),
    "reap": (crash, {"applications_in_attempt", "reports_in_attempt"}),
    "decide": (decide, set()),
    "delivered-before": (lambda c: hand_off.delivered_before(c, "acme", 3), {"applications_delivered"}),
    "backlog": (lambda c: counts.backlog(c, now=9e9), {"applications_oldest", "reports_oldest"}),
    "load": (untrusted.load, set()),
    "story": (lambda c: people.story(c, 3), {"attempts_by_application", "reports_by_application"}),
    "outcomes": (
        lambda c: outcomes.outcomes(c, "acme", range(9)),
        {"applications_by_applicant", "reports_by_application"},
    ),
    "arrived": (lambda c: outcomes.arrived(c, "acme", range(9)), {"applications_by_applicant"}),
    "tell-again": (tell_again, {"applications_by_applicant", "reports_by_application"}),
    "erase": (lambda c: messages.erase_finished(c, before=8e9, limit=9, now=9e9), {"messages_finished"}),
    "discard": (lambda c: untrusted.discard(c, before=8e9, limit=9, now=9e9), {"applications_expiring"}),
    "tombstones": (lambda c: tombstones.erase(c, before=8e9, limit=9), {"messages_erased"}),
}

FOUND: dict[str, tuple[Filter, set[str]]] = {
    "all": (Filter(), set()),
    "state": (Filter(states=(State.FAILED, State.HELD)), {"applications_by_state"}),
    "reason": (Filter(reasons=(HeldReason.UNTRUSTED,)), {"applications_by_reason"}),
    "reason-of-account": (
        Filter(reasons=(HeldReason.UNTRUSTED,), account="acme"),
        {"applications_by_account_and_reason"},
    ),
    "report": (Filter(report_states=(ReportState.DUE, ReportState.FAILED)), {"reports_by_state"}),
    "report-of-account": (Filter(report_states=(ReportState.DUE,), account="acme"), {"reports_by_account"}),
    "account": (Filter(account="acme"), {"applications_by_account"}),
    "unrouted": (Filter(account=""), {"applications_by_account"}),
    "state-of-account": (Filter(account="acme", states=(State.FAILED,)), {"applications_by_account"}),
    "applicant": (Filter(applicant_id=3, states=(State.FAILED,)), {"applications_by_applicant"}),
    "client-reference": (Filter(client_reference="REF-1", account="acme"), {"applications_by_client_reference"}),
    "portal": (Filter(portal="Seek"), {"applications_by_portal"}),
    "portal-of-account": (Filter(portal="Seek", account="acme"), {"applications_by_account"}),
    "since": (Filter(since=1000.0, until=2000.0), set()),
    "page": (Filter(states=(State.HELD,), before_id=9), {"applications_by_state"}),
    "oldest-first": (Filter(states=(State.HELD,), after_id=9, oldest_first=True), {"applications_by_state"}),
}
"""What is listed, and by which index; without one it is in the order of the ids."""

ROWS = ("applications", "messages", "reports", "attempts", "actions", "bodies")
SMALL = ("applications_in_attempt", "reports_in_attempt")
"""Indexes that hold no more than what is in work, and may be read whole."""


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Some of everything, in a database that has never been analysed: SQLite must find its way without figures."""
    path = tmp_path / "data" / "spool.sqlite3"
    open_spool(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.create_function("fold", 1, lambda text: text.casefold() if text else text)
        migrations.migrate(connection)
        connection.execute("BEGIN")
        for n in range(24):
            _insert(connection, n)
        connection.execute("UPDATE applications SET state = 'failed', due_at = NULL WHERE id IN (3, 13)")
        connection.execute(
            "UPDATE applications SET state = 'held', reason = 'untrusted', due_at = NULL, trusted = 0 WHERE id IN (4, 14)"
        )
        reports.insert(connection, 3, Report(3, ReportStatus.FAIL, 1000.0), 1000.0)
        yield connection


def _insert(connection: sqlite3.Connection, n: int) -> None:
    connection.execute(
        "INSERT INTO messages (received_at, sender, recipients, peer, helo, smtputf8, size, sha256)"
        " VALUES (?, '', '[]', '', '', 0, 3, 'x')",
        (1000.0 + n,),
    )
    account = ("acme", "blue", None)[n % 3]
    connection.execute(
        "INSERT INTO applications (message_id, account, applicant_id, trusted, received_at, due_at)"
        " VALUES (?, ?, ?, 1, ?, ?)",
        (n + 1, account, n // 4, 1000.0 + n, 1000.0 + n),
    )


def plans_of(connection: sqlite3.Connection, question: Question) -> dict[str, list[str]]:
    """The plan of every statement that a question runs, triggers' among them: SQLite explains those of a trigger with the
    statement that fires it."""
    asked: list[str] = []
    connection.set_trace_callback(lambda sql: asked.append(sql) if not sql.startswith("--") else None)
    question(connection)
    connection.set_trace_callback(None)
    wanted = {sql for sql in asked if re.match(r"\s*(SELECT|WITH|UPDATE|DELETE|INSERT)", sql)}
    return {sql: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in wanted}


def looks_at_all(step: str) -> bool:
    """Whether a step reads a whole table or index that grows with the spool."""
    scanned = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
    return bool(scanned and scanned[1] in (*ROWS, *"armnow") and scanned[2] not in SMALL)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_statement_finds_its_rows_by_the_index_that_is_meant(filled: sqlite3.Connection, name: str) -> None:
    question, indexes = QUESTIONS[name]
    plans = plans_of(filled, question)
    steps = [step for plan in plans.values() for step in plan]
    assert plans
    assert [(sql, step) for sql, plan in plans.items() for step in plan if looks_at_all(step)] == []
    assert {index for index in indexes if not any(f"INDEX {index}" in step for step in steps)} == set(), steps


@pytest.mark.parametrize("name", FOUND)
def test_every_list_goes_on_with_the_ids_of_its_index(filled: sqlite3.Connection, name: str) -> None:
    wanted, indexes = FOUND[name]
    plans = plans_of(filled, lambda c: people.find(c, wanted))
    steps = [step for plan in plans.values() for step in plan]
    assert {index for index in indexes if not any(f"INDEX {index}" in step for step in steps)} == set(), steps
    scanned = [step for step in steps if looks_at_all(step)]
    assert scanned == ([] if indexes or name == "since" else ["SCAN a"]), steps
    # Sorted are the answers of the arms, each no longer than the list, and the list; never what an arm looks through.
    assert steps.count("USE TEMP B-TREE FOR ORDER BY") <= 1 + steps.count("CO-ROUTINE arm"), steps


@pytest.mark.parametrize("name", ["claim", "claim-solo", "next-due"])
def test_a_queue_is_read_in_the_order_of_its_index(filled: sqlite3.Connection, name: str) -> None:
    plans = plans_of(filled, QUESTIONS[name][0])
    queues = {sql: plan for sql, plan in plans.items() if "applications_front" in sql}
    assert queues
    assert [step for plan in queues.values() for step in plan if "TEMP B-TREE" in step] == []
