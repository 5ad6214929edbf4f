"""Counts of what the spool holds, and when the next of it is due."""

from collections.abc import Collection

from apptrack_ingest.model import Backlog, HeldReason, ReportState, State
from apptrack_ingest.spool.contract import Due
from apptrack_ingest.spool.postgres import hand_off, reports
from apptrack_ingest.spool.postgres.door import Statements

_APPLICATIONS = """
SELECT coalesce(account, '') AS account, state, reason, count(*) AS count
FROM applications GROUP BY applications.account, state, reason
"""

_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(name)), 0)::bigint AS bytes
FROM unnest('{messages, bodies, applications, reports, attempts, actions}'::regclass[]) name
"""


async def backlog(statements: Statements) -> Backlog:
    """One look at everything, for metrics, health and digests."""
    applications: dict[tuple[str, State], int] = {}
    held: dict[tuple[str, HeldReason], int] = {}
    for account, state, reason, count in await statements.all(_APPLICATIONS):
        key = (account, State(state))
        applications[key] = applications.get(key, 0) + count
        if key[1] is State.HELD and reason:
            held[(account, HeldReason(reason))] = count
    counted = await statements.all("SELECT account, state, count(*) FROM reports GROUP BY account, state")
    paused = await statements.all("SELECT account FROM pauses")
    size = await statements.one(_SIZE)
    return Backlog(
        applications=applications,
        held=held,
        reports={(account, ReportState(state)): count for account, state, count in counted},
        oldest_hand_off=await _oldest(statements, "applications", "received_at", State.RECEIVED),
        oldest_report=await _oldest(statements, "reports", "created_at", ReportState.DUE),
        paused=frozenset(row["account"] for row in paused),
        size_bytes=size["bytes"] if size is not None else 0,
    )


async def _oldest(statements: Statements, table: str, column: str, state: str) -> dict[str, float]:
    rows = await statements.all(
        f"SELECT coalesce(account, '') AS account, min({column}) AS oldest FROM {table} WHERE state = :state"  # noqa: S608
        f" GROUP BY {table}.account",
        state=state,
    )
    return {row["account"]: row["oldest"] for row in rows}


# What has to wait for another of its applicant is not due, or a worker would make room for it in vain.
_FIRST = """
(SELECT min(c.due_at) FROM queues q CROSS JOIN LATERAL (
    {first_free} AND least(a.crashes, 1) = {solo} ORDER BY a.due_at, a.id LIMIT 1) c WHERE q.account IS NOT NULL)
"""

_NEXT = f"""
{hand_off.QUEUES}
SELECT {_FIRST.format(first_free=hand_off.FIRST_FREE, solo=0)} AS hand_off,
    {_FIRST.format(first_free=hand_off.FIRST_FREE, solo=1)} AS solo,
    (SELECT min(due.at) FROM ({reports.FIRST_DUE}) due (at)) AS report,
    least((SELECT min(lease_until) FROM applications WHERE in_attempt),
          (SELECT min(lease_until) FROM reports WHERE in_attempt)) AS lease_end
"""  # noqa: S608 - only our own constants


async def next_due(statements: Statements, *, now: float, accounts: Collection[str]) -> Due:
    """When something becomes due."""
    row = await statements.one(_NEXT, now=now, accounts=list(accounts))
    return Due(**dict(row)) if row is not None else Due()
