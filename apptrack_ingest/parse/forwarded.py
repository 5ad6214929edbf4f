"""An application that somebody forwarded as an attachment, found again: the mail in the mail that has the X-iTrackID."""

from dataclasses import dataclass, field

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.parse.body import DEEPEST_MAIL, body_start
from apptrack_ingest.parse.headers import APPLICANT_ID, Fields, header_block, scan_header_block, values_of
from apptrack_ingest.parse.limits import HEADER_BLOCK
from apptrack_ingest.parse.structure import Budget, Part, split
from apptrack_ingest.parse.transfer import decode


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The one application within a mail: its bytes, and where in the outer mail the part begins that it lies in."""

    part_start: int
    raw: bytes = field(repr=False)


def find_wrapped(raw: bytes, block: bytes, fields: Fields, budget: Budget) -> tuple[Wrapped | None, tuple[str, ...]]:
    """The mail within this one that carries an X-iTrackID, and warnings in words. None where this one has the header
    itself, none within has it, or several have: which of them is meant only a person can tell."""
    if values_of(fields, APPLICANT_ID):
        return None, ()
    try:
        found = list(_applications(raw, block, fields, budget, 0))
    except Unreadable:  # reading the mail itself will tell
        return None, ()
    if len(found) > 1:
        return None, ("several applications are attached to this mail; each has to be forwarded in a mail of its own",)
    return (found[0] if found else None), ()


def _applications(raw: bytes, block: bytes, fields: Fields, budget: Budget, depth: int) -> list[Wrapped]:
    root, _ = split(raw, min(body_start(raw, block), len(raw)), fields, budget)
    return [
        wrapped
        for part, _ in root.leaves()
        if part.head.is_mail and depth < DEEPEST_MAIL
        for wrapped in _in_part(raw, part, budget, depth)
    ]


def _in_part(raw: bytes, part: Part, budget: Budget, depth: int) -> list[Wrapped]:
    content, _ = decode(raw, part.start, part.end, part.head.encoding)
    budget.take_decoded(len(content))
    block = header_block(content, HEADER_BLOCK)
    if block is None:
        return []
    fields = scan_header_block(block)
    if values_of(fields, APPLICANT_ID):
        return [Wrapped(part.start, content)]
    return [Wrapped(part.start, one.raw) for one in _applications(content, block, fields, budget, depth + 1)]
