"""The tables of a spool in a SQLite file, row by row, to copy and check it."""

# ruff: noqa: S608 - statements are made of our own names and constants alone

import sqlite3
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.spool.derived import Rule, rules
from apptrack_ingest.spool.sqlite import bodies, entering, flat
from apptrack_ingest.spool.sqlite.entering import ENTERED
from apptrack_ingest.spool.sqlite.migrations import statements
from apptrack_ingest.spool.tables import Row, Table

BUSY_SECONDS = 30.0
"""How long a statement waits for another process's commit."""

MOST_FINDINGS = 100
"""Findings of SQLite's own that are told one by one."""

_PLACES = (
    Rule(
        "SELECT message_id FROM (SELECT id AS message_id FROM puts WHERE raw IS NOT NULL"
        " UNION ALL SELECT message_id FROM bodies UNION ALL SELECT message_id FROM stored) GROUP BY 1 HAVING count(*) > 1",
        "message {0}: its bytes are kept in two places",
    ),
    Rule(
        "SELECT s.message_id, s.segment FROM stored s WHERE EXISTS (SELECT 1 FROM stored n WHERE n.segment = s.segment"
        " AND n.start > s.start AND n.start < s.start + s.size)",
        "message {0}: another's bytes are in the place of its own, in {1}.log",
    ),
    Rule(
        "SELECT s.message_id, s.segment FROM stored s JOIN emptied e ON e.segment = s.segment"
        " AND e.start < s.start + s.size AND s.start < e.start + e.size",
        "message {0}: its place is to be emptied, in {1}.log",
    ),
)
"""What must hold of where bodies are (bodies.py)."""


def connect(database: Path) -> sqlite3.Connection:
    """A connection to a spool that is there already, with plain rows."""
    try:
        connection = sqlite3.connect(
            f"file:{_quoted(database)}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
    except sqlite3.Error as error:
        raise SpoolUnavailable(f"{database}: {error}; check the directory's owner, mode and free space") from None
    return connection


def _quoted(database: Path) -> str:
    return str(database.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class SqliteTables:
    """See `Tables`; its file must have the present schema."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._connection = connect(database)

    @contextmanager
    def _told(self) -> Iterator[sqlite3.Connection]:
        """SQLite's own messages name no data of ours, so they may be shown."""
        try:
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            raise SpoolUnavailable(f"{self.database}: {type(error).__name__}: {error}") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._told() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @property
    def kept(self) -> str:
        return (
            f"SELECT id AS message_id FROM puts WHERE id <= {ENTERED} UNION SELECT message_id FROM bodies"
            f" UNION SELECT message_id FROM stored WHERE message_id <= {ENTERED}"
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (*rules(tallies=flat.TALLIED, hour=flat.HOUR, late=0), *_PLACES)

    async def complete(self) -> None:
        with self._told() as connection:
            entering.enter_all(connection)

    async def columns(self) -> Mapping[str, Sequence[str]]:
        with self._told() as connection:
            tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            return {
                name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
                for (name,) in connection.execute(tables).fetchall()
            }

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        with self._told() as connection:
            connection.execute("BEGIN")
        try:
            yield
        finally:
            with self._told() as connection:
                connection.execute("COMMIT")

    async def query(self, sql: str, **values: object) -> list[Row]:
        with self._told() as connection:
            return connection.execute(sql, values).fetchall()

    async def run(self, sql: str, **values: object) -> None:
        with self._transaction() as connection:
            connection.execute(sql, values)

    async def add(self, table: Table, rows: Sequence[Row], *, anew: bool = False) -> None:
        places = ", ".join("?" * len(table.columns))
        with self._transaction() as connection:
            if anew:
                connection.execute(f"DELETE FROM {table.name} WHERE {table.where}")
            connection.executemany(f"INSERT INTO {table.name} ({table.listed}) VALUES ({places})", rows)

    async def last_id(self, table: Table) -> int:
        found = await self.query("SELECT seq FROM sqlite_sequence WHERE name = :name", name=table.name)
        return int(found[0][0]) if found else 0

    async def set_last_id(self, table: Table, number: int) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.name, number))

    async def body(self, message_id: int) -> bytes:
        with self._told() as connection:
            return bodies.fetch_once(connection, message_id)

    async def add_bodies(self, bodies_: Sequence[tuple[int, bytes]]) -> None:
        with self._transaction() as connection:
            for message_id, raw in bodies_:
                bodies.keep(connection, message_id, raw)
                connection.execute("UPDATE messages SET crc32 = ? WHERE id = ?", (zlib.crc32(raw), message_id))

    async def others(self) -> int:
        """SQLite cannot tell; the data directory's locks do."""
        return 0

    async def own_findings(self) -> list[str]:
        with self._told() as connection:
            said = _said_of_itself(connection)
            if said != ["ok"]:
                return [f"the database's file: {line}" for line in said]
            astray = connection.execute("PRAGMA foreign_key_check").fetchmany(MOST_FINDINGS)
        return [
            f"{table}, row {row}: refers to a row of {parent} that is not there" for table, row, parent, _ in astray
        ]

    async def derive(self) -> None:
        with self._transaction() as connection:
            for statement in statements(flat.ANEW):
                connection.execute(statement)

    async def finish(self) -> None:
        """The write-ahead log goes into the file."""
        await self.query("PRAGMA wal_checkpoint(TRUNCATE)")

    async def close(self) -> None:
        self._connection.close()


def _said_of_itself(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds in its file; some damage keeps it from looking on."""
    try:
        return [row[0] for row in connection.execute(f"PRAGMA integrity_check({MOST_FINDINGS})")]
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return [str(error)]
