"""What idibu answers about jobs: added, delayed or failed, what became of each post, errors and warnings."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from lxml import etree

from apptrack_ingest.errors import IdibuError, IdibuRefused, IdibuUnauthorized
from apptrack_ingest.idibu import answers, xml
from apptrack_ingest.idibu.answers import Answer, AnswerError

# The seed's words: "The Client Reference provided is already in the system, you have to provide a new reference ..."
_REFERENCE = re.compile(r"client[ _-]?reference\b", re.IGNORECASE)
_ALREADY = re.compile(r"\balready\b", re.IGNORECASE)
_HASH = re.compile(r"\b(hash|api[ -]?key)\b", re.IGNORECASE)
_ABOUT_ONE = re.compile(r"\b(jobs?|boards?|posts?|postings?|sender|profile|team|quota|references?)\b", re.IGNORECASE)


class JobStatus(StrEnum):
    """What became of a job request."""

    ADDED = "added"
    DELAYED = "delayed"
    """A person has to complete it on idibu's page."""
    FAILED = "failed"


class PostStatus(StrEnum):
    """What became of one board's post, or of one that was to be cancelled."""

    PENDING = "pending"
    CANCELLED = "cancelled"
    FAILED = "failed"
    OTHER = "other"
    """None that a document shows: see the answer's XML."""


class PostReason(StrEnum):
    """Why a quick repost failed for a board."""

    NOT_SUBSCRIBED = "not-subscribed"
    NO_POST = "no-post"
    NO_QUOTA = "no-quota"
    OTHER = "other"


class ErrorKind(StrEnum):
    """What stops a quick repost altogether."""

    CREDIT = "credit"
    BOARDS = "boards"
    POSTS = "posts"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Note:
    """An error or a warning: idibu's words, and what they are about where it says (a field, a board)."""

    text: str
    kind: ErrorKind | None = None
    field: str | None = None
    board_id: int | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """One board's post. `type` is what was to be done (add, del), `publish` is in GMT, `duration` in days."""

    status: PostStatus
    board_id: int | None
    queue_id: int | None = None
    type: str | None = None
    publish: datetime | None = None
    duration: int | None = None
    reason: PostReason | None = None
    remote_id: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """What became of one job. `status` is None where idibu states none (DELETE, QUICKREPOST) and no error is told.

    `completion_url` is the page where a person completes a delayed posting: who has it may do so, so it is in no repr.
    `posting_id` is what CANCEL takes for such a posting. `errors` and `warnings` are the job's and the whole answer's.
    """

    status: JobStatus | None
    id: int | None
    client_reference: str | None
    posts: tuple[Post, ...] = ()
    errors: tuple[Note, ...] = ()
    warnings: tuple[Note, ...] = ()
    completion_url: str | None = field(default=None, repr=False)
    posting_id: int | None = None
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of one queued post or posting that was to be cancelled."""

    status: PostStatus
    id: int | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """What became of each queued post and each posting awaiting completion."""

    queue: tuple[Cancellation, ...]
    postings: tuple[Cancellation, ...]
    errors: tuple[Note, ...] = ()
    warnings: tuple[Note, ...] = ()
    xml: str = field(default="", repr=False, compare=False)


class DuplicateReference(IdibuRefused):
    """The client reference is in the system already; nothing was posted, and no completion page exists.

    After an ADD whose answer was lost this says that it had arrived.
    """

    code = "duplicate-reference"
    temporary = False


def read(body: bytes) -> Answer:
    """An answer about jobs, which has no status of its own. Raises xml.XmlError for anything that is not idibu's XML.

    It succeeds when it tells of a job, a queued post or a posting, whatever became of it; but a duplicate reference
    is a failure wherever it is said.
    """
    root = answers.root_of(body)
    words = answers.words(root)
    stated = [xml.text_of(root, "status").lower()] if next(xml.children(root, "status"), None) is not None else []
    told = any(xml.name(child) in ("job", "queue", "posting", "postqueue", "jobpostings") for child in root)
    if not told and not words and not stated:
        raise AnswerError("idibu's XML without a job or an error")
    failed = any(status != "success" for status in stated) or _duplicate(words)
    return Answer(told and not failed, words, None, root)


def refusal(answer: Answer) -> type[IdibuError]:
    """What a failure is, by its words. (A wrong hash: assumed, the documents show none.)"""
    if _duplicate(answer.message):
        return DuplicateReference
    about_hash = _HASH.search(answer.message) or not _ABOUT_ONE.search(answer.message)
    return IdibuUnauthorized if about_hash and answer.blames_hash else IdibuRefused


def _duplicate(words: str) -> bool:
    """In two steps: as one pattern it would take quadratic time for words that keep naming the reference."""
    found = _REFERENCE.search(words)
    return found is not None and _ALREADY.search(words, found.end()) is not None


def jobs(answer: Answer) -> list[JobAnswer]:
    """Every job that the answer tells of. Raises xml.XmlError where there is none."""
    root = _root(answer)
    log = _log(root)
    found = [_job(element, log, answer.xml) for element in xml.children(root, "job")]
    if not found:
        raise AnswerError("idibu's XML without a job")
    return found


def job(answer: Answer) -> JobAnswer:
    """The one job of an answer about one."""
    return jobs(answer)[0]


def cancelled(answer: Answer) -> CancelAnswer:
    """What became of what was to be cancelled."""
    root = _root(answer)
    errors, warnings = _log(root)
    for element in xml.children(root, "job"):
        errors += _notes(answers.named(element, "error"))
    queue = tuple(_cancellation(element) for element in answers.named(root, "queue"))
    postings = tuple(_cancellation(element) for element in answers.named(root, "posting"))
    return CancelAnswer(queue, postings, errors, warnings, answer.xml)


def _root(answer: Answer) -> etree._Element:
    if answer.root is None:
        raise AnswerError("no answer")
    return answer.root


_Log = tuple[tuple[Note, ...], tuple[Note, ...]]


def _log(root: etree._Element) -> _Log:
    """Errors and warnings of the whole answer, in `errors` and `warnings` or directly in `log`."""
    logs = list(xml.children(root, "log"))
    errors = [note for log in logs for note in _notes(answers.named(log, "error"))]
    return tuple(errors), tuple(note for log in logs for note in _notes(answers.named(log, "warning")))


def _notes(elements: Iterable[etree._Element]) -> tuple[Note, ...]:
    return tuple(
        Note(
            " ".join("".join(map(str, element.itertext())).split()),
            _member(ErrorKind, xml.attribute(element, "type"), ErrorKind.OTHER),
            xml.attribute(element, "field") or None,
            xml.number_of(xml.attribute(element, "boardid")),
        )
        for element in elements
    )


def _job(element: etree._Element, log: _Log, source: str) -> JobAnswer:
    errors = _notes(answers.named(element, "error"))
    return JobAnswer(
        _status(xml.attribute(element, "status").lower(), bool(errors)),
        xml.number_of(xml.attribute(element, "id")),
        xml.attribute(element, "client_reference") or None,
        tuple(_post(post) for post in _posts(element)),
        errors + log[0],
        log[1],
        xml.text_of(element, "postcompletionurl") or xml.attribute(element, "postcompletionurl") or None,
        xml.number_of(xml.attribute(element, "postingid")),
        source,
    )


def _status(text: str, has_errors: bool) -> JobStatus | None:
    """Raises AnswerError for a status that no document shows: it must not be taken for success, nor for failure."""
    if text in ("", "fail"):
        return JobStatus.FAILED if text or has_errors else None
    try:
        return JobStatus(text)
    except ValueError:
        raise AnswerError("a job with an unknown status") from None


def _posts(element: etree._Element) -> Iterator[etree._Element]:
    """The seed calls post and list alike `posts`; later documents call the post `post`, with or without a list."""
    for child in element:
        if xml.name(child) == "posts" and not xml.attribute(child, "status"):
            yield from (post for post in child if xml.name(post) in ("post", "posts"))
        elif xml.name(child) in ("post", "posts"):
            yield child


def _post(element: etree._Element) -> Post:
    reason = xml.attribute(element, "reason")
    return Post(
        _post_status(element),
        xml.number_of(xml.attribute(element, "boardid")),
        xml.number_of(xml.attribute(element, "queueid")),
        xml.attribute(element, "type").lower() or None,
        _date(xml.attribute(element, "publish")),
        xml.number_of(xml.attribute(element, "duration")),
        _member(PostReason, reason, PostReason.OTHER),
        xml.attribute(element, "remoteid") or None,
        " ".join((element.text or "").split()),
    )


def _cancellation(element: etree._Element) -> Cancellation:
    number = xml.number_of(xml.attribute(element, "id"))
    return Cancellation(_post_status(element), number, " ".join((element.text or "").split()))


def _post_status(element: etree._Element) -> PostStatus:
    status = xml.attribute(element, "status").lower()
    known = {"fail": PostStatus.FAILED, "canceled": PostStatus.CANCELLED}
    return known.get(status) or _member(PostStatus, status, PostStatus.OTHER) or PostStatus.OTHER


_Choice = TypeVar("_Choice", bound=StrEnum)


def _member(kind: type[_Choice], text: str, other: _Choice) -> _Choice | None:
    """The member of this value in any case, `other` for an unknown one, None for no text."""
    if not text:
        return None
    return next((member for member in kind if member.value == text.lower()), other)


def _date(text: str) -> datetime | None:
    """A time of publication: GMT, says the posting API."""
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    except ValueError:
        return None
