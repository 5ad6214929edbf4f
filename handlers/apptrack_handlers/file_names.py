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
    if not last.isprintable():
        last = "".join(char if char.isprintable() else "_" for char in last)
    name = last.strip().lstrip(".")
    if not name:
        return "document"
    stem, _, ending = name.rpartition(".")
    if not stem or not ending:
        return _cut(name, MAX_BYTES)
    suffix = _cut(f".{ending}", 20)
    return _cut(stem, MAX_BYTES - len(suffix.encode())) + suffix


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _unique(name: str, taken: set[str]) -> str:
    if name.casefold() not in taken:
        return name
    path, number, candidate = PurePosixPath(name), 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{path.stem}-{number}{path.suffix}"
    return candidate
