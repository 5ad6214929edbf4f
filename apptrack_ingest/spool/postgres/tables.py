"""The tables of a spool in PostgreSQL, row by row, to copy and check it."""

# ruff: noqa: S608 - statements are made of our own names and constants alone

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from apptrack_ingest.spool.derived import MEND, Rule, rules
from apptrack_ingest.spool.postgres import bodies, flat
from apptrack_ingest.spool.postgres.door import FAULTS, Options, Statements, checked, connect, storable, unavailable
from apptrack_ingest.spool.postgres.migrations import make_fit
from apptrack_ingest.spool.tables import Row, Table

PATIENT = Options(lock_timeout=30.0, statement_timeout=1800.0)
"""What counts a whole table may take long."""

_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = current_schema() AND is_generated = 'NEVER' AND table_name IN
    (SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE')
ORDER BY table_name, ordinal_position
"""

_UNTRUSTED = Rule(
    "SELECT m.id FROM messages m WHERE m.untrusted <> EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id"
    " AND NOT a.trusted AND NOT a.vouched AND a.state IN ('received', 'held'))",
    "message {0}: whether it is kept for an untrusted application is not right" + MEND,
)

# SQLite takes them late; here everybody relies on them.
_DIGESTS = """
UPDATE messages m SET sha256 = d.digest FROM unnest(:ids::bigint[], :digests::text[]) d (id, digest)
WHERE m.id = d.id AND m.sha256 = ''
"""


@contextmanager
def told() -> Iterator[None]:
    """Every fault as SpoolUnavailable."""
    try:
        yield
    except FAULTS as error:
        raise unavailable(error) from None


async def open_tables(url: str) -> "PostgresTables":
    """Connects, and takes missing migrations."""
    with told():
        connection = await _connected(checked(url))
        await make_fit(connection)
        rows = await connection.fetch(_COLUMNS)
    types: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        types.setdefault(table, {})[column] = kind
    return PostgresTables(connection, types)


async def _connected(url: str) -> "asyncpg.Connection[Any]":
    try:
        return await connect(url, PATIENT)
    except (ValueError, LookupError) as error:  # see Door
        raise unavailable(error) from None


class PostgresTables:
    """See `Tables`."""

    kept = "SELECT message_id FROM bodies"

    def __init__(self, connection: "asyncpg.Connection[Any]", types: Mapping[str, Mapping[str, str]]) -> None:
        self._connection = connection
        self._statements = Statements(connection)
        self._types = types

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (*rules(tallies=flat.TALLIED, hour=flat.HOUR, late=1000), _UNTRUSTED)

    async def complete(self) -> None:
        """A put is in them from its commit on."""

    async def columns(self) -> Mapping[str, Sequence[str]]:
        return {table: list(columns) for table, columns in self._types.items()}

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        with told():
            transaction = self._connection.transaction(isolation="repeatable_read", readonly=True)
            await transaction.start()
        try:
            yield
        finally:
            with told():
                await transaction.rollback()

    async def query(self, sql: str, **values: object) -> list[Row]:
        with told():
            return [tuple(row) for row in await self._statements.all(sql, **values)]

    async def run(self, sql: str, **values: object) -> None:
        with told():
            await self._statements.all(sql, **values)

    async def add(self, table: Table, rows: Sequence[Row], *, anew: bool = False) -> None:
        columns, records = [*table.columns], self._as_here(table, rows)
        if table.name == "applications":
            columns.append("candidate_folded")
            name, address = table.columns.index("candidate_name"), table.columns.index("candidate_email")
            records = [(*row, _folded(row[name], row[address])) for row in records]
        with told():
            async with self._connection.transaction():
                if anew:
                    await self._connection.execute(f"DELETE FROM {table.name} WHERE {table.where}")
                await self._connection.copy_records_to_table(table.name, records=records, columns=columns)

    def _as_here(self, table: Table, rows: Sequence[Row]) -> list[Row]:
        """The rows with booleans where the columns want them, and texts that can be kept."""
        types = self._types[table.name]
        flags = [types[column] == "boolean" for column in table.columns]
        return [
            tuple(
                bool(value) if flag and value is not None else storable(value)
                for value, flag in zip(row, flags, strict=True)
            )
            for row in rows
        ]

    async def last_id(self, table: Table) -> int:
        found = await self.query(
            "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(:name, 'id')::regclass), 0)", name=table.name
        )
        return int(found[0][0])

    async def set_last_id(self, table: Table, number: int) -> None:
        if number > 0:
            await self.query(
                "SELECT setval(pg_get_serial_sequence(:name, 'id')::regclass, :number)",
                name=table.name,
                number=number,
            )

    async def body(self, message_id: int) -> bytes:
        with told():
            return await bodies.fetch(self._statements, message_id)

    async def add_bodies(self, bodies_: Sequence[tuple[int, bytes]]) -> None:
        with told():
            async with self._connection.transaction():
                await self._connection.copy_records_to_table("bodies", records=bodies_, columns=["message_id", "raw"])
                await self._statements.run(
                    _DIGESTS,
                    ids=[message_id for message_id, _ in bodies_],
                    digests=[hashlib.sha256(raw).hexdigest() for _, raw in bodies_],
                )

    async def others(self) -> int:
        found = await self.query(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
        )
        return int(found[0][0])

    async def own_findings(self) -> list[str]:
        """PostgreSQL has its own tools for its files (pg_amcheck, checksums); constraints hold at all times."""
        return []

    async def derive(self) -> None:
        with told():
            async with self._connection.transaction():
                await self._connection.execute(flat.ANEW, timeout=PATIENT.statement_timeout)

    async def finish(self) -> None:
        """Statistics, without which the first questions would go through whole tables."""
        with told():
            await self._connection.execute("ANALYZE")

    async def close(self) -> None:
        with told():
            await self._connection.close(timeout=5.0)


def _folded(name: str | None, address: str | None) -> str | None:
    """As `hand_off.keep_facts` writes it, and None where it never did."""
    if name is None and address is None:
        return None
    return f"{name or ''}\n{address or ''}".casefold()
