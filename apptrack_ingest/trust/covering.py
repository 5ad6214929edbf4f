"""Which headers a signature leaves to anybody: those that are there more often than it names them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_IDS = b"x-itrackid"
# What a handler is told of (From is also its own condition): each instance in the mail must be covered.
_WHOLE = (b"from", b"subject")
# What the mail is read by. Not every signer covers them, so one alone may be open; but of two the mail's reader might
# take the one that was put on top of a signed mail, and so see another content than was signed.
_ONE = (
    b"reply-to", b"mime-version", b"content-type", b"content-transfer-encoding", b"content-disposition",
    b"content-id", b"content-description", b"content-location",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Present:
    """One header of a mail: how it is spelled there, and how many times it is there."""

    spelling: str
    times: int


def present_in(fields: Sequence[tuple[bytes, bytes]]) -> dict[bytes, Present]:
    """A mail's headers by their names in lower case."""
    spelled = {name.lower(): name for name, _ in fields}
    times = Counter(name.lower() for name, _ in fields)
    return {name: Present(spelling.decode("ascii"), times[name]) for name, spelling in spelled.items()}


def uncovered_ids(present: Mapping[bytes, Present], signed: Mapping[bytes, int]) -> tuple[str, ...]:
    """The X-iTrackID headers that h= (`signed`: how often each name) has less often than the mail: one could be anybody's.

    RFC 6376, section 5.4.2: instances are signed from the bottom up, so that one added on top escapes.
    """
    ids = ((name, header) for name, header in present.items() if name.startswith(_IDS))
    return tuple(header.spelling for name, header in ids if signed.get(name, 0) < header.times)


def exposed_content(present: Mapping[bytes, Present], signed: Mapping[bytes, int]) -> tuple[str, ...]:
    """The same for the headers by which a mail is read and shown (RFC 6376, section 8.15); "every X" of several."""
    whole = [header for name in _WHOLE if (header := present.get(name)) and signed.get(name, 0) < header.times]
    doubled = [header for name in _ONE if (header := present.get(name)) and max(signed.get(name, 0), 1) < header.times]
    return tuple(f"every {header.spelling}" if header.times > 1 else header.spelling for header in (*whole, *doubled))
