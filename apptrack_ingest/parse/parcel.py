"""Large mails on their way to the parser's process, and their documents on the way back: one copy, past the pipe.

Through the channel every byte is pickled, sent, gathered and unpickled, with a copy at each step. Small ones go that way all
the same, for they are faster there.
"""

import copyreg
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from multiprocessing import reduction
from operator import attrgetter
from typing import Any

from apptrack_ingest.model import Candidate, Document, Hint, Job, Owner, Parsed, Role, Source

Values = tuple[Any, ...]

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

    def tally(self) -> None:
        """Adds one byte, whatever it is: how often tells the size. Not to be mixed with `put`."""
        os.write(self._file, b".")

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


# By itself a frozen dataclass with slots is pickled field by field in Python, and read so on the other side: what a mail
# says goes as tuples of what its objects hold, in the order of their fields.
def _values_of(kind: type[Any]) -> Callable[[Any], Values]:
    return attrgetter(*(one.name for one in fields(kind)))


def _place_of(kind: type[Any], name: str) -> int:
    return [one.name for one in fields(kind)].index(name)


_of_parsed, _of_candidate, _of_hint, _of_document = map(_values_of, (Parsed, Candidate, Hint, Document))
_OBJECTS = tuple(
    (_place_of(Parsed, name), _values_of(kind), kind)
    for name, kind in (("job", Job), ("source", Source), ("owner", Owner))
)
_CANDIDATE, _DOCUMENTS = _place_of(Parsed, "candidate"), _place_of(Parsed, "documents")
_HINTS, _ROLE = _place_of(Candidate, "hints"), _place_of(Document, "role")
_ROLES = {role.value: role for role in Role}


def _taken_apart(parsed: Parsed) -> tuple[Callable[[list[Any]], Parsed], tuple[list[Any]]]:
    values = list(_of_parsed(parsed))
    for place, values_of, _ in _OBJECTS:
        values[place] = values_of(values[place])
    values[_CANDIDATE] = candidate = list(_of_candidate(parsed.candidate))
    candidate[_HINTS] = [_of_hint(hint) for hint in parsed.candidate.hints]
    values[_DOCUMENTS] = documents = [list(_of_document(one)) for one in parsed.documents]
    for one in documents:
        one[_ROLE] = one[_ROLE].value
    return _put_together, (values,)


def _put_together(values: list[Any]) -> Parsed:
    for place, _, kind in _OBJECTS:
        values[place] = kind(*values[place])
    candidate, documents = values[_CANDIDATE], values[_DOCUMENTS]
    candidate[_HINTS] = tuple([Hint(*hint) for hint in candidate[_HINTS]])
    values[_CANDIDATE] = Candidate(*candidate)
    for one in documents:
        one[_ROLE] = _ROLES[one[_ROLE]]
    values[_DOCUMENTS] = tuple([Document(*one) for one in documents])
    return Parsed(*values)


copyreg.pickle(Parsed, _taken_apart)
copyreg.pickle(Packed, lambda packed: (Packed, (packed.parsed, packed.contents, packed.inner)))


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
