"""Bytes of a mail turned into text that is safe everywhere: charsets, encoded words, no lone surrogate and no NUL.

mail-parser is not used for this: it drops raw 8-bit bytes of headers, eats the space at a fold beside an encoded word and
returns a 7-bit ISO-2022-JP body undecoded.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

# RFC 2047, section 2, read leniently (spaces inside, no 75 character limit). No component can run over a "?", so that a
# hostile header costs linear time.
_ENCODED_WORD = re.compile(rb"=\?([!->@-~]{1,60})\?([bBqQ])\?([^?]*)\?=")
_Q_TEXT = re.compile(rb"(?:[^=]|=[0-9A-Fa-f]{2})*")
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Codecs that take more than linear time or that turn harmless text into something else.
_REFUSED_CODECS = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
# What senders call by the smaller set's name (WHATWG Encoding Standard, section 4.2).
_SUPERSETS = {
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
}


@dataclass(frozen=True, slots=True)
class Text:
    """Decoded text; `certain` is False where a byte had to be guessed, replaced or left out."""

    value: str
    certain: bool = True


def decode_bytes(data: bytes, charset: str | None) -> Text:
    """Decode in the declared charset; where there is none or it fails: UTF-8, then windows-1252.

    Without a declared charset clean UTF-8 counts as certain (RFC 6532); every other fallback does not.
    """
    for codec in _codecs(charset):
        text = _try(data, codec)
        if text is not None:
            return Text(text)
    text = _try(data, "utf-8")
    if text is not None:
        return Text(text, certain=not charset)
    return Text(data.decode("cp1252", "replace"), certain=False)


def decode_header(raw: bytes) -> Text:
    """Unfold a header's raw value and decode its encoded words (RFC 2047) into one clean line.

    A space at a fold beside an encoded word stays, white space between two encoded words goes (RFC 2047, section 6.2).
    """
    runs = list(_runs(unfold(raw)))
    pieces = [decode_bytes(data, charset) for charset, data in runs]
    line = clean_line("".join(piece.value for piece in pieces))
    undecoded = any(charset is None and b"=?" in data and b"?=" in data for charset, data in runs)
    return Text(line.value, line.certain and not undecoded and all(piece.certain for piece in pieces))


def unfold(raw: bytes) -> bytes:
    """Join a folded value to one line; each fold becomes one space whatever white space a relay made of it."""
    return b" ".join(filter(None, (line.strip(b" \t\r") for line in raw.split(b"\n"))))


def clean_line(text: str) -> Text:
    """Text for one line: control characters become spaces, lone surrogates U+FFFD; either makes it uncertain."""
    scalar = scrub(text)
    line = _CONTROLS.sub(" ", scalar).strip()
    return Text(line, certain=scalar == text and not _CONTROLS.search(text))


def clean_body(text: str) -> Text:
    """Text of many lines: line ends become LF, NULs go (no database keeps them as text), surrogates become U+FFFD."""
    scalar = scrub(text.removeprefix("\ufeff"))
    return Text(scalar.replace("\x00", "").replace("\r\n", "\n"), certain="\x00" not in scalar)


def scrub(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 sink accepts."""
    return _SURROGATES.sub("\ufffd", text)


def _codecs(charset: str | None) -> Iterator[str]:
    name = (charset or "").partition("*")[0].strip(" \t'\"").lower()[:40]
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        return
    if codec in _REFUSED_CODECS:
        return
    if codec in _SUPERSETS:
        yield _SUPERSETS[codec]
    yield codec


def _try(data: bytes, codec: str) -> str | None:
    try:
        text = data.decode(codec)
    except (LookupError, ValueError):
        return None
    return None if _SURROGATES.search(text) else text


def _runs(line: bytes) -> Iterator[tuple[str | None, bytes]]:
    """Yield stretches of one charset (None: as it stands), a character cut between two encoded words made whole."""
    charset, data = None, b""
    for next_charset, next_data in _words(line):
        if next_charset == charset:
            data += next_data
            continue
        yield charset, data
        charset, data = next_charset, next_data
    yield charset, data


def _words(line: bytes) -> Iterator[tuple[str | None, bytes]]:
    position, after_word = 0, False
    for match in _ENCODED_WORD.finditer(line):
        gap = line[position : match.start()]
        content = _word_bytes(match[2], match[3])
        if gap.strip() or (gap and not (after_word and content is not None)):
            yield None, gap
        after_word = content is not None
        if content is None:
            yield None, match[0]
        else:
            yield match[1].partition(b"*")[0].decode("ascii").lower(), content
        position = match.end()
    yield None, line[position:]


def _word_bytes(encoding: bytes, text: bytes) -> bytes | None:
    """Decode one encoded word's text; None where it breaks its own rules, so that it is shown as it stands."""
    if encoding in b"qQ":
        return binascii.a2b_qp(text, header=True) if _Q_TEXT.fullmatch(text) else None
    packed = text.translate(None, b" =")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        return None
