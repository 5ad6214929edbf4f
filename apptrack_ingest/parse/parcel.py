"""Large mails on their way to the parser's process, and their documents on the way back: one copy, past the pipe.

Through the channel every byte is pickled, sent, gathered and unpickled, with a copy at each step. Small ones go that way all
the same, for they are faster there.
"""

import copyreg
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from multiprocessing import reduction
from operator import attrgetter
from typing import Any

from apptrack_ingest.model import Candidate, Document, Hint, Job, Owner, Parsed, Source

LARGE = 256 * 1024
"""Bytes from which on a mail or a document goes by parcel."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the parcel something is: its first byte and its length."""

    start: int
    size: int


class Parcel:
    """A file in memory that two processes have open. It has one writer at a time: first the one side puts the mail in, then
    the other its documents. Pickled for a process that is being started (and only then), it arrives there open."""

    def __init__(self, number: int | None = None) -> None:
        self._file = _in_memory() if number is None else number

    def __reduce__(self) -> tuple[object, ...]:
        return _arrived, (reduction.DupFd(self._file),)

    def put(self, content: bytes) -> Place:
        """Adds the bytes and says where."""
        place, left = Place(self.size(), len(content)), memoryview(content)
        while left:
            left = left[os.pwrite(self._file, left, place.start + place.size - len(left)) :]
        return place

    def size(self) -> int:
        """How many bytes are in it."""
        return os.fstat(self._file).st_size

    def take(self, place: Place) -> bytes:
        """The bytes from there. Raises EOFError where fewer are there."""
        content = os.pread(self._file, place.size, place.start)
        if len(content) != place.size:
            raise EOFError("the parcel ends too early")
        return content

    def empty(self) -> None:
        """Gives its memory back."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Lets go of it; the other side may still have it open."""
        os.close(self._file)


def _in_memory() -> int:
    try:
        return os.memfd_create("apptrack-ingest-parcel")
    except (AttributeError, OSError):  # no Linux, or forbidden: a file without a name does as well
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _arrived(duplicate: Any) -> Parcel:
    return Parcel(duplicate.detach())


@dataclass(frozen=True, slots=True)
class Packed:
    """What a mail says, its large contents left in the parcel: those of documents by their index, and the inner mail's."""

    parsed: Parsed
    contents: Mapping[int, Place] = field(default_factory=dict)
    inner: Place | None = None


def _quickly_pickled(kind: type[Any]) -> None:
    """Has a class pickled as a call with all its fields: by itself a frozen dataclass with slots goes field by field
    through Python, on both sides."""
    values = attrgetter(*(one.name for one in fields(kind)))
    copyreg.pickle(kind, lambda value: (kind, values(value)))


for _kind in (Packed, Parsed, Candidate, Hint, Job, Source, Owner, Document):
    _quickly_pickled(_kind)


def pack(parsed: Parsed, parcel: Parcel) -> Packed:
    """Puts the large contents into the parcel."""
    large = {n: one for n, one in enumerate(parsed.documents) if len(one.content) >= LARGE}
    if not large and len(parsed.inner or b"") < LARGE:
        return Packed(parsed)
    inner = parcel.put(parsed.inner) if parsed.inner and len(parsed.inner) >= LARGE else None
    places = {n: parcel.put(one.content) for n, one in large.items()}
    documents = tuple(replace(one, content=b"") if n in large else one for n, one in enumerate(parsed.documents))
    return Packed(replace(parsed, documents=documents, inner=None if inner else parsed.inner), places, inner)


def unpack(packed: Packed, parcel: Parcel) -> Parsed:
    """Takes them out again. Raises EOFError where they are not all there."""
    documents = list(packed.parsed.documents)
    for index, place in packed.contents.items():
        documents[index] = replace(documents[index], content=parcel.take(place))
    inner = parcel.take(packed.inner) if packed.inner else packed.parsed.inner
    return replace(packed.parsed, documents=tuple(documents), inner=inner)
