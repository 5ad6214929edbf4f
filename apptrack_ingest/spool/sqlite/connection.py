"""How the spool's database is opened: what every connection of ours sets, and the little it does more than SQLite's."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apptrack_ingest.spool.rows import storable
from apptrack_ingest.spool.sqlite.checkpoints import LAST_RESORT


class Connection(sqlite3.Connection):
    """Keeps any text, see `storable`; `emptied` says that bodies were erased whose bytes have still to be removed."""

    emptied = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(sql, parameters)
        except UnicodeEncodeError:
            return super().execute(sql, _storable(parameters))


def _storable(parameters: Mapping[str, object] | Sequence[object]) -> Any:
    if isinstance(parameters, Mapping):
        return {name: _storable([value])[0] for name, value in parameters.items()}
    return [storable(value) if isinstance(value, str) else value for value in parameters]


def connect(database: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection that waits so long for a lock."""
    connection = sqlite3.connect(
        database, timeout=busy_seconds, isolation_level=None, check_same_thread=False, factory=Connection
    )
    connection.row_factory = sqlite3.Row
    connection.create_function("fold", 1, lambda text: text.casefold() if text else text, deterministic=True)
    # FULL: a commit survives the loss of power, not only of the process (SQLite, "PRAGMA synchronous", WAL mode).
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # What was erased is overwritten, not only unlinked (SQLite, "PRAGMA secure_delete").
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LAST_RESORT}")
    return connection


def placeholders(values: Sequence[object]) -> str:
    """A list of so many parameters for a statement. For few values it costs less than json_each, a virtual table."""
    return ", ".join("?" * len(values))


def assigned(columns: Mapping[str, object]) -> tuple[str, list[object]]:
    """What stands behind SET to give columns these values, and the values of its parameters. NULL is no parameter: to bind
    it takes sqlite3 as long as to bind five numbers, for whatever is no plain value it first looks for an adapter."""
    setting = [f"{name} = NULL" if value is None else f"{name} = ?" for name, value in columns.items()]
    return ", ".join(setting), [value for value in columns.values() if value is not None]
