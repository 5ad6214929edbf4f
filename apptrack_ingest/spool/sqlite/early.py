"""Reports made before there is an outcome: of what failed once, or has waited for long."""

import sqlite3
from collections.abc import Iterator

from apptrack_ingest.lifecycle import EarlyRule
from apptrack_ingest.spool.records import EarlyReport
from apptrack_ingest.spool.sqlite import reports

# Whom the ATS has got already is not reported as a fail for an update that has to wait.
_DELIVERED = """
EXISTS (SELECT 1 FROM applications o INDEXED BY applications_delivered
        WHERE o.account = a.account AND o.applicant_id = a.applicant_id AND o.delivered_at IS NOT NULL)
"""

_WAITING = f"""
SELECT a.id, a.applicant_id, a.series_from, a.attempts - a.in_attempt > a.series_base AS tried
FROM applications a INDEXED BY applications_unannounced
WHERE a.account = :account AND a.state = 'received' AND a.behind = 0 AND a.applicant_id IS NOT NULL
  AND (a.trusted OR a.vouched) AND a.announced_until IS NULL
  AND coalesce(a.waits_since, a.received_at) <= :before AND NOT {_DELIVERED}
ORDER BY coalesce(a.waits_since, a.received_at), a.id LIMIT :limit
"""  # noqa: S608 - only our own constants

_OVER = f"""
SELECT a.id, a.applicant_id, a.series_from, a.attempts - a.in_attempt > a.series_base AS tried
FROM applications a INDEXED BY applications_announced
WHERE a.account = :account AND a.state = 'received' AND a.announced_until IS NOT NULL AND a.announced_until <= :now
  AND a.behind = 0 AND a.applicant_id IS NOT NULL AND (a.trusted OR a.vouched) AND NOT {_DELIVERED}
ORDER BY a.announced_until, a.id LIMIT :limit
"""  # noqa: S608 - only our own constants


def report_waiting(connection: sqlite3.Connection, account: str, rule: EarlyRule, *, now: float, limit: int) -> int:
    """Makes the early reports due that the rule asks for now; returns how many."""
    rows = list(_due(connection, account, rule, now, limit))
    for row in sorted(rows, key=lambda row: (row["applicant_id"], row["id"])):
        until = rule.until(row["series_from"], now)
        report = rule.report(row["applicant_id"], until, now, tried=bool(row["tried"]))
        _announce(connection, row["id"], EarlyReport(report, until), now)
    return len(rows)


def _due(
    connection: sqlite3.Connection, account: str, rule: EarlyRule, now: float, limit: int
) -> Iterator[sqlite3.Row]:
    values = {"account": account, "now": now, "limit": limit}
    if rule.wanted:
        yield from connection.execute(_OVER, values).fetchall()
    if rule.after is not None:
        yield from connection.execute(_WAITING, {**values, "before": now - rule.after}).fetchall()


_QUIET = f"""
SELECT a.account IS NULL OR a.announced_until > :now OR {_DELIVERED} FROM applications a WHERE a.id = :id
"""  # noqa: S608 - only our own constants


def report_failed(connection: sqlite3.Connection, application_id: int, early: EarlyReport, now: float) -> None:
    """Makes the early report of a failed attempt due, unless what idibu was told still holds."""
    (quiet,) = connection.execute(_QUIET, {"id": application_id, "now": now}).fetchone()
    if not quiet:
        _announce(connection, application_id, early, now)


def _announce(connection: sqlite3.Connection, application_id: int, early: EarlyReport, now: float) -> None:
    reports.insert(connection, application_id, early.report, now)
    connection.execute("UPDATE applications SET announced_until = ? WHERE id = ?", (early.until, application_id))
