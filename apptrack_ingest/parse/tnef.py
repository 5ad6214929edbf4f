"""Outlook's winmail.dat taken apart ([MS-OXTNEF]): the files in it and the text of the mail.

Own reader: of the libraries on PyPI, tnefparse has had no release since 2021, has no limits of its own and needs two more.
It copies out what is there, in one pass: nothing in the format is compressed but the RTF text (see `rtf`).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from apptrack_ingest.parse import rtf
from apptrack_ingest.parse.text import decode_body, decode_bytes

SIGNATURE = b"\x78\x9f\x3e\x22"
# Section 2.1.3.1: attributes by their ids.
_BODY = 0x0002800C
_MESSAGE_PROPERTIES = 0x00069003
_CODE_PAGE = 0x00069007
_NEW_ATTACHMENT = 0x00069002
_ATTACHMENT_TITLE = 0x00018010
_ATTACHMENT_DATA = 0x0006800F
_ATTACHMENT_PROPERTIES = 0x00069005
# [MS-OXPROPS]: properties by their ids.
_PR_BODY, _PR_RTF, _PR_HTML = 0x1000, 0x1009, 0x1013
_PR_DATA, _PR_FILE, _PR_LONG_FILE, _PR_TYPE, _PR_CONTENT_ID = 0x3701, 0x3704, 0x3707, 0x370E, 0x3712
_PR_DISPLAY_NAME = 0x3001
# [MS-OXCDATA], section 2.11.1: sizes of the types of fixed size, padded to four bytes.
_FIXED = {0x02: 4, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x0A: 4, 0x0B: 4, 0x14: 8, 0x40: 8, 0x48: 16}
_OBJECT, _STRING, _UNICODE, _BINARY = 0x0D, 0x1E, 0x1F, 0x102
_MULTIPLE = 0x1000
# An embedded message begins with the id of its interface, then comes a TNEF stream of its own.
_INTERFACE_ID = 16
_MOST_FILES = 500
_MOST_PROPERTIES = 5_000
_DEEPEST = 5

# Windows' numbers of code pages that are no "cp" of that number.
_PAGES = {20127: "ascii", 20866: "koi8-r", 21866: "koi8-u", 51949: "euc-kr", 54936: "gb18030", 65001: "utf-8"}

Properties = dict[int, Any]


@dataclass(slots=True)
class TnefFile:
    """A file as Outlook attached it; `name` and `content_type` are None where it says nothing."""

    name: str | None = None
    content_type: str | None = None
    content_id: str | None = None
    content: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class Tnef:
    """What a winmail.dat holds; `complete` is False where it broke off or was not understood to its end."""

    files: list[TnefFile] = field(default_factory=list)
    text: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    complete: bool = True


class _Damaged(Exception):
    """The bytes do not go on as the format says."""


def is_tnef(content: bytes) -> bool:
    return content.startswith(SIGNATURE)


def _charset(page: int) -> str:
    if 28591 <= page <= 28605:
        return f"iso8859-{page - 28590}"
    return _PAGES.get(page, f"cp{page}")


def unpack(content: bytes, depth: int = 0) -> Tnef:
    """Read as much as can be read; never raises."""
    found = Tnef()
    reader = _Reader(content, found, depth)
    try:
        reader.read()
    except (_Damaged, struct.error):
        found.complete = False
    return found


class _Reader:
    def __init__(self, content: bytes, found: Tnef, depth: int) -> None:
        self.content = content
        self.found = found
        self.depth = depth
        self.charset = "cp1252"

    def read(self) -> None:
        if not is_tnef(self.content):
            raise _Damaged
        for identity, start, end in self._attributes():
            if identity == _NEW_ATTACHMENT:
                if len(self.found.files) >= _MOST_FILES:
                    raise _Damaged
                self.found.files.append(TnefFile())
            elif identity in (_CODE_PAGE, _BODY, _MESSAGE_PROPERTIES):
                self._of_message(identity, start, end)
            elif self.found.files:
                self._of_file(self.found.files[-1], identity, start, end)

    def _attributes(self) -> Iterator[tuple[int, int, int]]:
        """Each attribute's id and the bounds of its data; level and checksum tell nothing we need."""
        position = len(SIGNATURE) + 2
        while position + 9 <= len(self.content):
            identity, length = struct.unpack_from("<II", self.content, position + 1)
            start = position + 9
            if start + length > len(self.content):
                raise _Damaged
            yield identity, start, start + length
            position = start + length + 2
        if position < len(self.content):
            raise _Damaged

    def _of_message(self, identity: int, start: int, end: int) -> None:
        if identity == _CODE_PAGE:
            (page,) = struct.unpack_from("<I", self.content, start)
            self.charset = _charset(page)
        elif identity == _BODY:
            self.found.text = self._text(self.content[start:end])
        else:
            self._take_texts(self._properties(start, end))

    def _take_texts(self, properties: Properties) -> None:
        body, html, packed = (properties.get(one) for one in (_PR_BODY, _PR_HTML, _PR_RTF))
        if body:
            self.found.text = body if isinstance(body, str) else self._text(body)
        if html:
            self.found.html = html if isinstance(html, str) else decode_body(html, "text/html", None)[0]
        if isinstance(packed, bytes) and not (self.found.text or self.found.html):
            plain = rtf.decompress(packed)
            self.found.complete = self.found.complete and plain is not None
            self.found.text = rtf.to_text(plain or b"") or None

    def _of_file(self, file: TnefFile, identity: int, start: int, end: int) -> None:
        if identity == _ATTACHMENT_TITLE:
            file.name = file.name or self._text(self.content[start:end]) or None
        elif identity == _ATTACHMENT_DATA:
            file.content = self.content[start:end]
        elif identity == _ATTACHMENT_PROPERTIES:
            self._take_file(file, self._properties(start, end))

    def _take_file(self, file: TnefFile, properties: Properties) -> None:
        words = {one: self._word(properties.get(one)) for one in (_PR_LONG_FILE, _PR_FILE, _PR_DISPLAY_NAME)}
        file.name = words[_PR_LONG_FILE] or file.name or words[_PR_FILE] or words[_PR_DISPLAY_NAME]
        file.content_type = self._word(properties.get(_PR_TYPE)) or file.content_type
        file.content_id = self._word(properties.get(_PR_CONTENT_ID))
        data = properties.get(_PR_DATA)
        if not isinstance(data, bytes) or file.content:
            return
        if data.startswith(SIGNATURE, _INTERFACE_ID) and self.depth < _DEEPEST:
            inner = unpack(data[_INTERFACE_ID:], self.depth + 1)
            self.found.files.extend(inner.files)
            self.found.complete = self.found.complete and inner.complete
            data = (inner.text or "").encode()
            file.content_type = "text/plain"
        file.content = data

    def _properties(self, start: int, end: int) -> Properties:
        """Message properties (section 2.1.3.4), the last of each; a part that is damaged ends them."""
        found: Properties = {}
        (count,) = struct.unpack_from("<I", self.content, start)
        position = start + 4
        try:
            for _ in range(min(count, _MOST_PROPERTIES)):
                identity, value, position = self._property(position, end)
                found[identity] = value
        except (_Damaged, struct.error):
            self.found.complete = False
        return found

    def _property(self, position: int, end: int) -> tuple[int, Any, int]:
        kind, identity = struct.unpack_from("<HH", self.content, position)
        position += 4
        if identity >= 0x8000:
            position = self._after_name(position)
        multiple, kind = kind & _MULTIPLE, kind & ~_MULTIPLE
        if kind in _FIXED:
            count = 1
            if multiple:
                (count,) = struct.unpack_from("<I", self.content, position)
                position += 4
            position = self._within(position + count * _FIXED[kind], end)
            return identity, None, position
        if kind not in (_OBJECT, _STRING, _UNICODE, _BINARY):
            raise _Damaged
        return identity, *self._variable(kind, position, end)

    def _variable(self, kind: int, position: int, end: int) -> tuple[Any, int]:
        (count,) = struct.unpack_from("<I", self.content, position)
        position += 4
        first: bytes | None = None
        for _ in range(count):
            (length,) = struct.unpack_from("<I", self.content, position)
            position += 4
            stop = self._within(position + length, end)
            first = self.content[position:stop] if first is None else first
            position = stop + -length % 4
        if first is None or kind in (_BINARY, _OBJECT):
            return first, position
        text = decode_bytes(first, "utf-16-le").value if kind == _UNICODE else self._text(first)
        return text.rstrip("\x00"), position

    def _after_name(self, position: int) -> int:
        """Skip a named property's name: a GUID, then a number or a text."""
        kind, value = struct.unpack_from("<II", self.content, position + 16)
        return position + 24 + (value + -value % 4 if kind == 1 else 0)

    def _within(self, position: int, end: int) -> int:
        if position > end:
            raise _Damaged
        return position

    def _text(self, data: bytes) -> str:
        return decode_bytes(data.rstrip(b"\x00"), self.charset).value

    def _word(self, value: Any) -> str | None:
        return value.strip() or None if isinstance(value, str) else None
