"""Directories that stay after a power loss, and locks on names in them: what filing on a disk is made of."""

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

LOCKS = ".locks"
"""Beside the things that are locked, and never one of them: it stays, empty, when nothing is locked."""

_RANGE = struct.Struct("hhqqi0q")
"""What fcntl(2) calls a struct flock: type, whence, start, length, pid."""


def make_directory(path: Path, mode: int) -> None:
    """With its parents, each durable in its own parent; modes are set only on what we make."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(mode)
    sync_directory(path.parent)


class Opened:
    """Files and directories that are closed together, the last opened first."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def open(self, path: str, flags: int, inside: int | None = None) -> int:
        """As os.open, with a `path` that counts from the directory `inside`; what it makes is for us alone."""
        descriptor = os.open(path, flags, 0o600, dir_fd=inside)
        self._descriptors.append(descriptor)
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        while self._descriptors:
            try:
                os.close(self._descriptors.pop())
            except OSError:
                self.__exit__(*error)
                raise


def sync_directory(path: str | Path, inside: int | None = None) -> None:
    """A name in a directory is durable only when the directory is synced too; `path` counts from the directory `inside`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=inside)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(directory: int) -> None:
    """The names in an opened directory."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not sync directories
            raise


@contextmanager
def locked(directory: str, name: str, wait: bool = True) -> Iterator[bool]:
    """Hold `name` in `directory` against other threads and processes; without `wait`, False when it is taken.

    All names share one file and lock a byte of it each, at a place made from the name. A file for each name would be made
    and removed each time: two changes of a directory that all threads work in, and a removed inode, which ext4 without a
    journal steps over for minutes whenever it makes a file. Two names with the same place wait for one another, which
    costs time alone. The lock belongs to the opened file (F_OFD): it holds between threads too, each opens the file for
    itself, and it ends with the process.
    """
    descriptor = os.open(f"{directory}/{LOCKS}", os.O_RDWR)
    try:
        yield lock(descriptor, name, wait)
    finally:
        os.close(descriptor)


def lock(descriptor: int, name: str, wait: bool = True) -> bool:
    """As `locked`, of the file for locks, opened to be written; until it is closed."""
    place = zlib.crc32(os.fsencode(name)) & 0x7FFFFFFF
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(descriptor, command, _RANGE.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
    except OSError as error:
        if error.errno == errno.EINVAL:  # a sandbox's kernel knows flock alone: all names are one there
            return _take_all(descriptor, wait)
        if wait or error.errno not in (errno.EAGAIN, errno.EACCES):  # POSIX allows both for "taken"
            raise
        return False
    return True


def _take_all(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
