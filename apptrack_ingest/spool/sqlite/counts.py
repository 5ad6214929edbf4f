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
# there is no room for. What is paused is due when the pause ends. All in one statement: each would begin a transaction of
# its own. Not materialized, a first would be looked for anew wherever its time is mentioned.
_NEXT = f"""
{hand_off.QUEUES}, firsts (account, solo, due_at) AS MATERIALIZED (
    SELECT q.account, s.solo, (SELECT a.due_at FROM applications a INDEXED BY applications_front
                       WHERE coalesce(a.account, '') = q.account AND min(a.crashes, 1) = s.solo
                         AND (a.trusted OR a.vouched) = s.believed AND {hand_off.FREE}
                       ORDER BY a.due_at, a.id LIMIT 1)
    FROM queues q CROSS JOIN (SELECT 0 AS solo, 1 AS believed UNION ALL SELECT 1, 1
                              UNION ALL SELECT 0, 0 WHERE :untrusted UNION ALL SELECT 1, 0 WHERE :untrusted) s
    WHERE q.account IS NOT NULL AND (:full = '[]' OR q.account NOT IN (SELECT value FROM json_each(:full)))
), hand_offs (solo, due_at) AS (
    SELECT f.solo, max(f.due_at, coalesce(p.until, f.due_at))
    FROM firsts f LEFT JOIN pauses p ON p.account = f.account AND p.stage = 'hand-off'
    WHERE p.account IS NULL OR p.until IS NOT NULL
), first_reports (account, due_at) AS (
    SELECT w.value, (SELECT r.due_at FROM reports r INDEXED BY reports_due
                     WHERE r.account = w.value AND {reports.FREE} ORDER BY r.due_at, r.id LIMIT 1)
    FROM json_each(:accounts) w
)
SELECT min(due_at) FILTER (WHERE solo = 0), min(due_at) FILTER (WHERE solo = 1), (
    SELECT min(max(f.due_at, coalesce(p.until, f.due_at)))
    FROM first_reports f LEFT JOIN pauses p ON p.account = f.account AND p.stage = 'report'
    WHERE p.account IS NULL OR p.until IS NOT NULL
), (
    SELECT min(lease_until)
    FROM (SELECT lease_until FROM applications INDEXED BY applications_in_attempt WHERE in_attempt = 1
          UNION ALL SELECT lease_until FROM reports INDEXED BY reports_in_attempt WHERE in_attempt = 1)
) FROM hand_offs
"""  # noqa: S608 - only our own constants


def next_due(
    connection: sqlite3.Connection,
    *,
    now: float,
    accounts: Collection[str],
    full: Collection[str] = (),
    untrusted: bool = True,
) -> Due:
    """When something becomes due."""
    values = {
        "now": now,
        "accounts": json.dumps(list(accounts)),
        "full": json.dumps(list(full)),
        "untrusted": untrusted,
    }
    return Due(*connection.execute(_NEXT, values).fetchone())
