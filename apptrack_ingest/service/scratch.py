"""Where the children's metrics lie: in memory, because a mapped file on a full disk ends every process that writes it."""

import hashlib
import os
import stat
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - the name below is taken only where it is our own


def metrics_home(data_dir: Path, memory: Path = MEMORY, *, role: str = "") -> Path:
    """The directory for the metrics of the supervisor on `data_dir`, or of that of one `role` alone; the same at every
    start.

    prometheus_client maps sparse files into memory, and a page for which the disk has no room is a SIGBUS (mmap(2)):
    on the spool's own disk a full disk would end the intake, the worker and the supervisor. Where the system has no
    memory to offer, or the name is another user's, it is `metrics` (and the role) in
    `data_dir` all the same.
    """
    name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16] + (role and f"-{role}")
    wanted = memory / f"apptrack-ingest-{os.geteuid()}-{name}"
    return wanted if _is_ours(wanted) else data_dir / ("metrics" + (role and f"-{role}"))


def _is_ours(directory: Path) -> bool:
    """Whether it is, or could be made, a directory of ours that nobody else can enter; never through a link."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
