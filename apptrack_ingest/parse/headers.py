"""The header block of a mail, read in linear time whatever comes; all that is looked at before the 250."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from apptrack_ingest.model import HeldReason

Fields = Sequence[tuple[bytes, bytes]]

APPLICANT_ID = b"x-itrackid"
CLIENT_ID = b"x-itrackid-clientid"

# SQLite's and PostgreSQL's largest integer; idibu's ids are far below.
LARGEST_ID = 2**63 - 1
_DIGITS = re.compile(rb"[0-9]{1,19}")
_EMPTY_LINES = (b"\n", b"\r\n", b"\r\r\n")
_BLANK = b" \t\r\n"
# A field begins a line: patterns begin with the LF before it, which a regular expression finds fast, and the block is
# searched with one in front. Name: RFC 5322, section 3.6.8, printable ASCII without the colon; section 4.5: white space
# before the colon, obsolete but seen. Value: to the end of the line, and lines that begin with white space (folds).
_VALUE = rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)"
_FIELD = re.compile(rb"\n([!-9;-~]++)" + _VALUE)
# Names in lower case, as the block is when they are looked for: ignoring case costs a regular expression ten times as much.
_APPLICANT_IDS = re.compile(b"\n" + APPLICANT_ID + _VALUE)
_CLIENT_IDS = re.compile(b"\n" + CLIENT_ID + _VALUE)
_RECEIVED_SPACED = re.compile(rb"\nreceived[ \t]++:")


class Peek(NamedTuple):
    """What the receive stage needs to know of a mail before its 250.

    `id_problem` is set whenever `applicant_id` is None: the header is missing, doubled (even with one value) or no number.
    `client_id` is None when missing, no number or contradictory; `received_count` counts Received headers (loops).
    """

    applicant_id: int | None
    id_problem: HeldReason | None
    client_id: int | None
    received_count: int


def header_block(raw: bytes, limit: int) -> bytes | None:
    """The bytes before the first empty line, with the last header's line end; None if they are more than `limit`.

    A mail without an empty line is all header block. A line of CRs alone is empty too where there are at most two:
    nullmailer and dma make CR CR LF of every CRLF, and without this no header of such a mail would be found.
    """
    if raw.startswith(_EMPTY_LINES):
        return b""
    # By the usual one first: the others are then looked for in the block alone, and not in as much as `limit` of a body.
    found = raw.find(b"\n\r\n", 0, limit + 2)
    bare = raw.find(b"\n\n", 0, (limit if found < 0 else found) + 1)
    found = found if bare < 0 else bare
    doubled = raw.find(b"\n\r\r\n", 0, (limit if found < 0 else found) + 3)
    found = found if doubled < 0 else doubled
    if found >= 0:
        return raw[: found + 1]
    return raw if len(raw) <= limit else None


class Scanned(list[tuple[bytes, bytes]]):
    """All fields of a header block in order as (name, raw value), not to be changed once it is there."""

    @cached_property
    def by_name(self) -> Mapping[bytes, list[bytes]]:
        """The values by their field's name in lower case: one mail's reading asks for some dozen names."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in self:
            found.setdefault(name.lower(), []).append(value)
        return found


def scan_header_block(block: bytes) -> Scanned:
    """All fields in order as (name, raw value with its folds kept); lines that are no header are passed over.

    Only LF ends a line: a bare CR stays in the value, so that no header can hide in another one.
    """
    return Scanned((name, value.rstrip(b"\r")) for name, value in _FIELD.findall(_lines(block)))


def peek(block: bytes) -> Peek:
    """Read a header block as far as routing and policy need it; never raises.

    It runs on the loop of the intake and looks for the three names alone: 128 KB take at most a few milliseconds,
    whatever they hold (`scan_header_block` took 200).
    """
    lines = _lines(block.lower())
    applicant_id, problem = read_applicant_id(_APPLICANT_IDS.findall(lines))
    return Peek(
        applicant_id=applicant_id,
        id_problem=problem,
        client_id=_only_integer(_CLIENT_IDS.findall(lines)),
        received_count=lines.count(b"\nreceived:") + len(_RECEIVED_SPACED.findall(lines)),
    )


def _lines(block: bytes) -> bytes:
    """The block with a LF in front, and no byte order mark at a line's beginning: it stands before a mail's first header
    where a program took the mail for a text file, and our own Received header stands before that."""
    return (b"\n" + block).replace(b"\n\xef\xbb\xbf", b"\n")


def _only_integer(values: Sequence[bytes]) -> int | None:
    """The number that all values say alike; None when there is none, or one of them says anything else."""
    if len(values) < 2:
        return read_integer(values[0]) if values else None
    spellings = {value.strip(_BLANK) for value in values}
    # One number has at most nineteen spellings, by its leading zeros: what has more need not be read one by one.
    numbers = {read_integer(spelling) for spelling in islice(spellings, 20)}
    return numbers.pop() if len(numbers) == 1 else None


def values_of(fields: Fields, name: bytes) -> Sequence[bytes]:
    """The raw values of all fields of one name (given in lower case)."""
    return sorted_by_name(fields).get(name, ())


def sorted_by_name(fields: Fields) -> Mapping[bytes, list[bytes]]:
    """All raw values by their field's name in lower case; of a scanned block they are sorted once."""
    return (fields if isinstance(fields, Scanned) else Scanned(fields)).by_name


def read_applicant_id(values: Sequence[bytes]) -> tuple[int | None, HeldReason | None]:
    """The applicant's id from all X-iTrackID values; doubled or not a positive number is a problem, never a guess."""
    if not values:
        return None, HeldReason.NO_APPLICANT_ID
    number = read_integer(values[0]) if len(values) == 1 else None
    return (number, None) if number else (None, HeldReason.INVALID_APPLICANT_ID)


def read_integer(value: bytes) -> int | None:
    """An unsigned integer of ASCII digits (white space around it allowed) up to 2^63-1, else None."""
    # Digits on one of a value's lines and nothing on the others: the same as unfolding it, which costs 64,000 folds more.
    digits = value.strip(_BLANK)
    if not _DIGITS.fullmatch(digits):
        return None
    number = int(digits)
    return number if number <= LARGEST_ID else None
