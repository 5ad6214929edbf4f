"""Transfer encodings undone (RFC 2045, section 6): what can be decoded is kept, and what was wrong is said in words."""

import base64
import binascii
import re

import pybase64

from apptrack_ingest.parse.uuencode import decode_first_file

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_ALPHABET + b"="))
_BLANKS = b" \t\r\n"
# What a mailing list or a virus scanner puts below the attachment of others.
# A line of digits below it: it is a damaged line of the attachment itself.
_FOOTER = re.compile(rb"\n(?:--|__|==|\*\*)[^\n]*+(?!\n[A-Za-z0-9+/]{40})")
_PUSHED_HEADERS = re.compile(rb"(?:content-[a-z-]++:[^\n]*+\n(?:[ \t][^\n]*+\n)*+)++\r?\n", re.IGNORECASE)
# Pieces with their own padding: an encoder that pads each line makes 340,000 of 25 MB.
_MOST_PIECES = 1_000_000
_SOFT_BREAK_WITH_BLANKS = re.compile(rb"=[ \t]+(?=\r?\n)")
_IDENTITY = frozenset({"", "7bit", "8bit", "binary", "7-bit", "8-bit", "none", "utf-8", "us-ascii"})
_QUOTED_PRINTABLE = frozenset({"quoted-printable", "quotedprintable", "quoted printable", "quoted_printable"})
_BASE64 = frozenset({"base64", "base-64", "base 64", "b64"})
_UUENCODE = frozenset({"x-uuencode", "uuencode", "uue", "x-uue"})

_AT_ONCE = 77 * 78 * 15
"""Bytes of base64 whose white space is taken out at a time: the decoder is fifty times faster without, and a copy of the
whole text would cost its size in memory. Whole lines, with LF and with CRLF (RFC 2045, section 6.8), and less than the
128 KB from which on the allocator asks the system for each piece."""

_FEW = 1024
"""Bytes of base64 whose lines are not looked at."""


def decode(raw: bytes, start: int, end: int, encoding: str) -> tuple[bytes, str | None]:
    """The decoded bytes of `raw[start:end]`, and what was wrong with them in words (None: nothing). Linear, and without
    a copy of the encoded text where it is clean."""
    if encoding in _IDENTITY:
        return raw[start:end], None
    if encoding in _BASE64:
        return _base64(raw, start, end)
    if encoding in _QUOTED_PRINTABLE:
        return _quoted_printable(raw[start:end]), None
    encoded = raw[start:end]
    if encoding in _UUENCODE:
        decoded = decode_first_file(encoded)
        return (encoded, "cannot be decoded; kept as sent") if decoded is None else decoded
    return encoded, f"unknown transfer encoding {encoding[:40]!r}; kept as sent"


def _quoted_printable(encoded: bytes) -> bytes:
    if b"= " in encoded or b"=\t" in encoded:
        encoded = _SOFT_BREAK_WITH_BLANKS.sub(b"=", encoded)
    return binascii.a2b_qp(encoded)


def _base64(raw: bytes, start: int, end: int) -> tuple[bytes, str | None]:
    decoded = _clean_base64(raw, start, end)
    return (decoded, None) if decoded is not None else _damaged_base64(raw[start:end])


def _clean_base64(raw: bytes, start: int, end: int) -> bytes | None:
    """None unless every character was a digit, white space or the padding at the end."""
    pieces, left, padded = [], b"", False
    for at in range(start, end, _AT_ONCE):
        packed = left + without_blanks(raw[at : min(at + _AT_ONCE, end)])
        whole = len(packed) // 4 * 4
        if packed and padded:
            return None
        try:
            pieces.append(pybase64.b64decode(packed[:whole], validate=True))
        except binascii.Error:
            return None
        left, padded = packed[whole:], padded or packed.endswith(b"=", 0, whole)
    return None if left else b"".join(pieces)


def without_blanks(encoded: bytes) -> bytes:
    """Base64 without its white space. Where lines are of one length, as nearly every program makes them, their ends are
    taken out as columns, at a third of what it costs to look at each byte."""
    width = encoded.find(b"\n") + 1
    whole = len(encoded) // width * width if width else 0
    if whole < _FEW:
        return encoded.translate(None, _BLANKS)
    packed = bytearray(encoded)
    last = packed[whole:].translate(None, _BLANKS)
    del packed[whole:]
    for column in range(width - 1, max(width - 3, 0), -1):
        if packed[column :: column + 1].translate(None, b"\r\n"):
            break
        del packed[column :: column + 1]
    packed += last
    return bytes(packed) if _has_no_blank(packed) else encoded.translate(None, _BLANKS)


def _has_no_blank(packed: bytearray) -> bool:
    return b"\n" not in packed and b"\r" not in packed and b" " not in packed and b"\t" not in packed


def _damaged_base64(encoded: bytes) -> tuple[bytes, str | None]:
    pieces = _padded_pieces(encoded)
    if pieces is not None:
        return b"".join(base64.b64decode(piece) for piece in pieces), None
    body = _without_footer(_without_headers(encoded))
    usable = body.translate(None, _NOT_BASE64).partition(b"=")[0]
    if len(usable) < 2 or _is_prose(body):
        return encoded, "is not the base64 it claims to be; kept as sent"
    usable = usable[:-1] if len(usable) % 4 == 1 else usable
    decoded = base64.b64decode(usable + b"=" * (-len(usable) % 4))
    return decoded, "damaged base64; what could be decoded was kept"


def _is_prose(body: bytes) -> bool:
    """Words with blanks between them and with signs that base64 has not: a text whose encoding is a lie."""
    text = body.strip()
    return text.count(b" ") * 12 > len(text) and bool(text.translate(None, _ALPHABET + b"=" + _BLANKS))


def _without_headers(encoded: bytes) -> bytes:
    """Without the header lines that an empty line too many pushed from the part's head into its body."""
    pushed = _PUSHED_HEADERS.match(encoded)
    return encoded[pushed.end() :] if pushed else encoded


def _padded_pieces(encoded: bytes) -> list[bytes] | None:
    """Several base64 texts one after the other, each with its own padding; None where it is anything else."""
    packed = encoded.translate(None, _BLANKS)
    if b"=" not in packed[:-2] or packed.count(b"=") > _MOST_PIECES or packed.translate(None, _ALPHABET + b"="):
        return None
    pieces = re.findall(rb"[^=]+={0,2}", packed)
    fits = b"".join(pieces) == packed and all(len(piece) % 4 == 0 for piece in pieces)
    return pieces if fits else None


def _without_footer(encoded: bytes) -> bytes:
    """Cut at the first line that only a footer has; one that is in front of everything is none."""
    footer = _FOOTER.search(encoded)
    return encoded[: footer.start()] if footer and encoded[: footer.start()].strip() else encoded
