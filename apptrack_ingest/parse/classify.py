"""The part a document plays in an application, with the reason in words."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from apptrack_ingest.model import Role

# What a CV comes as, by how likely it is one where no name tells: the lower the likelier.
_RANKS = {"pdf": 0, "docx": 0, "doc": 0, "odt": 1, "rtf": 1, "html": 2, "txt": 3}
_UNRANKED = 9
_KIND_BY_TYPE = {
    "application/pdf": "pdf",
    "application/x-pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-word.document.macroenabled.12": "docx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/rtf": "rtf",
    "text/rtf": "rtf",
    "text/html": "html",
    "text/plain": "txt",
    "text/calendar": "calendar",
    "application/ics": "calendar",
    "text/vcard": "card",
    "text/x-vcard": "card",
    "text/directory": "card",
    "application/ms-tnef": "tnef",
    "application/vnd.ms-tnef": "tnef",
    "application/vnd.ms-outlook": "outlook",
    "application/pkcs7-signature": "signature",
    "application/x-pkcs7-signature": "signature",
    "application/pgp-signature": "signature",
    "application/pgp-keys": "signature",
    "application/pgp-encrypted": "control",
    "application/pkcs7-mime": "smime",
    "application/x-pkcs7-mime": "smime",
    "text/rfc822-headers": "headers",
}
_KIND_BY_EXTENSION = {
    **{extension: extension for extension in ("pdf", "docx", "doc", "odt", "rtf", "html", "txt")},
    **{"htm": "html", "docm": "docx", "dot": "doc", "dotx": "docx", "ics": "calendar", "vcf": "card", "msg": "outlook"},
    **{"p7s": "signature", "sig": "signature", "asc": "signature", "p7m": "smime", "eml": "message"},
    **dict.fromkeys(("gif", "jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "svg", "heic"), "image"),
}
ALSO_TEXT = "of a type that cannot be read; it was taken for text of the mail as well"
# Kinds that are never a CV, whatever they are called: what they are instead, and why.
_NEVER_A_CV = {
    "inline image": (Role.INLINE_IMAGE, "an image shown in the body"),
    "calendar": (Role.CALENDAR, "a calendar entry"),
    "card": (Role.OTHER, "a business card"),
    "signature": (Role.SIGNATURE, "a cryptographic signature or key"),
    "control": (Role.SIGNATURE, "says how the mail is encrypted, and no more"),
    "smime": (Role.OTHER, "a signed or encrypted container (S/MIME)"),
    "tnef": (Role.OTHER, "Outlook's container winmail.dat"),
    "outlook": (Role.OTHER, "a mail saved by Outlook, kept as it is"),
    "message": (Role.OTHER, "a mail attached to the mail"),
    "report": (Role.OTHER, "what a mail server says of a mail"),
    "headers": (Role.OTHER, "the headers of another mail"),
    "encrypted": (Role.OTHER, "encrypted: only who has the key can read it"),
    "executable": (Role.OTHER, "a program"),
    "text": (Role.OTHER, ALSO_TEXT),
}
# Words of file names, without accents and in lower case. The short ones count as whole words only.
_CV_WORDS = re.compile(
    r"\b(cv|cvs|vita)\b|curriculum|resume|lebenslauf|vitae|zyciorys|zivotopis|levensloop|резюме|履歴書|简历|簡歷",
    re.IGNORECASE,
)
_COVER_WORDS = re.compile(r"\bcover|anschreiben|begleitschreiben|motivation|motivatie|presentacion", re.IGNORECASE)
_OTHER_WORDS = re.compile(
    r"certificat|zertifikat|zeugnis|transcript|diploma|referen|recommend|portfolio|passport|visa\b|licen[cs]e|degree",
    re.IGNORECASE,
)
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_LETTERS = re.compile(r"[\W\d_]+")


class Facts(NamedTuple):
    """What a document's role is judged by. `shown` says that the body shows it (inline, or with a Content-ID and no
    disposition); `nested` that it comes from a mail attached to this one; `also_text` that it counts
    as text of the mail too."""

    name: str
    claimed_type: str
    sniffed_type: str | None
    size: int
    shown: bool = False
    nested: bool = False
    also_text: bool = False
    flags: tuple[str, ...] = ()


class Judgement(NamedTuple):
    """A role (None while only the other documents can settle it) and how it was found."""

    facts: Facts
    kind: str
    role: Role | None
    why: str

    @property
    def weight(self) -> tuple[bool, int, int]:
        """Sorts the likelier CV first: this mail's own, then by kind, then by size."""
        return self.facts.nested, _RANKS.get(self.kind, _UNRANKED), -self.facts.size


def judge(documents: Sequence[Facts]) -> list[Judgement]:
    """The role of each document, in their order. Where no name says CV, the likeliest open document becomes it; names
    like "certificate" only if there is no other."""
    judged = [_judge_alone(facts) for facts in documents]
    open_ones = [one for one in judged if one.role is None]
    named = any(one.role is Role.CV and not one.facts.nested for one in judged)
    likeliest = None if named or not open_ones else min(open_ones, key=lambda one: (_tells_otherwise(one), *one.weight))
    why = (
        "the only document" if len(open_ones) == 1 else f"the likeliest of {len(open_ones)} documents by type and size"
    )
    return [_settled(one, one is likeliest, why) for one in judged]


def _judge_alone(facts: Facts) -> Judgement:
    kind = _kind(facts)
    if kind in _NEVER_A_CV:
        return Judgement(facts, kind, *_NEVER_A_CV[kind])
    words = _words(facts.name)
    if _CV_WORDS.search(words):
        return Judgement(facts, kind, Role.CV, "its name says so")
    if _COVER_WORDS.search(words):
        return Judgement(facts, kind, Role.COVER_LETTER, "its name says so")
    if kind not in _RANKS:
        return Judgement(facts, kind, Role.OTHER, "neither its name nor its type is a CV's")
    return Judgement(facts, kind, None, "")


def _settled(one: Judgement, is_cv: bool, why: str) -> Judgement:
    if one.role is not None:
        return one
    return one._replace(role=Role.CV, why=why) if is_cv else _passed_over(one)


def _passed_over(one: Judgement) -> Judgement:
    return one._replace(role=Role.OTHER, why="another document is likelier the CV")


def _tells_otherwise(one: Judgement) -> bool:
    return bool(_OTHER_WORDS.search(_words(one.facts.name)))


def _kind(facts: Facts) -> str:
    """What it is: its first bytes before its extension before its claim; a zip may be any office format inside."""
    if facts.also_text or "executable" in facts.flags:
        return "text" if facts.also_text else "executable"
    name = facts.name.lower()
    claimed = _kind_of_type(facts.claimed_type)
    if claimed in ("tnef", "message", "report", "headers", "control", "smime") or name == "winmail.dat":
        return "tnef" if name == "winmail.dat" else str(claimed)
    extension = _KIND_BY_EXTENSION.get(name.rpartition(".")[2]) if "." in name else None
    kind = _kind_of_type(facts.sniffed_type or "") or extension or claimed or "unknown"
    if "encrypted" in facts.flags and kind not in _RANKS:
        return "encrypted"
    return "inline image" if kind == "image" and facts.shown else kind


def _kind_of_type(content_type: str) -> str | None:
    if content_type.startswith("image/"):
        return "image"
    if content_type in ("message/rfc822", "message/global", "message/news", "message/partial"):
        return "message"
    if content_type.startswith("message/"):
        return "report"
    return _KIND_BY_TYPE.get(content_type)


def _words(name: str) -> str:
    """A file name as words: CamelCase and separators split, accents gone, lower case."""
    stem = name.rpartition(".")[0] or name
    split = _HUMPS.sub(" ", stem)
    plain = split if split.isascii() else _without_accents(split)
    return _NO_LETTERS.sub(" ", plain).lower()


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
