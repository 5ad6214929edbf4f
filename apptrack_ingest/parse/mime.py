"""One mail's bytes read into `Parsed`: pure, within limits, and never stopped by a bad attachment."""

import base64
import binascii
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.errors import MessageDefect
from email.message import Message
from email.parser import BytesFeedParser
from typing import Any

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.model import Parsed
from apptrack_ingest.parse.candidate import find_candidate
from apptrack_ingest.parse.digest import canonical_leaf, content_digest
from apptrack_ingest.parse.documents import Attachment, sniff, to_documents
from apptrack_ingest.parse.headers import Fields, header_block, scan_header_block, values_of
from apptrack_ingest.parse.metadata import canonical, read_metadata
from apptrack_ingest.parse.text import clean_body, clean_line, decode_bytes, decode_header, unfold

_CHUNK = 64 * 1024
# A header of a part is read this far: file names end long before, and the standard library's parameter parser takes
# quadratic time.
_LONGEST_PART_HEADER = 8 * 1024
_MIME_HEADERS = (b"content-type", b"content-transfer-encoding", b"content-disposition", b"content-id")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_IDENTITY = ("", "7bit", "8bit", "binary")
_UUENCODE = ("x-uuencode", "uuencode", "uue", "x-uue")

_DEFECTS = {
    "NoBoundaryInMultipartDefect": "a multipart part names no boundary; it was read as text",
    "StartBoundaryNotFoundDefect": "a multipart part never starts its first part; it was read as text",
    "CloseBoundaryNotFoundDefect": "a multipart part is not closed: the mail may have been cut short",
    "MissingHeaderBodySeparatorDefect": "a part's headers run into its body",
    "FirstHeaderLineIsContinuationDefect": "a part begins with the continuation of a header",
    "InvalidMultipartContentTransferEncodingDefect": "a multipart part names a transfer encoding",
    # Said twice of what the first two defects say.
    "MultipartInvariantViolationDefect": "",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a mail is read; beyond it the mail is `Unreadable` and kept as it is for a person.

    Bytes of the header block (4 KiB over what the receive stage allows, for the trace header it puts on top), number of
    parts, depth of nesting, bytes of all decoded parts together, and the number of warnings kept.
    """

    header_block: int = 132 * 1024
    parts: int = 2_000
    depth: int = 100
    decoded_bytes: int = 100 * 1024 * 1024
    warnings: int = 50


DEFAULT_LIMITS = Limits()


def parse(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Parsed:
    """Read a mail's raw bytes.

    Raises `Unreadable` alone, with code header-block-too-large, too-many-parts, too-deep, too-large, memory or
    parser-error (detail: the exception's type). Everything else that is wrong with the mail becomes a warning.
    """
    try:
        return _parse(raw, limits)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("too-deep") from None
    except MemoryError:
        raise Unreadable("memory") from None
    except Exception as error:  # noqa: BLE001 - what strangers send must not stop the worker; the type alone is told
        raise Unreadable("parser-error", type(error).__name__) from None


@dataclass(slots=True)
class _Body:
    """What the walk over the leaf parts gathers."""

    limits: Limits
    texts: list[str] = field(default_factory=list)
    htmls: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    canonical: list[bytes] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decoded: int = 0


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A leaf part's own description, before its content is decoded."""

    content_type: str
    charset: str | None
    disposition: str | None
    filename: str | None
    has_content_id: bool
    encoding: str


class _Part(Message):
    """A part that keeps an attached mail as bytes: it is a document of its own, and its nesting none of ours."""

    _payload: object  # the standard library's own attribute, which its type stubs leave out

    def get_content_type(self) -> str:
        declared = super().get_content_type()
        return "application/octet-stream" if declared.startswith("message/") else declared

    def encoded(self) -> bytes:
        """The payload as it was sent; `get_payload` would put it through the declared charset, with losses."""
        return self._payload.encode("ascii", "surrogateescape") if isinstance(self._payload, str) else b""


def _parse(raw: bytes, limits: Limits) -> Parsed:
    block = header_block(raw, limits.header_block)
    if block is None:
        raise Unreadable("header-block-too-large")
    fields = scan_header_block(block)
    metadata = read_metadata(fields)
    candidate, candidate_warnings = find_candidate(fields)
    subject, subject_warnings = _subject(fields)
    body = _read_body(fields, raw, len(block), limits)
    return Parsed(
        applicant_id=metadata.applicant_id,
        id_problem=metadata.id_problem,
        content_digest=content_digest(canonical(fields), subject, body.canonical),
        client_reference=metadata.client_reference,
        client_id=metadata.client_id,
        candidate=candidate,
        job=metadata.job,
        source=metadata.source,
        owner=metadata.owner,
        subject=subject,
        text=_joined(body.texts),
        html=_joined(body.htmls),
        documents=to_documents(body.attachments),
        warnings=_distinct(
            (*metadata.warnings, *candidate_warnings, *subject_warnings, *body.warnings), limits.warnings
        ),
        headers=tuple((name.decode("ascii"), decode_header(value).value) for name, value in fields),
    )


def _subject(fields: Fields) -> tuple[str | None, tuple[str, ...]]:
    subjects = [decode_header(value) for value in values_of(fields, b"subject")]
    if not subjects:
        return None, ()
    warnings = []
    if len(set(subjects)) > 1:
        warnings.append("Subject is there more than once; the first was read")
    if not subjects[0].certain:
        warnings.append("Subject is damaged or of no certain charset; it was read as well as possible")
    return subjects[0].value, tuple(warnings)


def _read_body(fields: Fields, raw: bytes, body_at: int, limits: Limits) -> _Body:
    body = _Body(limits)
    for part, attached in _leaves(_message(fields, raw, body_at, limits), body):
        leaf = _describe(part, body)
        content = _decode(part, leaf, body)
        part.set_payload("")  # the text it was decoded from is not needed any more
        body.decoded += len(content)
        if body.decoded > limits.decoded_bytes:
            raise Unreadable("too-large")
        body.canonical.append(canonical_leaf(leaf.content_type, content))
        _sort_in(leaf, attached, content, body)
    return body


def _message(fields: Fields, raw: bytes, body_at: int, limits: Limits) -> _Part:
    """The parts of a mail. Of its headers the parser gets those of MIME alone, as our own scan read them."""
    count = 0

    def counted(**options: Any) -> _Part:
        nonlocal count
        count += 1
        if count > limits.parts + 2:  # the parser makes one to try us and one for the mail itself
            raise Unreadable("too-many-parts")
        return _Part(**options)

    parser = BytesFeedParser(_factory=counted)
    for name, value in fields:
        if name.lower() in _MIME_HEADERS:
            parser.feed(name + b": " + unfold(value).replace(b"\r", b" ") + b"\n")
    for position in range(body_at, len(raw), _CHUNK):
        parser.feed(raw[position : position + _CHUNK])
    return parser.close()


def _leaves(root: _Part, body: _Body) -> Iterator[tuple[_Part, bool]]:
    """Leaf parts in order, each with whether it lies inside an attached container (RFC 2183, section 2.9)."""
    todo: deque[tuple[_Part, int, bool]] = deque([(root, 0, False)])
    while todo:
        part, depth, attached = todo.popleft()
        if depth > body.limits.depth:
            raise Unreadable("too-deep")
        body.warnings.extend(_defects(part.defects))
        if not part.is_multipart():
            yield part, attached
            continue
        if (part.epilogue or "").strip():
            body.warnings.append("text after the last part was left out")
        attached = attached or _header(part, "content-disposition").lower().startswith("attachment")
        todo.extendleft((child, depth + 1, attached) for child in reversed(part.get_payload()))  # type: ignore[arg-type]


def _defects(defects: Iterable[MessageDefect]) -> list[str]:
    names = (type(defect).__name__ for defect in defects)
    return [words for name in names if (words := _DEFECTS.get(name, f"the mail's structure is damaged ({name})"))]


def _describe(part: _Part, body: _Body) -> _Leaf:
    """Read a part's own headers by way of a copy that holds them as text: the standard library drops 8-bit bytes."""
    view = Message()
    view.set_default_type(part.get_default_type())
    for name in ("content-type", "content-disposition"):
        if value := _header(part, name):
            view[name] = value
    try:
        filename, charset = view.get_filename(), view.get_content_charset()
    except (LookupError, ValueError, TypeError):
        body.warnings.append("a part's name or charset cannot be read")
        filename, charset = None, None
    return _Leaf(
        # Parameters follow a semicolon; where it was forgotten, a blank.
        content_type=clean_line(view.get_content_type()).value.partition(" ")[0],
        charset=charset,
        disposition=view.get_content_disposition(),
        filename=decode_header(filename.encode("utf-8", "replace")).value or None if filename else None,
        has_content_id=bool(_header(part, "content-id")),
        encoding=_header(part, "content-transfer-encoding").lower().partition(";")[0].strip(" \"'"),
    )


def _header(part: Message, name: str) -> str:
    """The first header of that name as one line of text, empty when absent."""
    for field_name, value in part.raw_items():
        if field_name.lower() == name:
            data = unfold(str(value).encode("utf-8", "surrogateescape"))[:_LONGEST_PART_HEADER]
            return clean_line(decode_bytes(data, None).value).value
    return ""


def _decode(part: _Part, leaf: _Leaf, body: _Body) -> bytes:
    """A part's bytes; where its transfer encoding is damaged what could be decoded, or the text as it stands."""
    content, problem = _transfer_decoded(part, leaf.encoding)
    if problem:
        body.warnings.append(f"{_called(leaf)}: {problem}")
    return content


def _transfer_decoded(part: _Part, encoding: str) -> tuple[bytes, str | None]:
    encoded = part.encoded()
    if encoding in _IDENTITY:
        return encoded, None
    if encoding == "quoted-printable":
        return binascii.a2b_qp(encoded), None
    if encoding == "base64":
        return _base64(encoded)
    if encoding in _UUENCODE:
        decoded = part.get_payload(decode=True)
        return (decoded, None) if isinstance(decoded, bytes) else (encoded, "cannot be decoded; kept as sent")
    return encoded, f"unknown transfer encoding {encoding[:40]!r}; kept as sent"


def _base64(encoded: bytes) -> tuple[bytes, str | None]:
    try:
        return base64.b64decode(encoded.translate(None, b" \t\r\n"), validate=True), None
    except binascii.Error:
        usable = encoded.translate(None, _NOT_BASE64).partition(b"=")[0]
    if len(usable) < 2:
        return encoded, "is not the base64 it claims to be; kept as sent"
    usable = usable[:-1] if len(usable) % 4 == 1 else usable
    decoded = base64.b64decode(usable + b"=" * (-len(usable) % 4))
    return decoded, "damaged base64; what could be decoded was kept"


def _called(leaf: _Leaf) -> str:
    return f"attachment {leaf.filename!r}" if leaf.filename else f"a part of type {leaf.content_type}"


def _sort_in(leaf: _Leaf, attached: bool, content: bytes, body: _Body) -> None:
    """Put a decoded leaf where it belongs: body text, or an attachment (a file that was sent as text is one too)."""
    is_body = not attached and leaf.disposition != "attachment" and not leaf.filename and sniff(content) is None
    unparsed = leaf.content_type.startswith("multipart/")
    if is_body and (unparsed or leaf.content_type in ("text/plain", "text/html")):
        text = _body_text(leaf, content, body)
        (body.htmls if leaf.content_type == "text/html" else body.texts).append(text)
        return
    attachment = Attachment(leaf.filename, leaf.content_type, leaf.disposition, leaf.has_content_id, content)
    body.attachments.append(attachment)


def _body_text(leaf: _Leaf, content: bytes, body: _Body) -> str:
    decoded = decode_bytes(content, leaf.charset)
    if not decoded.certain:
        declared = f"not valid {clean_line(leaf.charset).value[:40]}" if leaf.charset else "of no declared charset"
        body.warnings.append(f"the body's text is {declared}; it was read as well as possible")
    text = clean_body(decoded.value)
    if not text.certain:
        body.warnings.append("the body's text held NUL characters; they were left out")
    return text.value


def _joined(texts: list[str]) -> str | None:
    filled = [text for text in texts if text.strip()]
    return "\n".join(filled) if filled else None


def _distinct(warnings: Iterable[str], limit: int) -> tuple[str, ...]:
    """Each warning once, and not more than a person reads."""
    distinct = list(dict.fromkeys(clean_line(re.sub(r"\s+", " ", warning)).value for warning in warnings))
    if len(distinct) <= limit:
        return tuple(distinct)
    return (*distinct[:limit], f"and {len(distinct) - limit} more warnings")
