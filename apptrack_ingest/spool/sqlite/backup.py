"""Makes a consistent copy of a live spool: one file, whole in itself, checked and on the disk before it has its name."""

import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from apptrack_ingest.errors import NotAllowed, SpoolError, SpoolUnavailable
from apptrack_ingest.spool.sqlite import bodies, messages
from apptrack_ingest.spool.sqlite.tables import connect


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup holds."""

    applications: int
    bodies: int
    size: int


def back_up(database: Path, file: Path, *, replace: bool = False) -> Saved:
    """Copies what was committed when it begins; mail is taken and work goes on meanwhile.

    The copy is `file`, of mode 0600, with the large bodies in it that the live spool keeps beside its database. Raises
    NotAllowed where `file` is there already and is not to be replaced, SpoolUnavailable where it cannot be written,
    SpoolError where the copy is not whole (and is then removed).
    """
    if file.exists() and not replace:
        raise NotAllowed(f"{file} is there already: nothing was written; name another, or say --force")
    part = file.with_name(f"{file.name}.part")
    try:
        _remove(part)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            saved = _written(database, part)
            _sync(part)
            part.replace(file)
            _sync(file.parent)
        except BaseException:
            _remove(part)
            raise
    except (sqlite3.Error, OSError) as error:
        raise SpoolUnavailable(f"{file}: {error}; check that its directory can be written and has room") from None
    return saved


def _remove(part: Path) -> None:
    """What a backup that was cut off left, too: a journal left beside would be taken for the next one's."""
    for end in ("", "-journal", "-wal", "-shm"):
        part.with_name(part.name + end).unlink(missing_ok=True)


def _written(database: Path, part: Path) -> Saved:
    with contextlib.closing(connect(database)) as live:
        live.execute("VACUUM INTO ?", (str(part),))
        with contextlib.closing(connect(part)) as copy:
            _, gone = bodies.gather(copy, live)
            for message_id in gone:
                messages.erase(copy, message_id, now=time.time())
            _check(copy)
            [applications] = copy.execute("SELECT count(*) FROM applications").fetchone()
            [kept] = copy.execute("SELECT count(*) FROM bodies").fetchone()
    return Saved(applications, kept, part.stat().st_size)


def _check(copy: sqlite3.Connection) -> None:
    [said] = copy.execute("PRAGMA integrity_check(1)").fetchone()
    [missing] = copy.execute(
        "SELECT count(*) FROM messages WHERE erased_at IS NULL AND id NOT IN (SELECT message_id FROM bodies)"
    ).fetchone()
    if said != "ok" or missing:
        raise SpoolError(
            f"the copy is not whole ({said if said != 'ok' else f'{missing} bodies are missing'}) and was removed:"
            " `apptrack-ingest spool check` tells what is wrong with the spool"
        )


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
