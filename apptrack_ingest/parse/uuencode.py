"""Files that were written into a text with uuencode, as programs did before MIME and some scanners still do."""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

# The line after it has to begin with a length.
_BEGIN = re.compile(rb"^begin [0-7]{3,4}(?:[ \t]+([^\r\n]{1,255}?))?[ \t]*\r?\n(?=[\x21-\x60])", re.MULTILINE)
MOST_FILES = 500
_YENC = re.compile(rb"^=ybegin [^\r\n]*\bname=", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class UuFile:
    """A file found in `text[start:end]`; not `whole` when its end is missing or one of its lines is damaged."""

    name: bytes
    start: int
    end: int
    whole: bool
    content: bytes = field(repr=False)


def find_files(text: bytes) -> Iterator[UuFile]:
    """The files in a text, in order. A line that merely looks like a beginning is left alone: its next line has to be
    one of uuencode. Linear, since no line of a file can be a beginning."""
    position = 0
    while match := _BEGIN.search(text, position):
        found = _read_file(text, match)
        position = match.end() if found is None else found.end
        if found is not None:
            yield found


def take_files(text: bytes) -> tuple[bytes, list[UuFile]]:
    """The text without the files in it, and the files; those beyond `MOST_FILES` stay in the text."""
    files = list(islice(find_files(text), MOST_FILES)) if b"begin " in text else []
    kept, position = [], 0
    for file in files:
        kept.append(text[position : file.start])
        position = file.end
    return b"".join([*kept, text[position:]]) if files else text, files


def decode_first_file(text: bytes) -> tuple[bytes, str | None] | None:
    """The content of the first file, and what was wrong with it in words; None where there is no file."""
    found = next(find_files(text), None)
    if found is None:
        return None
    return found.content, None if found.whole else "damaged uuencode; what could be decoded was kept"


def has_yenc(text: bytes) -> bool:
    """Whether a file was put into the text with yEnc, which mail cannot carry unharmed: it is only noticed."""
    return b"=ybegin " in text and _YENC.search(text) is not None


def _read_file(text: bytes, begin: re.Match[bytes]) -> UuFile | None:
    content: list[bytes] = []
    position, whole = begin.end(), True
    while position < len(text):
        end = text.find(b"\n", position)
        end = len(text) if end < 0 else end + 1
        line = text[position:end].rstrip(b"\r\n")
        if line.strip() == b"end":
            return UuFile(begin[1] or b"", begin.start(), end, whole, b"".join(content)) if content else None
        decoded = _line(line, first=not content)
        if decoded is None:
            break
        content.append(decoded)
        position = end
    return UuFile(begin[1] or b"", begin.start(), position, False, b"".join(content)) if content else None


def _line(line: bytes, first: bool) -> bytes | None:
    """One line's bytes; None for what uuencode never writes: another length than it says, lower case letters. Blanks
    at a line's end may have been lost, but not already in the first line."""
    if not line.strip():
        return b""
    length = (line[0] - 32) & 63
    digits = -(-length // 3) * 4
    if not 32 <= line[0] <= 96 or len(line) > digits + 3 or (first and len(line) < digits):
        return None
    try:
        return binascii.a2b_uu(line[: 1 + -(-length * 8 // 6)])  # the rest is padding, or a check sum of old encoders
    except binascii.Error:
        return None
