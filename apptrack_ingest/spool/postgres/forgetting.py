"""Erasing one person: the mails, and whatever words in the histories may tell of them."""

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
from apptrack_ingest.spool.postgres import messages, orders, people
from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.records import Forgotten, Order, Trace

# The searched column is folded as addresses are: name, newline, address.
_BY_ADDRESS = """
SELECT id FROM applications WHERE candidate_email IS NOT NULL
    AND right(candidate_folded, length(:address::text) + 1) = chr(10) || :address
"""

_RELATED = """
WITH known AS (SELECT a.id, a.message_id, a.account, a.applicant_id FROM applications a WHERE a.id = ANY(:ids::bigint[]))
SELECT id FROM known
UNION SELECT o.id FROM known k JOIN applications o ON o.message_id = k.message_id
UNION SELECT o.id FROM known k JOIN applications o ON o.applicant_id = k.applicant_id AND o.account = k.account
"""

_TRACES = """
SELECT a.*, m.erased_at, EXISTS (SELECT 1 FROM reports r WHERE r.application_id = a.id AND r.in_attempt) AS reporting
FROM applications a JOIN messages m ON m.id = a.message_id WHERE a.id = ANY(:ids::bigint[]) ORDER BY a.id
"""


async def traces(statements: Statements, address: str, also: Collection[int]) -> list[Trace]:
    """The applications of a person; looked for again among what is related, until there is nothing new."""
    found = {row["id"] for row in await statements.all(_BY_ADDRESS, address=folded(address))} | set(also)
    while True:
        related = {row["id"] for row in await statements.all(_RELATED, ids=sorted(found))}
        if related <= found:
            return await _traces(statements, related)
        found |= related


async def _traces(statements: Statements, ids: Iterable[int]) -> list[Trace]:
    return [trace_in(row) for row in await statements.all(_TRACES, ids=sorted(ids))]


# The messages first, as everywhere: behind these locks nobody can set one of the applications going again.
_LOCK = (
    "SELECT id FROM messages WHERE id IN (SELECT message_id FROM applications WHERE id = ANY(:ids::bigint[]))"
    " ORDER BY id FOR UPDATE",
    "SELECT id FROM applications WHERE id = ANY(:ids::bigint[]) ORDER BY id FOR UPDATE",
    "SELECT id FROM reports WHERE application_id = ANY(:ids::bigint[]) ORDER BY id FOR UPDATE",
)

_SCRUB = (
    "UPDATE messages SET peer = '' WHERE id IN (SELECT message_id FROM applications WHERE id = ANY(:ids::bigint[]))",
    "UPDATE applications SET trust_note = '',"
    " remote_id = CASE WHEN strpos(lower(remote_id), :address) > 0 THEN NULL ELSE remote_id END"
    " WHERE id = ANY(:ids::bigint[])",
    "UPDATE reports SET"
    " error_message = CASE WHEN status = 'fail' AND state IN ('due', 'refused', 'failed') THEN :owed::text END,"
    " remote_id = CASE WHEN strpos(lower(remote_id), :address) > 0 THEN NULL ELSE remote_id END"
    " WHERE application_id = ANY(:ids::bigint[])",
    "UPDATE actions SET note = '' WHERE application_id = ANY(:ids::bigint[])",
    "UPDATE orders SET subject = '', note = '' WHERE EXISTS (SELECT 1 FROM unnest(:names::text[]) known (name)"
    " WHERE strpos(lower(subject || chr(10) || note), known.name) > 0)",
)

_KEEP = """
INSERT INTO forgotten (digest, salt, at, actor, applications) VALUES (:digest, :salt, :at, :actor, :applications)
"""


async def forget(
    statements: Statements, address: str, applications: Collection[int], *, actor: str, note: str, now: float
) -> Forgotten:
    """Erases, and keeps a digest; see the contract."""
    ids = sorted(applications)
    for lock in _LOCK:
        await statements.all(lock, ids=ids)
    found = await _traces(statements, ids)
    must_be_at_rest(found)
    names = [folded(address), *await _names(statements, ids)]
    await messages.erase(statements, sorted({trace.message_id for trace in found}), now=now)
    for statement in _SCRUB:
        await statements.run(statement, ids=ids, address=folded(address), names=names, owed=ERASED)
    left = Forgotten(digest_of(address, salt := await _salt(statements)), now, actor, len(found))
    order_id = await orders.begin(statements, Order("forget", actor, None, left.digest, note), now=now)
    await orders.end(statements, order_id, done=len(found), refused=0, now=now)
    for trace in found:
        await people.record(statements, trace.application_id, now, actor, Event.FORGET, "", order_id)
    await statements.run(_KEEP, digest=left.digest, salt=salt, at=now, actor=actor, applications=left.applications)
    return left


async def _names(statements: Statements, ids: list[int]) -> list[str]:
    rows = await statements.all("SELECT candidate_name FROM applications WHERE id = ANY(:ids::bigint[])", ids=ids)
    return whole_names(row["candidate_name"] for row in rows)


async def _salt(statements: Statements) -> str:
    row = await statements.one("SELECT salt FROM forgotten LIMIT 1")
    return row["salt"] if row is not None else new_salt()


async def forgotten(statements: Statements, address: str) -> list[Forgotten]:
    """What is left of a person with this address."""
    salts = await statements.all("SELECT DISTINCT salt FROM forgotten")
    rows = await statements.all(
        "SELECT * FROM forgotten WHERE digest = ANY(:digests::text[]) ORDER BY at DESC",
        digests=[digest_of(address, row["salt"]) for row in salts],
    )
    return [forgotten_in(row) for row in rows]
