"""Counts of what the spool holds, and when the next of it is due."""

import json
import sqlite3
from collections.abc import Collection

from apptrack_ingest.model import Backlog, HeldReason, ReportState, State
from apptrack_ingest.spool.contract import Due
from apptrack_ingest.spool.sqlite import hand_off, pauses, reports

_TALLIES = "SELECT account, state, reason, number FROM tallies WHERE subject = ? AND number > 0 ORDER BY 1, 2, 3"

# Of each account that a tally names, one step into the index (which has no type, as the + sees to).
_OLDEST_HAND_OFF = """
SELECT t.account, (SELECT a.received_at FROM applications a INDEXED BY applications_oldest
                   WHERE coalesce(a.account, '') = +t.account AND a.state = 'received' ORDER BY a.received_at LIMIT 1)
FROM tallies t WHERE t.subject = 'applications' AND t.state = 'received' AND t.reason = '' AND t.number > 0
"""

_OLDEST_REPORT = """
SELECT t.account, (SELECT r.created_at FROM reports r INDEXED BY reports_oldest
                   WHERE r.account = t.account AND r.state = 'due' ORDER BY r.created_at LIMIT 1)
FROM tallies t WHERE t.subject = 'reports' AND t.state = 'due' AND t.number > 0
"""


def backlog(connection: sqlite3.Connection, *, now: float) -> Backlog:
    """One look at everything, for metrics, health and digests."""
    applications: dict[tuple[str, State], int] = {}
    held: dict[tuple[str, HeldReason], int] = {}
    for account, state, reason, count in connection.execute(_TALLIES, ("applications",)):
        key = (account, State(state))
        applications[key] = applications.get(key, 0) + count
        if key[1] is State.HELD and reason:
            held[(account, HeldReason(reason))] = count
    reports = connection.execute(_TALLIES, ("reports",))
    pages = connection.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
    return Backlog(
        applications=applications,
        held=held,
        reports={(account, ReportState(state)): count for account, state, _, count in reports},
        oldest_hand_off=dict(connection.execute(_OLDEST_HAND_OFF).fetchall()),
        oldest_report=dict(connection.execute(_OLDEST_REPORT).fetchall()),
        paused=pauses.paused(connection, now),
        size_bytes=int(pages.fetchone()[0]),
    )


# What has to wait for another of its applicant is not due, or a worker would make room for it in vain; so it is with what
# there is no room for. What is paused is due when the pause ends.
_FIRST = f"""
{hand_off.QUEUES}, firsts (account, due_at) AS (
    SELECT q.account, (SELECT a.due_at FROM applications a INDEXED BY applications_front
                       WHERE coalesce(a.account, '') = q.account AND min(a.crashes, 1) = :solo
                         AND (a.trusted OR a.vouched) = b.value AND {hand_off.FREE}
                       ORDER BY a.due_at, a.id LIMIT 1)
    FROM queues q CROSS JOIN json_each(:believed) b
    WHERE q.account IS NOT NULL AND q.account NOT IN (SELECT value FROM json_each(:full))
)
SELECT min(max(f.due_at, coalesce(p.until, f.due_at)))
FROM firsts f LEFT JOIN pauses p ON p.account = f.account AND p.stage = 'hand-off'
WHERE p.account IS NULL OR p.until IS NOT NULL
"""  # noqa: S608 - only our own constants

_FIRST_REPORT = f"""
WITH firsts (account, due_at) AS (
    SELECT w.value, (SELECT r.due_at FROM reports r INDEXED BY reports_due
                     WHERE r.account = w.value AND {reports.FREE} ORDER BY r.due_at, r.id LIMIT 1)
    FROM json_each(:accounts) w
)
SELECT min(max(f.due_at, coalesce(p.until, f.due_at)))
FROM firsts f LEFT JOIN pauses p ON p.account = f.account AND p.stage = 'report'
WHERE p.account IS NULL OR p.until IS NOT NULL
"""  # noqa: S608 - only our own constants

_LEASE_END = """
SELECT min(lease_until) FROM (SELECT lease_until FROM applications INDEXED BY applications_in_attempt WHERE in_attempt = 1
                              UNION ALL SELECT lease_until FROM reports INDEXED BY reports_in_attempt WHERE in_attempt = 1)
"""


def next_due(
    connection: sqlite3.Connection,
    *,
    now: float,
    accounts: Collection[str],
    full: Collection[str] = (),
    untrusted: bool = True,
) -> Due:
    """When something becomes due."""
    queues = {"full": json.dumps(list(full)), "believed": "[1, 0]" if untrusted else "[1]"}

    def first(sql: str, **values: object) -> float | None:
        at: float | None = connection.execute(sql, values).fetchone()[0]
        return at

    return Due(
        hand_off=first(_FIRST, solo=0, **queues),
        solo=first(_FIRST, solo=1, **queues),
        report=first(_FIRST_REPORT, now=now, accounts=json.dumps(list(accounts))),
        lease_end=first(_LEASE_END),
    )
