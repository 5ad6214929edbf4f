"""What a part's own headers say of it: type, name, charset, disposition, transfer encoding."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from apptrack_ingest.parse.headers import Fields, Scanned
from apptrack_ingest.parse.parameters import Parameters, read_parameters
from apptrack_ingest.parse.text import clean_line, decode_bytes, decode_header, unfold

# A header of a part is read this far: file names end long before.
_LONGEST_VALUE = 8 * 1024
# What is remembered from mail to mail is this short: a value, and all headers of a part.
_LONGEST_USUAL_VALUE = 32
LONGEST_USUAL = 100
_NAME_AND_VALUE = re.compile(rb"([!-9;-~]++)[ \t]*+:([^\n]*+\n(?:[ \t][^\n]*+\n)*+)")
# RFC 6838, section 4.2, with what else senders use; what follows is not part of the type.
_TYPE = re.compile(r"[\"'<\s]*([a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+*-]{1,127})")
_FILE_NAME = re.compile(r"[^/\\\r\n]{1,200}\.[A-Za-z0-9]{2,5}")
_WINDOWS_PATH = re.compile(r"([A-Za-z]:\\|\\\\)")
_MAILS = frozenset({"message/rfc822", "message/global", "message/news"})
_FILES = frozenset({"application/octet-stream", "application/eml", "application/x-eml"})
_MIME_HEADERS = frozenset(
    {
        b"content-type",
        b"content-disposition",
        b"content-transfer-encoding",
        b"content-id",
        b"content-description",
        b"content-location",
    }
)


_NO_PARAMETERS = read_parameters("")


class Head(NamedTuple):
    """A part's description. `content_type` is in lower case, the default where none or none that can be read is given.

    `unclear` says that there is a Content-Type, and one that cannot be read: RFC 2045, section 5.2, has that taken for text.
    `name` is the file name that the part gives, None where it has none; `hint` is what a name can be made of besides: the
    description that looks like one, or a Windows path as it was meant.
    """

    content_type: str = "text/plain"
    unclear: bool = False
    charset: str | None = None
    boundary: bytes | None = None
    smime_type: str | None = None
    disposition: str | None = None
    name: str | None = None
    hint: str | None = None
    content_id: str | None = None
    encoding: str = ""

    @property
    def is_multipart(self) -> bool:
        return self.content_type.startswith("multipart/")

    @property
    def is_mail(self) -> bool:
        """A whole mail (RFC 2046, section 5.2.1; RFC 6532, section 3.7; a news article is one too, RFC 5537), or a file
        that is called one."""
        return self.content_type in _MAILS or (
            self.content_type in _FILES and (self.name or "").lower().endswith(".eml")
        )


def head_of(lines: bytes, default_type: str) -> Head:
    """Read a part's headers as they stand, each on lines of its own that are whole."""
    return read_head(_NAME_AND_VALUE.findall(lines), default_type)


usual_head = lru_cache(maxsize=256)(head_of)
"""The same for short ones: those of texts are the same in mail after mail."""


def read_head(fields: Fields, default_type: str = "text/plain") -> Head:
    """Read the headers that describe a part; of a repeated one the first counts."""
    values = _first_of_each(fields)
    kind = _parameters(values.get(b"content-type", b""))
    disposition = _parameters(values.get(b"content-disposition", b""))
    content_id = values.get(b"content-id")
    found = _TYPE.match(kind.value)
    boundary = kind.named.get("boundary")
    return Head(
        content_type=found[1] if found else default_type,
        unclear=found is None and bool(kind.value),
        charset=kind.token("charset") if kind.named else None,
        boundary=boundary.encode("utf-8", "replace").rstrip(b" \t") or None if boundary else None,
        smime_type=kind.token("smime-type") if "smime-type" in kind.named else None,
        disposition=disposition.value.partition(" ")[0] or None,
        name=_name(disposition, kind),
        hint=_hint(disposition, kind, values),
        content_id=(_text(content_id) or None) if content_id else None,
        encoding=_parameters(values.get(b"content-transfer-encoding", b"")).value.rstrip(":"),
    )


def _first_of_each(fields: Fields) -> dict[bytes, bytes]:
    """The values of MIME's headers by name; a mail's own fields are sorted by it already."""
    if isinstance(fields, Scanned):
        return {name: values[0] for name, values in fields.by_name.items() if name in _MIME_HEADERS}
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        known = name.lower()
        if known in _MIME_HEADERS and known not in found:
            found[known] = value
    return found


def _parameters(value: bytes) -> Parameters:
    if not value:
        return _NO_PARAMETERS
    return _usual_parameters(value) if len(value) <= _LONGEST_USUAL_VALUE else read_parameters(_text(value))


@lru_cache(maxsize=256)
def _usual_parameters(value: bytes) -> Parameters:
    """Types with a charset and transfer encodings are the same in mail after mail; names and boundaries are longer."""
    return read_parameters(_text(value))


def _text(value: bytes) -> str:
    """A header as one line of text. Parts have no charset for raw 8-bit bytes: UTF-8 where it fits (RFC 6532)."""
    line = unfold(value[:_LONGEST_VALUE])
    if line.isascii() and (text := line.decode("ascii")).isprintable():  # nearly every one
        return text
    return clean_line(decode_bytes(line, None).value).value


def _name(disposition: Parameters, kind: Parameters) -> str | None:
    """RFC 2183, section 2.3; senders put it into Content-Type too, or there alone."""
    name = disposition.named.get("filename") or kind.named.get("name")
    return clean_line(name).value or None if name else None


def _hint(disposition: Parameters, kind: Parameters, values: Mapping[bytes, bytes]) -> str | None:
    for path in (disposition.literal.get("filename"), kind.literal.get("name")):
        if path and "\\" in path and _WINDOWS_PATH.match(path):
            return path
    if not (b"content-description" in values or b"content-location" in values):
        return None
    description = decode_header(_text(values.get(b"content-description", b"")).encode()).value
    location = _text(values.get(b"content-location", b"")).strip(" <>")
    return next((text for text in (description, location) if text and _FILE_NAME.fullmatch(text)), None)
