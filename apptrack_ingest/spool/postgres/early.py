"""Reports made before there is an outcome: of what failed once, or has waited for long."""

from apptrack_ingest.lifecycle import EarlyRule
from apptrack_ingest.spool.postgres import reports
from apptrack_ingest.spool.postgres.door import Record, Statements
from apptrack_ingest.spool.records import EarlyReport

# Whom the ATS has got already is not reported as a fail for an update that has to wait.
_DELIVERED = """
EXISTS (SELECT 1 FROM applications o
        WHERE o.account = a.account AND o.applicant_id = a.applicant_id AND o.delivered_at IS NOT NULL)
"""

# A row that is being settled at this moment is left to whoever does: what is told is the outcome.
_WAITING = f"""
SELECT a.id, a.applicant_id, a.series_from, a.attempts - a.in_attempt::integer > a.series_base AS tried
FROM applications a
WHERE a.account = :account AND a.state = 'received' AND NOT a.behind AND a.applicant_id IS NOT NULL
  AND (a.trusted OR a.vouched) AND a.announced_until IS NULL
  AND coalesce(a.waits_since, a.received_at) <= :before AND NOT {_DELIVERED}
ORDER BY coalesce(a.waits_since, a.received_at), a.id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - only our own constants

_OVER = f"""
SELECT a.id, a.applicant_id, a.series_from, a.attempts - a.in_attempt::integer > a.series_base AS tried
FROM applications a
WHERE a.account = :account AND a.state = 'received' AND a.announced_until IS NOT NULL AND a.announced_until <= :now
  AND NOT a.behind AND a.applicant_id IS NOT NULL AND (a.trusted OR a.vouched) AND NOT {_DELIVERED}
ORDER BY a.announced_until, a.id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - only our own constants

# Asked behind the lock on the applicant's reports: another application of the same one may have been delivered since.
_QUIET = f"""
SELECT coalesce(a.announced_until > :now, false) OR {_DELIVERED} AS quiet FROM applications a WHERE a.id = :id
"""  # noqa: S608 - only our own constants


async def report_waiting(statements: Statements, account: str, rule: EarlyRule, *, now: float, limit: int) -> int:
    """Makes the early reports due that the rule asks for now; returns how many."""
    told = 0
    for row in await _due(statements, account, rule, now, limit):
        until = rule.until(row["series_from"], now)
        report = rule.report(row["applicant_id"], until, now, tried=row["tried"])
        told += await _announce(statements, account, row["id"], EarlyReport(report, until), now)
    return told


async def _due(statements: Statements, account: str, rule: EarlyRule, now: float, limit: int) -> list[Record]:
    """Sorted by applicant, so that of several who do this at once none waits for another in a circle."""
    rows = await statements.all(_OVER, account=account, now=now, limit=limit) if rule.wanted else []
    if rule.after is not None:
        rows = [*rows, *await statements.all(_WAITING, account=account, before=now - rule.after, limit=limit)]
    return sorted(rows, key=lambda row: (row["applicant_id"], row["id"]))


async def report_failed(statements: Statements, application_id: int, early: EarlyReport, now: float) -> None:
    """Makes the early report of a failed attempt due, unless what idibu was told still holds."""
    row = await statements.one("SELECT account FROM applications WHERE id = :id", id=application_id)
    if row is not None and row["account"] is not None:
        await _announce(statements, row["account"], application_id, early, now)


async def _announce(statements: Statements, account: str, application_id: int, early: EarlyReport, now: float) -> bool:
    await reports.one_at_a_time(statements, account, early.report.applicant_id)
    row = await statements.one(_QUIET, id=application_id, now=now)
    if row is None or row["quiet"]:
        return False
    await reports.insert(statements, application_id, early.report, now)
    await statements.run(
        "UPDATE applications SET announced_until = :until WHERE id = :id", until=early.until, id=application_id
    )
    return True
