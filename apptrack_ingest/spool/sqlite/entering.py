"""Enters in the ledger what was put: a mail is one row at first, and all the rows that the ledger has of it a little later.

A message with its applications changes some twenty pages of tables and indexes, most of them the same for one mail as for
fifty; a group of four mails took more CPU and time for those than for everything else of its commit. So a put writes one
row (`puts`), and whoever comes next to look at the ledger or to change it enters what is there by then, many at a time. The
row is as durable as the ledger, and its id is the message's from the beginning.

What was entered has ids up to the highest that the table `messages` ever had, and nothing behind that was. The row stays
where it is: it holds the bytes of a small mail, until they are erased.
"""

import json
import sqlite3
from collections.abc import Sequence
from functools import lru_cache

from apptrack_ingest.model import Arrival

MOST_AT_ONCE = 128
"""Messages entered in one transaction: a few milliseconds, for which others wait."""

ENTERED = (
    "max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0),"
    " coalesce((SELECT max(id) FROM messages), 0))"
)
"""SQL: the highest id that was entered."""

_LAST_ID = f"SELECT max(coalesce((SELECT max(id) FROM puts), 0), {ENTERED})"  # noqa: S608 - only our own constants

_NEWEST = f"SELECT max(id) FROM puts WHERE id > {ENTERED}"  # noqa: S608 - the same

_NEXT = f"""
SELECT e.last, (SELECT max(id) FROM (SELECT id FROM puts WHERE id > e.last ORDER BY id LIMIT ?))
FROM (SELECT {ENTERED} AS last) e
"""  # noqa: S608 - the same

_ENTER = (
    """
INSERT INTO messages
    (id, received_at, sender, recipients, peer, helo, smtputf8, size, sha256, evidence, warnings, crc32)
SELECT id, received_at, sender, recipients, peer, helo, smtputf8, size, '', evidence, warnings, crc32
FROM puts WHERE id > :after AND id <= :upto ORDER BY id
""",
    """
INSERT INTO applications (message_id, account, applicant_id, trusted, trust_note, received_at, due_at)
SELECT e.id, e.one ->> 0, e.one ->> 1, coalesce(e.one ->> 2, 0), coalesce(e.one ->> 3, ''), e.received_at, e.received_at
FROM (SELECT p.id, p.received_at, iif(a.type = 'array', a.value, :unreadable) AS one FROM puts p CROSS JOIN json_each(
          iif(json_valid(p.applications), iif(json_array_length(p.applications) > 0, p.applications, :only), :only)) a
      WHERE p.id > :after AND p.id <= :upto ORDER BY p.id, a.key) e
""",
)

# What is damaged goes to nobody in particular, and so to a person; it must not keep what came behind it from being entered.
_UNREADABLE = '[null,null,0,"the spool was damaged: what was noted of it when it came cannot be read"]'

_encoded = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_LARGEST = 2**63 - 1


def written(arrivals: Sequence[Arrival]) -> str:
    """A message's applications as a row of `puts` has them. OverflowError for an id that SQLite could not keep."""
    return f"[{','.join([_written(each) for each in arrivals])}]"


def _written(arrival: Arrival) -> str:
    applicant_id = arrival.applicant_id
    if not -_LARGEST <= (applicant_id or 0) <= _LARGEST:
        raise OverflowError("the applicant id is larger than SQLite can keep")
    number = "null" if applicant_id is None else int(applicant_id)
    return f"[{_text(arrival.account)},{number},{int(arrival.trusted)},{_text(arrival.trust_note)}]"


@lru_cache(256)
def _text(text: str | None) -> str:
    """An account, or why mail is believed, as JSON: nearly always the same few."""
    # SQLite's JSON ends a text at a NUL.
    return _encoded(None if text is None else text.replace("\0", "\ufffd"))


def last_id(connection: sqlite3.Connection) -> int:
    """The highest id that a message ever had; 0 where there was none. Within a transaction that writes, the next is free."""
    return int(connection.execute(_LAST_ID).fetchone()[0])


def entered(connection: sqlite3.Connection) -> int:
    """The id up to which all messages are entered."""
    return int(connection.execute(f"SELECT {ENTERED}").fetchone()[0])


def newest(connection: sqlite3.Connection) -> int:
    """The highest id of a message that is not entered yet; 0 where all are."""
    return int(connection.execute(_NEWEST).fetchone()[0] or 0)


def missing(connection: sqlite3.Connection) -> int:
    """How many messages, at the most, are not entered yet; none where it is 0 or less."""
    return int(connection.execute(f"SELECT coalesce((SELECT max(id) FROM puts), 0) - {ENTERED}").fetchone()[0])  # noqa: S608


def enter(connection: sqlite3.Connection, most: int = MOST_AT_ONCE) -> bool:
    """Enters the oldest that are not entered yet, so many at most, in the caller's transaction; whether there were any."""
    after, upto = connection.execute(_NEXT, (most,)).fetchone()
    if upto is None:
        return False
    for statement in _ENTER:
        values = {"after": after, "upto": upto, "unreadable": _UNREADABLE, "only": f"[{_UNREADABLE}]"}
        connection.execute(statement, {name: value for name, value in values.items() if f":{name}" in statement})
    return True


def enter_all(connection: sqlite3.Connection) -> None:
    """Enters all that was put before; commits by itself, for others wait meanwhile. Takes no lock where there is nothing to
    enter."""
    upto = newest(connection)
    while entered(connection) < upto:
        connection.execute("BEGIN IMMEDIATE")
        try:
            enter(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
