"""What people ask of the spool: find, read the story, decide."""

import sqlite3

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool import finding
from apptrack_ingest.spool.contract import Action, Facts, Filter, Story, Summary
from apptrack_ingest.spool.finding import Dialect
from apptrack_ingest.spool.rows import decided, must_be_kept, no_application, story_of, summary_in
from apptrack_ingest.spool.sqlite import hand_off, messages, reports

# The index is named, for SQLite knows nothing of how much each would leave.
_DIALECT = Dialect(
    "instr(fold(coalesce(a.candidate_name, '') || char(10) || coalesce(a.candidate_email, '')), :candidate) > 0",
    lambda index: f"INDEXED BY {index}",
)

_HISTORY = (
    "SELECT * FROM attempts WHERE application_id = ?",
    "SELECT * FROM reports WHERE application_id = ?",
    "SELECT * FROM actions WHERE application_id = ?",
)


def find(connection: sqlite3.Connection, wanted: Filter) -> list[Summary]:
    """The applications that match, newest first."""
    return [summary_in(row) for row in connection.execute(*finding.page(wanted, _DIALECT))]


def count(connection: sqlite3.Connection, wanted: Filter) -> int:
    """How many match, whatever the limit."""
    return int(connection.execute(*finding.number(wanted, _DIALECT)).fetchone()[0])


def story(connection: sqlite3.Connection, application_id: int) -> Story:
    """Everything known of one application."""
    row = connection.execute(f"{finding.SUMMARY} FROM applications a WHERE a.id = ?", (application_id,)).fetchone()
    if row is None:
        raise no_application(application_id)
    message = dict(connection.execute("SELECT * FROM messages WHERE id = ?", (row["message_id"],)).fetchone())
    message["sha256"] = message["sha256"] or messages.digest(connection, row["message_id"])
    return story_of(
        row, message, *(connection.execute(f"{history} ORDER BY id", (application_id,)) for history in _HISTORY)
    )


def record(
    connection: sqlite3.Connection,
    application_id: int,
    at: float,
    actor: str,
    action: str,
    note: str,
    order_id: int | None = None,
) -> None:
    """Keeps who did what, when and why."""
    connection.execute(
        "INSERT INTO actions (application_id, at, actor, action, note, order_id) VALUES (?, ?, ?, ?, ?, ?)",
        (application_id, at, actor, action, note, order_id),
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
    record(connection, application_id, now, action.actor, action.event, action.note, action.order_id)
    if action.report is not None:
        reports.insert(connection, application_id, action.report, now)
    return state


def update_facts(connection: sqlite3.Connection, application_id: int, facts: Facts, applicant_id: int | None) -> None:
    """Replaces what was derived from the mail, unless that was erased meanwhile."""
    row = connection.execute(
        "SELECT m.id, m.erased_at FROM applications a JOIN messages m ON m.id = a.message_id WHERE a.id = ?",
        (application_id,),
    ).fetchone()
    must_be_kept(row, application_id)
    hand_off.keep_facts(connection, application_id, facts, applicant_id)


def _set_going(connection: sqlite3.Connection, application_id: int, action: Action, now: float) -> None:
    """Due at once, with a new series of attempts and a clean slate of crashes. One delivered before can only have come
    here by `retry --again`: that wish outlives a hold or a failure in between."""
    vouches = action.event in (Event.ROUTE, Event.RELEASE)
    connection.execute(
        "UPDATE applications SET state = 'received', reason = NULL, due_at = :now, settled_at = NULL, crashes = 0,"
        " series_base = attempts, series_from = NULL, vouched = (vouched OR :vouches),"
        " again = (delivered_at IS NOT NULL), announced_until = NULL, waits_since = :now,"
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
