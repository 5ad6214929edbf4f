"""Refuses to keep SQLite on a network file system, where its locks and its WAL's shared memory do not hold."""

from pathlib import Path

from apptrack_ingest.errors import SpoolError

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.glusterfs", "lustre", "fuse.sshfs", "9p"}
)
MOUNTS = Path("/proc/self/mounts")


def refuse_network_filesystem(directory: Path, mounts: Path = MOUNTS) -> None:
    """Raises SpoolError where `directory` lies on one; does nothing where the system does not tell."""
    kind = filesystem_of(directory, mounts)
    if kind in NETWORK_FILESYSTEMS:
        raise SpoolError(
            f"data_dir {directory} lies on {kind}: SQLite's locks do not hold on a network file system and mail could be"
            " lost; use a local disk"
        )


def filesystem_of(directory: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the file system that holds `directory`, or None where it cannot be known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    path = directory.resolve()
    best, kind = -1, None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # The kernel escapes blanks in mount points as octal (proc(5)).
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t"))
        if (path == point or point in path.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind
