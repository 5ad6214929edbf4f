"""What the machine must give: a directory that is ours and keeps what is written, room on its disk, and a right clock."""

import ctypes
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from apptrack_ingest.doctor.finding import Check, Finding, Level, apart
from apptrack_ingest.receive.pressure import Floors, Room, room_of
from apptrack_ingest.service.intake import floors_of
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.sqlite.filesystem import NETWORK_FILESYSTEMS, filesystem_of

SLOW_SYNC = 0.5
"""Seconds for one fsync beyond which every mail waits noticeably."""

FORGETFUL = frozenset({"tmpfs", "ramfs"})

_NOT_SYNCHRONISED = 5
"""What adjtimex(2) returns where nothing keeps the clock right (TIME_ERROR)."""


def checks(found: Settings) -> Iterator[Check]:
    """The data directory and the clock."""
    directory = found.data_dir
    yield Check("data directory", lambda: apart(lambda: owned(directory)))
    yield Check("file system", lambda: apart(lambda: file_system(found)))
    yield Check("free space", lambda: apart(lambda: free_space(directory, floors_of(found))))
    yield Check("fsync", lambda: apart(lambda: synced(directory)), "the disk hangs: look at it with `dmesg`")
    yield Check("clock", lambda: apart(clock))


def present(directory: Path) -> Path:
    """The directory, or the nearest above it that is there as far as we may see."""
    directory = directory.absolute()
    return next(path for path in (directory, *directory.parents) if _is_seen(path))


def _is_seen(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False


def owned(directory: Path) -> Finding:
    """Whether it is there or can be made, is ours, and closed to others."""
    name, there = "data directory", present(directory)
    if there != directory.absolute():
        return _to_be_made(name, directory, there)
    held = directory.stat()
    if not stat.S_ISDIR(held.st_mode):
        return Finding(name, Level.FAIL, f"{directory} is no directory", "set data_dir to a directory")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        advice = "run this as the user that `serve` runs as, or give that user the directory (chown)"
        return Finding(name, Level.FAIL, f"{directory} cannot be read and written by us", advice)
    if held.st_uid != os.geteuid():
        advice = "run this as the user that `serve` runs as, so that what it makes is that user's"
        return Finding(name, Level.WARN, f"{directory} belongs to user {held.st_uid}, not to us", advice)
    mode = stat.S_IMODE(held.st_mode)
    if mode & 0o077:
        return Finding(name, Level.WARN, f"{directory} is open to others (mode {mode:04o})", f"chmod 700 {directory}")
    return Finding(name, Level.OK, f"{directory} is ours alone")


def _to_be_made(name: str, directory: Path, there: Path) -> Finding:
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Finding(name, Level.OK, f"{directory} is not there yet; `serve` makes it")
    if there.is_dir() and not os.access(there, os.X_OK):
        advice = "run this as the user that `serve` runs as"
        return Finding(
            name, Level.FAIL, f"whether {directory} is there we may not see: {there} is closed to us", advice
        )
    advice = f"make it, and give it to the user that `serve` runs as: install -d -m 700 -o USER {directory}"
    return Finding(name, Level.FAIL, f"{directory} is not there, and we may not make it in {there}", advice)


def file_system(found: Settings) -> Finding:
    """Whether what is written there is kept, and locks hold."""
    name, kind = "file system", filesystem_of(present(found.data_dir))
    shown = f"{found.data_dir} lies on {kind or 'a file system that the system does not name'}"
    if found.spool_url is not None:
        return Finding(name, Level.OK, f"{shown}; the spool is in PostgreSQL")
    if kind in NETWORK_FILESYSTEMS:
        advice = "SQLite's locks do not hold on a network file system: set data_dir to a local disk, or use PostgreSQL"
        return Finding(name, Level.FAIL, shown, advice)
    if kind in FORGETFUL:
        advice = "mail that we said 250 to would be gone with the next restart: set data_dir to a disk"
        return Finding(name, Level.WARN, f"{shown}, which is memory", advice)
    return Finding(name, Level.OK, shown)


def free_space(directory: Path, floors: Floors) -> Finding:
    """The room that is left against the floors below which mail is turned away."""
    name, room = "free space", room_of(present(directory))
    shown = f"{_size(room.free_bytes)}{'' if room.free_inodes is None else f' and {room.free_inodes} inodes'} are free"
    advice = "make room, or look at `retention`; below limits.free_space and limits.free_inodes mail is answered 452"
    if _is_below(room, floors, 1):
        return Finding(name, Level.FAIL, f"{shown}, less than must stay free", advice)
    if _is_below(room, floors, 3):
        return Finding(name, Level.WARN, f"{shown}, little more than must stay free", advice)
    return Finding(name, Level.OK, shown)


def _is_below(room: Room, floors: Floors, times: int) -> bool:
    inodes = room.free_inodes is not None and room.free_inodes < times * floors.free_inodes
    return room.free_bytes < times * floors.free_bytes or inodes


def _size(number: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def synced(directory: Path) -> Finding:
    """Writes a file there and waits until it is on the disk, as every 250 does; the file goes again."""
    name, there = "fsync", present(directory)
    advice = "the disk or the directory takes no writes: look at its mount options, quota and `dmesg`"
    try:
        begun = time.monotonic()
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-") as file:
            file.write(bytes(65_536))
            file.flush()
            os.fsync(file.fileno())
        seconds = time.monotonic() - begun
    except OSError as error:
        return Finding(name, Level.FAIL, f"a file in {there} cannot be written: {error.strerror}", advice)
    shown = f"a file in {there} was on the disk after {seconds * 1000:.0f} ms"
    if seconds > SLOW_SYNC:
        return Finding(name, Level.WARN, shown, "every mail waits for that: use a faster disk for data_dir")
    return Finding(name, Level.OK, shown)


def clock() -> Finding:
    """Whether something keeps the clock right, as far as the system tells (adjtimex(2))."""
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        answer = -1
    if answer == -1:
        return Finding("clock", Level.OK, "this system does not tell whether its clock is kept right")
    if answer == _NOT_SYNCHRONISED:
        advice = "switch on NTP (timedatectl set-ntp true): retries, tokens and signatures go by the clock"
        return Finding("clock", Level.WARN, "nothing keeps this machine's clock right", advice)
    return Finding("clock", Level.OK, "kept right by NTP")
