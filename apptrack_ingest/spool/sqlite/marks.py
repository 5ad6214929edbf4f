"""Remembered times and numbers: when a digest was last sent, what was found when last reconciled."""

import sqlite3


def get(connection: sqlite3.Connection, key: str) -> float | None:
    """The time or number, or None."""
    row = connection.execute("SELECT at FROM marks WHERE key = ?", (key,)).fetchone()
    return float(row[0]) if row else None


def starting(connection: sqlite3.Connection, beginning: str) -> bool:
    """Whether there is one whose key begins so."""
    found = connection.execute("SELECT 1 FROM marks WHERE substr(key, 1, ?) = ?", (len(beginning), beginning))
    return found.fetchone() is not None


def put(connection: sqlite3.Connection, key: str, at: float) -> None:
    """Remembers it."""
    connection.execute(
        "INSERT INTO marks (key, at) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = excluded.at", (key, at)
    )


def take(connection: sqlite3.Connection, key: str, at: float, *, after: float) -> bool:
    """Remembers it, unless what is remembered is later than `after`; whether it did."""
    done = connection.execute(
        "INSERT INTO marks (key, at) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = excluded.at WHERE marks.at <= ?",
        (key, at, after),
    )
    return done.rowcount == 1
