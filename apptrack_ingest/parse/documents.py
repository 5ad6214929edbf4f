"""Attachments turned into documents: what each one really is, the part it plays, and the likely CV first."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import filetype

from apptrack_ingest.model import Document, Role
from apptrack_ingest.parse.names import SafeNames

# As far as filetype's matchers look.
_SNIFFED_BYTES = 8192
# Formats that are text themselves. All others hold control characters early on, and have beginnings so short ("BM",
# "MZ", "CWS") that a sentence can have them too.
_TEXTUAL = frozenset({"application/pdf", "application/rtf", "application/postscript"})
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

# What a CV comes as, by how likely it is one where no name tells: the lower the likelier.
_RANKS = {"pdf": 0, "docx": 0, "doc": 0, "odt": 1, "rtf": 1, "html": 2, "txt": 3}
_UNRANKED = 9
_KIND_BY_TYPE = {
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/rtf": "rtf",
    "text/rtf": "rtf",
    "text/html": "html",
    "text/plain": "txt",
    "text/calendar": "calendar",
    "text/vcard": "card",
    "text/x-vcard": "card",
    "application/ms-tnef": "tnef",
    "application/vnd.ms-tnef": "tnef",
    "application/pkcs7-signature": "signature",
    "application/x-pkcs7-signature": "signature",
    "application/pgp-signature": "signature",
    "application/pgp-keys": "signature",
}
_KIND_BY_EXTENSION = {
    **{extension: extension for extension in ("pdf", "docx", "doc", "odt", "rtf", "html", "txt")},
    **{"htm": "html", "ics": "calendar", "vcf": "card", "p7s": "signature", "sig": "signature", "asc": "signature"},
    **dict.fromkeys(("gif", "jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "svg", "heic"), "image"),
}
# Kinds that are never a CV, whatever they are called, and why.
_NEVER_A_CV = {
    "inline image": "an image shown in the body",
    "calendar": "a calendar entry",
    "card": "a business card",
    "signature": "a cryptographic signature or key",
    "tnef": "Outlook's container winmail.dat, not unpacked",
    "message": "a mail attached to the mail",
}
# Words of file names, without accents and in lower case. The short ones count as whole words only.
_CV_WORDS = re.compile(
    r"\b(cv|cvs|vita)\b|curriculum|resume|lebenslauf|vitae|zyciorys|zivotopis|levensloop|резюме", re.IGNORECASE
)
_COVER_WORDS = re.compile(r"\bcover|anschreiben|begleitschreiben|motivation|motivatie|presentacion", re.IGNORECASE)
_OTHER_WORDS = re.compile(
    r"certificat|zertifikat|zeugnis|transcript|diploma|referen|recommend|portfolio|passport|visa\b|licen[cs]e|degree",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One leaf part that is no body text, decoded. `disposition` is that of Content-Disposition, None when absent."""

    name: str | None
    claimed_type: str
    disposition: str | None
    has_content_id: bool
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Judged:
    attachment: Attachment
    sniffed_type: str | None
    kind: str
    role: Role | None = None
    why: str = ""

    @property
    def weight(self) -> tuple[int, int]:
        """Sorts the likelier CV first: by kind, then by size."""
        return _RANKS.get(self.kind, _UNRANKED), -len(self.attachment.content)


def to_documents(attachments: Sequence[Attachment]) -> tuple[Document, ...]:
    """Documents with safe unique names and roles: CVs first, then cover letters, then the rest as the mail has them."""
    judged = _with_likely_cv([_judge(attachment) for attachment in attachments])
    cvs = sorted((one for one in judged if one.role is Role.CV), key=lambda one: one.weight)
    covers = [one for one in judged if one.role is Role.COVER_LETTER]
    rest = [one for one in judged if one.role is Role.OTHER]
    names = SafeNames()
    return tuple(_document(one, names) for one in (*cvs, *covers, *rest))


def sniff(content: bytes) -> str | None:
    """The MIME type the first bytes tell, None when they tell nothing (plain text, HTML, damaged files)."""
    head = content[:_SNIFFED_BYTES]
    found = filetype.guess(head)
    if found is None or not (found.mime in _TEXTUAL or _CONTROLS.search(head)):
        return None
    return str(found.mime)


def _document(one: _Judged, names: SafeNames) -> Document:
    attachment = one.attachment
    known_type = attachment.claimed_type
    if known_type == "application/octet-stream" and one.sniffed_type:
        known_type = one.sniffed_type
    return Document(
        name=names.name(attachment.name, known_type),
        original_name=attachment.name,
        claimed_type=attachment.claimed_type,
        sniffed_type=one.sniffed_type,
        size=len(attachment.content),
        sha256=hashlib.sha256(attachment.content).hexdigest(),
        role=one.role or Role.OTHER,
        why=one.why,
        content=attachment.content,
    )


def _judge(attachment: Attachment) -> _Judged:
    """Judge one attachment by itself; the role stays open where only the others can settle it."""
    sniffed = sniff(attachment.content)
    kind = _kind(attachment, sniffed)
    role, why = _own_role(kind, _words(attachment.name or ""))
    return _Judged(attachment, sniffed, kind, role, why)


def _own_role(kind: str, name: str) -> tuple[Role | None, str]:
    if kind in _NEVER_A_CV:
        return Role.OTHER, _NEVER_A_CV[kind]
    if _CV_WORDS.search(name):
        return Role.CV, "its name says so"
    if _COVER_WORDS.search(name):
        return Role.COVER_LETTER, "its name says so"
    if kind not in _RANKS:
        return Role.OTHER, "neither its name nor its type is a CV's"
    return None, ""


def _with_likely_cv(judged: list[_Judged]) -> list[_Judged]:
    """Where no name says CV, the likeliest open document becomes it; names like "certificate" only if there is no other."""
    open_ones = [one for one in judged if one.role is None]
    named = any(one.role is Role.CV for one in judged)
    likeliest = None if named or not open_ones else min(open_ones, key=lambda one: (_tells_otherwise(one), *one.weight))
    why = (
        "the only document" if len(open_ones) == 1 else f"the likeliest of {len(open_ones)} documents by type and size"
    )
    return [_settled(one, one is likeliest, why) for one in judged]


def _settled(one: _Judged, is_cv: bool, why: str) -> _Judged:
    if one.role is not None:
        return one
    role, reason = (Role.CV, why) if is_cv else (Role.OTHER, "another document is likelier the CV")
    return _Judged(one.attachment, one.sniffed_type, one.kind, role, reason)


def _tells_otherwise(one: _Judged) -> bool:
    return bool(_OTHER_WORDS.search(_words(one.attachment.name or "")))


def _kind(attachment: Attachment, sniffed: str | None) -> str:
    """What it is: its first bytes before its extension before its claim; a zip may be any office format inside."""
    extension = (attachment.name or "").rpartition(".")[2].lower()
    kind = (
        _kind_of_type(sniffed or "")
        or _KIND_BY_EXTENSION.get(extension)
        or _kind_of_type(attachment.claimed_type)
        or "unknown"
    )
    if (attachment.name or "").lower() == "winmail.dat":
        return "tnef"
    shown_in_body = attachment.disposition == "inline" or (attachment.has_content_id and attachment.disposition is None)
    return "inline image" if kind == "image" and shown_in_body else kind


def _kind_of_type(content_type: str) -> str | None:
    if content_type.startswith("image/"):
        return "image"
    if content_type.startswith("message/"):
        return "message"
    return _KIND_BY_TYPE.get(content_type)


def _words(name: str) -> str:
    """A file name as words: CamelCase and separators split, accents gone, lower case."""
    stem = name.rpartition(".")[0] or name
    split = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", stem)
    plain = "".join(c for c in unicodedata.normalize("NFKD", split) if not unicodedata.combining(c))
    return re.sub(r"[\W\d_]+", " ", plain).lower()
