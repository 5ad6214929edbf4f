"""The narrow door to the raw bytes of messages: small ones are in rows of the database, large ones in segments beside it.

A body is where exactly one of three tables says: `puts` holds the bytes as they were put, `bodies` those that were taken in
later or by an earlier release, `stored` the place in a segment (segments.py). It
was written and synced before the transaction of its row began, so a row never points to what is not there; what a crash
leaves between the two is bytes without a row, which `sweep` removes. An erased body's place goes through the table
`emptied` until its bytes are gone from the disk.

For whoever copies, checks or backs up:

- `fetch` gives a body wherever it is, found intact by its checksum; it may be called for any message, in any connection to
  the live database. `fetch_once` calls damaged, too, what the disk cannot give now.
- `keep` stores a body in the database itself, whatever its size: always right, only slower to write than a segment.
- `gather` makes a copy of the database (VACUUM INTO, the backup API) complete by taking the bodies of segments into it.
  A spool is then one file again, which can be put in place as it is; its new bodies go to a directory of their own.
  `damaged_in` and `is_whole` tell whether a copy is as whole as its spool.
"""

import errno
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from apptrack_ingest.errors import NotFound
from apptrack_ingest.spool.rows import is_as_received, no_raw
from apptrack_ingest.spool.sqlite import segments
from apptrack_ingest.spool.sqlite.connection import Connection
from apptrack_ingest.spool.sqlite.entering import enter_all
from apptrack_ingest.spool.sqlite.segments import Place

LARGE = 32 * 1024
"""Bytes from which on a body is kept in a segment. Below, the second sync takes longer than it does to write the bytes
twice, to the write-ahead log and to the database (benchmarks/spool.py)."""

RENAME = "UPDATE bodies_directory SET name = lower(hex(randomblob(8)))"
"""Gives a database a name for its directory that no other has."""

_FOUND = """
SELECT m.crc32, coalesce(p.raw, b.raw), s.segment, s.start, s.size FROM messages m LEFT JOIN puts p ON p.id = m.id
LEFT JOIN bodies b ON b.message_id = m.id LEFT JOIN stored s ON s.message_id = m.id WHERE m.id = ?
"""


def directory_of(connection: sqlite3.Connection) -> Path:
    """Where the segments of a database are: beside its file, under a name that no other database put in its place has, so
    that none takes the other's bodies for leftovers."""
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    return Path(f"{file}-bodies", connection.execute("SELECT name FROM bodies_directory").fetchone()[0])


def keep(connection: sqlite3.Connection, message_id: int, raw: bytes) -> None:
    """Stores the bytes in the database, in the caller's transaction."""
    connection.execute("INSERT INTO bodies (message_id, raw) VALUES (?, ?)", (message_id, raw))


def fetch(connection: sqlite3.Connection, message_id: int, directory: Path | None = None) -> bytes:
    """The exact bytes as kept, from the segments in `directory` (default: the connection's own).

    Raises NotFound where there is no such message or its bytes were erased, and where they are damaged or their file is
    missing (the text says which); OSError where they cannot be read now.
    """
    row = connection.execute(_FOUND, (message_id,)).fetchone()
    if row is None or (row[1] is None and row[2] is None):
        raise no_raw(message_id)
    checksum, raw, *place = row
    if raw is None:
        # Lost or not, a read that was overtaken by an erasure must say that: ask for the row again when in doubt.
        with suppress(FileNotFoundError):
            raw = segments.read(directory or directory_of(connection), Place(*place))
    if raw is not None and (checksum is None or zlib.crc32(raw) == checksum):
        return bytes(raw)
    again = connection.execute(_FOUND, (message_id,)).fetchone()
    if again is None or (again[1] is None and again[2] is None):
        raise no_raw(message_id)
    raise damaged(message_id, Place(*place) if place[0] is not None else None)


_UNREADABLE = {errno.EIO, errno.EBADMSG, errno.EUCLEAN}
"""What a file system says of bytes that the disk cannot give, or gives otherwise than they were written."""


def fetch_once(connection: sqlite3.Connection, message_id: int) -> bytes:
    """`fetch` for whoever looks once and goes on with the next, to check or to copy: what the disk cannot give now counts as
    damaged, too (NotFound). A worker rather comes again: it may be a cable."""
    try:
        return fetch(connection, message_id)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise NotFound(
            f"the raw mail of message {message_id} cannot be read ({error.strerror}): look after the disk, or restore it"
            " from a backup"
        ) from None


def damaged(message_id: int, place: Place | None) -> NotFound:
    """The error for a body that is not what was received."""
    where = f"{place.segment}.log in the directory of bodies" if place else "the database"
    return NotFound(
        f"the raw mail of message {message_id} is missing from or damaged in {where}: restore it from a backup"
    )


def erase(connection: sqlite3.Connection, message_id: int) -> None:
    """Removes the bytes in the caller's transaction; those in a segment by `clear`, after its commit."""
    connection.execute("DELETE FROM puts WHERE id = ?", (message_id,))
    connection.execute("DELETE FROM bodies WHERE message_id = ?", (message_id,))
    found = connection.execute(
        "INSERT INTO emptied (segment, start, size) SELECT segment, start, size FROM stored WHERE message_id = ?",
        (message_id,),
    )
    if found.rowcount:
        connection.execute("DELETE FROM stored WHERE message_id = ?", (message_id,))
        if isinstance(connection, Connection):
            connection.emptied = True


# --- giving room back ---------------------------------------------------------------------------------------------


def clear(connection: sqlite3.Connection) -> int:
    """Removes the bytes of what was erased, and files that hold nothing any more; returns how many bodies.

    Commits by itself and may be done by several at once and again after a crash. Raises OSError or sqlite3.Error: what was
    left undone is done at the next call.
    """
    rows = [Place(*row) for row in connection.execute("SELECT segment, start, size FROM emptied")]
    directory = directory_of(connection)
    for segment in sorted({place.segment for place in rows}):
        _blank(directory, segment, [(place.start, place.size) for place in rows if place.segment == segment])
    if rows:
        connection.execute("BEGIN IMMEDIATE")
        with _committed(connection):
            connection.executemany("DELETE FROM emptied WHERE (segment, start, size) = (?, ?, ?)", rows)
    for segment in sorted({place.segment for place in rows}):
        _remove_if_empty(connection, directory, segment)
    return len(rows)


@contextmanager
def _committed(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _blank(directory: Path, segment: int, ranges: list[tuple[int, int]]) -> None:
    with segments.opened(directory, segment) as file:
        if file is None:
            return
        for start, size in ranges:
            segments.blank(file, start, size)
        segments.sync(file)


def _remove_if_empty(connection: sqlite3.Connection, directory: Path, segment: int) -> bool:
    """Removes a segment that nobody appends to and no row speaks of. Rows cannot come later: see `segments`."""
    with segments.abandoned(directory, segment) as file:
        if file is None or _used(connection, segment):
            return False
        segments.path_of(directory, segment).unlink(missing_ok=True)
    connection.execute("DELETE FROM swept WHERE segment = ?", (segment,))
    return True


def _used(connection: sqlite3.Connection, segment: int) -> bool:
    either = "SELECT 1 FROM stored WHERE segment = :s UNION ALL SELECT 1 FROM emptied WHERE segment = :s LIMIT 1"
    return connection.execute(either, {"s": segment}).fetchone() is not None


# One in which nothing is left should be gone: whoever emptied it died before it was.
_SWEPT = "SELECT segment FROM swept WHERE EXISTS (SELECT 1 FROM stored WHERE stored.segment = swept.segment)"


def sweep(connection: sqlite3.Connection) -> int:
    """Removes what a crash may have left: erased bytes still there, and bytes that no row speaks of in segments that nobody
    appends to any more. Returns how many segments it has changed or removed. Errors as with `clear`."""
    clear(connection)
    directory = directory_of(connection)
    there = segments.segments_in(directory)
    _forget_swept(connection, there)
    known = {row[0] for row in connection.execute(_SWEPT)}
    return sum(_sweep(connection, directory, segment) for segment in there if segment not in known)


def _forget_swept(connection: sqlite3.Connection, there: list[int]) -> None:
    """Forgets those that are gone: whoever removed them died before it had."""
    gone = {row[0] for row in connection.execute("SELECT segment FROM swept")} - set(there)
    for segment in gone:
        connection.execute("DELETE FROM swept WHERE segment = ?", (segment,))


def _sweep(connection: sqlite3.Connection, directory: Path, segment: int) -> bool:
    if _remove_if_empty(connection, directory, segment):
        return True
    with segments.abandoned(directory, segment) as file:
        if file is None:
            return False
        for start, size in _gaps(connection, segment, segments.size_of(file)):
            segments.blank(file, start, size)
        segments.sync(file)
        connection.execute("INSERT OR IGNORE INTO swept (segment) VALUES (?)", (segment,))
    return True


def _gaps(connection: sqlite3.Connection, segment: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a segment holds nothing that a row speaks of, as first byte and length."""
    end = 0
    for start, length in connection.execute(
        "SELECT start, size FROM stored WHERE segment = ? ORDER BY start", (segment,)
    ).fetchall():
        if start > end:
            yield end, start - end
        end = start + length
    if size > end:
        yield end, size - end


# --- a copy -------------------------------------------------------------------------------------------------------


class Gathered(NamedTuple):
    """How many bodies a copy has taken in, and the messages whose body was erased since the copy was made: the caller
    erases them in the copy, too."""

    taken: int
    gone: list[int]


def gather(copy: sqlite3.Connection, live: sqlite3.Connection) -> Gathered:
    """Takes the bodies that a `copy` of the database `live` only points to into the copy itself.

    What is damaged goes along as it is, for the checksum beside it tells so there, too; nothing goes along where the file
    is missing. A transaction for each: it can be interrupted and called again. What was put and not entered yet is entered.
    """
    enter_all(copy)
    ids = [row[0] for row in copy.execute("SELECT message_id FROM stored ORDER BY segment, start")]
    gone = [message_id for message_id in ids if not _taken_in(copy, live, message_id)]
    for statement in ("DELETE FROM emptied", "DELETE FROM swept", RENAME):
        copy.execute(statement)
    return Gathered(len(ids) - len(gone), gone)


def _taken_in(copy: sqlite3.Connection, live: sqlite3.Connection, message_id: int) -> bool:
    try:
        raw = fetch_once(live, message_id)
    except NotFound:
        place = live.execute("SELECT segment, start, size FROM stored WHERE message_id = ?", (message_id,)).fetchone()
        if place is None:
            return False
        raw = _as_it_is(directory_of(live), Place(*place))
    copy.execute("BEGIN IMMEDIATE")
    with _committed(copy):
        if raw:
            keep(copy, message_id, raw)
        copy.execute("DELETE FROM stored WHERE message_id = ?", (message_id,))
    return True


def _as_it_is(directory: Path, place: Place) -> bytes:
    try:
        return segments.read(directory, place)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and error.errno not in _UNREADABLE:
            raise
    return b""


def damaged_in(connection: sqlite3.Connection) -> list[int]:
    """The messages whose bytes should be in this database itself, and are missing or damaged."""
    rows = connection.execute(
        "SELECT m.id, m.crc32, m.size, m.sha256, coalesce(p.raw, b.raw) FROM messages m LEFT JOIN puts p ON p.id = m.id"
        " LEFT JOIN bodies b ON b.message_id = m.id WHERE m.erased_at IS NULL"
    )
    return [message_id for message_id, *known, raw in rows if raw is None or not _fits(raw, *known)]


def is_whole(connection: sqlite3.Connection, message_id: int) -> bool:
    """Whether a message's bytes are there, wherever that is, and are those that were received."""
    try:
        raw = fetch_once(connection, message_id)
    except NotFound:
        return False
    known = connection.execute("SELECT crc32, size, sha256 FROM messages WHERE id = ?", (message_id,)).fetchone()
    return _fits(raw, *known)


def _fits(raw: bytes, checksum: int | None, size: int, sha256: str) -> bool:
    """Old rows have no checksum, and a digest from the beginning; those of today have that late or never."""
    if checksum is None:
        return is_as_received(raw, size, sha256)
    return len(raw) == size and zlib.crc32(raw) == checksum
