"""Sample applications for `send --sample`: varied as AppTrack's are, each of an applicant of its own."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from apptrack_ingest.model import Document
from apptrack_ingest.testing import A_PDF, a_document, an_email

T = TypeVar("T")

CANDIDATES = (
    ("Jane Doe", "jane.doe@example.com"),
    ("José Ñúñez-Łukasik", "jose@example.com"),
    (None, "n.n@example.com"),
    ("Amara Okafor", "amara.okafor@example.org"),
    ("山田 太郎", "taro@example.jp"),
    ("O'Neill, Siobhán", "siobhan@example.ie"),
    ("jorg.weiss@example.de", "jorg.weiss@example.de"),
)
JOBS = (
    ("Senior .Net Developer", "JO-1502-428583", "VAC-1042"),
    ("Pflegefachkraft (m/w/d) für München", "testref123", "VAC-1043"),
    ("Financial Services Roles", "FS/2026/7", None),
    ("Chef de partie", "CDP-9", "Some-CUSTOM-Ref"),
)
PORTALS = (("338", "Seek"), ("517", "idibu Developer Board"), ("12", "Jobs & Söhne"))

_CV = a_document()
_LETTER = a_document("Covering letter.txt", b"Dear Kara,\n\nI would like to apply.\n", claimed_type="text/plain")
_RTF = a_document("Lebenslauf.rtf", rb"{\rtf1\ansi Curriculum vitae}", claimed_type="application/rtf")
_LARGE = a_document("Portfolio.pdf", A_PDF + b"% filling\n" * 20_000)
DOCUMENTS: tuple[tuple[Document, ...], ...] = ((_CV,), (_LETTER, _CV), (_RTF,), (), (_CV, _LARGE))


def samples(count: int, first_id: int) -> Iterator[tuple[str, bytes]]:
    """`count` mails, each with a name for people; the applicant ids begin with `first_id`."""
    for index in range(count):
        yield f"sample {index + 1}", _sample(index, first_id + index)


def _sample(index: int, applicant_id: int) -> bytes:
    """The lists have lengths without a common factor, so that their combinations repeat late."""
    name, address = _pick(CANDIDATES, index)
    title, reference, client_reference = _pick(JOBS, index)
    portal_id, portal_name = _pick(PORTALS, index)
    html_only = index % 4 == 3
    return an_email(
        applicant_id,
        name=name,
        address=address,
        client_reference=client_reference,
        subject=f"Application for {title}",
        text=None if html_only else f"Dear Kara,\n\nplease find my CV attached.\n\n{name or address}\n",
        html="<p>Dear Kara,</p><p>please find my CV attached.</p>" if index % 2 else None,
        documents=_pick(DOCUMENTS, index),
        date=datetime.now(UTC).replace(microsecond=0),
        headers={
            "X-iTrackID-Title": title,
            "X-iTrackID-Reference": reference,
            "X-iTrackID-PortalID": portal_id,
            "X-iTrackID-Portal-Name": portal_name,
            "X-iTrackID-Type": _pick(("1 Contract", "2 Permanent", "4 Temporary"), index),
        },
    )


def _pick(choices: Sequence[T], index: int) -> T:
    return choices[index % len(choices)]
