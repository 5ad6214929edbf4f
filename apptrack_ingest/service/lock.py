"""One supervisor for each role on one data directory: two would hand the same leases to two workers of one name."""

import errno
import fcntl
import os
import time
from pathlib import Path

from apptrack_ingest.errors import IngestError

WAIT = 30.0
"""Seconds to wait for a predecessor to end: after a crash of `serve` its processes drain for a moment."""


class AlreadyRunning(IngestError):
    """Another process holds the role's lock on this data directory."""


def take(data_dir: Path, role: str, wait: float = WAIT) -> int:
    """Takes the lock and returns its descriptor, which keeps it until every process that inherited it has ended.

    Raises AlreadyRunning after `wait` seconds.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / f"{role}.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() >= deadline:
                os.close(descriptor)
                raise AlreadyRunning(
                    f"another apptrack-ingest runs the {role} on {data_dir} (lock {path}): stop it first, or use"
                    " another data_dir"
                ) from None
            time.sleep(0.1)
