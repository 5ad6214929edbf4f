"""Reports as work: made due with an outcome, claimed, settled, superseded by a newer outcome."""

import json
import sqlite3
from collections.abc import Collection

from apptrack_ingest.errors import LeaseLost
from apptrack_ingest.model import AttemptKind, Report, ReportState
from apptrack_ingest.spool.contract import ReportClaim, ReportSettlement
from apptrack_ingest.spool.rows import ended_badly, report_claim_of
from apptrack_ingest.spool.turns import Share, in_turn


def insert(connection: sqlite3.Connection, application_id: int, report: Report, now: float) -> None:
    """Makes a report due; whatever earlier one of the applicant is not confirmed is superseded by it. Without an account
    there is nobody to tell."""
    connection.execute(_SUPERSEDE, (now, application_id, report.applicant_id))
    connection.execute(
        "INSERT INTO reports (application_id, account, applicant_id, status, remote_id, error_message, date_processed,"
        " created_at, due_at) SELECT id, account, ?, ?, ?, ?, ?, ?, ? FROM applications"
        " WHERE id = ? AND account IS NOT NULL",
        (
            report.applicant_id,
            report.status,
            report.remote_id,
            report.error_message,
            report.date_processed,
            now,
            now,
            application_id,
        ),
    )


_SUPERSEDE = """
UPDATE reports INDEXED BY reports_open SET state = 'superseded', due_at = NULL, settled_at = ?
WHERE account = (SELECT a.account FROM applications a WHERE a.id = ?) AND applicant_id = ?
  AND state IN ('due', 'refused', 'failed')
"""

# A report waits while an older one of its applicant is under way: two in flight could arrive in the wrong order.
FREE = """
r.state = 'due' AND r.in_attempt = 0
  AND NOT EXISTS (SELECT 1 FROM reports o INDEXED BY reports_in_attempt
                  WHERE o.account = r.account AND o.applicant_id = r.applicant_id
                    AND o.id <> r.id AND o.in_attempt = 1 AND o.lease_until > :now)
"""

_PAUSED = "SELECT account FROM pauses WHERE stage = 'report' AND (until IS NULL OR until > ?)"

_QUEUE = f"""
SELECT r.id, r.account, r.due_at, 1 AS believed FROM reports r INDEXED BY reports_due
WHERE r.account = :account AND {FREE} AND r.due_at <= :now ORDER BY r.due_at, r.id
"""  # noqa: S608 - only our own constants

_BUSY = "SELECT account, count(*) FROM reports INDEXED BY reports_in_attempt WHERE in_attempt = 1 GROUP BY account"

_TAKE = """
UPDATE reports SET lease_worker = :worker, lease_token = lease_token + 1, lease_until = :until, attempts = attempts + 1,
    series_from = coalesce(series_from, :now), in_attempt = 1
WHERE id IN (SELECT value FROM json_each(:ids))
RETURNING *, (SELECT a.received_at FROM applications a WHERE a.id = application_id) AS received_at,
    (SELECT a.state = 'received' FROM applications a WHERE a.id = application_id) AS waits
"""


_COUNT = """
INSERT INTO attempts (application_id, report_id, kind, number, token, worker, started_at)
SELECT application_id, id, :kind, attempts, lease_token, :worker, :now FROM reports
WHERE id IN (SELECT value FROM json_each(:ids))
"""


def claim(
    connection: sqlite3.Connection, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
) -> list[ReportClaim]:
    """Takes due reports and counts an attempt of each; the accounts take turns (turns.in_turn)."""
    share = Share(limit, dict(connection.execute(_BUSY).fetchall()), {})
    paused = {row["account"] for row in connection.execute(_PAUSED, (now,))}
    wanted = [account for account in dict.fromkeys(accounts) if account not in paused]
    queues = [connection.execute(_QUEUE, {"account": account, "now": now}) for account in wanted]
    return _take(connection, [row["id"] for row in in_turn(queues, share)], worker, now, lease)


def _take(connection: sqlite3.Connection, ids: list[int], worker: str, now: float, lease: float) -> list[ReportClaim]:
    if not ids:
        return []
    values = {"worker": worker, "now": now, "until": now + lease, "ids": json.dumps(ids), "kind": AttemptKind.REPORT}
    rows = {row["id"]: row for row in connection.execute(_TAKE, values).fetchall()}
    connection.execute(_COUNT, values)
    return [_claimed(rows[report_id]) for report_id in ids]


def _claimed(row: sqlite3.Row) -> ReportClaim:
    return report_claim_of(row, token=row["lease_token"], attempt=row["attempts"], series_from=row["series_from"])


def renew(connection: sqlite3.Connection, claim: ReportClaim, until: float) -> bool:
    """Prolongs the lease; False when it was lost."""
    changed = connection.execute(
        "UPDATE reports SET lease_until = ? WHERE id = ? AND lease_token = ? AND in_attempt = 1",
        (until, claim.report_id, claim.token),
    )
    return changed.rowcount == 1


def settle(
    connection: sqlite3.Connection, claim: ReportClaim, settlement: ReportSettlement, *, now: float
) -> ReportState:
    """Ends the attempt; one superseded meanwhile stays so."""
    row = connection.execute(
        "SELECT state FROM reports WHERE id = ? AND lease_token = ? AND in_attempt = 1", (claim.report_id, claim.token)
    ).fetchone()
    if row is None:
        raise LeaseLost(f"report {claim.report_id}: the lease with token {claim.token} is no longer held")
    superseded = row["state"] == ReportState.SUPERSEDED
    state = ReportState.SUPERSEDED if superseded else settlement.state
    due = state is ReportState.DUE
    connection.execute(
        "UPDATE reports SET state = :state, code = :code, detail = :detail, due_at = :due_at, settled_at = :settled_at,"
        " refused_since = CASE WHEN :refused THEN coalesce(refused_since, :now) ELSE refused_since END,"
        " attempts = attempts - (NOT :counts), in_attempt = 0, lease_worker = NULL, lease_until = NULL WHERE id = :id",
        {
            "state": state,
            "code": settlement.code,
            "detail": settlement.detail,
            "due_at": (settlement.due_at if settlement.due_at is not None else now) if due else None,
            "settled_at": None if due else now,
            "refused": settlement.refused,
            "counts": settlement.counts,
            "now": now,
            "id": claim.report_id,
        },
    )
    end_attempt(connection, claim.report_id, claim.token, settlement.code, settlement.detail, now)
    return state


def end_attempt(connection: sqlite3.Connection, report_id: int, token: int, code: str, detail: str, now: float) -> None:
    """Writes how a report's attempt ended."""
    connection.execute(
        "UPDATE attempts SET ended_at = ?, code = ?, detail = ? WHERE report_id = ? AND token = ? AND ended_at IS NULL",
        (now, code, detail, report_id, token),
    )


def reap(connection: sqlite3.Connection, *, now: float) -> None:
    """Ends attempts nobody holds any more: their reports are due at once (sending again does no harm)."""
    for row in connection.execute(
        "SELECT id, lease_token FROM reports INDEXED BY reports_in_attempt WHERE in_attempt = 1 AND lease_until <= ?",
        (now,),
    ).fetchall():
        end_attempt(connection, row["id"], row["lease_token"], "no-verdict", "the attempt was cut off", now)
        connection.execute(
            "UPDATE reports SET in_attempt = 0, lease_worker = NULL, lease_until = NULL, lease_token = lease_token + 1,"
            " due_at = CASE WHEN state = 'due' THEN ? END WHERE id = ?",
            (now, row["id"]),
        )


def retry(connection: sqlite3.Connection, report_id: int, *, now: float) -> int:
    """Makes a refused or failed report due again; returns its application's id."""
    application_id = _ended_badly(connection, report_id)
    connection.execute(
        "UPDATE reports SET state = 'due', due_at = ?, settled_at = NULL, refused_since = NULL, series_from = NULL,"
        " series_base = attempts WHERE id = ?",
        (now, report_id),
    )
    return application_id


def drop(connection: sqlite3.Connection, report_id: int, *, now: float) -> int:
    """Ends a refused or failed report for good; returns its application's id."""
    application_id = _ended_badly(connection, report_id)
    connection.execute(
        "UPDATE reports SET state = 'superseded', code = 'by-operator', settled_at = ? WHERE id = ?", (now, report_id)
    )
    return application_id


def _ended_badly(connection: sqlite3.Connection, report_id: int) -> int:
    """The application's id of a report that is refused or failed."""
    row = connection.execute("SELECT application_id, state FROM reports WHERE id = ?", (report_id,)).fetchone()
    return ended_badly(row, report_id)
