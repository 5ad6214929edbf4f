"""Applications as work: claimed under a lease, settled by whoever still holds it, reaped when nobody does."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from apptrack_ingest.errors import LeaseLost
from apptrack_ingest.lifecycle import after, is_crash_loop, report_of
from apptrack_ingest.model import AttemptKind, HeldReason, State
from apptrack_ingest.spool.contract import Claim, Delivered, Facts, Reaped, Settlement
from apptrack_ingest.spool.postgres import early, reports
from apptrack_ingest.spool.postgres.door import Record, Statements
from apptrack_ingest.spool.postgres.picking import SPARE, pick
from apptrack_ingest.spool.rows import claim_of, delivered_in
from apptrack_ingest.spool.turns import Share

FRONT = "a.state = 'received' AND NOT a.in_attempt AND NOT a.behind"
"""What stands in front of its applicant's line (flat.LINES) and is not in work; the words are those of the index."""

# Two that came in at the same moment may both be in front; and a person can set an older one going again while its
# successor is being worked on.
FREE = f"""
{FRONT} AND NOT EXISTS (
    SELECT 1 FROM applications o WHERE o.account = a.account AND o.applicant_id = a.applicant_id
      AND o.state = 'received' AND o.id < a.id)
AND NOT EXISTS (
    SELECT 1 FROM applications o WHERE o.account = a.account AND o.applicant_id = a.applicant_id AND o.in_attempt)
"""  # noqa: S608 - only our own constants

# The accounts that have something waiting, each found by one step into the index: however much waits for one of them, it is
# not in the way of the others.
QUEUES = f"""
WITH RECURSIVE queues AS (
    (SELECT coalesce(a.account, '') AS account FROM applications a WHERE {FRONT} ORDER BY coalesce(a.account, '') LIMIT 1)
    UNION ALL
    SELECT (SELECT coalesce(a.account, '') FROM applications a WHERE {FRONT} AND coalesce(a.account, '') > q.account
            ORDER BY coalesce(a.account, '') LIMIT 1)
    FROM queues q WHERE q.account IS NOT NULL
)
"""  # noqa: S608 - only our own constants

FIRST_FREE = f"""
SELECT a.id, a.due_at FROM applications a
WHERE coalesce(a.account, '') = q.account AND (a.trusted OR a.vouched)::integer = b.believed AND {FREE}
"""  # noqa: S608 - only our own constants

_CLAIMABLE = f"""
{QUEUES}, open AS (
    SELECT q.account FROM queues q WHERE q.account IS NOT NULL AND NOT q.account = ANY(:full::text[])
      AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.account = q.account AND p.stage = 'hand-off'
                      AND (p.until IS NULL OR p.until > :now))
), busy AS (
    SELECT coalesce(w.account, '') AS account, count(*) AS number FROM applications w WHERE w.in_attempt GROUP BY 1
), looked AS (
    SELECT greatest(2, :looked::integer / greatest(count(*), 1)) AS depth FROM open
)
SELECT c.id, q.account, c.due_at, b.believed, coalesce(busy.number, 0) AS busy, (SELECT depth FROM looked) AS depth
FROM open q LEFT JOIN busy ON busy.account = q.account
CROSS JOIN unnest(:believed::integer[]) b (believed) CROSS JOIN LATERAL (
    {FIRST_FREE} AND least(a.crashes, 1) = :solo AND a.due_at <= :now AND NOT a.id = ANY(:had)
    ORDER BY a.due_at, a.id LIMIT (SELECT depth FROM looked)
) c
ORDER BY b.believed DESC, c.due_at, c.id
"""  # noqa: S608 - only our own constants

# Whose row another claimer holds is left to it; and so is an applicant of whom another claimer is just taking an
# application, for neither could see the other's. Both locks last until the commit, which shows everybody what was taken.
_LOCK = """
WITH waiting AS MATERIALIZED (
    SELECT a.id, a.account, a.applicant_id FROM applications a
    WHERE a.id = ANY(:ids) AND a.state = 'received' AND NOT a.in_attempt FOR UPDATE SKIP LOCKED
)
SELECT id FROM waiting WHERE CASE
    WHEN account IS NULL OR applicant_id IS NULL THEN true
    ELSE pg_try_advisory_xact_lock(hashtextextended('hand-off ' || applicant_id || ' ' || account, 0)) END
"""

# Asked again behind the locks: a statement sees what was committed before it began, and the first look was before.
_TAKE = f"""
WITH taken AS (
    UPDATE applications a SET lease_worker = :worker, lease_token = a.lease_token + 1, lease_until = :until,
        attempts = a.attempts + 1, series_from = coalesce(a.series_from, :now), in_attempt = true
    WHERE a.id = ANY(:ids) AND {FREE} RETURNING a.*
), counted AS (
    INSERT INTO attempts (application_id, kind, number, token, worker, started_at)
    SELECT id, '{AttemptKind.HAND_OFF}', attempts, lease_token, :worker, :now FROM taken
)
SELECT taken.*, (SELECT size FROM messages WHERE messages.id = message_id) AS size FROM taken
"""  # noqa: S608 - only our own constants


async def claim(
    statements: Statements,
    *,
    worker: str,
    now: float,
    lease: float,
    limit: int,
    room: Mapping[str, int] = MappingProxyType({}),
    untrusted: int | None = None,
    solo: bool = False,
) -> list[Claim]:
    """Takes due applications and counts an attempt of each, the accounts by turns; in one transaction, side by side with
    any number of other claimers, none of whom ever waits for another."""

    async def look(share: Share, had: list[int]) -> list[Record]:
        believed = [1] if share.untrusted is not None and share.untrusted <= 0 else [1, 0]
        wanted = {"now": now, "solo": int(solo), "full": share.full(), "believed": believed, "had": had}
        return await statements.all(_CLAIMABLE, **wanted, looked=share.limit * SPARE)

    async def lock(ids: list[int]) -> list[Record]:
        return await statements.all(_LOCK, ids=ids)

    locked = await pick(look, lock, Share(min(limit, 1) if solo else limit, {}, room, untrusted))
    if not locked:
        return []
    rows = await statements.all(_TAKE, ids=locked, worker=worker, now=now, until=now + lease)
    taken = sorted(rows, key=lambda row: locked.index(row["id"]))
    return [
        claim_of(row, token=row["lease_token"], attempt=row["attempts"], series_from=row["series_from"])
        for row in taken
    ]


async def renew(statements: Statements, claims: Collection[Claim], until: float) -> set[tuple[int, int]]:
    """Prolongs leases; the id and token of each that is still held."""
    rows = await statements.all(
        "UPDATE applications a SET lease_until = :until FROM unnest(:ids::bigint[], :tokens::bigint[]) c (id, token)"
        " WHERE a.id = c.id AND a.lease_token = c.token AND a.in_attempt RETURNING a.id, c.token",
        until=until,
        ids=[claim.application_id for claim in claims],
        tokens=[claim.token for claim in claims],
    )
    return {(row["id"], row["token"]) for row in rows}


async def is_held(statements: Statements, claim: Claim, worker: str) -> bool:
    """Whether it is this worker that holds the claim's lease; until the transaction ends nobody can take it over."""
    row = await statements.one(
        "SELECT 1 FROM applications WHERE id = :id AND lease_token = :token AND lease_worker = :worker AND in_attempt"
        " FOR UPDATE",
        id=claim.application_id,
        token=claim.token,
        worker=worker,
    )
    return row is not None


async def delivered_before(statements: Statements, account: str, applicant_id: int) -> list[Delivered]:
    """Earlier deliveries of the applicant to the account, newest first."""
    rows = await statements.all(
        "SELECT id, content_digest, remote_id, delivered_at FROM applications WHERE account = :account"
        " AND applicant_id = :applicant_id AND delivered_at IS NOT NULL ORDER BY delivered_at DESC, id DESC",
        account=account,
        applicant_id=applicant_id,
    )
    return [delivered_in(row) for row in rows]


# --- outcomes --------------------------------------------------------------------------------------------------------


async def settle(statements: Statements, claim: Claim, settlement: Settlement, *, now: float) -> None:
    """Ends the attempt, moves the application on and makes the report due, all in one transaction."""
    row = await statements.one(
        "SELECT state FROM applications WHERE id = :id AND lease_token = :token AND in_attempt FOR UPDATE",
        id=claim.application_id,
        token=claim.token,
    )
    if row is None:
        raise LeaseLost(f"application {claim.application_id}: the lease with token {claim.token} is no longer held")
    state = after(State(row["state"]), settlement.event)
    await _move(statements, claim, settlement, state, now)
    if settlement.facts is not None:
        await keep_facts(statements, claim.application_id, settlement.facts, settlement.applicant_id)
    ending = _Ending(claim.application_id, claim.token, settlement.code, settlement.detail)
    await _end_attempt(statements, ending, now)
    if settlement.report is not None:
        await reports.insert(statements, claim.application_id, settlement.report, now)
    if settlement.early is not None and state is State.RECEIVED:
        await early.report_failed(statements, claim.application_id, settlement.early, now)


_MOVE = """
UPDATE applications SET state = :state, reason = :reason, code = :code, detail = :detail,
    -- What was given back keeps its place in the line.
    due_at = CASE WHEN :waits::boolean THEN coalesce(:due_at, CASE WHEN :counts::boolean THEN :now ELSE due_at END) END,
    settled_at = :settled_at, in_attempt = false, lease_worker = NULL, lease_until = NULL,
    crashes = CASE WHEN :counts::boolean THEN 0 ELSE crashes END,
    attempts = attempts - CASE WHEN :counts::boolean THEN 0 ELSE 1 END,
    -- What was given back untried has its whole schedule before it still.
    series_from = CASE WHEN :counts::boolean OR attempts - 1 > series_base THEN series_from END,
    remote_id = coalesce(:remote_id, remote_id), duplicate_of = :duplicate_of,
    applicant_id = coalesce(:applicant_id, applicant_id), delivered_at = coalesce(:delivered_at, delivered_at),
    trusted = coalesce(:trusted, trusted), trust_note = coalesce(:trust_note, trust_note),
    again = (again AND :waits) WHERE id = :id
"""


async def _move(statements: Statements, claim: Claim, settlement: Settlement, state: State, now: float) -> None:
    waits = state is State.RECEIVED
    trusted, trust_note = settlement.trust or (None, None)
    await statements.run(
        _MOVE,
        state=state,
        reason=settlement.reason,
        code=settlement.code,
        detail=settlement.detail,
        due_at=settlement.due_at,
        now=now,
        settled_at=None if waits else now,
        counts=settlement.counts,
        remote_id=settlement.remote_id,
        duplicate_of=settlement.duplicate_of,
        applicant_id=settlement.applicant_id,
        delivered_at=now if state is State.DELIVERED else None,
        trusted=trusted,
        trust_note=trust_note,
        waits=waits,
        id=claim.application_id,
    )


_KEEP_FACTS = """
UPDATE applications SET client_reference = :client_reference, candidate_name = :candidate_name,
    candidate_email = :candidate_email, candidate_folded = :folded, job_title = :job_title, portal_name = :portal_name,
    content_digest = :content_digest, warnings = :warnings, applicant_id = coalesce(:applicant_id, applicant_id)
WHERE id = :id
"""


async def keep_facts(statements: Statements, application_id: int, facts: Facts, applicant_id: int | None) -> None:
    """Replaces what was derived from the mail; an applicant id already there stays when the mail names none."""
    await statements.run(
        _KEEP_FACTS,
        client_reference=facts.client_reference,
        candidate_name=facts.candidate_name,
        candidate_email=facts.candidate_email,
        folded=f"{facts.candidate_name or ''}\n{facts.candidate_email or ''}".casefold(),
        job_title=facts.job_title,
        portal_name=facts.portal_name,
        content_digest=facts.content_digest,
        warnings=json.dumps(facts.warnings),
        applicant_id=applicant_id,
        id=application_id,
    )


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an attempt ended."""

    application_id: int
    token: int
    code: str
    detail: str


async def _end_attempt(statements: Statements, ending: _Ending, now: float) -> None:
    await statements.run(
        "UPDATE attempts SET ended_at = :now, code = :code, detail = :detail"
        " WHERE application_id = :id AND report_id IS NULL AND token = :token AND ended_at IS NULL",
        now=now,
        code=ending.code,
        detail=ending.detail,
        id=ending.application_id,
        token=ending.token,
    )


# --- cut off ---------------------------------------------------------------------------------------------------------


async def reap(statements: Statements, *, now: float, reports_for: Collection[str]) -> list[Reaped]:
    """Ends attempts nobody holds any more; see the contract. One that is being settled or renewed at this moment is left
    to whoever does."""
    rows = await statements.all(
        "SELECT * FROM applications WHERE in_attempt AND lease_until <= :now ORDER BY id FOR UPDATE SKIP LOCKED",
        now=now,
    )
    return [await _reap(statements, row, now, reports_for) for row in rows]


_REAP = """
UPDATE applications SET state = :state, reason = :reason, code = 'no-verdict', detail = :detail, crashes = :crashes,
    in_attempt = false, due_at = :due_at, settled_at = :settled_at, lease_worker = NULL, lease_until = NULL,
    lease_token = lease_token + 1 WHERE id = :id
"""


async def _reap(statements: Statements, row: Record, now: float, reports_for: Collection[str]) -> Reaped:
    crashes = row["crashes"] + 1
    held = is_crash_loop(crashes)
    cut_off = _Ending(row["id"], row["lease_token"], "no-verdict", "the attempt was cut off without a verdict")
    await _end_attempt(statements, cut_off, now)
    await statements.run(
        _REAP,
        state=State.HELD if held else State.RECEIVED,
        reason=HeldReason.CRASH_LOOP if held else None,
        detail=f"{crashes} attempts in a row were cut off without a verdict",
        crashes=crashes,
        due_at=None if held else now,
        settled_at=now if held else None,
        id=row["id"],
    )
    report = report_of(
        State.HELD,
        applicant_id=row["applicant_id"],
        believed=row["trusted"] or row["vouched"],
        now=now,
        reason=HeldReason.CRASH_LOOP,
    )
    if held and report is not None and row["account"] in reports_for:
        await reports.insert(statements, row["id"], report, now)
    return Reaped(row["id"], row["account"], row["applicant_id"], crashes, held)
