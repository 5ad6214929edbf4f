"""Reports as work: made due with an outcome, claimed, settled, superseded by a newer outcome."""

from collections.abc import Collection

from apptrack_ingest.errors import LeaseLost
from apptrack_ingest.model import AttemptKind, Report, ReportState
from apptrack_ingest.spool.contract import ReportClaim, ReportSettlement
from apptrack_ingest.spool.postgres.door import Record, Statements
from apptrack_ingest.spool.postgres.picking import SPARE, pick
from apptrack_ingest.spool.rows import ended_badly, report_claim_of
from apptrack_ingest.spool.turns import Share

# Two outcomes of one applicant at once (an attempt's, and a person's on another application) would not see each other's
# report, and both would be sent; so the second waits for the first one's commit.
_ONE_AT_A_TIME = (
    "SELECT pg_advisory_xact_lock(hashtextextended('report ' || :applicant_id::bigint || ' ' || :account::text, 0))"
)

_SUPERSEDE = """
UPDATE reports SET state = 'superseded', due_at = NULL, settled_at = :now
WHERE account = :account AND applicant_id = :applicant_id AND state IN ('due', 'refused', 'failed')
"""

_INSERT = """
INSERT INTO reports (application_id, account, applicant_id, status, remote_id, error_message, date_processed, created_at,
    due_at)
VALUES (:application_id, :account, :applicant_id, :status, :remote_id, :error_message, :date_processed, :now, :now)
"""


async def insert(statements: Statements, application_id: int, report: Report, now: float) -> None:
    """Makes a report due; whatever earlier one of the applicant is not confirmed is superseded by it. Without an account
    there is nobody to tell."""
    row = await statements.one("SELECT account FROM applications WHERE id = :id", id=application_id)
    account = row["account"] if row is not None else None
    if account is None:
        return
    values = {"account": account, "applicant_id": report.applicant_id, "now": now}
    await one_at_a_time(statements, account, report.applicant_id)
    await statements.run(_SUPERSEDE, **values)
    await statements.run(
        _INSERT,
        **values,
        application_id=application_id,
        status=report.status,
        remote_id=report.remote_id,
        error_message=report.error_message,
        date_processed=report.date_processed,
    )


async def one_at_a_time(statements: Statements, account: str, applicant_id: int) -> None:
    """From here to the commit nobody else makes a report of this applicant."""
    await statements.one(_ONE_AT_A_TIME, account=account, applicant_id=applicant_id)


# A report waits while an older one of its applicant is under way: two in flight could arrive in the wrong order.
_FREE = """
r.state = 'due' AND NOT r.in_attempt
  AND NOT EXISTS (SELECT 1 FROM reports o
                  WHERE o.account = r.account AND o.applicant_id = r.applicant_id
                    AND o.id <> r.id AND o.in_attempt AND o.lease_until > :now)
"""

FIRST_DUE = f"""
SELECT greatest(first.due_at, p.until) FROM unnest(:accounts::text[]) wanted (account)
LEFT JOIN pauses p ON p.account = wanted.account AND p.stage = 'report'
CROSS JOIN LATERAL (SELECT r.due_at FROM reports r WHERE r.account = wanted.account AND {_FREE}
                    ORDER BY r.due_at, r.id LIMIT 1) first
WHERE p.account IS NULL OR p.until IS NOT NULL
"""  # noqa: S608 - only our own constants

_CLAIMABLE = f"""
WITH open AS (
    SELECT DISTINCT wanted.account FROM unnest(:accounts::text[]) wanted (account)
    WHERE NOT EXISTS (SELECT 1 FROM pauses p WHERE p.account = wanted.account AND p.stage = 'report'
                      AND (p.until IS NULL OR p.until > :now))
), busy AS (
    SELECT w.account, count(*) AS number FROM reports w WHERE w.in_attempt GROUP BY 1
), looked AS (
    SELECT greatest(2, :looked::integer / greatest(count(*), 1)) AS depth FROM open
)
SELECT c.id, q.account, c.due_at, 1 AS believed, coalesce(busy.number, 0) AS busy, (SELECT depth FROM looked) AS depth
FROM open q LEFT JOIN busy ON busy.account = q.account CROSS JOIN LATERAL (
    SELECT r.id, r.due_at FROM reports r
    WHERE r.account = q.account AND {_FREE} AND r.due_at <= :now AND NOT r.id = ANY(:had)
    ORDER BY r.due_at, r.id LIMIT (SELECT depth FROM looked)
) c
ORDER BY c.due_at, c.id
"""  # noqa: S608 - only our own constants

# Of one applicant at most one report is due at any time (`insert` sees to it), and none is put beside another under way but
# by a commit that waited for that one's claim: the lock on the row is enough.
_LOCK = """
SELECT r.id FROM reports r WHERE r.id = ANY(:ids) AND r.state = 'due' AND NOT r.in_attempt FOR UPDATE SKIP LOCKED
"""

_TAKE = f"""
WITH taken AS (
    UPDATE reports SET lease_worker = :worker, lease_token = lease_token + 1, lease_until = :until,
        attempts = attempts + 1, series_from = coalesce(series_from, :now), in_attempt = true
    WHERE id = ANY(:ids) RETURNING *
), counted AS (
    INSERT INTO attempts (application_id, report_id, kind, number, token, worker, started_at)
    SELECT application_id, id, '{AttemptKind.REPORT}', attempts, lease_token, :worker, :now FROM taken
)
SELECT taken.*, a.received_at, a.state = 'received' AS waits FROM taken JOIN applications a ON a.id = taken.application_id
"""  # noqa: S608 - only our own constants


async def claim(
    statements: Statements, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
) -> list[ReportClaim]:
    """Takes due reports and counts an attempt of each, the accounts by turns."""

    async def look(share: Share, had: list[int]) -> list[Record]:
        return await statements.all(_CLAIMABLE, now=now, accounts=list(accounts), had=had, looked=share.limit * SPARE)

    async def lock(ids: list[int]) -> list[Record]:
        return await statements.all(_LOCK, ids=ids)

    locked = await pick(look, lock, Share(limit, {}, {}))
    if not locked:
        return []
    rows = await statements.all(_TAKE, ids=locked, worker=worker, now=now, until=now + lease)
    taken = sorted(rows, key=lambda row: locked.index(row["id"]))
    return [
        report_claim_of(row, token=row["lease_token"], attempt=row["attempts"], series_from=row["series_from"])
        for row in taken
    ]


async def renew(statements: Statements, claims: Collection[ReportClaim], until: float) -> set[tuple[int, int]]:
    """Prolongs leases; the id and token of each that is still held."""
    rows = await statements.all(
        "UPDATE reports r SET lease_until = :until FROM unnest(:ids::bigint[], :tokens::bigint[]) c (id, token)"
        " WHERE r.id = c.id AND r.lease_token = c.token AND r.in_attempt RETURNING r.id, c.token",
        until=until,
        ids=[claim.report_id for claim in claims],
        tokens=[claim.token for claim in claims],
    )
    return {(row["id"], row["token"]) for row in rows}


# --- outcomes --------------------------------------------------------------------------------------------------------

_SETTLE = """
UPDATE reports SET state = :state, code = :code, detail = :detail, due_at = :due_at, settled_at = :settled_at,
    refused_since = CASE WHEN :refused::boolean THEN coalesce(refused_since, :now) ELSE refused_since END,
    attempts = attempts - CASE WHEN :counts::boolean THEN 0 ELSE 1 END,
    in_attempt = false, lease_worker = NULL, lease_until = NULL WHERE id = :id
"""


async def is_held(statements: Statements, claim: ReportClaim, worker: str) -> bool:
    """Whether it is this worker that holds the claim's lease; until the transaction ends nobody can take it over."""
    row = await statements.one(
        "SELECT 1 FROM reports WHERE id = :id AND lease_token = :token AND lease_worker = :worker AND in_attempt FOR UPDATE",
        id=claim.report_id,
        token=claim.token,
        worker=worker,
    )
    return row is not None


async def settle(
    statements: Statements, claim: ReportClaim, settlement: ReportSettlement, *, now: float
) -> ReportState:
    """Ends the attempt; one superseded meanwhile stays so."""
    row = await statements.one(
        "SELECT state FROM reports WHERE id = :id AND lease_token = :token AND in_attempt FOR UPDATE",
        id=claim.report_id,
        token=claim.token,
    )
    if row is None:
        raise LeaseLost(f"report {claim.report_id}: the lease with token {claim.token} is no longer held")
    state = ReportState.SUPERSEDED if row["state"] == ReportState.SUPERSEDED else settlement.state
    due = state is ReportState.DUE
    await statements.run(
        _SETTLE,
        state=state,
        code=settlement.code,
        detail=settlement.detail,
        due_at=(settlement.due_at if settlement.due_at is not None else now) if due else None,
        settled_at=None if due else now,
        refused=settlement.refused,
        counts=settlement.counts,
        now=now,
        id=claim.report_id,
    )
    await _end_attempt(statements, claim.report_id, claim.token, settlement.code, settlement.detail, now)
    return state


async def _end_attempt(statements: Statements, report_id: int, token: int, code: str, detail: str, now: float) -> None:
    await statements.run(
        "UPDATE attempts SET ended_at = :now, code = :code, detail = :detail WHERE application_id ="
        " (SELECT application_id FROM reports WHERE id = :id) AND report_id = :id AND token = :token AND ended_at IS NULL",
        now=now,
        code=code,
        detail=detail,
        id=report_id,
        token=token,
    )


async def reap(statements: Statements, *, now: float) -> None:
    """Ends attempts nobody holds any more: their reports are due at once (sending again does no harm)."""
    rows = await statements.all(
        "SELECT id, lease_token FROM reports WHERE in_attempt AND lease_until <= :now ORDER BY id"
        " FOR UPDATE SKIP LOCKED",
        now=now,
    )
    for row in rows:
        await _end_attempt(statements, row["id"], row["lease_token"], "no-verdict", "the attempt was cut off", now)
    await statements.run(
        "UPDATE reports SET in_attempt = false, lease_worker = NULL, lease_until = NULL, lease_token = lease_token + 1,"
        " due_at = CASE WHEN state = 'due' THEN :now::double precision END WHERE id = ANY(:ids)",
        now=now,
        ids=[row["id"] for row in rows],
    )


async def retry(statements: Statements, report_id: int, *, now: float) -> int:
    """Makes a refused or failed report due again; returns its application's id."""
    application_id = await _ended_badly(statements, report_id)
    await statements.run(
        "UPDATE reports SET state = 'due', due_at = :now, settled_at = NULL, refused_since = NULL, series_from = NULL,"
        " series_base = attempts WHERE id = :id",
        now=now,
        id=report_id,
    )
    return application_id


async def drop(statements: Statements, report_id: int, *, now: float) -> int:
    """Ends a refused or failed report for good; returns its application's id."""
    application_id = await _ended_badly(statements, report_id)
    await statements.run(
        "UPDATE reports SET state = 'superseded', code = 'by-operator', settled_at = :now WHERE id = :id",
        now=now,
        id=report_id,
    )
    return application_id


async def _ended_badly(statements: Statements, report_id: int) -> int:
    """The application's id of a report that is refused or failed, and that stays so until the commit."""
    row = await statements.one("SELECT application_id, state FROM reports WHERE id = :id FOR UPDATE", id=report_id)
    return ended_badly(row, report_id)
