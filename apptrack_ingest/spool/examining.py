"""Looks at a spool without making, migrating or changing anything: its schema, and its database's own clock."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.spool.opening import need_driver
from apptrack_ingest.spool.sqlite import migrations
from apptrack_ingest.spool.tables import COPYING

BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Examined:
    """A spool as it stands: the number of its schema (0: there is none yet), that which a program must know, that which
    this one knows; whether it is a copy that was not finished, and the database's time (None: it is this machine's)."""

    schema: int
    needs: int
    known: int
    unfinished: bool = False
    now: float | None = None


async def examine_server(url: str) -> Examined:
    """What is in the PostgreSQL database of a URL. Raises as `examine_file`, and ConfigError where the driver is missing."""
    need_driver(url)
    from apptrack_ingest.spool.postgres.examining import look

    schema, needs, known, unfinished, now = await look(url)
    return Examined(schema, needs, known, unfinished, now)


def examine_file(database: Path) -> Examined:
    """What is in a SQLite file. Raises SpoolUnavailable where that cannot be told."""
    known = len(migrations.MIGRATIONS)
    try:
        database.stat()
        uri = f"file:{quote(str(database.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            schema = migrations.version_of(connection)
            copying = "SELECT count(*) FROM marks WHERE substr(key, 1, ?) = ?"
            unfinished = schema > 0 and connection.execute(copying, (len(COPYING), COPYING)).fetchone()[0] > 0
            return Examined(schema, schema, known, unfinished)
    except (FileNotFoundError, NotADirectoryError):
        return Examined(0, 0, known)
    except (sqlite3.Error, OSError) as error:
        raise SpoolUnavailable(f"{database}: {error}; check the file's owner, mode and disk") from None
