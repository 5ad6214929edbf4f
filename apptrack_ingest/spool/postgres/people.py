"""What people ask of the spool: find, read the story, decide."""

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool import finding
from apptrack_ingest.spool.contract import Action, Facts, Filter, Story, Summary
from apptrack_ingest.spool.finding import Dialect
from apptrack_ingest.spool.postgres import hand_off, reports
from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.rows import decided, must_be_kept, no_application, story_of, summary_in

_DIALECT = Dialect(
    "strpos(a.candidate_folded, :candidate) > 0",
    less={
        "applications_by_account": 1,
        "applications_by_state": 2,
        "applications_by_portal": 3,
        "applications_by_reason": 4,
        "applications_by_account_and_reason": 5,
        "applications_by_client_reference": 6,
        "reports_by_account": 1,
        "reports_by_state": 2,
    },
    late=1000,
)


async def find(statements: Statements, wanted: Filter) -> list[Summary]:
    """The applications that match, newest first."""
    sql, values = finding.page(wanted, _DIALECT)
    return [summary_in(row) for row in await statements.all(sql, **values)]


async def count(statements: Statements, wanted: Filter) -> int:
    """How many match, whatever the limit."""
    sql, values = finding.number(wanted, _DIALECT)
    row = await statements.one(sql, **values)
    return int(row["number"]) if row is not None else 0


_HISTORY = (
    "SELECT * FROM attempts WHERE application_id = :id ORDER BY id",
    "SELECT * FROM reports WHERE application_id = :id ORDER BY id",
    "SELECT * FROM actions WHERE application_id = :id ORDER BY id",
)


async def story(statements: Statements, application_id: int) -> Story:
    """Everything known of one application."""
    row = await statements.one(f"{finding.SUMMARY} FROM applications a WHERE a.id = :id", id=application_id)
    if row is None:
        raise no_application(application_id)
    message = await statements.one("SELECT * FROM messages WHERE id = :id", id=row["message_id"])
    assert message is not None, "a foreign key leads to it"
    attempts, sent, actions = [await statements.all(history, id=application_id) for history in _HISTORY]
    return story_of(row, message, attempts, sent, actions)


async def record(
    statements: Statements,
    application_id: int,
    at: float,
    actor: str,
    action: str,
    note: str,
    order_id: int | None = None,
) -> None:
    """Keeps who did what, when and why."""
    await statements.run(
        "INSERT INTO actions (application_id, at, actor, action, note, order_id)"
        " VALUES (:id, :at, :actor, :action, :note, :order_id)",
        id=application_id,
        at=at,
        actor=actor,
        action=action,
        note=note,
        order_id=order_id,
    )


# The message is locked first, and always before its applications: who erases it holds it, and looks again behind the lock.
_LOCK_MESSAGE = """
SELECT m.id, m.erased_at FROM messages m WHERE m.id = (SELECT message_id FROM applications WHERE id = :id) FOR UPDATE
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
    assert row is not None, "no application goes while its message is locked"
    state = decided(row, action)
    if state is State.RECEIVED:
        await _set_going(statements, application_id, action, now)
    else:
        await _set_aside(statements, application_id, action, state, now)
    await record(statements, application_id, now, action.actor, action.event, action.note, action.order_id)
    if action.report is not None:
        await reports.insert(statements, application_id, action.report, now)
    return state


async def update_facts(statements: Statements, application_id: int, facts: Facts, applicant_id: int | None) -> None:
    """Replaces what was derived from the mail, unless that was erased meanwhile."""
    must_be_kept(await statements.one(_LOCK_MESSAGE, id=application_id), application_id)
    await hand_off.keep_facts(statements, application_id, facts, applicant_id)


_SET_GOING = """
UPDATE applications SET state = 'received', reason = NULL, due_at = :now, settled_at = NULL, crashes = 0,
    series_base = attempts, series_from = NULL, vouched = (vouched OR :vouches), again = (delivered_at IS NOT NULL),
    announced_until = NULL, waits_since = :now,
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
