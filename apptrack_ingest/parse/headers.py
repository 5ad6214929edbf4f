"""The header block of a mail, read in linear time whatever comes; all that is looked at before the 250."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from apptrack_ingest.model import HeldReason
from apptrack_ingest.parse.text import unfold

Fields = Sequence[tuple[bytes, bytes]]

APPLICANT_ID = b"x-itrackid"
CLIENT_ID = b"x-itrackid-clientid"

# SQLite's and PostgreSQL's largest integer; idibu's ids are far below.
LARGEST_ID = 2**63 - 1
_DIGITS = re.compile(rb"[0-9]{1,19}")
# RFC 5322, section 3.6.8: printable ASCII without the colon; section 4.5: white space before the colon, obsolete but seen.
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:")


@dataclass(frozen=True, slots=True)
class Peek:
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

    A mail without an empty line is all header block.
    """
    if raw.startswith((b"\n", b"\r\n")):
        return b""
    ends = (raw.find(b"\n\n", 0, limit + 1), raw.find(b"\n\r\n", 0, limit + 2))
    found = [end + 1 for end in ends if end >= 0]
    if found:
        return raw[: min(found)]
    return raw if len(raw) <= limit else None


def scan_header_block(block: bytes) -> list[tuple[bytes, bytes]]:
    """All fields in order as (name, raw value with its folds kept); lines that are no header are passed over.

    Only LF ends a line: a bare CR stays in the value, so that no header can hide in another one.
    """
    fields: list[tuple[bytes, list[bytes]]] = []
    for line in block.split(b"\n"):
        if line[:1] in (b" ", b"\t"):
            if fields:
                fields[-1][1].append(line)
            continue
        field = _FIELD.match(line)
        fields.append(
            (field[1], [line[field.end() :]]) if field else (b"", [])
        )  # so that no fold joins another's value
    return [(name, b"\n".join(lines).rstrip(b"\r")) for name, lines in fields if name]


def peek(block: bytes) -> Peek:
    """Read a header block as far as routing and policy need it; never raises."""
    wanted: dict[bytes, list[bytes]] = {APPLICANT_ID: [], CLIENT_ID: [], b"received": []}
    for name, value in scan_header_block(block):
        values = wanted.get(name.lower())
        if values is not None:
            values.append(value)
    applicant_id, problem = read_applicant_id(wanted[APPLICANT_ID])
    client_ids = {read_integer(value) for value in wanted[CLIENT_ID]}
    return Peek(
        applicant_id=applicant_id,
        id_problem=problem,
        client_id=client_ids.pop() if len(client_ids) == 1 else None,
        received_count=len(wanted[b"received"]),
    )


def values_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The raw values of all fields of one name (given in lower case)."""
    return [value for field, value in fields if field.lower() == name]


def read_applicant_id(values: Sequence[bytes]) -> tuple[int | None, HeldReason | None]:
    """The applicant's id from all X-iTrackID values; doubled or not a positive number is a problem, never a guess."""
    if not values:
        return None, HeldReason.NO_APPLICANT_ID
    number = read_integer(values[0]) if len(values) == 1 else None
    return (number, None) if number else (None, HeldReason.INVALID_APPLICANT_ID)


def read_integer(value: bytes) -> int | None:
    """An unsigned integer of ASCII digits (white space around it allowed) up to 2^63-1, else None."""
    digits = unfold(value)
    if not _DIGITS.fullmatch(digits):
        return None
    number = int(digits)
    return number if number <= LARGEST_ID else None
