"""Names for documents on a disk of ours: a second fence, should a name that claims to be safe not be."""

from collections.abc import Iterable
from pathlib import PurePosixPath

MAX_BYTES = 200
"""Below the 255 bytes that file systems allow, with room for a number that makes a name unique."""


def file_names(wanted: Iterable[str], reserved: Iterable[str] = ()) -> list[str]:
    """For each wanted name one that stays in its directory and differs from all others, whatever the case."""
    taken = {name.casefold() for name in reserved}
    names = []
    for name in wanted:
        names.append(_unique(_harmless(name), taken))
        taken.add(names[-1].casefold())
    return names


def _harmless(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(char if char.isprintable() else "_" for char in last).strip().lstrip(".")
    if not printable:
        return "document"
    path = PurePosixPath(printable)
    suffix = _cut(path.suffix, 20)
    return _cut(path.stem, MAX_BYTES - len(suffix.encode())) + suffix


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _unique(name: str, taken: set[str]) -> str:
    path, number, candidate = PurePosixPath(name), 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{path.stem}-{number}{path.suffix}"
    return candidate
