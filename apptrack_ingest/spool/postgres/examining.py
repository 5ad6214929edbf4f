"""Looks at a spool in PostgreSQL without making, migrating or changing anything."""

from apptrack_ingest.spool.postgres.door import FAULTS, Options, checked, connect, unavailable
from apptrack_ingest.spool.postgres.migrations import MIGRATIONS, version_of
from apptrack_ingest.spool.tables import COPYING


async def look(url: str) -> tuple[int, int, int, bool, float]:
    """Schema, what it needs, what this program knows, whether it is a copy that was not finished, and the server's time in
    epoch seconds. Raises SpoolUnavailable."""
    try:
        connection = await connect(checked(url), Options())
        try:
            schema, needs = await version_of(connection)
            copying = schema > 0 and await connection.fetchval(
                "SELECT EXISTS (SELECT 1 FROM marks WHERE starts_with(key, $1))", COPYING
            )
            now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::double precision")
            return schema, needs, len(MIGRATIONS), bool(copying), now
        finally:
            await connection.close(timeout=1.0)
    except (*FAULTS, ValueError, LookupError) as error:
        raise unavailable(error) from None
