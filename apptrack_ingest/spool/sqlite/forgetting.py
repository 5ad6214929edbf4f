"""Erasing one person: the mails, and whatever words in the histories may tell of them."""

import json
import sqlite3
from collections.abc import Collection, Iterable

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.phrases import ERASED
from apptrack_ingest.spool.persons import (
    digest_of,
    folded,
    forgotten_in,
    must_be_at_rest,
    new_salt,
    trace_in,
    whole_names,
)
from apptrack_ingest.spool.records import Forgotten, Order, Trace
from apptrack_ingest.spool.sqlite import entering, messages, orders, people

_BY_ADDRESS = "SELECT id FROM applications WHERE candidate_email IS NOT NULL AND fold(candidate_email) = :address"

_RELATED = """
WITH known AS (SELECT a.id, a.message_id, a.account, a.applicant_id FROM applications a
               WHERE a.id IN (SELECT value FROM json_each(:ids)))
SELECT id FROM known
UNION SELECT o.id FROM known k JOIN applications o ON o.message_id = k.message_id
UNION SELECT o.id FROM known k JOIN applications o ON o.applicant_id = k.applicant_id AND o.account = k.account
"""

_TRACES = """
SELECT a.*, m.erased_at,
    EXISTS (SELECT 1 FROM reports r WHERE r.application_id = a.id AND r.in_attempt = 1) AS reporting
FROM applications a JOIN messages m ON m.id = a.message_id
WHERE a.id IN (SELECT value FROM json_each(:ids)) ORDER BY a.id
"""


def traces(connection: sqlite3.Connection, address: str, also: Collection[int]) -> list[Trace]:
    """The applications of a person; looked for again among what is related, until there is nothing new."""
    found = {row["id"] for row in connection.execute(_BY_ADDRESS, {"address": folded(address)})} | set(also)
    while True:
        related = {row["id"] for row in connection.execute(_RELATED, {"ids": json.dumps(sorted(found))})}
        if related <= found:
            return _traces(connection, related)
        found |= related


def _traces(connection: sqlite3.Connection, ids: Iterable[int]) -> list[Trace]:
    return [trace_in(row) for row in connection.execute(_TRACES, {"ids": json.dumps(sorted(ids))})]


_OF_THESE = "IN (SELECT value FROM json_each(:ids))"

_SCRUB = (
    f"UPDATE messages SET peer = '' WHERE id IN (SELECT message_id FROM applications WHERE id {_OF_THESE})",  # noqa: S608
    "UPDATE applications SET trust_note = '',"  # noqa: S608
    f" remote_id = CASE WHEN instr(fold(remote_id), :address) THEN NULL ELSE remote_id END WHERE id {_OF_THESE}",
    "UPDATE reports SET"  # noqa: S608
    " error_message = CASE WHEN status = 'fail' AND state IN ('due', 'refused', 'failed') THEN :owed END,"
    " remote_id = CASE WHEN instr(fold(remote_id), :address) THEN NULL ELSE remote_id END"
    f" WHERE application_id {_OF_THESE}",
    f"UPDATE actions SET note = '' WHERE application_id {_OF_THESE}",  # noqa: S608
    "UPDATE orders SET subject = '', note = '' WHERE EXISTS (SELECT 1 FROM json_each(:names)"
    " WHERE instr(fold(subject || char(10) || note), value))",
)


def forget(
    connection: sqlite3.Connection, address: str, applications: Collection[int], *, actor: str, note: str, now: float
) -> Forgotten:
    """Erases, and keeps a digest; see the contract."""
    while entering.enter(connection):  # a mail that came in just now may be the person's, too
        pass
    found = _traces(connection, applications)
    must_be_at_rest(found)
    values = {"ids": json.dumps(sorted(applications)), "address": folded(address), "owed": ERASED}
    values["names"] = json.dumps([folded(address), *_names(connection, values["ids"])])
    for message_id in sorted({trace.message_id for trace in found}):
        messages.erase(connection, message_id, now=now)
    for statement in _SCRUB:
        connection.execute(statement, {name: value for name, value in values.items() if f":{name}" in statement})
    left = Forgotten(digest_of(address, salt := _salt(connection)), now, actor, len(found))
    order_id = orders.begin(connection, Order("forget", actor, None, left.digest, note), now=now)
    orders.end(connection, order_id, done=len(found), refused=0, now=now)
    for trace in found:
        people.record(connection, trace.application_id, now, actor, Event.FORGET, "", order_id)
    connection.execute(
        "INSERT INTO forgotten (digest, salt, at, actor, applications) VALUES (?, ?, ?, ?, ?)",
        (left.digest, salt, now, actor, left.applications),
    )
    return left


def _names(connection: sqlite3.Connection, ids: str) -> list[str]:
    names = connection.execute(f"SELECT candidate_name FROM applications WHERE id {_OF_THESE}", {"ids": ids})  # noqa: S608
    return whole_names(row["candidate_name"] for row in names)


def _salt(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT salt FROM forgotten LIMIT 1").fetchone()
    return row["salt"] if row else new_salt()


def forgotten(connection: sqlite3.Connection, address: str) -> list[Forgotten]:
    """What is left of a person with this address."""
    salts = [row["salt"] for row in connection.execute("SELECT DISTINCT salt FROM forgotten")]
    digests = json.dumps([digest_of(address, salt) for salt in salts])
    rows = connection.execute(
        "SELECT * FROM forgotten WHERE digest IN (SELECT value FROM json_each(?)) ORDER BY at DESC", (digests,)
    )
    return [forgotten_in(row) for row in rows]
