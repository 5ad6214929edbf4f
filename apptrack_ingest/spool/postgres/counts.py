"""Counts of what the spool holds, and when the next of it is due."""

from collections.abc import Collection, Mapping

from apptrack_ingest.model import Backlog, HeldReason, ReportState, State
from apptrack_ingest.spool.contract import Due
from apptrack_ingest.spool.postgres import hand_off, pauses
from apptrack_ingest.spool.postgres import reports as report_work
from apptrack_ingest.spool.postgres.door import Statements

_TALLIES = """
SELECT account, state, reason, sum(number)::bigint AS number FROM (
    SELECT * FROM tallies WHERE subject = :subject UNION ALL SELECT * FROM tally_changes WHERE subject = :subject) every
GROUP BY account, state, reason HAVING sum(number) > 0 ORDER BY account, state, reason
"""

_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(name)), 0)::bigint AS bytes
FROM unnest('{messages, bodies, applications, reports, attempts, actions}'::regclass[]) name
"""


# Of each account, one step into the index.
_OLDEST_HAND_OFF = """
SELECT account, (SELECT a.received_at FROM applications a WHERE coalesce(a.account, '') = wanted.account
                   AND a.state = 'received' ORDER BY a.received_at LIMIT 1) AS oldest
FROM unnest(:accounts::text[]) wanted (account)
"""

_OLDEST_REPORT = """
SELECT account, (SELECT r.created_at FROM reports r WHERE r.account = wanted.account AND r.state = 'due'
                 ORDER BY r.created_at LIMIT 1) AS oldest
FROM unnest(:accounts::text[]) wanted (account)
"""


async def backlog(statements: Statements, *, now: float) -> Backlog:
    """One look at everything, for metrics, health and digests."""
    applications: dict[tuple[str, State], int] = {}
    held: dict[tuple[str, HeldReason], int] = {}
    for account, state, reason, count in await statements.all(_TALLIES, subject="applications"):
        key = (account, State(state))
        applications[key] = applications.get(key, 0) + count
        if key[1] is State.HELD and reason:
            held[(account, HeldReason(reason))] = count
    counted = await statements.all(_TALLIES, subject="reports")
    reports = {(account, ReportState(state)): count for account, state, _, count in counted}
    size = await statements.one(_SIZE)
    return Backlog(
        applications=applications,
        held=held,
        reports=reports,
        oldest_hand_off=await _oldest(statements, _OLDEST_HAND_OFF, applications, State.RECEIVED),
        oldest_report=await _oldest(statements, _OLDEST_REPORT, reports, ReportState.DUE),
        paused=await pauses.paused(statements, now),
        size_bytes=size["bytes"] if size is not None else 0,
    )


Counted = Mapping[tuple[str, State], int] | Mapping[tuple[str, ReportState], int]


async def _oldest(
    statements: Statements,
    sql: str,
    counted: Mapping[tuple[str, State], int] | Mapping[tuple[str, ReportState], int],
    wanted: str,
) -> dict[str, float]:
    accounts = [account for account, state in counted if state == wanted]
    return dict(await statements.all(sql, accounts=accounts))  # type: ignore[arg-type] # rows of two


_SUM_UP = """
WITH alone AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(hashtextextended('tallies', 0))
        AND (SELECT count(*) FROM (SELECT 1 FROM tally_changes LIMIT :at_least) first) = :at_least AS so
), gone AS (
    DELETE FROM tally_changes WHERE (SELECT so FROM alone)
        AND ctid = ANY(ARRAY(SELECT ctid FROM tally_changes LIMIT :at_most)) RETURNING *
)
INSERT INTO tallies (subject, account, state, reason, number, bytes)
    SELECT subject, account, state, reason, sum(number), sum(bytes) FROM gone GROUP BY 1, 2, 3, 4
ON CONFLICT (subject, account, state, reason)
    DO UPDATE SET number = tallies.number + excluded.number, bytes = tallies.bytes + excluded.bytes
"""

AT_LEAST, AT_MOST = 1000, 50_000
"""How many changes are summed up at once: fewer are read as they are, more would take long."""


async def sum_up(statements: Statements) -> None:
    """Adds the changes to the tallies, unless they are few or another does it at this moment."""
    await statements.run(_SUM_UP, at_least=AT_LEAST, at_most=AT_MOST)


# What has to wait for another of its applicant is not due, or a worker would make room for it in vain; so it is with what
# there is no room for. What is paused is due when the pause ends.
_FIRST = """
(SELECT min(greatest(c.due_at, p.until))
 FROM queues q LEFT JOIN pauses p ON p.account = q.account AND p.stage = 'hand-off'
 CROSS JOIN unnest(:believed::integer[]) b (believed) CROSS JOIN LATERAL (
    {first_free} AND least(a.crashes, 1) = {solo} ORDER BY a.due_at, a.id LIMIT 1) c
 WHERE q.account IS NOT NULL AND NOT q.account = ANY(:full::text[]) AND (p.account IS NULL OR p.until IS NOT NULL))
"""

_NEXT = f"""
{hand_off.QUEUES}
SELECT {_FIRST.format(first_free=hand_off.FIRST_FREE, solo=0)} AS hand_off,
    {_FIRST.format(first_free=hand_off.FIRST_FREE, solo=1)} AS solo,
    (SELECT min(due.at) FROM ({report_work.FIRST_DUE}) due (at)) AS report,
    least((SELECT min(lease_until) FROM applications WHERE in_attempt),
          (SELECT min(lease_until) FROM reports WHERE in_attempt)) AS lease_end
"""  # noqa: S608 - only our own constants


async def next_due(
    statements: Statements,
    *,
    now: float,
    accounts: Collection[str],
    full: Collection[str] = (),
    untrusted: bool = True,
) -> Due:
    """When something becomes due."""
    believed = [1, 0] if untrusted else [1]
    row = await statements.one(_NEXT, now=now, accounts=list(accounts), full=list(full), believed=believed)
    return Due(**dict(row)) if row is not None else Due()
