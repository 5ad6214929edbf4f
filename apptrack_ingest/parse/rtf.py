"""The text of a mail that Outlook wrote as compressed RTF ([MS-OXRTFCP]): decompressed within bounds, without formatting."""

import re
import struct

_COMPRESSED, _PLAIN = b"LZFu", b"MELA"
_WINDOW = 4096
# Section 2.1.2.1: what the dictionary holds before the first byte.
_PRELOADED = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans Serif"
    rb"SymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    + b"\r\n"
    + rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
# A mail's text; whoever writes more does not write it into winmail.dat alone.
LARGEST = 2 * 1024 * 1024

_TOKEN = re.compile(
    rb"\\([a-z]{1,32})(-?[0-9]{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-z])|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.IGNORECASE
)
_HIDDEN = frozenset(
    [
        b"fonttbl",
        b"colortbl",
        b"stylesheet",
        b"info",
        b"pict",
        b"object",
        b"header",
        b"footer",
        b"generator",
        b"listtable",
    ]
)
_BREAKS = {b"par": "\n", b"line": "\n", b"sect": "\n", b"row": "\n", b"page": "\n", b"tab": "\t", b"cell": "\t"}


def decompress(packed: bytes) -> bytes | None:
    """The RTF; None where it is of no known compression or larger than `LARGEST`. Damage ends it early."""
    if len(packed) < 16:
        return None
    size, kind = struct.unpack_from("<I4s", packed, 4)
    if kind == _PLAIN:
        return packed[16 : 16 + min(size, LARGEST)]
    if kind != _COMPRESSED or size > LARGEST:
        return None
    return _expand(packed, size)


def _expand(packed: bytes, size: int) -> bytes:
    """Section 2.2.2.2: a byte of eight flags, then for each a literal byte or a reference into the last 4096 bytes."""
    output = bytearray(_PRELOADED)
    wanted = len(_PRELOADED) + size
    position = 16
    while position < len(packed) and len(output) < wanted:
        flags = packed[position]
        position += 1
        for bit in range(8):
            if not flags >> bit & 1:
                output += packed[position : position + 1]
                position += 1
                continue
            token = int.from_bytes(packed[position : position + 2], "big")
            position += 2
            if position > len(packed) or not _copy(output, token >> 4, (token & 15) + 2):
                return bytes(output[len(_PRELOADED) : wanted])
    return bytes(output[len(_PRELOADED) : wanted])


def _copy(output: bytearray, offset: int, length: int) -> bool:
    """Append what the dictionary holds at an offset; False at the end mark, a reference to the place being written."""
    back = (len(output) - offset) % _WINDOW
    if back == 0:
        return False
    for _ in range(length):
        output.append(output[-back] if back <= len(output) else 0x20)
    return True


def to_text(source: bytes) -> str:
    """The words of an RTF text, without formatting; destinations that are not shown are left out."""
    charset = "cp1252"
    pieces: list[str] = []
    hidden: list[bool] = [False]
    fallback = 0  # characters to leave out after \\u, which repeat it for readers without Unicode
    for token in _TOKEN.finditer(source[:LARGEST]):
        word, number, code, symbol, brace, plain = (group or b"" for group in token.groups())
        if brace:
            _brace(brace, hidden)
        elif word == b"ansicpg":
            charset = f"cp{int(number or b'1252')}"
        elif word in _HIDDEN or symbol == b"*":
            hidden[-1] = True
        elif hidden[-1]:
            continue
        elif word == b"u" and number:
            pieces.append(_character(int(number)))
            fallback = 1
        elif word:
            pieces.append(_BREAKS.get(word, ""))
        elif fallback and (code or plain):
            pieces.append(_decoded(plain[1:], charset))
            fallback = 0
        else:
            pieces.append(_decoded(bytes.fromhex(code.decode()) if code else symbol or plain, charset))
    return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def _brace(brace: bytes, hidden: list[bool]) -> None:
    if brace == b"{" and len(hidden) < 1000:
        hidden.append(hidden[-1])
    elif brace == b"}" and len(hidden) > 1:
        hidden.pop()


def _character(number: int) -> str:
    """A UTF-16 code unit: what lies beyond the first plane comes as two of them."""
    return chr(number % 65536)


def _decoded(data: bytes, charset: str) -> str:
    try:
        return data.decode(charset, "replace")
    except LookupError:
        return data.decode("cp1252", "replace")
