"""The mail inside an S/MIME message that carries it in its signature (RFC 8551, section 3.5.2), which is not checked."""

from dataclasses import dataclass
from enum import StrEnum

_SEQUENCE, _OCTETS, _OID, _EXPLICIT = 0x30, 0x04, 0x06, 0xA0
_CONSTRUCTED = 0x20
_DATA = bytes.fromhex("2a864886f70d010701")
_SIGNED = bytes.fromhex("2a864886f70d010702")
_ENVELOPED = (bytes.fromhex("2a864886f70d010703"), bytes.fromhex("2a864886f70d0109100117"))
_DEEPEST = 8
_MOST_SEGMENTS = 200_000


class Kind(StrEnum):
    """What a CMS container is to us."""

    SIGNED = "signed"
    ENCRYPTED = "encrypted"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class _Element:
    """One BER element; `end` is that of its content, `after` where the next one begins. An indefinite length ends at two
    zero bytes, which only reading its content finds: `end` and `after` are None then."""

    tag: int
    start: int
    end: int | None
    after: int | None


class _Damaged(Exception):
    """No BER, or none of the kind that we read."""


def open_container(data: bytes) -> tuple[Kind, bytes | None]:
    """What a container (RFC 5652) is, and the signed content where it is there and can be read. Never raises."""
    try:
        content_info = _expect(data, 0, _SEQUENCE)
        oid = _expect(data, content_info.start, _OID)
        name = data[oid.start : oid.end]
        if name in _ENVELOPED:
            return Kind.ENCRYPTED, None
        if name != _SIGNED:
            return Kind.OTHER, None
        return Kind.SIGNED, _signed_content(data, _expect(data, _after(oid), _EXPLICIT))
    except (_Damaged, IndexError):
        return Kind.OTHER, None


def _signed_content(data: bytes, wrapper: _Element) -> bytes | None:
    """SignedData is version, digest algorithms, then the content: its type and, in a wrapper of its own, its octets."""
    signed = _expect(data, wrapper.start, _SEQUENCE)
    version = _element(data, signed.start)
    algorithms = _element(data, _after(version))
    content = _expect(data, _after(algorithms), _SEQUENCE)
    kind = _expect(data, content.start, _OID)
    if data[kind.start : kind.end] != _DATA or (content.end is not None and _after(kind) >= content.end):
        return None
    inner = _expect(data, _after(kind), _EXPLICIT)
    pieces: list[bytes] = []
    _octets(data, inner.start, pieces, 0)
    return b"".join(pieces)


def _octets(data: bytes, position: int, pieces: list[bytes], depth: int) -> int:
    """Collect an octet string, in one piece or in segments (X.690, section 8.7); the position after it."""
    element = _element(data, position)
    if element.tag & ~_CONSTRUCTED != _OCTETS or depth > _DEEPEST or len(pieces) > _MOST_SEGMENTS:
        raise _Damaged
    if not element.tag & _CONSTRUCTED:
        pieces.append(data[element.start : element.end])
        return _after(element)
    position = element.start
    while position != element.end:
        if element.end is None and data[position : position + 2] == b"\x00\x00":
            return position + 2
        position = _octets(data, position, pieces, depth + 1)
    return position


def _expect(data: bytes, position: int, tag: int) -> _Element:
    element = _element(data, position)
    if element.tag != tag:
        raise _Damaged
    return element


def _after(element: _Element) -> int:
    if element.after is None:
        raise _Damaged
    return element.after


def _element(data: bytes, position: int) -> _Element:
    tag, length = data[position], data[position + 1]
    start = position + 2
    if length == 0x80:
        return _Element(tag, start, None, None)
    if length > 0x80:
        width = length & 0x7F
        if width > 8:
            raise _Damaged
        start += width
        length = int.from_bytes(data[start - width : start], "big")
    if start + length > len(data):
        raise _Damaged
    return _Element(tag, start, start + length, start + length)
