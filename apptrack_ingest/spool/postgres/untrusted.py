"""Mail of senders nobody trusts: how much of it is kept, and its own, shorter, end."""

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool.contract import Action, Load
from apptrack_ingest.spool.postgres import messages, people
from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.rows import ACTOR, UNVOUCHED_NOTE

_LOAD = """
SELECT coalesce(sum(number) FILTER (WHERE subject = 'applications' AND state = 'received'), 0)::bigint AS waiting,
    coalesce(sum(number) FILTER (WHERE subject = 'messages'), 0)::bigint AS messages,
    coalesce(sum(bytes) FILTER (WHERE subject = 'messages'), 0)::bigint AS bytes
FROM (SELECT * FROM tallies UNION ALL SELECT * FROM tally_changes) every
"""

_EXPIRED = f"""
SELECT a.id, a.message_id FROM applications a
WHERE NOT a.trusted AND NOT a.vouched AND a.state = '{State.HELD}'
  AND a.reason IN ('{HeldReason.UNTRUSTED}', '{HeldReason.NO_APPLICANT_ID}', '{HeldReason.INVALID_APPLICANT_ID}')
  AND a.received_at < :before
"""  # noqa: S608 - only our own constants

_LOCK = """
SELECT id FROM messages WHERE id = ANY(:ids) ORDER BY id FOR UPDATE SKIP LOCKED
"""

_UNWANTED = """
SELECT m.id FROM messages m WHERE m.id = ANY(:ids) AND NOT EXISTS (
    SELECT 1 FROM applications a WHERE a.message_id = m.id AND NOT (a.state = 'discarded' AND NOT a.trusted))
"""


async def load(statements: Statements) -> Load:
    """What weighs on the spool."""
    row = await statements.one(_LOAD)
    return Load(row["waiting"], row["messages"], row["bytes"]) if row is not None else Load(0, 0, 0)


async def discard(statements: Statements, *, before: float, limit: int, now: float) -> int:
    """Discards and erases; see the contract. A message for several accounts stays until none of them waits for it.

    It looks twice, as `messages.erase_finished` does: a person may decide otherwise between the look and the lock.
    """
    found = await statements.all(f"{_EXPIRED} ORDER BY a.received_at, a.id LIMIT :limit", before=before, limit=limit)
    locked = await statements.all(_LOCK, ids=sorted({row["message_id"] for row in found}))
    rows = await statements.all(
        f"{_EXPIRED} AND a.id = ANY(:ids) AND a.message_id = ANY(:message_ids) ORDER BY a.id",
        before=before,
        ids=[row["id"] for row in found],
        message_ids=[row["id"] for row in locked],
    )
    for row in rows:
        await people.act(statements, row["id"], Action(Event.DISCARD, ACTOR, UNVOUCHED_NOTE), now=now)
    unwanted = await statements.all(_UNWANTED, ids=[row["message_id"] for row in rows])
    await messages.erase(statements, [row["id"] for row in unwanted], now=now)
    return len(rows)
