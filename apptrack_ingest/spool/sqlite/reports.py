"""Reports as work: made due with an outcome, claimed, settled, superseded by a newer outcome."""

import sqlite3
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

from apptrack_ingest.errors import LeaseLost
from apptrack_ingest.model import AttemptKind, Report, ReportState
from apptrack_ingest.spool.contract import ReportClaim, ReportSettlement
from apptrack_ingest.spool.rows import ended_badly, report_claim_of
from apptrack_ingest.spool.sqlite.connection import assigned, placeholders
from apptrack_ingest.spool.turns import Share, in_turn


def insert(connection: sqlite3.Connection, application_id: int, report: Report, now: float) -> None:
    """Makes a report due; whatever earlier one of the applicant is not confirmed is superseded by it. Without an account
    there is nobody to tell."""
    row = connection.execute("SELECT account FROM applications WHERE id = ?", (application_id,)).fetchone()
    tell(connection, application_id, row[0] if row else None, report, now)


def tell(connection: sqlite3.Connection, application_id: int, account: str | None, report: Report, now: float) -> None:
    """The same for an application whose account is known."""
    if account is None:
        return
    # An UPDATE that finds nothing takes four times as long as to look.
    if connection.execute(_EARLIER, (account, report.applicant_id)).fetchone() is not None:
        connection.execute(_SUPERSEDE, (now, account, report.applicant_id))
    connection.execute(
        "INSERT INTO reports (application_id, account, applicant_id, status, remote_id, error_message, date_processed,"
        " created_at, due_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            application_id,
            account,
            report.applicant_id,
            str(report.status),
            report.remote_id,
            report.error_message,
            report.date_processed,
            now,
            now,
        ),
    )


_EARLIER = """
SELECT 1 FROM reports INDEXED BY reports_open
WHERE account = ? AND applicant_id = ? AND state IN ('due', 'refused', 'failed') LIMIT 1
"""

_SUPERSEDE = """
UPDATE reports INDEXED BY reports_open SET state = 'superseded', due_at = NULL, settled_at = ?
WHERE account = ? AND applicant_id = ? AND state IN ('due', 'refused', 'failed')
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

_CLAIMED = (
    "id",
    "application_id",
    "account",
    "applicant_id",
    "status",
    "remote_id",
    "error_message",
    "date_processed",
    "created_at",
    "lease_token",
    "attempts",
    "series_base",
    "series_from",
    "refused_since",
    "received_at",
    "waits",
)

_TAKE = f"""
UPDATE reports SET lease_worker = ?, lease_token = lease_token + 1, lease_until = ?, attempts = attempts + 1,
    series_from = coalesce(series_from, ?), in_attempt = 1
WHERE id IN ({{}})
RETURNING {", ".join(_CLAIMED[:-2])}, (SELECT a.received_at FROM applications a WHERE a.id = application_id),
    (SELECT a.state = 'received' FROM applications a WHERE a.id = application_id)
"""  # noqa: S608 - only our own constants

_COUNT = "INSERT INTO attempts (application_id, report_id, kind, number, token, worker, started_at) VALUES "
_COUNTED = f"(?, ?, '{AttemptKind.REPORT}', ?, ?, ?, ?)"


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
    taken = connection.execute(_TAKE.format(placeholders(ids)), (worker, now + lease, now, *ids)).fetchall()
    rows = {row["id"]: row for row in (dict(zip(_CLAIMED, found, strict=True)) for found in taken)}
    counted = [
        (row["application_id"], row["id"], row["attempts"], row["lease_token"], worker, now) for row in rows.values()
    ]
    connection.execute(_COUNT + ", ".join([_COUNTED] * len(counted)), [*chain.from_iterable(counted)])
    return [_claimed(rows[report_id]) for report_id in ids]


def _claimed(row: Mapping[str, Any]) -> ReportClaim:
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
    row = connection.execute(_HELD, (claim.report_id, claim.token)).fetchone()
    if row is None:
        raise LeaseLost(f"report {claim.report_id}: the lease with token {claim.token} is no longer held")
    was, attempts, refused_since = row
    state = ReportState.SUPERSEDED if was == ReportState.SUPERSEDED else settlement.state
    due = state is ReportState.DUE
    columns: dict[str, object] = {
        "state": str(state),
        "code": settlement.code,
        "detail": settlement.detail,
        "due_at": (settlement.due_at if settlement.due_at is not None else now) if due else None,
        "settled_at": None if due else now,
        "in_attempt": 0,
        "lease_worker": None,
        "lease_until": None,
    }
    if settlement.refused and refused_since is None:
        columns["refused_since"] = now
    if not settlement.counts:
        columns["attempts"] = attempts - 1
    setting, values = assigned(columns)
    connection.execute(f"UPDATE reports SET {setting} WHERE id = ?", [*values, claim.report_id])  # noqa: S608 - our names
    end_attempt(connection, claim.report_id, claim.token, settlement.code, settlement.detail, now)
    return state


_HELD = "SELECT state, attempts, refused_since FROM reports WHERE id = ? AND lease_token = ? AND in_attempt = 1"


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
