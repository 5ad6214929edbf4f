"""The files that large bodies are appended to: written by one process each, synced, emptied by holes, removed when empty.

A segment is a file `<number>.log` in a directory beside the database (`spool.sqlite3-bodies`). Whoever appends to it holds a
lock on it (flock(2)) until what it wrote is committed or given up; so whoever gets that lock knows that no row about the
segment is still to come. No byte of a segment is ever written twice: a place names the same body for ever, or nothing.
"""

import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

SEGMENT_BYTES = 64 << 20
"""Where a segment ends: large enough that making one costs nothing, small enough that the last mail in it does not keep
much room from being given back on file systems without holes."""

SEGMENT_SECONDS = 24 * 3600
"""And how old it gets: what a failed commit leaves in it can be removed only when it is no longer written to."""

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_ZEROS = bytes(1 << 20)


class Place(NamedTuple):
    """Where a body is: the segment's number, its first byte, and how many."""

    segment: int
    start: int
    size: int


class Appender:
    """Appends bodies to a segment of its own, made when the first comes. For one thread. `directory` need not exist yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: int | None = None
        self._segment = 0
        self._end = 0
        self._left: list[int] = []

    def append(self, bodies: Sequence[bytes]) -> list[Place]:
        """Keeps all of them, synced to the disk, or raises OSError and keeps none.

        The locks on the segments written to are held until `release`: call it once the rows are committed or given up.
        """
        self._make_sure_of_the_name()
        before = self._file, self._end
        try:
            places = [self._write(body) for body in bodies]
        except OSError:
            self._take_back(*before)
            raise
        self._sync()
        return places

    def release(self) -> None:
        """Lets go of the segments that are full or no longer trusted."""
        while self._left:
            with suppress(OSError):  # what it could tell of, the sync has told
                os.close(self._left.pop())

    def close(self) -> None:
        """Ends the segment: the next body begins another."""
        self._leave()
        self.release()

    def _make_sure_of_the_name(self) -> None:
        """A file that somebody removed or moved away takes bytes as before, and nobody would ever find them."""
        if self._file is not None and not _is_at(self._file, path_of(self._directory, self._segment)):
            self._leave()

    def _write(self, body: bytes) -> Place:
        if self._file is None or self._is_over(len(body)):
            if self._file is not None:
                self._sync()
            self._leave()
            self._segment, self._file = _new_segment(self._directory)
            self._end = 0
        place = Place(self._segment, self._end, len(body))
        rest = memoryview(body)
        while rest:
            rest = rest[os.pwrite(self._file, rest, self._end) :]
            self._end = place.start + place.size - len(rest)
        return place

    def _is_over(self, size: int) -> bool:
        old = abs(time.time_ns() - self._segment) > SEGMENT_SECONDS * 1_000_000_000  # its number is when it was made
        return self._end > 0 and (old or self._end + size > SEGMENT_BYTES)

    def _sync(self) -> None:
        if self._file is None:
            return
        try:
            os.fdatasync(self._file)
        except OSError:
            # After a failed sync the kernel may count pages as written that are not: nothing more goes into this file.
            self._leave()
            raise

    def _take_back(self, file: int | None, end: int) -> None:
        """Gives the room of a write that failed back at once, for the disk may be full; no row knows of it yet."""
        if self._file is None:
            return
        self._end = end if file == self._file else 0
        try:
            os.ftruncate(self._file, self._end)
        except OSError:
            self._leave()

    def _leave(self) -> None:
        if self._file is not None:
            self._left.append(self._file)
            self._file = None


def _new_segment(directory: Path) -> tuple[int, int]:
    """Makes a segment under lock, its name on the disk; returns its number and descriptor."""
    _make(directory)
    while True:
        segment = time.time_ns()
        try:
            file = os.open(path_of(directory, segment), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file, path_of(directory, segment)):
            break
        os.close(file)  # who sweeps was faster than our lock, and has removed what looked like an empty leftover
    try:
        # The directories' own names, too: whoever made them may not have come to that yet, or have died before.
        for each in (directory, directory.parent, directory.parent.parent):
            sync_directory(each)
    except OSError:
        os.close(file)
        raise
    return segment, file


def _make(directory: Path) -> None:
    if not directory.is_dir():
        _make(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def sync_directory(directory: Path) -> None:
    """Brings names made and removed in it to the disk."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def path_of(directory: Path, segment: int) -> Path:
    """The segment's file."""
    return directory / f"{segment}.log"


def segments_in(directory: Path) -> list[int]:
    """The numbers of all segments there are, oldest first."""
    with suppress(FileNotFoundError):
        names = os.listdir(directory)  # noqa: PTH208 - only names are wanted
        return sorted(int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdecimal())
    return []


def read(directory: Path, place: Place) -> bytes:
    """What is at a place; shorter where the file ends before. Raises OSError, FileNotFoundError too."""
    file = os.open(path_of(directory, place.segment), os.O_RDONLY)
    try:
        parts = [part := os.pread(file, place.size, place.start)]
        # One read(2) gives 2 GB at most, and less where a signal comes.
        while part and sum(map(len, parts)) < place.size:
            done = sum(map(len, parts))
            parts.append(part := os.pread(file, place.size - done, place.start + done))
    finally:
        os.close(file)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def opened(directory: Path, segment: int) -> Iterator[int | None]:
    """Gives the segment's descriptor, or None when it is gone."""
    try:
        file = os.open(path_of(directory, segment), os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def abandoned(directory: Path, segment: int) -> Iterator[int | None]:
    """Gives the segment's descriptor under lock, or None while somebody appends to it or when it is gone."""
    with opened(directory, segment) as file:
        yield file if file is not None and _locked(file) else None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def size_of(file: int) -> int:
    """Bytes from the file's first to its last."""
    return os.fstat(file).st_size


def sync(file: int) -> None:
    """Brings what was done to a file to the disk."""
    os.fsync(file)


def blank(file: int, start: int, size: int) -> None:
    """Removes bytes for good: a hole where the file system has holes, zeros where it has none. Not synced yet."""
    size = min(size, size_of(file) - start)
    if size <= 0:
        return
    if _fallocate is not None:
        if _fallocate(file, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_long(start), ctypes.c_long(size)) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
    end = start + size
    while start < end:
        start += os.pwrite(file, _ZEROS[: end - start], start)


_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
