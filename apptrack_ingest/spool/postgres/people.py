"""What people ask of the spool: find, read the story, decide."""

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool.contract import Action, Filter, Story, Summary
from apptrack_ingest.spool.postgres import reports
from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.rows import decided, no_application, story_of, summary_in

_SUMMARY = """
SELECT * FROM (SELECT a.*,
    (SELECT r.state FROM reports r WHERE r.application_id = a.id ORDER BY r.id DESC LIMIT 1) AS report
FROM applications a) a
"""

_CONDITIONS = {
    "states": "a.state = ANY(:states::text[])",
    "reasons": "a.reason = ANY(:reasons::text[])",
    "report_states": "a.report = ANY(:report_states::text[])",
    "candidate": "strpos(a.candidate_folded, :candidate) > 0",
    "account": "a.account = :account",
    "applicant_id": "a.applicant_id = :applicant_id",
    "client_reference": "a.client_reference = :client_reference",
    "since": "a.received_at >= :since",
    "before_id": "a.id < :before_id",
}


async def find(statements: Statements, wanted: Filter) -> list[Summary]:
    """The applications that match, newest first."""
    given: dict[str, object] = {
        "states": list(wanted.states) or None,
        "reasons": list(wanted.reasons) or None,
        "report_states": list(wanted.report_states) or None,
        "candidate": wanted.candidate.casefold() if wanted.candidate else None,
        "account": wanted.account,
        "applicant_id": wanted.applicant_id,
        "client_reference": wanted.client_reference,
        "since": wanted.since,
        "before_id": wanted.before_id,
    }
    values = {name: value for name, value in given.items() if value is not None}
    where = " AND ".join(_CONDITIONS[name] for name in values) or "true"
    rows = await statements.all(
        f"{_SUMMARY} WHERE {where} ORDER BY a.id DESC LIMIT :limit",
        **values,
        limit=wanted.limit,
    )
    return [summary_in(row) for row in rows]


_HISTORY = (
    "SELECT * FROM attempts WHERE application_id = :id ORDER BY id",
    "SELECT * FROM reports WHERE application_id = :id ORDER BY id",
    "SELECT * FROM actions WHERE application_id = :id ORDER BY id",
)


async def story(statements: Statements, application_id: int) -> Story:
    """Everything known of one application."""
    row = await statements.one(f"{_SUMMARY} WHERE a.id = :id", id=application_id)
    if row is None:
        raise no_application(application_id)
    message = await statements.one("SELECT * FROM messages WHERE id = :id", id=row["message_id"])
    assert message is not None, "a foreign key leads to it"
    attempts, sent, actions = [await statements.all(history, id=application_id) for history in _HISTORY]
    return story_of(row, message, attempts, sent, actions)


async def record(statements: Statements, application_id: int, at: float, actor: str, action: str, note: str) -> None:
    """Keeps who did what, when and why."""
    await statements.run(
        "INSERT INTO actions (application_id, at, actor, action, note) VALUES (:id, :at, :actor, :action, :note)",
        id=application_id,
        at=at,
        actor=actor,
        action=action,
        note=note,
    )


# The message is locked first, and always before its applications: who erases it holds it, and looks again behind the lock.
_LOCK_MESSAGE = """
SELECT m.erased_at FROM messages m WHERE m.id = (SELECT message_id FROM applications WHERE id = :id) FOR UPDATE
"""


async def act(statements: Statements, application_id: int, action: Action, *, now: float) -> State:
    """Carries out a person's decision."""
    if await statements.one(_LOCK_MESSAGE, id=application_id) is None:
        raise no_application(application_id)
    row = await statements.one(
        "SELECT a.id, a.state, a.in_attempt, m.erased_at FROM applications a JOIN messages m ON m.id = a.message_id"
        " WHERE a.id = :id FOR UPDATE OF a",
        id=application_id,
    )
    assert row is not None, "applications are never deleted"
    state = decided(row, action)
    if state is State.RECEIVED:
        await _set_going(statements, application_id, action, now)
    else:
        await _set_aside(statements, application_id, action, state, now)
    await record(statements, application_id, now, action.actor, action.event, action.note)
    if action.report is not None:
        await reports.insert(statements, application_id, action.report, now)
    return state


_SET_GOING = """
UPDATE applications SET state = 'received', reason = NULL, due_at = :now, settled_at = NULL, crashes = 0,
    series_base = attempts, series_from = NULL, vouched = (vouched OR :vouches), again = (delivered_at IS NOT NULL),
    account = coalesce(:account, account), applicant_id = coalesce(:applicant_id, applicant_id) WHERE id = :id
"""


async def _set_going(statements: Statements, application_id: int, action: Action, now: float) -> None:
    """Due at once, with a new series of attempts and a clean slate of crashes. One delivered before can only have come
    here by `retry --again`: that wish outlives a hold or a failure in between."""
    await statements.run(
        _SET_GOING,
        now=now,
        vouches=action.event in (Event.ROUTE, Event.RELEASE),
        account=action.account,
        applicant_id=action.applicant_id,
        id=application_id,
    )


_SET_ASIDE = """
UPDATE applications SET state = :state, reason = :reason, code = 'by-operator', detail = :detail, due_at = NULL,
    settled_at = :now WHERE id = :id
"""


async def _set_aside(statements: Statements, application_id: int, action: Action, state: State, now: float) -> None:
    await statements.run(
        _SET_ASIDE,
        state=state,
        reason=HeldReason.BY_OPERATOR if state is State.HELD else None,
        detail=action.note,
        now=now,
        id=application_id,
    )
