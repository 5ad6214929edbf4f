"""Keeping a message and its applications, and erasing them when their time has come."""

import hashlib
import json
from collections.abc import Sequence

from apptrack_ingest.lifecycle import FINISHED
from apptrack_ingest.model import Arrival, Message, ReportState
from apptrack_ingest.spool.postgres import bodies
from apptrack_ingest.spool.postgres.door import Statements

# One statement is one transaction and one journey: the message, its body and its applications.
_PUT = """
WITH kept AS (
    INSERT INTO messages (received_at, sender, recipients, peer, helo, smtputf8, size, sha256, evidence, warnings)
    VALUES (:received_at, :sender, :recipients, :peer, :helo, :smtputf8, :size, :sha256, :evidence, :warnings)
    RETURNING id, received_at
), body AS (
    INSERT INTO bodies (message_id, raw) SELECT id, :raw FROM kept
), arrived AS (
    INSERT INTO applications (message_id, account, applicant_id, trusted, trust_note, received_at, due_at)
    SELECT k.id, a.account, a.applicant_id, a.trusted, a.trust_note, k.received_at, k.received_at
    FROM kept k, unnest(:accounts::text[], :applicant_ids::bigint[], :trusted::boolean[], :trust_notes::text[])
        WITH ORDINALITY AS a (account, applicant_id, trusted, trust_note, number)
    ORDER BY a.number
)
SELECT id FROM kept
"""


async def put(statements: Statements, message: Message, arrivals: Sequence[Arrival]) -> int:
    """Inserts message, body and applications; returns the message's id."""
    envelope = message.envelope
    row = await statements.one(
        _PUT,
        received_at=message.received_at,
        sender=envelope.sender,
        recipients=json.dumps(envelope.recipients),
        peer=envelope.peer,
        helo=envelope.helo,
        smtputf8=envelope.smtputf8,
        size=len(message.raw),
        sha256=hashlib.sha256(message.raw).hexdigest(),
        evidence=json.dumps(message.evidence),
        warnings=json.dumps(message.warnings),
        raw=message.raw,
        accounts=[arrival.account for arrival in arrivals],
        applicant_ids=[arrival.applicant_id for arrival in arrivals],
        trusted=[arrival.trusted for arrival in arrivals],
        trust_notes=[arrival.trust_note for arrival in arrivals],
    )
    assert row is not None, "INSERT ... RETURNING has its row"
    return int(row["id"])


_ERASABLE = f"""
m.erased_at IS NULL AND m.finished_at < :before AND m.received_at < :before
  AND NOT EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id
                  AND (a.state NOT IN ({", ".join(f"'{state}'" for state in sorted(FINISHED))}) OR a.settled_at >= :before))
  AND NOT EXISTS (SELECT 1 FROM applications a JOIN reports r ON r.application_id = a.id WHERE a.message_id = m.id
                  AND r.state IN ('{ReportState.DUE}', '{ReportState.REFUSED}', '{ReportState.FAILED}'))
"""  # noqa: S608 - only our own constants

_LOCK_ERASABLE = f"""
SELECT m.id FROM messages m WHERE {_ERASABLE} ORDER BY m.finished_at, m.id LIMIT :limit FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - only our own constants

_STILL_ERASABLE = f"SELECT m.id FROM messages m WHERE m.id = ANY(:ids) AND {_ERASABLE}"  # noqa: S608


async def erase_finished(statements: Statements, *, before: float, limit: int, now: float) -> int:
    """Erases bodies, envelopes' and candidates' data of finished messages; ids, digests and times stay.

    It looks twice, for a person may have set an application going again between the first look and the lock (`act` locks
    the message too); behind the lock nobody can any more.
    """
    found = await statements.all(_LOCK_ERASABLE, before=before, limit=limit)
    if not found:
        return 0
    still = await statements.all(_STILL_ERASABLE, ids=[row["id"] for row in found], before=before)
    await erase(statements, [row["id"] for row in still], now=now)
    return len(still)


_ERASE = (
    "UPDATE messages SET erased_at = :now, sender = '', recipients = '[]', helo = '', evidence = '[]', warnings = '[]'"
    " WHERE id = ANY(:ids)",
    "UPDATE applications SET candidate_name = NULL, candidate_email = NULL, candidate_folded = NULL, detail = NULL,"
    " warnings = '[]' WHERE message_id = ANY(:ids)",
    "UPDATE attempts SET detail = NULL"
    " WHERE application_id IN (SELECT id FROM applications WHERE message_id = ANY(:ids))",
    "UPDATE reports SET error_message = NULL, detail = NULL"
    " WHERE application_id IN (SELECT id FROM applications WHERE message_id = ANY(:ids))",
)


async def erase(statements: Statements, message_ids: list[int], *, now: float) -> None:
    """Erases messages' bodies, their envelopes and all that was derived from them; ids, digests and times stay."""
    await bodies.erase(statements, message_ids)
    for statement in _ERASE:
        await statements.run(statement, ids=message_ids, now=now)
