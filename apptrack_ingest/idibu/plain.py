"""A plain answer: HTTP/1.1, its length told by Content-Length or by chunks, and nothing beside that needs to be understood.

Nearly all answers are plain, and h11's way through one takes many times as long. What is not plain is left to h11 as a
whole: this says yes only where h11 would find the same.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

Headers = Sequence[tuple[bytes, bytes]]

LARGEST = 64 * 1024
"""Bytes of an answer; a longer one is for h11, which can give up in the middle of it."""

LOOKS = 4
"""How often an answer is looked at from its beginning while it comes in; one in more pieces is for h11, which goes on."""

_HEAD = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [\t -~]*\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*)\r\n")
_FIELD = re.compile(rb"([^:\r\n]+):[\t ]*([^\r\n]*)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_CHUNK_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,8}\r?")
_BODILESS = frozenset({204, 304})
_NOT_PLAIN = frozenset({b"content-encoding", b"upgrade"})


class Unfinished(Exception):
    """Plain so far, and more of it has to come."""


class Answer(NamedTuple):
    """`end` is where it ends in what was received."""

    status: int
    headers: Headers
    body: bytes
    end: int


def read(received: bytes | bytearray) -> Answer | None:
    """The answer that `received` begins with; None where it is not plain, or its head is not there to its end. Raises
    Unfinished."""
    found = _HEAD.match(received)
    if found is None or (status := int(found[1])) in _BODILESS:
        return None
    headers = [(name, value.rstrip(b"\t ")) for name, value in _FIELD.findall(found[2])]
    fields = {name.lower(): value for name, value in headers}
    # Fewer fields than headers: one stands there twice, and what that means is for h11 to say.
    if len(fields) < len(headers) or not _NOT_PLAIN.isdisjoint(fields):
        return None
    if fields.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if length is None and coding == b"chunked":
        body = _chunks(received, found.end())
    elif length is not None and coding is None and _LENGTH.fullmatch(length):
        body = _counted(received, found.end(), int(length))
    else:
        return None
    return body and Answer(status, headers, *body)


def _counted(received: bytes | bytearray, begin: int, length: int) -> tuple[bytes, int] | None:
    """So many bytes, and where they end."""
    end = begin + length
    if end > LARGEST:
        return None
    if len(received) < end:
        raise Unfinished
    return bytes(received[begin:end]), end


def _chunks(received: bytes | bytearray, at: int) -> tuple[bytes, int] | None:
    """What the chunks hold, and where the last one ends; None where anything but plain ones is there (RFC 9112, 7.1)."""
    pieces: list[bytes] = []
    while (size := _CHUNK.match(received, at)) is not None:
        found = _counted(received, size.end(), int(size[1], 16) + 2)
        if found is None or not found[0].endswith(b"\r\n"):
            return None
        piece, at = found
        if piece == b"\r\n":  # the last chunk is empty, and here no fields follow it
            return b"".join(pieces), at
        pieces.append(piece[:-2])
    if _CHUNK_BEGUN.fullmatch(received, at):
        raise Unfinished
    return None
