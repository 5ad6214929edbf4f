"""One mail's bytes read into `Parsed`: pure, within limits, and never stopped by a bad attachment."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.model import Parsed
from apptrack_ingest.parse.body import Body, Place, read_body
from apptrack_ingest.parse.candidate import find_candidate
from apptrack_ingest.parse.digest import ContentDigest
from apptrack_ingest.parse.documents import FORWARDING_MAIL, to_documents
from apptrack_ingest.parse.forwarded import Wrapped, find_wrapped
from apptrack_ingest.parse.headers import Fields, header_block, scan_header_block
from apptrack_ingest.parse.hints import with_hints
from apptrack_ingest.parse.limits import DEFAULT_LIMITS, Limits
from apptrack_ingest.parse.line_ends import restored
from apptrack_ingest.parse.metadata import canonical, read_metadata
from apptrack_ingest.parse.structure import Budget
from apptrack_ingest.parse.text import clean_line, decode_fields, header_charset, read_subject


def parse(raw: bytes, limits: Limits = DEFAULT_LIMITS, *, unwrap: bool = True) -> Parsed:
    """Read a mail's raw bytes; with `unwrap` an application forwarded as an attachment is read in place of its wrapper.

    Raises `Unreadable` alone, with code header-block-too-large, too-many-parts, too-deep, too-large, memory or
    parser-error (detail: the exception's type). Everything else that is wrong with the mail becomes a warning.
    """
    try:
        return _parse(raw, limits, unwrap)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("too-deep") from None
    except MemoryError:
        raise Unreadable("memory") from None
    except Exception as error:  # noqa: BLE001 - what strangers send must not stop the worker; the type alone is told
        raise Unreadable("parser-error", type(error).__name__) from None


class _Mail(NamedTuple):
    """A mail with its header block found and read."""

    raw: bytes
    block: bytes
    fields: Fields
    warnings: tuple[str, ...]


def _parse(raw: bytes, limits: Limits, unwrap: bool) -> Parsed:
    mail = _opened(raw, limits)
    wrapped, warnings = find_wrapped(mail.raw, mail.block, mail.fields, _budget(limits)) if unwrap else (None, ())
    if wrapped is None:
        return _read(mail, limits, _budget(limits), warnings)
    return _unwrapped(mail, wrapped, limits)


def _opened(raw: bytes, limits: Limits) -> _Mail:
    block = header_block(raw, limits.header_block)
    if block is None:
        raise Unreadable("header-block-too-large")
    raw, warnings = restored(raw, len(block))
    return _Mail(raw, block, scan_header_block(block), warnings)


def _budget(limits: Limits) -> Budget:
    return Budget(limits.parts, limits.depth, limits.decoded_bytes)


def _read(mail: _Mail, limits: Limits, budget: Budget, more: Iterable[str] = (), outer: Body | None = None) -> Parsed:
    """Read one mail as the application; `outer` is what a forwarding mail has besides."""
    fields = mail.fields
    metadata = read_metadata(fields)
    candidate, candidate_warnings = find_candidate(fields)
    subject, subject_warnings = read_subject(fields)
    digest = ContentDigest(canonical(fields), subject)
    body = read_body(mail.raw, mail.block, fields, budget, digest=digest)
    warnings = (*more, *mail.warnings, *metadata.warnings, *candidate_warnings, *subject_warnings, *body.warnings)
    text, html = _joined(body.texts), _joined(body.htmls)
    return Parsed(
        applicant_id=metadata.applicant_id,
        id_problem=metadata.id_problem,
        content_digest=str(digest),
        client_reference=metadata.client_reference,
        client_id=metadata.client_id,
        candidate=with_hints(candidate, fields, subject, text, html),
        job=metadata.job,
        source=metadata.source,
        owner=metadata.owner,
        subject=subject,
        text=text,
        html=html,
        documents=to_documents([*body.attachments, *(outer.attachments if outer else ())]),
        warnings=_distinct(warnings, limits.warnings),
        headers=decode_fields(fields, header_charset(fields)),
        unwrapped=outer is not None,
        inner=mail.raw if outer is not None else None,
    )


def _unwrapped(mail: _Mail, wrapped: Wrapped, limits: Limits) -> Parsed:
    """Read the application out of a mail that forwards it. What else that mail has attached comes along, its words do
    not: they are the forwarding person's."""
    budget = _budget(limits)
    place = Place(FORWARDING_MAIL, nested=True)
    outer = read_body(
        mail.raw, mail.block, mail.fields, budget, place=place, skip=lambda part: part.start == wrapped.part_start
    )
    warnings = ["the application was forwarded inside another mail, and read from there", *mail.warnings]
    if _joined([*outer.texts, *outer.htmls]):
        warnings.append("what the forwarding mail says itself was left out")
    return _read(_opened(wrapped.raw, limits), limits, budget, [*warnings, *outer.warnings], outer)


def _joined(texts: list[str]) -> str | None:
    filled = [text for text in texts if text.strip()]
    return "\n".join(filled) if filled else None


def _distinct(warnings: Iterable[str], limit: int) -> tuple[str, ...]:
    """Each warning once, and not more than a person reads."""
    distinct = list(dict.fromkeys(clean_line(re.sub(r"\s+", " ", warning)).value for warning in warnings))
    if len(distinct) <= limit:
        return tuple(distinct)
    return (*distinct[:limit], f"and {len(distinct) - limit} more warnings")
