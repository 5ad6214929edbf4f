"""Applications as work: claimed under a lease, settled by whoever still holds it, reaped when nobody does."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from apptrack_ingest.errors import LeaseLost
from apptrack_ingest.lifecycle import after, is_crash_loop, report_of
from apptrack_ingest.model import AttemptKind, HeldReason, State
from apptrack_ingest.spool.contract import Claim, Delivered, Facts, Reaped, Settlement
from apptrack_ingest.spool.postgres import reports
from apptrack_ingest.spool.postgres.door import Record, Statements
from apptrack_ingest.spool.rows import claim_of, delivered_in

# An application waits for older ones of its applicant, and for a younger one under way: a person can set an older one
# going again while its successor is being worked on.
FREE = """
a.state = 'received' AND NOT a.in_attempt
  AND NOT EXISTS (SELECT 1 FROM applications o
                  WHERE o.account = a.account AND o.applicant_id = a.applicant_id AND o.state = 'received'
                    AND (o.id < a.id OR o.in_attempt))
"""

# The accounts that have something waiting, each found by one step into the index: however much waits for one of them, it is
# not in the way of the others.
QUEUES = """
WITH RECURSIVE queues AS (
    (SELECT coalesce(w.account, '') AS account FROM applications w WHERE w.state = 'received' AND NOT w.in_attempt
     ORDER BY coalesce(w.account, '') LIMIT 1)
    UNION ALL
    SELECT (SELECT coalesce(w.account, '') FROM applications w
            WHERE w.state = 'received' AND NOT w.in_attempt AND coalesce(w.account, '') > q.account
            ORDER BY coalesce(w.account, '') LIMIT 1)
    FROM queues q WHERE q.account IS NOT NULL
)
"""

FIRST_FREE = f"""
SELECT a.id, a.due_at FROM applications a
WHERE coalesce(a.account, '') = q.account AND {FREE}
"""  # noqa: S608 - only our own constants

_CLAIMABLE = f"""
{QUEUES}
SELECT c.id, q.account FROM queues q CROSS JOIN LATERAL (
    {FIRST_FREE} AND least(a.crashes, 1) = :solo AND a.due_at <= :now AND NOT a.id = ANY(:had)
    ORDER BY a.due_at, a.id LIMIT :limit
) c
WHERE q.account IS NOT NULL AND NOT q.account = ANY(:full::text[])
ORDER BY c.due_at, c.id LIMIT :limit
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
SELECT * FROM taken ORDER BY due_at, id
"""  # noqa: S608 - only our own constants

SPARE = 3
"""How many times the wanted number of applications is looked at: some may be another claimer's by then."""


async def claim(
    statements: Statements,
    *,
    worker: str,
    now: float,
    lease: float,
    limit: int,
    room: Mapping[str, int],
    solo: bool,
) -> list[Claim]:
    """Takes due applications, oldest due first, and counts an attempt of each; in one transaction, side by side with any
    number of other claimers, none of whom ever waits for another."""
    picking = _Picking(dict(room), min(limit, 1) if solo else limit)
    looked = picking.limit * SPARE
    while picking.wanted > 0:
        values = {"now": now, "solo": int(solo), "full": picking.full, "had": picking.locked, "limit": looked}
        rows = await statements.all(_CLAIMABLE, **values)
        await picking.lock(statements, rows)
        # Looked again only when an account's room cut this look short: others may stand behind it.
        if not picking.cut_short or len(rows) < looked:
            break
    if not picking.locked:
        return []
    values = {"ids": picking.locked, "worker": worker, "now": now, "until": now + lease}
    taken = await statements.all(_TAKE, **values)
    return [
        claim_of(row, token=row["lease_token"], attempt=row["attempts"], series_from=row["series_from"])
        for row in taken
    ]


class _Picking:
    """Locks as many applications as are wanted and as there is room for, and not one more: what is locked in vain is
    hidden from the other claimers."""

    def __init__(self, left: dict[str, int], limit: int) -> None:
        self.left = left
        self.limit = limit
        self.locked: list[int] = []
        self.cut_short = False

    @property
    def wanted(self) -> int:
        return self.limit - len(self.locked)

    @property
    def full(self) -> list[str]:
        return [account for account, free in self.left.items() if free <= 0]

    async def lock(self, statements: Statements, rows: list[Record]) -> None:
        """Goes through the rows in their order; each that cannot be had makes room for a later one."""
        self.cut_short, waiting = False, list(rows)
        while chosen := self._choose(waiting):
            ids = [row["id"] for row in chosen]
            got = {row["id"] for row in await statements.all(_LOCK, ids=ids)}
            self.locked += [number for number in ids if number in got]
            for row in chosen:
                waiting.remove(row)
                if row["id"] in got and row["account"] in self.left:
                    self.left[row["account"]] -= 1
        self.cut_short = self.wanted > 0 and bool(waiting)

    def _choose(self, waiting: list[Record]) -> list[Record]:
        left = dict(self.left)
        chosen: list[Record] = []
        for row in waiting:
            account = row["account"]
            if len(chosen) < self.wanted and left.get(account, 1) > 0:
                chosen.append(row)
                if account in left:
                    left[account] -= 1
        return chosen


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


_MOVE = """
UPDATE applications SET state = :state, reason = :reason, code = :code, detail = :detail, due_at = :due_at,
    settled_at = :settled_at, in_attempt = false, lease_worker = NULL, lease_until = NULL,
    crashes = CASE WHEN :counts::boolean THEN 0 ELSE crashes END,
    attempts = attempts - CASE WHEN :counts::boolean THEN 0 ELSE 1 END,
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
        due_at=(settlement.due_at if settlement.due_at is not None else now) if waits else None,
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
