"""Keeping a message and its applications, and erasing them when their time has come."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence

from apptrack_ingest.lifecycle import FINISHED
from apptrack_ingest.model import Arrival, Message, ReportState
from apptrack_ingest.spool.sqlite import bodies


def put(connection: sqlite3.Connection, message: Message, arrivals: Sequence[Arrival]) -> int:
    """Inserts message, body and applications; returns the message's id."""
    envelope = message.envelope
    cursor = connection.execute(
        "INSERT INTO messages (received_at, sender, recipients, peer, helo, smtputf8, size, sha256, evidence, warnings)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.received_at,
            envelope.sender,
            json.dumps(envelope.recipients),
            envelope.peer,
            envelope.helo,
            envelope.smtputf8,
            len(message.raw),
            hashlib.sha256(message.raw).hexdigest(),
            json.dumps(message.evidence),
            json.dumps(message.warnings),
        ),
    )
    message_id = int(cursor.lastrowid or 0)
    bodies.keep(connection, message_id, message.raw)
    connection.executemany(
        "INSERT INTO applications (message_id, account, applicant_id, trusted, trust_note, received_at, due_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (message_id, a.account, a.applicant_id, a.trusted, a.trust_note, message.received_at, message.received_at)
            for a in arrivals
        ],
    )
    return message_id


_ERASABLE = f"""
SELECT m.id FROM messages m
WHERE m.erased_at IS NULL AND m.received_at < :before
  AND NOT EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id
                  AND (a.state NOT IN ({", ".join(f"'{state}'" for state in sorted(FINISHED))}) OR a.settled_at >= :before))
  AND NOT EXISTS (SELECT 1 FROM applications a JOIN reports r ON r.application_id = a.id WHERE a.message_id = m.id
                  AND r.state IN ('{ReportState.DUE}', '{ReportState.REFUSED}', '{ReportState.FAILED}'))
ORDER BY m.received_at, m.id LIMIT :limit
"""  # noqa: S608 - only our own constants


def erase_finished(connection: sqlite3.Connection, *, before: float, limit: int, now: float) -> int:
    """Erases bodies, envelopes' and candidates' data of finished messages; ids, digests and times stay."""
    ids = [row["id"] for row in connection.execute(_ERASABLE, {"before": before, "limit": limit})]
    for message_id in ids:
        erase(connection, message_id, now=now)
    return len(ids)


def erase(connection: sqlite3.Connection, message_id: int, *, now: float) -> None:
    """Erases one message's body, its envelope and all that was derived from it; ids, digests and times stay."""
    bodies.erase(connection, message_id)
    connection.execute(
        "UPDATE messages SET erased_at = ?, sender = '', recipients = '[]', helo = '', evidence = '[]', warnings = '[]'"
        " WHERE id = ?",
        (now, message_id),
    )
    connection.execute(
        "UPDATE applications SET candidate_name = NULL, candidate_email = NULL, detail = NULL, warnings = '[]'"
        " WHERE message_id = ?",
        (message_id,),
    )
    connection.execute(
        "UPDATE attempts SET detail = NULL WHERE application_id IN (SELECT id FROM applications WHERE message_id = ?)",
        (message_id,),
    )
    connection.execute(
        "UPDATE reports SET error_message = NULL, detail = NULL WHERE application_id IN"
        " (SELECT id FROM applications WHERE message_id = ?)",
        (message_id,),
    )
