"""Remembered times and numbers: when a digest was last sent, what was found when last reconciled."""

from apptrack_ingest.spool.postgres.door import Statements


async def get(statements: Statements, key: str) -> float | None:
    """The time or number, or None."""
    row = await statements.one("SELECT at FROM marks WHERE key = :key", key=key)
    return float(row["at"]) if row is not None else None


async def put(statements: Statements, key: str, at: float) -> None:
    """Remembers it."""
    upsert = "INSERT INTO marks (key, at) VALUES (:key, :at) ON CONFLICT (key) DO UPDATE SET at = excluded.at"
    await statements.run(upsert, key=key, at=at)


async def take(statements: Statements, key: str, at: float, *, after: float) -> bool:
    """Remembers it, unless what is remembered is later than `after`; whether it did. Of two at once the second waits for
    the first one's commit, and sees it."""
    upsert = (
        "INSERT INTO marks (key, at) VALUES (:key, :at)"
        " ON CONFLICT (key) DO UPDATE SET at = excluded.at WHERE marks.at <= :after"
    )
    return await statements.run(upsert, key=key, at=at, after=after) == 1
