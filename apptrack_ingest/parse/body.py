"""Everything below a mail's headers: its texts, its attachments, and what lies packed inside them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.parse import cms, tnef
from apptrack_ingest.parse.digest import ContentDigest
from apptrack_ingest.parse.documents import Attachment
from apptrack_ingest.parse.headers import Fields, header_block, scan_header_block
from apptrack_ingest.parse.limits import HEADER_BLOCK
from apptrack_ingest.parse.part import Head
from apptrack_ingest.parse.sniff import is_encrypted, sniff
from apptrack_ingest.parse.structure import Budget, Part, split
from apptrack_ingest.parse.text import clean_body, clean_line, decode_body, decode_bytes, decode_header, read_preamble
from apptrack_ingest.parse.transfer import decode
from apptrack_ingest.parse.uuencode import UuFile, has_yenc, take_files

# Mails within mails are listed this deep; what lies deeper stays in the document that holds it.
DEEPEST_MAIL = 5
_BODY_TYPES = frozenset({"text/plain", "text/html", "text/markdown", "text/x-markdown"})
_TNEF = frozenset({"application/ms-tnef", "application/vnd.ms-tnef"})
_SMIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_CLEARSIGNED = "-----BEGIN PGP SIGNED MESSAGE-----\n"
_PGP_SIGNATURE = "\n-----BEGIN PGP SIGNATURE-----"
IN_TEXT = "text"
# Characters of a name shown in a warning.
_LONGEST_SHOWN = 150


@dataclass(slots=True)
class Body:
    """What the parts of a mail say, in their order."""

    texts: list[str] = field(default_factory=list)
    htmls: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the mail being read lies: in what, how deep among mails, and whether it is not the mail received."""

    inside: Attachment | str | None = None
    depth: int = 0
    nested: bool = False


def body_start(raw: bytes, block: bytes) -> int:
    """Where the body begins: after the empty line that ends the header block."""
    return len(block) + (2 if raw.startswith(b"\r\n", len(block)) else 1)


def read_body(
    raw: bytes,
    block: bytes,
    fields: Fields,
    budget: Budget,
    *,
    digest: ContentDigest | None = None,
    place: Place | None = None,
    skip: Callable[[Part], bool] = lambda part: False,
) -> Body:
    """Read a mail's parts; `skip` leaves parts out. Raises `Unreadable` where the budget is overdrawn."""
    root, warnings = split(raw, min(body_start(raw, block), len(raw)), fields, budget)
    reader = _Reader(raw, budget, digest, place or Place())
    reader.body.warnings.extend(warnings)
    reader.preamble(root)
    for part, attached in root.leaves():
        if not skip(part):
            reader.leaf(part, attached)
    return reader.body


class _Reader:
    """Takes one leaf after the other and sorts it into the body."""

    def __init__(self, raw: bytes, budget: Budget, digest: ContentDigest | None, place: Place) -> None:
        self.raw = raw
        self.budget = budget
        self.digest = digest
        self.place = place
        self.body = Body()

    def leaf(self, part: Part, attached: bool) -> None:
        head = part.head
        content, problem = decode(self.raw, part.start, part.end, head.encoding)
        self.budget.take_decoded(len(content))
        if problem:
            self._warn(f"{_called(head)}: {problem}")
        if self.digest is not None:
            self.digest.add_leaf(head.content_type, content)
        is_text = _is_text(head, attached, content)
        if is_text:
            self._text(head, content)
        if not is_text or head.unclear:
            self._attachment(self._described(part, content, also_text=is_text), head, attached)

    # -- text

    def preamble(self, root: Part) -> None:
        if root.children and root.preamble_end > root.start:
            text, warnings = read_preamble(self.raw[root.start : root.preamble_end])
            self.body.texts.extend([text] if text else [])
            self.body.warnings.extend(warnings)

    def _text(self, head: Head, content: bytes) -> None:
        if head.content_type == "text/html":
            self.body.htmls.append(self._decoded(head, content))
            return
        content, files = take_files(content)
        for file in files:
            self._file_in_text(file, head)
        if has_yenc(content):
            self._warn("the text holds a file encoded with yEnc, which mail damages; it was left as it is")
        self.body.texts.append(self._unsigned(self._decoded(head, content)))

    def _decoded(self, head: Head, content: bytes) -> str:
        text, warnings = decode_body(content, head.content_type, head.charset)
        self.body.warnings.extend(warnings)
        return text

    def _unsigned(self, text: str) -> str:
        """A text signed in place (RFC 9580, section 7) without the signature around it."""
        if "-----BEGIN PGP " not in text:
            return text
        if "-----BEGIN PGP MESSAGE-----" in text:
            self._warn("the text holds a part encrypted with PGP; it was left as it is")
        before, found, signed = text.partition(_CLEARSIGNED)
        _, blank, signed = signed.partition("\n\n")
        signed, signature, after = signed.partition(_PGP_SIGNATURE)
        if not (found and blank and signature):
            return text
        self._warn("the text is signed with PGP; the signature was not checked, and left out of the text")
        _, _, rest = after.partition("-----END PGP SIGNATURE-----")
        return before + ("\n" + signed).replace("\n- ", "\n")[1:] + rest

    def _file_in_text(self, file: UuFile, head: Head) -> None:
        self.budget.take_part()
        self.budget.take_decoded(len(file.content))
        name = decode_header(decode_bytes(file.name, head.charset).value.encode()).value
        self._warn(f"the text held the uuencoded file {name!r}; it was taken out as a document")
        if not file.whole:
            self._warn(f"attachment {name!r}: damaged uuencode; what could be decoded was kept")
        self._add(
            Attachment(
                name=name or None,
                claimed_type="application/octet-stream",
                disposition=None,
                has_content_id=False,
                content=file.content,
                inside=self.place.inside or IN_TEXT,
                nested=self.place.nested,
            )
        )

    # -- attachments

    def _described(self, part: Part, content: bytes, *, also_text: bool) -> Attachment:
        head = part.head
        if also_text:
            self._warn("a part is of a type that cannot be read; it was taken for text, and kept as a document")
        return Attachment(
            name=head.name,
            claimed_type="application/octet-stream" if head.unclear else head.content_type,
            disposition=head.disposition,
            has_content_id=head.content_id is not None,
            content=content,
            hint=head.hint,
            inside=self.place.inside,
            nested=self.place.nested,
            recovered=part.recovered,
            also_text=also_text,
        )

    def _attachment(self, attachment: Attachment, head: Head, attached: bool) -> None:
        if head.content_type in _SMIME:
            self._smime(attachment, attached)
            return
        self._add(attachment)
        if head.is_mail:
            self._mail(attachment)
        elif head.content_type in _TNEF or (
            tnef.is_tnef(attachment.content) and not head.content_type.startswith("text/")
        ):
            self._tnef(attachment)
        elif is_encrypted(attachment.content):
            self._warn(f"{_called(head)} is encrypted; it was kept as it is")
        elif head.content_type in ("message/partial", "message/external-body"):
            self._warn(f"{_called(head)} is only a part of a mail, or points to a file elsewhere; nothing was fetched")

    def _add(self, attachment: Attachment) -> None:
        self.body.attachments.append(attachment)

    def _mail(self, attachment: Attachment) -> None:
        """List what an attached mail has attached itself. Its text stays in it: it is not this mail's."""
        inner = self._opened(attachment, attachment.content, nested=True)
        if inner is not None:
            self.body.attachments.extend(inner.attachments)

    def _opened(self, attachment: Attachment, content: bytes, *, nested: bool) -> Body | None:
        if self.place.depth >= DEEPEST_MAIL:
            self._warn("mails lie too deep within mails; the innermost were not opened")
            return None
        block = header_block(content, HEADER_BLOCK)
        if block is None:
            self._warn("an attached mail has too long a header block and was not opened")
            return None
        place = Place(attachment, self.place.depth + 1, nested or self.place.nested)
        before = self.budget.copy()
        try:
            inner = read_body(content, block, scan_header_block(block), self.budget, place=place)
        except Unreadable as error:
            if self.place.depth:
                raise
            self.budget.restore(before)
            self._warn(f"an attached mail was not opened: {error.code}")
            return None
        self.body.warnings.extend(
            f"in an attached mail: {warning}" if nested else warning for warning in inner.warnings
        )
        return inner

    def _smime(self, attachment: Attachment, attached: bool) -> None:
        """A signed mail is read; an encrypted one is kept for whoever has the key."""
        kind, signed = cms.open_container(attachment.content)
        if kind is cms.Kind.ENCRYPTED:
            self._warn("the mail is encrypted with S/MIME; what it says could not be read")
            attachment = replace(attachment, encrypted=True)
        self._add(attachment)
        if signed is None:
            if kind is not cms.Kind.ENCRYPTED:
                self._warn("a container of S/MIME could not be opened; it was kept as it is")
            return
        self.budget.take_decoded(len(signed))
        inner = self._opened(attachment, signed, nested=attached)
        if inner is None:
            return
        self.body.attachments.extend(inner.attachments)
        if not attached:
            self.body.texts.extend(inner.texts)
            self.body.htmls.extend(inner.htmls)

    def _tnef(self, attachment: Attachment) -> None:
        """Outlook's container: its files become documents, its text counts where the mail has none of its own."""
        found = tnef.unpack(attachment.content)
        if not found.complete:
            self._warn("winmail.dat is damaged; what could be read was taken out of it")
        for file in found.files:
            self.budget.take_part()
            self.budget.take_decoded(len(file.content))
            name = clean_line(file.name).value or None if file.name else None
            kind = (file.content_type or "application/octet-stream").lower()
            self._add(
                Attachment(
                    name=name,
                    claimed_type=clean_line(kind).value[:_LONGEST_SHOWN],
                    disposition=None,
                    has_content_id=bool(file.content_id),
                    content=file.content,
                    inside=attachment,
                    nested=self.place.nested,
                )
            )
        if not any(text.strip() for text in (*self.body.texts, *self.body.htmls)):
            self.body.texts.extend([clean_body(found.text).value] if found.text else [])
            self.body.htmls.extend([clean_body(found.html).value] if found.html else [])

    def _warn(self, words: str) -> None:
        self.body.warnings.append(words)


def _is_text(head: Head, attached: bool, content: bytes) -> bool:
    """Whether a leaf is the mail's own text: nothing says that it is a file, nor do its first bytes."""
    plain = head.content_type in _BODY_TYPES or head.is_multipart
    return plain and not attached and head.disposition != "attachment" and not head.name and sniff(content) is None


def _called(head: Head) -> str:
    return f"attachment {head.name[:_LONGEST_SHOWN]!r}" if head.name else f"a part of type {head.content_type}"
