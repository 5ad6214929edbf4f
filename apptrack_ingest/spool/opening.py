"""Opens the spool that the settings name, in whichever database it is; the drivers are loaded only where they are used."""

import time
from collections.abc import Callable
from pathlib import Path

from apptrack_ingest.errors import ConfigError, Problem
from apptrack_ingest.settings.spool_url import without_secrets
from apptrack_ingest.spool import sqlite
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.spool.sqlite.tables import SqliteTables
from apptrack_ingest.spool.tables import Tables

Where = Path | str
"""A SQLite file, or the URL of a PostgreSQL database."""


def open_spool(where: Where, *, clock: Callable[[], float] = time.time) -> Spool:
    """The spool, to be closed by its `close`. One in SQLite is made and brought up to date now, one in PostgreSQL when it
    is first used (or by `prepare`), so that a database that is down does not stop a start.

    Raises SpoolError and SpoolUnavailable as `sqlite.open_spool` and `postgres.open_spool` do, ConfigError where the
    driver for PostgreSQL is not installed.
    """
    if isinstance(where, Path):
        return sqlite.open_spool(where, clock=clock)
    need_driver(where)
    from apptrack_ingest.spool import postgres

    return postgres.open_spool(where, clock=clock)


async def exists(where: Where) -> bool:
    """Whether there is a spool already; looking makes none. Raises SpoolUnavailable where that cannot be told."""
    if isinstance(where, Path):
        return where.exists()
    need_driver(where)
    from apptrack_ingest.spool.postgres.door import version_at

    return (await version_at(where))[0] > 0


async def open_tables(where: Where) -> Tables:
    """The tables of a spool, made and brought up to date where need be, even of a copy that was not finished; to be closed
    by their `close`. Raises as `open_spool` and its `prepare` do."""
    if isinstance(where, Path):
        sqlite.make_fit(where, copying=True)
        return SqliteTables(where)
    need_driver(where)
    from apptrack_ingest.spool.postgres.tables import open_tables as open_there

    return await open_there(where)


def need_driver(where: Where) -> None:
    """Raises ConfigError where the driver for this spool is not installed."""
    if isinstance(where, Path):
        return
    try:
        import asyncpg  # noqa: F401 - asked for its being there
    except ImportError:
        advice = "needs a driver that is not installed: pip install 'apptrack-ingest[postgres]'"
        raise ConfigError([Problem("spool", repr(without_secrets(where)), advice)]) from None
