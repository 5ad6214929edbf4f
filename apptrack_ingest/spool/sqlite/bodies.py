"""The narrow door to the raw bytes of messages; today they are rows of the same database."""

import sqlite3

from apptrack_ingest.spool.rows import no_raw


def keep(connection: sqlite3.Connection, message_id: int, raw: bytes) -> None:
    """Stores the bytes in the caller's transaction."""
    connection.execute("INSERT INTO bodies (message_id, raw) VALUES (?, ?)", (message_id, raw))


def fetch(connection: sqlite3.Connection, message_id: int) -> bytes:
    """The exact bytes as kept; NotFound where there is no such message or its bytes were erased."""
    row = connection.execute("SELECT raw FROM bodies WHERE message_id = ?", (message_id,)).fetchone()
    if row is None:
        raise no_raw(message_id)
    return bytes(row[0])


def erase(connection: sqlite3.Connection, message_id: int) -> None:
    """Removes the bytes in the caller's transaction."""
    connection.execute("DELETE FROM bodies WHERE message_id = ?", (message_id,))
