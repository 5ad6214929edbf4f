"""Checks a spool: each body against its digest, and what must hold of the ledger at every moment."""

# ruff: noqa: S608 - statements are made of our own names and constants alone

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from apptrack_ingest.errors import NotFound, SpoolUnavailable
from apptrack_ingest.model import ReportState, State
from apptrack_ingest.spool.copying import applications_of, whole_messages
from apptrack_ingest.spool.derived import Rule
from apptrack_ingest.spool.rows import is_as_received
from apptrack_ingest.spool.tables import Tables

MOST = 1000
"""Findings of one kind that are told one by one."""

OPEN = (ReportState.DUE, ReportState.REFUSED, ReportState.FAILED)
"""Reports of which an applicant has one at most: the newest."""


def _of(states: tuple[str, ...]) -> str:
    return "(" + ", ".join(f"'{state}'" for state in states) + ")"


_WORKED = "CAST(in_attempt AS integer) = 1"

RULES = (
    Rule(
        f"SELECT id, state FROM applications WHERE state NOT IN {_of(tuple(State))}",
        "application {0}: no such state, {1}",
    ),
    Rule(
        "SELECT id FROM applications WHERE state = 'received' AND due_at IS NULL",
        "application {0}: received, and never due",
    ),
    Rule(
        "SELECT id FROM applications WHERE state = 'received' AND settled_at IS NOT NULL",
        "application {0}: received, and settled",
    ),
    Rule(
        "SELECT id, state FROM applications WHERE state <> 'received' AND settled_at IS NULL",
        "application {0}: {1}, and never settled",
    ),
    Rule(
        "SELECT id, state FROM applications WHERE state <> 'received' AND due_at IS NOT NULL",
        "application {0}: {1}, and due",
    ),
    Rule("SELECT id FROM applications WHERE state = 'held' AND reason IS NULL", "application {0}: held for no reason"),
    Rule(
        "SELECT id FROM applications WHERE state = 'delivered' AND delivered_at IS NULL",
        "application {0}: delivered at no time",
    ),
    Rule(
        f"SELECT id FROM applications WHERE {_WORKED} AND (lease_until IS NULL OR lease_worker IS NULL)",
        "application {0}: in work, and under no lease",
    ),
    Rule(
        f"SELECT id, state FROM applications WHERE {_WORKED} AND state <> 'received'",
        "application {0}: in work, and {1}",
    ),
    Rule(
        f"SELECT a.id FROM applications a WHERE {_WORKED} AND NOT EXISTS (SELECT 1 FROM attempts t"
        " WHERE t.application_id = a.id AND t.report_id IS NULL AND t.token = a.lease_token AND t.ended_at IS NULL)",
        "application {0}: in work, and no attempt is under way",
    ),
    Rule(
        "SELECT t.id, t.application_id FROM attempts t WHERE t.report_id IS NULL AND t.ended_at IS NULL AND NOT EXISTS"
        f" (SELECT 1 FROM applications a WHERE a.id = t.application_id AND a.lease_token = t.token AND {_WORKED})",
        "attempt {0} of application {1}: never ended, and nobody is at it",
    ),
    Rule(
        "SELECT a.id FROM applications a WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.id = a.message_id)",
        "application {0}: its message is not there",
    ),
    Rule(
        "SELECT m.id FROM messages m WHERE NOT EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id)",
        "message {0}: belongs to no application",
    ),
    Rule(
        f"SELECT id, state FROM reports WHERE state NOT IN {_of(tuple(ReportState))}", "report {0}: no such state, {1}"
    ),
    Rule("SELECT id FROM reports WHERE state = 'due' AND due_at IS NULL", "report {0}: due at no time"),
    Rule("SELECT id FROM reports WHERE state = 'due' AND settled_at IS NOT NULL", "report {0}: due, and settled"),
    Rule(
        "SELECT id, state FROM reports WHERE state <> 'due' AND settled_at IS NULL",
        "report {0}: {1}, and never settled",
    ),
    Rule("SELECT id, state FROM reports WHERE state <> 'due' AND due_at IS NOT NULL", "report {0}: {1}, and due"),
    Rule(
        "SELECT id, state, newest FROM (SELECT id, state, max(id) OVER (PARTITION BY account, applicant_id) AS newest"
        f" FROM reports) every WHERE id < newest AND state IN {_of(OPEN)}",
        "report {0}: {1}, although report {2} of the same applicant is newer",
    ),
    Rule(
        f"SELECT id FROM reports WHERE {_WORKED} AND (lease_until IS NULL OR lease_worker IS NULL)",
        "report {0}: being sent, and under no lease",
    ),
    *(
        Rule(
            f"SELECT c.id, c.application_id FROM {table}s c"
            " WHERE NOT EXISTS (SELECT 1 FROM applications a WHERE a.id = c.application_id)",
            f"{table} {{0}}: its application {{1}} is not there",
        )
        for table in ("report", "attempt", "action")
    ),
)
"""What must hold of the ledger; the statements are understood by every database."""


@dataclass(slots=True)
class Check:
    """One look through a spool, which may be in use meanwhile; `tell` gets the number of bodies looked at, and of all."""

    tables: Tables
    tell: Callable[[int, int], None] = lambda *_: None
    bodies: int = 0

    async def findings(self) -> AsyncIterator[str]:
        """Everything that is wrong, a sentence each; nothing of a candidate is in any."""
        for finding in await self.tables.own_findings():
            yield finding
        try:
            await self.tables.complete()
        except SpoolUnavailable as error:
            yield f"mails that came in last cannot be entered in the ledger: {error}"
        async with self.tables.snapshot():
            for rule in self._rules():
                rows = await self.tables.query(f"{rule.breaches} LIMIT {MOST + 1}")
                for row in rows[:MOST]:
                    yield rule.says.format(*row)
                if len(rows) > MOST:
                    yield f"and more than {MOST} in all of this kind"
        async for finding in self._bodies():
            yield finding

    def _rules(self) -> tuple[Rule, ...]:
        kept = self.tables.kept
        return (
            *RULES,
            *self.tables.rules,
            Rule(
                f"SELECT k.message_id FROM ({kept}) k LEFT JOIN messages m ON m.id = k.message_id WHERE m.id IS NULL",
                "message {0}: its bytes are there, and the message is not",
            ),
            Rule(
                f"SELECT m.id FROM messages m JOIN ({kept}) k ON k.message_id = m.id WHERE m.erased_at IS NOT NULL",
                "message {0}: erased, and its bytes are there all the same",
            ),
        )

    async def _bodies(self) -> AsyncIterator[str]:
        [(total,)] = await self.tables.query("SELECT count(*) FROM messages WHERE erased_at IS NULL")
        async for message_id, size, sha256 in whole_messages(self.tables):
            if (wrong := await self._wrong_with(message_id, size, sha256)) is not None:
                of = await applications_of(self.tables, message_id)
                yield f"{wrong} (application {', '.join(map(str, of))})" if of else wrong
            self.bodies += 1
            self.tell(self.bodies, max(int(total), self.bodies))

    async def _wrong_with(self, message_id: int, size: int, sha256: str) -> str | None:
        try:
            raw = await self.tables.body(message_id)
        except NotFound as error:
            still = await self.tables.query(
                "SELECT 1 FROM messages WHERE id = :id AND erased_at IS NULL", id=message_id
            )
            return f"message {message_id}: {error}" if still else None
        if len(raw) != size:
            return f"message {message_id}: it has {len(raw)} bytes, and {size} were received"
        if not is_as_received(raw, size, sha256):
            return f"message {message_id}: its bytes are not those that were received (SHA-256 differs)"
        return None
