"""What idibu says, read from its XML: yes, no and why, and the applicants it tells of."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from lxml import etree

from apptrack_ingest.idibu import xml
from apptrack_ingest.model import ReportStatus

_STATUS = {"success": True, "failed": False, "fail": False}

# idibu documents no wording for a wrong hash. A false alarm stops all reports of the account until a person looks, so
# whatever speaks of one applicant ("no permission to change this applicant") is about that one, not about the hash.
_HASH = re.compile(r"\b(hash|api[ -]?key)\b", re.IGNORECASE)
_DENIED = re.compile(
    r"\b((un|not )authori[sz]ed|authori[sz]ation|not authenticated|authentication|permissions?"
    r"|access (is )?denied|forbidden)\b",
    re.IGNORECASE,
)
_ONE_APPLICANT = re.compile(
    r"\b(applicants?|applications?|candidates?|remote[ -]id|error[ -]message|date[ -]processed)\b", re.IGNORECASE
)


class AnswerError(xml.XmlError):
    """idibu's XML, but no answer that can be understood."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of idibu: whether it says success, its words (of any length, and as it chose them: an echoed secret
    among them, perhaps), and the `response` element, if any."""

    succeeded: bool
    message: str = field(default="", repr=False)
    response: etree._Element | None = field(default=None, repr=False)
    root: etree._Element | None = field(default=None, repr=False)

    @property
    def xml(self) -> str:
        """All that idibu answered, as XML: for what no model here has a place for."""
        return "" if self.root is None else etree.tostring(self.root, encoding="unicode")

    @property
    def blames_hash(self) -> bool:
        """Whether a failure is, by its words, about the account's hash and not about this one request."""
        if self.succeeded:
            return False
        about_one = _ONE_APPLICANT.search(self.message)
        return bool(_HASH.search(self.message) or (_DENIED.search(self.message) and not about_one))


@dataclass(frozen=True, slots=True)
class ApplicantStatus:
    """What idibu holds of one applicant. The dates are as idibu writes them: it names no time zone."""

    id: int
    status: ReportStatus
    remote_id: str | None
    error_message: str | None = field(repr=False)
    date_processed: datetime | None
    date_created: datetime | None
    date_modified: datetime | None


def read(body: bytes) -> Answer:
    """Understands an answer in any of idibu's spellings. Raises xml.XmlError for anything that is not idibu's XML.

    Only a `status` directly below the root counts: each applicant in a list has one of its own. Where several
    contradict each other it is a failure, and so is an error log without any status.
    """
    root = root_of(body)
    stated = [(status.text or "").strip().lower() for status in xml.children(root, "status")]
    if any(status not in _STATUS for status in stated):
        raise AnswerError("idibu's XML with an unknown status")
    if not stated and next(named(root, "error"), None) is None:
        raise AnswerError("idibu's XML without a status")
    succeeded = bool(stated) and all(_STATUS[status] for status in stated)
    return Answer(succeeded, words(root), next(xml.children(root, "response"), None), root)


def read_again(body: bytes) -> Answer:
    """As `read`, for a call whose answers are nearly all the same to the byte: one that is short is looked up.

    The elements of such an answer are shared, and only to be looked at.
    """
    return _looked_up(body) if len(body) <= _SHORT else read(body)


_SHORT = 512
_looked_up = lru_cache(maxsize=8)(read)


def root_of(body: bytes) -> etree._Element:
    """The `idibu` element. Raises xml.XmlError for anything that is not idibu's XML."""
    root = xml.parse(body)
    if xml.name(root) != "idibu":
        raise xml.XmlError("XML, but not idibu's")
    return root


def applicants(answer: Answer) -> list[ApplicantStatus]:
    """The applicants an answer lists. Raises xml.XmlError when one of them has no id or no known status."""
    if answer.response is None:
        return []
    return [_applicant(element) for element in xml.children(answer.response, "applicant")]


def _applicant(element: etree._Element) -> ApplicantStatus:
    number, status = xml.number_of(xml.text_of(element, "id")), _STATUS.get(xml.text_of(element, "status").lower())
    if number is None or status is None:
        raise xml.XmlError("an applicant without id or status")
    info = next(xml.children(element, "status-info"), element)
    return ApplicantStatus(
        id=number,
        status=ReportStatus.SUCCESS if status else ReportStatus.FAIL,
        remote_id=xml.text_of(element, "remote-id") or None,
        error_message=xml.text_of(element, "error-message") or None,
        date_processed=date_of(xml.text_of(element, "date-processed")),
        date_created=date_of(xml.text_of(info, "date-created")),
        date_modified=date_of(xml.text_of(info, "date-modified")),
    )


def date_of(text: str) -> datetime | None:
    """A date as idibu writes it; None for anything else."""
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None


def named(root: etree._Element, *names: str) -> Iterator[etree._Element]:
    """The outermost elements of these names: read one inside the other, nested ones would cost quadratic time."""
    walk = etree.iterwalk(root, events=("start",))
    for _, element in walk:
        if xml.name(element) in names:
            walk.skip_subtree()
            yield element


def words(root: etree._Element) -> str:
    """idibu's words wherever it put them: text of `response`, `message` in it, `error` in `log/errors`."""
    said = [response.text or "" for response in xml.children(root, "response")]
    said += ["".join(map(str, element.itertext())) for element in named(root, "message", "error")]
    single_spaced = (" ".join(text.split()) for text in said)
    return "; ".join(dict.fromkeys(text for text in single_spaced if text))
