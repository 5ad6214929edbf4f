"""Attachments turned into documents: safe names, what each one really is, and the likely CV first."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from apptrack_ingest.model import Document, Role
from apptrack_ingest.parse.classify import ALSO_TEXT, Facts, Judgement, judge
from apptrack_ingest.parse.names import SafeNames
from apptrack_ingest.parse.sniff import flags_of, sniff

# What documents lie inside that came beside an application in the mail that forwarded it.
FORWARDING_MAIL = "the forwarding mail"
_FIRST = (Role.CV, Role.COVER_LETTER)


@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """A part that is no body text, or a file found inside one, decoded.

    `name` is what the mail calls it, `hint` what a name can be made of besides; `disposition` is that of
    Content-Disposition, None when absent. `inside` is the attachment it was unpacked from, or words for another place;
    `nested` says that this lies in another mail than the one received, `recovered` that only a repair of the mail's
    structure found it, `also_text` that it was taken for text of the mail as well.
    """

    name: str | None
    claimed_type: str
    disposition: str | None
    has_content_id: bool
    content: bytes = field(repr=False)
    hint: str | None = None
    inside: "Attachment | str | None" = None
    nested: bool = False
    encrypted: bool = False
    recovered: bool = False
    also_text: bool = False

    @property
    def shown(self) -> bool:
        """Whether the body shows it, were it an image."""
        return self.disposition == "inline" or (self.has_content_id and self.disposition is None)


def to_documents(attachments: Sequence[Attachment]) -> tuple[Document, ...]:
    """Documents with safe unique names and roles: CVs first, then cover letters, then the rest as the mail has them."""
    judged = sorted(zip(attachments, judge([_facts(one) for one in attachments]), strict=True), key=_place)
    names = SafeNames()
    named = {attachment: names.name(_name(attachment), _type(judgement)) for attachment, judgement in judged}
    return tuple(_document(attachment, judgement, named) for attachment, judgement in judged)


def without_extensions(
    documents: Sequence[Document], blocked: Collection[str]
) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    """The documents without those of blocked extensions (lower case, no dot), as idibu's accounts block them, and a
    warning for each. The remaining ones are judged anew: where the CV is gone, the next likeliest takes its place."""
    kept = [one for one in documents if one.name.rpartition(".")[2].lower() not in blocked]
    if len(kept) == len(documents):
        return tuple(documents), ()
    warnings = tuple(
        f"document {one.name!r} was left out: its extension is blocked" for one in documents if one not in kept
    )
    return _judged_anew(kept, documents), warnings


def without_forwarding_mail(documents: Sequence[Document]) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    """The documents without those that the mail around an unwrapped application has, and a warning if there were any."""
    left_out: set[str] = set()
    # A container stands before what was found in it, or after: looked at until nothing more is found.
    while found := {one.name for one in documents if one.inside in {FORWARDING_MAIL, *left_out}} - left_out:
        left_out |= found
    if not left_out:
        return tuple(documents), ()
    kept = [one for one in documents if one.name not in left_out]
    return _judged_anew(kept, documents), (f"{len(left_out)} documents of the forwarding mail were left out",)


def _judged_anew(kept: Sequence[Document], documents: Sequence[Document]) -> tuple[Document, ...]:
    judged = [
        replace(one, role=new.role or Role.OTHER, why=new.why)
        for one, new in zip(kept, _again(kept, {one.name: one for one in documents}), strict=True)
    ]
    return tuple(sorted(judged, key=lambda one: _FIRST.index(one.role) if one.role in _FIRST else len(_FIRST)))


def _again(documents: Sequence[Document], by_name: Mapping[str, Document]) -> list[Judgement]:
    return judge(
        [
            Facts(
                name=one.original_name or one.name,
                claimed_type=one.claimed_type,
                sniffed_type=one.sniffed_type,
                size=one.size,
                shown=one.role is Role.INLINE_IMAGE,
                nested=_is_nested(one, by_name),
                also_text=one.why == ALSO_TEXT,
                flags=one.flags,
            )
            for one in documents
        ]
    )


def _is_nested(document: Document, by_name: Mapping[str, Document]) -> bool:
    """Whether a document comes from another mail than the application: through containers, at any depth."""
    outer = by_name.get(document.inside or "")
    if outer is None:
        return document.inside == FORWARDING_MAIL
    is_mail = outer.claimed_type.startswith("message/") or outer.name.lower().endswith(".eml")
    return is_mail or _is_nested(outer, by_name)


def _facts(attachment: Attachment) -> Facts:
    name = _name(attachment) or ""
    sniffed = sniff(attachment.content)
    flags = flags_of(name, attachment.content, attachment.claimed_type, sniffed)
    known = {"encrypted": attachment.encrypted, "recovered": attachment.recovered}
    flags = (*flags, *(flag for flag, there in known.items() if there and flag not in flags))
    return Facts(
        name=name,
        claimed_type=attachment.claimed_type,
        sniffed_type=sniffed,
        size=len(attachment.content),
        shown=attachment.shown,
        nested=attachment.nested,
        also_text=attachment.also_text,
        flags=flags,
    )


def _name(attachment: Attachment) -> str | None:
    """What the safe name is made of. The hint goes first where it is the name as it was meant: a Windows path."""
    meant = attachment.hint if attachment.hint and "\\" in attachment.hint else None
    return meant or attachment.name or attachment.hint


def _place(one: tuple[Attachment, Judgement]) -> tuple[int, tuple[bool, int, int]]:
    role = one[1].role
    if role is Role.CV:
        return 0, one[1].weight
    return (1 if role is Role.COVER_LETTER else 2), (False, 0, 0)


def _type(judgement: Judgement) -> str:
    """The type an extension is taken from where the name has none."""
    facts = judgement.facts
    return (
        facts.sniffed_type
        if facts.claimed_type == "application/octet-stream" and facts.sniffed_type
        else facts.claimed_type
    )


def _document(attachment: Attachment, judgement: Judgement, named: dict[Attachment, str]) -> Document:
    inside = attachment.inside
    return Document(
        name=named[attachment],
        original_name=attachment.name,
        claimed_type=attachment.claimed_type,
        sniffed_type=judgement.facts.sniffed_type,
        size=len(attachment.content),
        sha256=hashlib.sha256(attachment.content).hexdigest(),
        role=judgement.role or Role.OTHER,
        why=judgement.why,
        content=attachment.content,
        disposition=attachment.disposition,
        inside=named.get(inside, "") if isinstance(inside, Attachment) else inside,
        flags=judgement.facts.flags,
    )
