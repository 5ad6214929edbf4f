"""Makes a consistent copy of a live spool: one file, whole in itself, checked and on the disk before it has its name."""

import contextlib
import dataclasses
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from apptrack_ingest.errors import NotAllowed, SpoolError, SpoolUnavailable
from apptrack_ingest.spool.sqlite import bodies, entering, messages
from apptrack_ingest.spool.sqlite.tables import connect


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup holds: where it is, applications, whole bodies, bytes of the file, and the applications whose mail is
    missing or damaged in it, as it is in the spool."""

    file: Path
    applications: int
    bodies: int
    size: int
    damaged: tuple[int, ...] = ()


def back_up(database: Path, file: Path, *, replace: bool = False) -> Saved:
    """Copies what was committed when it begins; mail is taken and work goes on meanwhile.

    The copy is `file`, of mode 0600, with the large bodies in it that the live spool keeps beside its database. What is
    damaged in the spool is so in the copy, and told: it is no reason to have none of all the rest. But it replaces no
    earlier copy, which may hold that mail, and goes beside it (`beside`). Raises NotAllowed where `file` is there already
    and is not to be replaced, SpoolUnavailable where it cannot be written, SpoolError where the copy is not as whole as the
    spool (and is then removed).
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
            where = beside(file) if saved.damaged and file.exists() else file
            part.replace(where)
            _sync(file.parent)
        except BaseException:
            _remove(part)
            raise
    except (sqlite3.Error, OSError) as error:
        raise SpoolUnavailable(
            f"{file}: {error}; check that its directory can be written and has room, and the spool with"
            " `apptrack-ingest spool check`"
        ) from None
    return dataclasses.replace(saved, file=where)


def beside(file: Path) -> Path:
    """Where a copy goes that is not whole and would replace another."""
    return file.with_name(f"{file.name}.damaged")


def _remove(part: Path) -> None:
    """What a backup that was cut off left, too: a journal left beside would be taken for the next one's."""
    for end in ("", "-journal", "-wal", "-shm"):
        part.with_name(part.name + end).unlink(missing_ok=True)


def _written(database: Path, part: Path) -> Saved:
    with contextlib.closing(connect(database)) as live:
        live.execute("VACUUM INTO ?", (str(part),))
        with contextlib.suppress(sqlite3.Error):
            entering.enter_all(live)  # what is in the copy is looked for there
        with contextlib.closing(connect(part)) as copy:
            for message_id in bodies.gather(copy, live).gone:
                messages.erase(copy, message_id, now=time.time())
            damaged = _checked(copy, live)
            [applications] = copy.execute("SELECT count(*) FROM applications").fetchone()
            [kept] = copy.execute("SELECT count(*) FROM messages WHERE erased_at IS NULL").fetchone()
            of = [
                row[0]
                for message_id in damaged
                for row in copy.execute("SELECT id FROM applications WHERE message_id = ? ORDER BY id", (message_id,))
            ]
    return Saved(part, applications, kept - len(damaged), part.stat().st_size, tuple(of))


def _checked(copy: sqlite3.Connection, live: sqlite3.Connection) -> list[int]:
    """The messages whose bytes are missing or damaged in the copy and in the live spool. SpoolError where anything else is
    wrong with the copy."""
    [said] = copy.execute("PRAGMA integrity_check(1)").fetchone()
    damaged = [] if said != "ok" else bodies.damaged_in(copy)
    if said == "ok" and (worse := [message_id for message_id in damaged if bodies.is_whole(live, message_id)]):
        said = f"{len(worse)} bodies are missing or damaged that are not so in the spool"
    if said != "ok":
        raise SpoolError(
            f"the copy is not whole ({said}) and was removed: `apptrack-ingest spool check` tells what is wrong with the"
            " spool"
        )
    return damaged


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
