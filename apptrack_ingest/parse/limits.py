"""How much of a mail is read, apart from the reading: whoever only names the limits loads none of it."""

from dataclasses import dataclass

HEADER_BLOCK = 132 * 1024
"""Bytes of a whole mail's header block: 4 KiB over what the receive stage allows, for the trace header it puts on top."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a mail is read; beyond it the mail is `Unreadable` and kept as it is for a person.

    Bytes of the header block, number of parts, depth of nesting, bytes of all decoded parts together, and the number of
    warnings kept.
    """

    header_block: int = HEADER_BLOCK
    parts: int = 2_000
    depth: int = 100
    decoded_bytes: int = 100 * 1024 * 1024
    warnings: int = 50


DEFAULT_LIMITS = Limits()
