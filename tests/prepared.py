"""A new SQLite spool as a copy of one made before: to make its schema takes ten times as long as to copy it."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from apptrack_ingest.spool.sqlite import make_fit


@cache
def _new() -> bytes:
    with TemporaryDirectory() as directory:
        database = Path(directory) / "spool.sqlite3"
        make_fit(database)
        return database.read_bytes()


def prepared(database: Path) -> Path:
    """The same path, where an empty spool lies now if there was none; what opens it checks it as it does any other."""
    if not database.exists():
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database.touch(mode=0o600)
        database.write_bytes(_new())
    return database
