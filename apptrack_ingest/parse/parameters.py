"""A structured header's value and parameters (RFC 2045, RFC 2231), as mail programs write them, not only as they should."""

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from apptrack_ingest.parse.text import decode_bytes, decode_header

# Parameters as most programs write them: nothing to repair, to unquote or to put together.
_PLAIN = r'\s*+([A-Za-z-]++)=(?:"([^"\\]*+)"|([^\s";]++))\s*+(?:;|\Z)'
_PLAIN_ONE = re.compile(_PLAIN)
_PLAIN_ALL = re.compile(f"(?:{_PLAIN})*+")
_NAME = re.compile(r"([^\s;=\"]+)\s*(=)?\s*")
# What can matter inside quotes: a quoted pair, or a quote.
_MARK = re.compile(r'\\.|"', re.DOTALL)
_NEXT = re.compile(r"\s*(;|$|[\w*-]+\s*=)")
_SEGMENT = re.compile(r"([^*]+)\*(?:([0-9]{1,5})(\*)?)?")
_COMMENT = re.compile(r"\s*\([^()]*\)\s*$")
# Where a semicolon was forgotten, the first parameter follows the type after a blank.
_FORGOTTEN = re.compile(r"\s+(?=[\w*-]+\s*=)")

Segments = dict[int, tuple[str, bool]]


class Parameters(NamedTuple):
    """The value before the first semicolon, in lower case and without comments, and the parameters by lower-case name.

    `literal` has the quoted values as they stand, backslashes kept: a Windows path in quotes is no sequence of quoted pairs.
    """

    value: str
    named: dict[str, str]
    literal: dict[str, str]

    def token(self, name: str) -> str | None:
        """A parameter that is a single word (charset, boundary), without the comment that may follow it."""
        found = self.named.get(name)
        if not found:
            return None
        return (_COMMENT.sub("", found) if "(" in found else found).strip()


def read_parameters(header: str) -> Parameters:
    """Read one unfolded header. RFC 2231's continuations, charsets and languages are decoded, a parameter in that form
    goes before the plain one of that name, RFC 2047 words are decoded too (no standard allows them there; senders do it)."""
    if ";" not in header and "=" not in header:
        return Parameters(_bare_value(header), {}, {})
    value, rest = _main_value(header)
    plain: dict[str, str] = {}
    if "=?" not in rest and _PLAIN_ALL.fullmatch(rest):
        for name, quoted, word in _PLAIN_ONE.findall(rest):
            plain.setdefault(name.lower(), quoted or word)
        return Parameters(_bare_value(value), plain, plain)
    literal: dict[str, str] = {}
    segments: dict[str, Segments] = {}
    for name, read, as_sent in _pairs(rest):
        segment = _SEGMENT.fullmatch(name)
        if segment:
            number, extended = int(segment[2] or 0), bool(segment[3]) or segment[2] is None
            segments.setdefault(segment[1], {}).setdefault(number, (read, extended))
        elif name not in plain:
            plain[name], literal[name] = _words_decoded(read), as_sent
    for name, pieces in segments.items():
        joined = _joined(pieces)
        if joined or name not in plain:
            plain[name] = joined
            literal.pop(name, None)
    return Parameters(_bare_value(value), plain, literal)


def _bare_value(value: str) -> str:
    return (_COMMENT.sub("", value) if "(" in value else value).strip(" \t\"'").lower()


def _main_value(header: str) -> tuple[str, str]:
    value, semicolon, rest = header.partition(";")
    if not semicolon or "=" in value:
        forgotten = _FORGOTTEN.search(value)
        if forgotten:
            return value[: forgotten.start()], value[forgotten.end() :] + semicolon + rest
    return value, rest


def _pairs(text: str) -> list[tuple[str, str, str]]:
    """(name, value, value as sent) of each parameter in order."""
    found: list[tuple[str, str, str]] = []
    position = 0
    while match := _NAME.search(text, position):
        position = match.end()
        if not match[2]:
            continue
        if text.startswith('"', position):
            inner, position = _quoted(text, position + 1)
            found.append((match[1].lower(), re.sub(r"\\(.)", r"\1", inner), inner))
        else:
            end = text.find(";", position)
            end = len(text) if end < 0 else end
            value, position = text[position:end].strip().rstrip('"'), end
            found.append((match[1].lower(), value, value))
    return found


def _quoted(text: str, start: int) -> tuple[str, int]:
    """A quoted string's inside and where to go on. A quote in the middle of a name, not escaped, does not end it."""
    position = start
    while mark := _MARK.search(text, position):
        if mark[0] == '"' and _NEXT.match(text, mark.end()):
            return text[start : mark.start()], mark.end()
        position = mark.end()
    return text[start:].rstrip(), len(text)


def _joined(pieces: Segments) -> str:
    """RFC 2231's segments put together; a run of percent-encoded ones is decoded as a whole, for a character may be cut."""
    ordered = [pieces[number] for number in sorted(pieces)]
    charset, first = _charset(ordered[0]) if ordered[0][1] else (None, ordered[0][0])
    ordered[0] = (first, ordered[0][1])
    text, run = "", b""
    for piece, extended in ordered:
        if extended:
            run += unquote_to_bytes(piece)
        else:
            text, run = text + _decoded(run, charset) + piece, b""
    return _words_decoded(text + _decoded(run, charset))


def _charset(segment: tuple[str, bool]) -> tuple[str | None, str]:
    """`charset'language'text` taken apart; where the quotes are missing it is all text."""
    parts = segment[0].split("'", 2)
    return (parts[0] or None, parts[2]) if len(parts) == 3 else (None, segment[0])


def _decoded(run: bytes, charset: str | None) -> str:
    return decode_bytes(run, charset).value if run else ""


def _words_decoded(text: str) -> str:
    return decode_header(text.encode("utf-8", "replace")).value if "=?" in text else text
