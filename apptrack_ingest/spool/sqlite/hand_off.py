"""Applications as work: claimed under a lease, settled by whoever still holds it, reaped when nobody does."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

from apptrack_ingest.errors import LeaseLost
from apptrack_ingest.lifecycle import after, is_crash_loop, report_of
from apptrack_ingest.model import AttemptKind, HeldReason, State
from apptrack_ingest.spool.contract import Claim, Delivered, Facts, Reaped, Settlement
from apptrack_ingest.spool.rows import claim_of, delivered_in
from apptrack_ingest.spool.sqlite import early, reports
from apptrack_ingest.spool.sqlite.connection import assigned, placeholders
from apptrack_ingest.spool.turns import Share, in_turn

FRONT = "a.state = 'received' AND a.in_attempt = 0 AND a.behind = 0"
"""What stands in front of its applicant's line (flat.LINES) and is not in work; the words are those of the index."""

# Even so it waits for a younger one under way: a person can set an older one going while its successor is worked on.
FREE = f"""
{FRONT} AND NOT EXISTS (
    SELECT 1 FROM applications o INDEXED BY applications_in_attempt
    WHERE o.account = a.account AND o.applicant_id = a.applicant_id AND o.in_attempt = 1)
"""  # noqa: S608 - only our own constants

# The accounts that have something waiting, each found by one step into the index: however much waits for one of them, it is
# not in the way of the others.
QUEUES = f"""
WITH RECURSIVE queues (account) AS (
    SELECT * FROM (SELECT coalesce(a.account, '') FROM applications a INDEXED BY applications_front
                   WHERE {FRONT} AND coalesce(a.account, '') >= '' ORDER BY coalesce(a.account, '') LIMIT 1)
    UNION ALL
    SELECT (SELECT coalesce(a.account, '') FROM applications a INDEXED BY applications_front
            WHERE {FRONT} AND coalesce(a.account, '') > q.account ORDER BY coalesce(a.account, '') LIMIT 1)
    FROM queues q WHERE q.account IS NOT NULL
)
"""  # noqa: S608 - only our own constants

# How much is in work of an account is found by a step into the index, too.
_OPEN = f"""
{QUEUES}
SELECT account, (SELECT count(*) FROM applications o INDEXED BY applications_in_attempt
                 WHERE o.in_attempt = 1 AND o.account IS nullif(q.account, '')) AS busy
FROM queues q WHERE account IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM pauses p WHERE p.account = q.account AND p.stage = 'hand-off' AND (p.until IS NULL OR p.until > :now))
"""  # noqa: S608 - only our own constants

_QUEUE = f"""
SELECT a.id, :account AS account, a.due_at, :believed AS believed FROM applications a INDEXED BY applications_front
WHERE coalesce(a.account, '') = :account AND min(a.crashes, 1) = :solo AND (a.trusted OR a.vouched) = :believed
  AND {FREE} AND a.due_at <= :now ORDER BY a.due_at, a.id
"""  # noqa: S608 - only our own constants

_CLAIMED = (
    "id",
    "message_id",
    "account",
    "applicant_id",
    "lease_token",
    "attempts",
    "series_base",
    "series_from",
    "crashes",
    "received_at",
    "trusted",
    "vouched",
    "again",
    "size",
)

_TAKE = f"""
UPDATE applications SET lease_worker = ?, lease_token = lease_token + 1, lease_until = ?,
    attempts = attempts + 1, series_from = coalesce(series_from, ?), in_attempt = 1
WHERE id IN ({{}})
RETURNING {", ".join(_CLAIMED[:-1])}, (SELECT size FROM messages WHERE messages.id = message_id)
"""  # noqa: S608 - only our own constants

_COUNT = "INSERT INTO attempts (application_id, kind, number, token, worker, started_at) VALUES "
_COUNTED = f"(?, '{AttemptKind.HAND_OFF}', ?, ?, ?, ?)"


def claim(
    connection: sqlite3.Connection,
    *,
    worker: str,
    now: float,
    lease: float,
    limit: int,
    room: Mapping[str, int] = MappingProxyType({}),
    untrusted: int | None = None,
    solo: bool = False,
) -> list[Claim]:
    """Takes due applications and counts an attempt of each; the accounts take turns (turns.in_turn)."""
    busy = dict(connection.execute(_OPEN, {"now": now}).fetchall())
    share = Share(min(limit, 1) if solo else limit, busy, room, untrusted)
    full = share.full()
    queues = [_queue(connection, account, solo=solo, now=now) for account in busy if account not in full]
    return _take(connection, [row["id"] for row in in_turn(queues, share)], worker, now, lease)


def _queue(connection: sqlite3.Connection, account: str, *, solo: bool, now: float) -> Iterator[sqlite3.Row]:
    """What is due of an account, in its order; each row is looked up when it is asked for."""
    for believed in (1, 0):
        wanted = {"account": account, "believed": believed, "solo": int(solo), "now": now}
        yield from connection.execute(_QUEUE, wanted)


def _take(connection: sqlite3.Connection, ids: list[int], worker: str, now: float, lease: float) -> list[Claim]:
    if not ids:
        return []
    taken = connection.execute(_TAKE.format(placeholders(ids)), (worker, now + lease, now, *ids)).fetchall()
    claims = {claim.application_id: claim for claim in map(_claimed, taken)}
    counted = [(claim.application_id, claim.attempt, claim.token, worker, now) for claim in claims.values()]
    connection.execute(_COUNT + ", ".join([_COUNTED] * len(counted)), [*chain.from_iterable(counted)])
    return [claims[application_id] for application_id in ids]


def _claimed(found: sqlite3.Row) -> Claim:
    row = dict(zip(_CLAIMED, found, strict=True))
    return claim_of(row, token=row["lease_token"], attempt=row["attempts"], series_from=row["series_from"])


def renew(connection: sqlite3.Connection, claim: Claim, until: float) -> bool:
    """Prolongs the lease; False when it was lost."""
    changed = connection.execute(
        "UPDATE applications SET lease_until = ? WHERE id = ? AND lease_token = ? AND in_attempt = 1",
        (until, claim.application_id, claim.token),
    )
    return changed.rowcount == 1


def delivered_before(connection: sqlite3.Connection, account: str, applicant_id: int) -> list[Delivered]:
    """Earlier deliveries of the applicant to the account, newest first."""
    rows = connection.execute(
        "SELECT id, content_digest, remote_id, delivered_at FROM applications INDEXED BY applications_delivered"
        " WHERE account = ? AND applicant_id = ? AND delivered_at IS NOT NULL ORDER BY delivered_at DESC, id DESC",
        (account, applicant_id),
    )
    return [delivered_in(row) for row in rows]


def settle(connection: sqlite3.Connection, claim: Claim, settlement: Settlement, *, now: float) -> None:
    """Ends the attempt, moves the application on and makes the report due, all in one transaction."""
    found = connection.execute(_HELD, (claim.application_id, claim.token)).fetchone()
    if found is None:
        raise LeaseLost(f"application {claim.application_id}: the lease with token {claim.token} is no longer held")
    row = dict(zip(_CHANGING, found, strict=True))
    state = after(State(row["state"]), settlement.event)
    if settlement.report is not None:
        # Before the state: what has still to be reported is not finished (flat.FINISHED).
        reports.tell(connection, claim.application_id, row["account"], settlement.report, now)
    _change(connection, row, _after(row, settlement, state, now))
    if settlement.early is not None and state is State.RECEIVED:
        early.report_failed(connection, claim.application_id, settlement.early, now)
    end_attempt(connection, claim.application_id, claim.token, settlement.code, settlement.detail, now)


_DERIVED = (
    "client_reference",
    "candidate_name",
    "candidate_email",
    "job_title",
    "portal_name",
    "content_digest",
    "warnings",
)
_CHANGING = (
    "id",
    "account",
    "applicant_id",
    "state",
    "reason",
    "code",
    "detail",
    "due_at",
    "settled_at",
    "delivered_at",
    "in_attempt",
    "lease_worker",
    "lease_until",
    "crashes",
    "attempts",
    "series_base",
    "series_from",
    "remote_id",
    "duplicate_of",
    "again",
    "trusted",
    "trust_note",
    *_DERIVED,
)
"""What a settlement changes or looks at. As a dict, for sqlite3.Row looks through all names for each."""

_HELD = f"SELECT {', '.join(_CHANGING)} FROM applications WHERE id = ? AND lease_token = ? AND in_attempt = 1"  # noqa: S608


def _after(row: Mapping[str, Any], settlement: Settlement, state: State, now: float) -> dict[str, object]:
    """What a settlement leaves in an application's row."""
    waits, applicant_id = state is State.RECEIVED, settlement.applicant_id
    attempts = row["attempts"] - (not settlement.counts)
    columns = {
        "state": str(state),
        "reason": settlement.reason,
        "code": settlement.code,
        "detail": settlement.detail,
        "due_at": _due(row, settlement, now) if waits else None,
        "settled_at": None if waits else now,
        "in_attempt": 0,
        "lease_worker": None,
        "lease_until": None,
        "crashes": 0 if settlement.counts else row["crashes"],
        "attempts": attempts,
        # What was given back untried has its whole schedule before it still.
        "series_from": row["series_from"] if attempts > row["series_base"] else None,
        "remote_id": row["remote_id"] if settlement.remote_id is None else settlement.remote_id,
        "duplicate_of": settlement.duplicate_of,
        "applicant_id": row["applicant_id"] if applicant_id is None else applicant_id,
        "delivered_at": now if state is State.DELIVERED else row["delivered_at"],
        "again": row["again"] if waits else 0,
    }
    if settlement.trust is not None:
        columns |= zip(("trusted", "trust_note"), settlement.trust, strict=True)
    return columns if settlement.facts is None else columns | _columns(settlement.facts)


def _due(row: Mapping[str, Any], settlement: Settlement, now: float) -> float:
    """When it is tried again. What was given back keeps its place in the line."""
    if settlement.due_at is not None:
        return settlement.due_at
    return now if settlement.counts else float(row["due_at"])


def _change(connection: sqlite3.Connection, row: Mapping[str, Any], columns: Mapping[str, object]) -> None:
    """Sets what differs from the row. SQLite writes every index anew that has a column which is named, changed or not."""
    changed = {name: value for name, value in columns.items() if row[name] != value}
    if not changed:
        return
    setting, values = assigned(changed)
    connection.execute(f"UPDATE applications SET {setting} WHERE id = ?", [*values, row["id"]])  # noqa: S608 - our names


def _columns(facts: Facts) -> dict[str, object]:
    return {
        "client_reference": facts.client_reference,
        "candidate_name": facts.candidate_name,
        "candidate_email": facts.candidate_email,
        "job_title": facts.job_title,
        "portal_name": facts.portal_name,
        "content_digest": facts.content_digest,
        "warnings": json.dumps(facts.warnings) if facts.warnings else "[]",
    }


def keep_facts(connection: sqlite3.Connection, application_id: int, facts: Facts, applicant_id: int | None) -> None:
    """Replaces what was derived from the mail; an applicant id already there stays when the mail names none."""
    row = dict(connection.execute("SELECT * FROM applications WHERE id = ?", (application_id,)).fetchone())
    known = {} if applicant_id is None else {"applicant_id": applicant_id}
    _change(connection, row, _columns(facts) | known)


def end_attempt(
    connection: sqlite3.Connection, application_id: int, token: int, code: str, detail: str, now: float
) -> None:
    """Writes how an application's attempt ended."""
    connection.execute(
        "UPDATE attempts SET ended_at = ?, code = ?, detail = ?"
        " WHERE application_id = ? AND report_id IS NULL AND token = ? AND ended_at IS NULL",
        (now, code, detail, application_id, token),
    )


def reap(connection: sqlite3.Connection, *, now: float, reports_for: Collection[str]) -> list[Reaped]:
    """Ends attempts nobody holds any more; see the contract."""
    rows = connection.execute(
        "SELECT * FROM applications INDEXED BY applications_in_attempt"
        " WHERE in_attempt = 1 AND lease_until <= ? ORDER BY id",
        (now,),
    ).fetchall()
    return [_reap(connection, row, now, reports_for) for row in rows]


def _reap(connection: sqlite3.Connection, row: sqlite3.Row, now: float, reports_for: Collection[str]) -> Reaped:
    crashes = row["crashes"] + 1
    held = is_crash_loop(crashes)
    end_attempt(
        connection, row["id"], row["lease_token"], "no-verdict", "the attempt was cut off without a verdict", now
    )
    connection.execute(
        "UPDATE applications SET state = ?, reason = ?, code = 'no-verdict', detail = ?, crashes = ?, in_attempt = 0,"
        " due_at = ?, settled_at = ?, lease_worker = NULL, lease_until = NULL, lease_token = lease_token + 1 WHERE id = ?",
        (
            State.HELD if held else State.RECEIVED,
            HeldReason.CRASH_LOOP if held else None,
            f"{crashes} attempts in a row were cut off without a verdict",
            crashes,
            None if held else now,
            now if held else None,
            row["id"],
        ),
    )
    report = report_of(
        State.HELD,
        applicant_id=row["applicant_id"],
        believed=bool(row["trusted"] or row["vouched"]),
        now=now,
        reason=HeldReason.CRASH_LOOP,
    )
    if held and report is not None and row["account"] in reports_for:
        reports.insert(connection, row["id"], report, now)
    return Reaped(row["id"], row["account"], row["applicant_id"], crashes, held)
