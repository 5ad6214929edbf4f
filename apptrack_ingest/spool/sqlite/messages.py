"""Keeping a message and its applications, and erasing them when their time has come."""

import hashlib
import json
import sqlite3
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain
from types import MappingProxyType

from apptrack_ingest.errors import NotFound
from apptrack_ingest.lifecycle import FINISHED
from apptrack_ingest.model import Arrival, Message, ReportState
from apptrack_ingest.spool.sqlite import bodies
from apptrack_ingest.spool.sqlite.entering import enter, last_id, written
from apptrack_ingest.spool.sqlite.segments import Place

NO_DIGESTS: Mapping[int, str] = MappingProxyType({})


Kept = tuple[Message, Sequence[Arrival], int | None, Place | None]
"""A message, its applications, the checksum of its body, and where that is already (None: it goes to the database)."""

_PUT = "puts (id, received_at, sender, recipients, peer, helo, smtputf8, size, evidence, warnings, crc32, applications, raw)"
_STORED = "stored (message_id, segment, start, size)"

_ROWS_AT_ONCE = (1, 2, 4, 8, 16, 32)
"""Rows of one statement: few sizes, so that each is prepared once; what is missing to one is left empty. Every statement
makes the thread wait anew for the interpreter's lock, which the event loop holds most of the time."""


def put(connection: sqlite3.Connection, message: Message, arrivals: Sequence[Arrival]) -> int:
    """Inserts a message, its body in the database whatever its size, and enters it; returns its id."""
    [message_id] = put_all(connection, [(message, arrivals, zlib.crc32(message.raw), None)])
    while enter(connection):
        pass
    return message_id


def put_all(connection: sqlite3.Connection, kept: Sequence[Kept]) -> list[int]:
    """Inserts messages with their applications, and their bodies or where these are; returns their ids. They are in the
    ledger when they are entered (entering.py).

    The digest of a body stays out: to compute it takes longer than all the rest. `digest` does when somebody asks for it,
    and at the latest when the body is erased.
    """
    first = last_id(connection) + 1
    numbered = list(enumerate(kept, start=first))
    _insert(connection, _STORED, [(i, *place) for i, (_, _, _, place) in numbered if place is not None])
    _insert(connection, _PUT, [_row(i, *each) for i, each in numbered])
    return [i for i, _ in numbered]


def _row(
    message_id: int, message: Message, arrivals: Sequence[Arrival], crc32: int | None, place: Place | None
) -> tuple[object, ...]:
    envelope = message.envelope
    return (
        message_id,
        message.received_at,
        envelope.sender,
        _list(envelope.recipients),
        envelope.peer,
        envelope.helo,
        int(envelope.smtputf8),
        len(message.raw),
        json.dumps(message.evidence) if message.evidence else "[]",
        _list(message.warnings),
        crc32,
        written(arrivals),
        message.raw if place is None else None,
    )


_list = lru_cache(32)(json.dumps)
"""A mail's recipients, and what was odd about it, as JSON: nearly always the same few. Not many are remembered, for a sender
may give a hundred long ones with each mail."""


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Inserts rows whose first value is never NULL."""
    most = _ROWS_AT_ONCE[-1]
    for at in range(0, len(rows), most):
        some = rows[at : at + most]
        number = _ROWS_AT_ONCE[bisect_left(_ROWS_AT_ONCE, len(some))]
        # Only the first is NULL, which takes sqlite3 as long to bind as five numbers (connection.assigned).
        empty = (None, *[0] * (len(some[0]) - 1)) * (number - len(some))
        connection.execute(_statement(into, len(some[0]), number), [*chain.from_iterable(some), *empty])


@cache
def _statement(into: str, columns: int, number: int) -> str:
    values = f"({', '.join('?' * columns)})"
    if number == 1:
        return f"INSERT INTO {into} VALUES {values}"  # noqa: S608 - only our own constants
    many = ", ".join([values] * number)
    return f"INSERT INTO {into} SELECT * FROM (VALUES {many}) WHERE column1 IS NOT NULL"  # noqa: S608 - the same


def digest(connection: sqlite3.Connection, message_id: int) -> str:
    """The SHA-256 of a message's bytes; empty where they are missing or damaged."""
    try:
        return hashlib.sha256(bodies.fetch(connection, message_id)).hexdigest()
    except NotFound:
        return ""


_ERASABLE = f"""
SELECT m.id FROM messages m INDEXED BY messages_finished
WHERE m.erased_at IS NULL AND m.finished_at < :before AND m.received_at < :before
  AND NOT EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id
                  AND (a.state NOT IN ({", ".join(f"'{state}'" for state in sorted(FINISHED))}) OR a.settled_at >= :before))
  AND NOT EXISTS (SELECT 1 FROM applications a INDEXED BY applications_by_message
                  CROSS JOIN reports r INDEXED BY reports_by_application
                  WHERE a.message_id = m.id AND r.application_id = a.id
                    AND r.state IN ('{ReportState.DUE}', '{ReportState.REFUSED}', '{ReportState.FAILED}'))
ORDER BY m.finished_at, m.id LIMIT :limit
"""  # noqa: S608 - only our own constants


def digests_due(connection: sqlite3.Connection, *, before: float, limit: int) -> dict[int, str]:
    """The digests that `erase_finished` would have to compute while others wait for its lock."""
    erasable = f"SELECT id FROM messages WHERE sha256 = '' AND id IN ({_ERASABLE})"  # noqa: S608 - our own constants
    ids = [row["id"] for row in connection.execute(erasable, {"before": before, "limit": limit})]
    return {message_id: digest(connection, message_id) for message_id in ids}


def erase_finished(
    connection: sqlite3.Connection, *, before: float, limit: int, now: float, digests: Mapping[int, str] = NO_DIGESTS
) -> int:
    """Erases bodies, envelopes' and candidates' data of finished messages; ids, digests and times stay."""
    ids = [row["id"] for row in connection.execute(_ERASABLE, {"before": before, "limit": limit})]
    for message_id in ids:
        erase(connection, message_id, now=now, digests=digests)
    return len(ids)


def erase(
    connection: sqlite3.Connection, message_id: int, *, now: float, digests: Mapping[int, str] = NO_DIGESTS
) -> None:
    """Erases one message's body, its envelope and all that was derived from it; ids, digests and times stay."""
    if connection.execute("SELECT 1 FROM messages WHERE id = ? AND sha256 = ''", (message_id,)).fetchone():
        known = digests.get(message_id) or digest(connection, message_id)
        connection.execute("UPDATE messages SET sha256 = ? WHERE id = ?", (known, message_id))
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
