"""One supervisor for each role on one data directory: two would hand the same leases to two workers of one name."""

import errno
import fcntl
import os
import time
from pathlib import Path

from apptrack_ingest import logs
from apptrack_ingest.errors import IngestError, SpoolUnavailable

log = logs.get("service")

WAIT = 30.0
"""Seconds to wait for a predecessor to end: after a crash of `serve` its processes drain for a moment."""


class AlreadyRunning(IngestError):
    """Another process holds the role's lock on this data directory."""


def take(data_dir: Path, role: str, wait: float = WAIT) -> int:
    """Takes the lock and returns its descriptor, which keeps it until every process that inherited it has ended.

    Raises AlreadyRunning after `wait` seconds, SpoolUnavailable where the lock file cannot be made.
    """
    path = data_dir / f"{role}.lock"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        advice = "check that data_dir is a directory we may write"
        raise SpoolUnavailable(f"{path} cannot be made: {error.strerror}; {advice}") from None
    deadline, tries = time.monotonic() + wait, 0
    while not _locked(descriptor, fcntl.LOCK_EX):
        tries += 1
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise AlreadyRunning(
                f"another apptrack-ingest runs the {role} on {data_dir} (lock {path}): stop it first, or use another"
                " data_dir"
            )
        if tries == 2:  # at the first it may have been somebody who only looks
            log.warning("waiting for another apptrack-ingest to end", lock=str(path), seconds=wait)
        time.sleep(0.1)
    return descriptor


def is_held(data_dir: Path, role: str) -> bool:
    """Whether somebody runs the role on this data directory now; looking makes no lock file, and is not seen by others who
    look. Raises PermissionError where we may not see it."""
    try:
        descriptor = os.open(data_dir / f"{role}.lock", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
