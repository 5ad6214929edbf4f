"""What people ask of the spool: find, read the story, decide."""

import json
import sqlite3

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool.contract import Action, Filter, Story, Summary
from apptrack_ingest.spool.rows import decided, no_application, story_of, summary_in
from apptrack_ingest.spool.sqlite import reports

_SUMMARY = """
SELECT a.*, (SELECT r.state FROM reports r WHERE r.application_id = a.id ORDER BY r.id DESC LIMIT 1) AS report
FROM applications a
"""

_HISTORY = (
    "SELECT * FROM attempts WHERE application_id = ?",
    "SELECT * FROM reports WHERE application_id = ?",
    "SELECT * FROM actions WHERE application_id = ?",
)


def find(connection: sqlite3.Connection, wanted: Filter) -> list[Summary]:
    """The applications that match, newest first."""
    where, values = _conditions(wanted)
    rows = connection.execute(f"{_SUMMARY} WHERE {where} ORDER BY a.id DESC LIMIT ?", [*values, wanted.limit])
    return [summary_in(row) for row in rows]


def _conditions(wanted: Filter) -> tuple[str, list[object]]:
    """SQL made of our own constants, with the values apart."""
    parts: list[tuple[str, object]] = []
    if wanted.states:
        parts.append(("a.state IN (SELECT value FROM json_each(?))", json.dumps(wanted.states)))
    if wanted.reasons:
        parts.append(("a.reason IN (SELECT value FROM json_each(?))", json.dumps(wanted.reasons)))
    if wanted.report_states:
        parts.append(("report IN (SELECT value FROM json_each(?))", json.dumps(wanted.report_states)))
    if wanted.candidate:
        parts.append(
            (
                "instr(fold(coalesce(a.candidate_name, '') || char(10) || coalesce(a.candidate_email, '')), fold(?)) > 0",
                wanted.candidate,
            )
        )
    for condition, value in (
        ("a.account = ?", wanted.account),
        ("a.applicant_id = ?", wanted.applicant_id),
        ("a.client_reference = ?", wanted.client_reference),
        ("a.received_at >= ?", wanted.since),
        ("a.id < ?", wanted.before_id),
    ):
        if value is not None:
            parts.append((condition, value))
    return " AND ".join(condition for condition, _ in parts) or "1", [value for _, value in parts]


def story(connection: sqlite3.Connection, application_id: int) -> Story:
    """Everything known of one application."""
    row = connection.execute(f"{_SUMMARY} WHERE a.id = ?", (application_id,)).fetchone()
    if row is None:
        raise no_application(application_id)
    message = connection.execute("SELECT * FROM messages WHERE id = ?", (row["message_id"],)).fetchone()
    return story_of(
        row, message, *(connection.execute(f"{history} ORDER BY id", (application_id,)) for history in _HISTORY)
    )


def record(connection: sqlite3.Connection, application_id: int, at: float, actor: str, action: str, note: str) -> None:
    """Keeps who did what, when and why."""
    connection.execute(
        "INSERT INTO actions (application_id, at, actor, action, note) VALUES (?, ?, ?, ?, ?)",
        (application_id, at, actor, action, note),
    )


def act(connection: sqlite3.Connection, application_id: int, action: Action, *, now: float) -> State:
    """Carries out a person's decision."""
    row = connection.execute(
        "SELECT a.*, m.erased_at FROM applications a JOIN messages m ON m.id = a.message_id WHERE a.id = ?",
        (application_id,),
    ).fetchone()
    if row is None:
        raise no_application(application_id)
    state = decided(row, action)
    if state is State.RECEIVED:
        _set_going(connection, application_id, action, now)
    else:
        _set_aside(connection, application_id, action, state, now)
    record(connection, application_id, now, action.actor, action.event, action.note)
    if action.report is not None:
        reports.insert(connection, application_id, action.report, now)
    return state


def _set_going(connection: sqlite3.Connection, application_id: int, action: Action, now: float) -> None:
    """Due at once, with a new series of attempts and a clean slate of crashes. One delivered before can only have come
    here by `retry --again`: that wish outlives a hold or a failure in between."""
    vouches = action.event in (Event.ROUTE, Event.RELEASE)
    connection.execute(
        "UPDATE applications SET state = 'received', reason = NULL, due_at = :now, settled_at = NULL, crashes = 0,"
        " series_base = attempts, series_from = NULL, vouched = (vouched OR :vouches),"
        " again = (delivered_at IS NOT NULL),"
        " account = coalesce(:account, account), applicant_id = coalesce(:applicant_id, applicant_id) WHERE id = :id",
        {
            "now": now,
            "vouches": vouches,
            "account": action.account,
            "applicant_id": action.applicant_id,
            "id": application_id,
        },
    )


def _set_aside(connection: sqlite3.Connection, application_id: int, action: Action, state: State, now: float) -> None:
    connection.execute(
        "UPDATE applications SET state = ?, reason = ?, code = ?, detail = ?, due_at = NULL, settled_at = ? WHERE id = ?",
        (
            state,
            HeldReason.BY_OPERATOR if state is State.HELD else None,
            "by-operator",
            action.note,
            now,
            application_id,
        ),
    )
