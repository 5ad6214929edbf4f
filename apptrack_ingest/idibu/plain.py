"""The head of a plain answer: HTTP/1.1, a Content-Length, and nothing in it that makes the body anything but what follows.

Nearly all answers are plain, and h11's way through one takes many times as long. What is not plain is left to h11 as a
whole: this says yes only where h11 would find the same.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

Headers = Sequence[tuple[bytes, bytes]]

LARGEST = 64 * 1024
"""Bytes of a body; a longer one is for h11, which can give up in the middle of it."""

_HEAD = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [\t -~]*\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*)\r\n")
_FIELD = re.compile(rb"([^:\r\n]+):[\t ]*([^\r\n]*)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_BODILESS = frozenset({204, 304})
_FRAMING = frozenset({b"transfer-encoding", b"content-encoding", b"upgrade"})


class Head(NamedTuple):
    """`begin` and `end` of the body, counted from the head's first byte."""

    status: int
    headers: Headers
    begin: int
    end: int


def head(received: bytes | bytearray) -> Head | None:
    """The head that `received` begins with; None where it is not plain, or not there to its end."""
    found = _HEAD.match(received)
    if found is None or (status := int(found[1])) in _BODILESS:
        return None
    headers = [(name, value.rstrip(b"\t ")) for name, value in _FIELD.findall(found[2])]
    fields = {name.lower(): value for name, value in headers}
    length = _LENGTH.fullmatch(fields.get(b"content-length", b""))
    # Fewer fields than headers: one stands there twice, and what that means is for h11 to say.
    if length is None or len(fields) < len(headers) or not _FRAMING.isdisjoint(fields):
        return None
    if fields.get(b"connection", b"keep-alive").lower() != b"keep-alive" or (size := int(length[0])) > LARGEST:
        return None
    return Head(status, headers, found.end(), found.end() + size)
