"""Headers and bodies turned into text that is safe everywhere: encoded words, charsets, no lone surrogate and no NUL.

mail-parser is not used for this: it drops raw 8-bit bytes of headers, eats the space at a fold beside an encoded word and
returns a 7-bit ISO-2022-JP body undecoded.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from apptrack_ingest.parse.charsets import (
    Text,
    charset_of_html,
    charset_of_mark,
    charset_parameter,
    decode_bytes,
    is_utf8,
    scrub,
)
from apptrack_ingest.parse.headers import Fields, values_of

__all__ = [
    "Text",
    "clean_body",
    "clean_line",
    "decode_body",
    "decode_bytes",
    "decode_fields",
    "decode_header",
    "header_charset",
    "read_preamble",
    "read_subject",
    "scrub",
    "unfold",
]

# RFC 2047, section 2, read leniently: spaces and question marks inside, no 75 character limit. Beginnings and ends are
# found in one pass and paired afterwards, so that a hostile header costs linear time.
_MARK = re.compile(rb"=\?([!->@-~]{1,60})\?([bBqQ])\?|\?=")
_BEGINNING = re.compile(rb"=\?[!->@-~]{1,60}\?[bBqQ]\?")
_ONLY_WORDS = re.compile(r"(?:\s*=\?[!->@-~]{1,60}\?[bBqQ]\?[^?]*\?=)+\s*")
_BASE64_WORD = re.compile(rb"[^?]*?[A-Za-z0-9+/][^?]*|")
_BAD_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2})")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# What mail programs write before the first part, for readers that know no MIME (RFC 2046, section 5.1.1).
_BOILERPLATE = re.compile(r"\bMIME\b|(?i:\bmulti-?part message)")
_LONGEST_BOILERPLATE = 400
# Bytes of a header whose reading is remembered.
_REMEMBERED = 512


class _Word(NamedTuple):
    """A stretch of a header: an encoded word (charset, encoding, its text) or, charset None, bytes as they stand."""

    charset: str | None
    encoding: bytes
    text: bytes


def decode_header(raw: bytes, hint: str | None = None) -> Text:
    """Unfold a header's raw value and decode its encoded words (RFC 2047) into one clean line.

    A space at a fold beside an encoded word stays, white space between two encoded words goes (RFC 2047, section 6.2).
    `hint` is a charset for raw bytes that are no UTF-8 (see `header_charset`). Words encoded twice are decoded twice.
    """
    plain = unfold(raw)
    if plain.isascii() and b"=?" not in plain:  # nearly every header
        line = plain.decode("ascii")
        if line.isprintable():
            return Text(line)
        if "\x1b" not in line:
            return clean_line(line)
    if len(plain) <= _REMEMBERED:
        return _remembered(plain, hint)
    return _read_words(plain, hint)


def decode_fields(fields: Fields, hint: str | None) -> tuple[tuple[str, str], ...]:
    """All fields of a scanned header block in order, each with its value as `decode_header` reads it."""
    found = []
    for name, raw in fields:
        line = "" if b"\n" in raw or b"=?" in raw or not raw.isascii() else raw.decode("ascii").strip(" \t\r")
        value = line if line and line.isprintable() else decode_header(raw, hint).value
        found.append((name.decode("ascii"), value))
    return tuple(found)


@lru_cache(maxsize=64)
def _remembered(line: bytes, hint: str | None) -> Text:
    """One mail's reading asks for the same header up to three times."""
    return _read_words(line, hint)


def _read_words(line: bytes, hint: str | None) -> Text:
    text = _decoded(line, hint)
    if "=?" in text.value and _ONLY_WORDS.fullmatch(text.value):
        text = Text(_decoded(text.value.encode(), hint).value, certain=False)
    clean = clean_line(text.value)
    return Text(clean.value, clean.certain and text.certain)


def header_charset(fields: Fields) -> str | None:
    """The charset of the mail's own Content-Type: the likeliest one of raw bytes in its headers too."""
    declared = values_of(fields, b"content-type")
    return charset_parameter(unfold(declared[0])) if declared else None


def read_subject(fields: Fields) -> tuple[str | None, tuple[str, ...]]:
    """The decoded Subject of a scanned header block (None: there is none) and warnings in words."""
    raw = values_of(fields, b"subject")
    if not raw:
        return None, ()
    charset = header_charset(fields)
    subjects = [decode_header(value, charset) for value in dict.fromkeys(raw)]
    warnings = []
    if len(set(subjects)) > 1:
        warnings.append("Subject is there more than once; the first was read")
    if not subjects[0].certain:
        warnings.append("Subject is damaged or of no certain charset; it was read as well as possible")
    return subjects[0].value, tuple(warnings)


def decode_body(content: bytes, content_type: str, charset: str | None) -> tuple[str, tuple[str, ...]]:
    """A text part's decoded bytes as text with LF line ends, and warnings in words.

    A byte order mark goes before the declared charset; where there is none or it fails, HTML is asked for its own.
    """
    inside = charset_of_html(content) if content_type == "text/html" else None
    declared = charset_of_mark(content) or charset
    if not declared and inside and (content.isascii() or not is_utf8(content)):  # relays recode and leave it standing
        declared = inside
    decoded = decode_bytes(content, declared, inside)
    warnings = []
    if not decoded.certain:
        named = f"damaged or not {clean_line(charset).value[:40]} as it says" if charset else "of no declared charset"
        warnings.append(f"the body's text is {named}; it was read as well as possible")
    text = clean_body(decoded.value)
    if not text.certain:
        warnings.append("the body's text held NUL characters; they were left out")
    return text.value, tuple(warnings)


def read_preamble(preamble: bytes) -> tuple[str | None, tuple[str, ...]]:
    """What stands before the first part of a multipart: None for a mail program's word to readers that know no MIME,
    else text that somebody wrote there, or that a relay pushed out of its part, with a warning."""
    text = clean_body(decode_bytes(preamble, None).value).value.strip()
    if not text or (len(text) <= _LONGEST_BOILERPLATE and _BOILERPLATE.search(text)):
        return None, ()
    return text, ("text before the first part of the mail was taken into its text",)


def unfold(raw: bytes) -> bytes:
    """Join a folded value to one line; each fold becomes one space whatever white space a relay made of it."""
    raw = raw.strip(b" \t\r\n")
    if b"\n" not in raw:
        return raw
    return b" ".join(filter(None, (line.strip(b" \t\r") for line in raw.split(b"\n"))))


def clean_line(text: str) -> Text:
    """Text for one line: control characters become spaces, lone surrogates U+FFFD; either makes it uncertain."""
    if text.isascii() and text.isprintable():  # nearly every line, at a fifth of the cost
        return Text(text.strip())
    scalar = scrub(text)
    line = _CONTROLS.sub(" ", scalar).strip()
    return Text(line, certain=scalar == text and not _CONTROLS.search(text))


def clean_body(text: str) -> Text:
    """Text of many lines: line ends become LF, NULs go (no database keeps them as text), surrogates become U+FFFD."""
    scalar = text if text.isascii() else scrub(text.removeprefix("\ufeff"))
    return Text(scalar.replace("\x00", "").replace("\r\n", "\n"), certain="\x00" not in scalar)


def _decoded(line: bytes, hint: str | None) -> Text:
    pieces: list[Text] = []
    for (charset, encoding), words in groupby(_words(line), key=lambda word: (word.charset, word.encoding)):
        run = [word.text for word in words]
        pieces.append(_raw(b"".join(run), hint) if charset is None else _run(charset, encoding, run))
    return Text("".join(piece.value for piece in pieces), all(piece.certain for piece in pieces))


def _raw(data: bytes, hint: str | None) -> Text:
    text = decode_bytes(data, None, hint)
    undecoded = b"=?" in data and (b"?=" in data or _BEGINNING.search(data))
    return Text(text.value, text.certain and not undecoded)


def _run(charset: str, encoding: bytes, texts: list[bytes]) -> Text:
    """Adjacent encoded words of one kind. Each is whole by the rules (RFC 2047, section 5); but senders cut inside a
    character, or inside the base64 of one long word, so what fails by itself is tried in one piece."""
    contents = [_content(encoding, text) for text in texts]
    if len(texts) > 1 and not all(whole for _, whole in contents):
        content, whole = _content(encoding, b"".join(texts))
        contents = [(content, whole)] if whole else contents
    decoded = [decode_bytes(content, charset) for content, _ in contents]
    if len(decoded) > 1 and not all(text.certain for text in decoded):
        decoded = [decode_bytes(b"".join(content for content, _ in contents), charset)]
    certain = all(whole for _, whole in contents) and all(text.certain for text in decoded)
    return Text("".join(text.value for text in decoded), certain)


def _words(line: bytes) -> Iterator[_Word]:
    """The line's stretches in order, without the white space between two encoded words."""
    position, after_word = 0, False
    for start, end, word in _encoded_words(line):
        gap = line[position:start]
        if gap.strip() or (gap and not after_word):
            yield _Word(None, b"", gap)
        yield word
        position, after_word = end, True
    if position < len(line):
        yield _Word(None, b"", line[position:])


def _encoded_words(line: bytes) -> Iterator[tuple[int, int, _Word]]:
    """Each encoded word with where it starts and ends; a beginning that finds no end before the next is none."""
    opened: re.Match[bytes] | None = None
    for mark in _MARK.finditer(line):
        if mark[1]:
            opened = mark
        elif opened:
            encoding, text = opened[2].lower(), line[opened.end() : mark.start()]
            if encoding == b"q" or _BASE64_WORD.fullmatch(text):
                charset = opened[1].partition(b"*")[0].decode("ascii").lower()
                yield opened.start(), mark.end(), _Word(charset, encoding, text)
            opened = None


def _content(encoding: bytes, text: bytes) -> tuple[bytes, bool]:
    """An encoded word's bytes, and whether it keeps its own rules; where not, what can be had of it."""
    if encoding == b"q":
        return binascii.a2b_qp(text, header=True), not _BAD_ESCAPE.search(text)
    packed = text.translate(None, b" ").rstrip(b"=")
    pieces = [_base64(piece) for piece in packed.split(b"=")]  # "=" in the middle: pieces that were encoded apart
    return b"".join(content for content, _ in pieces), len(pieces) == 1 and pieces[0][1]


def _base64(packed: bytes) -> tuple[bytes, bool]:
    usable = packed.translate(None, _NOT_BASE64)
    if len(usable) % 4 == 1:
        usable = usable[:-1]
    content = base64.b64decode(usable + b"=" * (-len(usable) % 4))
    # Encoded again it is the same, unless it was cut: then its last bits belong to a byte that is not there.
    return content, base64.b64encode(content).rstrip(b"=") == packed
