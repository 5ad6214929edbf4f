"""Mail of senders nobody trusts: how much of it is kept, and its own, shorter, end."""

import sqlite3

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool.contract import Action, Load
from apptrack_ingest.spool.rows import ACTOR, UNVOUCHED_NOTE
from apptrack_ingest.spool.sqlite import messages, people

_LOAD = """
SELECT (SELECT coalesce(sum(number), 0) FROM tallies WHERE subject = 'applications' AND state = 'received'),
    coalesce(sum(number), 0), coalesce(sum(bytes), 0)
FROM tallies WHERE subject = 'messages'
"""

_EXPIRED = f"""
SELECT id, message_id FROM applications INDEXED BY applications_expiring
WHERE trusted = 0 AND vouched = 0 AND state = '{State.HELD}'
  AND reason IN ('{HeldReason.UNTRUSTED}', '{HeldReason.NO_APPLICANT_ID}', '{HeldReason.INVALID_APPLICANT_ID}')
  AND received_at < :before ORDER BY received_at, id LIMIT :limit
"""  # noqa: S608 - only our own constants


def load(connection: sqlite3.Connection) -> Load:
    """What weighs on the spool."""
    waiting, count, size = connection.execute(_LOAD).fetchone()
    return Load(int(waiting), int(count), int(size))


def discard(connection: sqlite3.Connection, *, before: float, limit: int, now: float) -> int:
    """Discards and erases; see the contract. A message for several accounts stays until none of them waits for it."""
    rows = connection.execute(_EXPIRED, {"before": before, "limit": limit}).fetchall()
    for row in rows:
        people.act(connection, row["id"], Action(Event.DISCARD, ACTOR, UNVOUCHED_NOTE), now=now)
    for message_id in sorted({row["message_id"] for row in rows}):
        if not _still_wanted(connection, message_id):
            messages.erase(connection, message_id, now=now)
    return len(rows)


def _still_wanted(connection: sqlite3.Connection, message_id: int) -> bool:
    found = connection.execute(
        "SELECT 1 FROM applications WHERE message_id = ? AND NOT (state = 'discarded' AND trusted = 0)", (message_id,)
    )
    return found.fetchone() is not None
