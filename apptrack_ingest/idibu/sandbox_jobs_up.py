"""Jobs that are posted: what idibu would say to ADD, UPDATE and REPOST."""

from collections.abc import Iterable
from dataclasses import replace

from lxml import etree

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.job_models import SHORTEST_REFERENCE, SHORTEST_TITLE
from apptrack_ingest.idibu.sandbox_answers import Said, date
from apptrack_ingest.idibu.sandbox_jobs_asked import Asked, Refused, add_post
from apptrack_ingest.idibu.sandbox_world import Change, Job, QueuedPost, without_posts

DUPLICATE = "The Client Reference provided is already in the system, you have to provide a new reference for a new job."
"""The seed's words."""

COMPLETION_PAGE = "https://adpost.idibu.invalid/{posting}.html"


def add(asked: Asked) -> Said:
    """ADD: a reference must be new, and then no completion page exists."""
    reference = xml.text_of(asked.job, "client_reference")
    _is_new(asked, reference, None)
    job = Job(asked.world.next_job(), asked.account.username, reference, "", "")
    return _posted(asked, job)


def change(asked: Asked) -> Said:
    """UPDATE and REPOST: the job must be there; a new reference takes its id, and must be new."""
    job = asked.found()
    reference = xml.text_of(asked.job, "client_reference") or job.client_reference
    _is_new(asked, reference, job)
    return _posted(asked, replace(job, client_reference=reference))


def _is_new(asked: Asked, reference: str, job: Job | None) -> None:
    if reference and any(one.client_reference == reference and one != job for one in asked.jobs()):
        raise Refused(DUPLICATE)


def _posted(asked: Asked, job: Job) -> Said:
    """Added where all is well and the boards are locked, else delayed until a person completes it; or failed."""
    errors, warnings = _problems(asked)
    if errors:
        return _answer(_failed(job, errors), None, "failed")
    job = replace(job, reference=xml.text_of(asked.job, "reference"), title=xml.text_of(asked.job, "title"))
    boards = _requested(asked)
    reasons = [reason for board in boards if (reason := _hindrance(asked, board))]
    known = job.id in asked.world.jobs
    if asked.config("lockboards", "no") != "yes" or reasons or not (boards or known):
        return _delayed(asked, job, warnings + reasons)
    return _added(asked, job, boards, warnings)


def _problems(asked: Asked) -> tuple[list[str], list[str]]:
    """Errors that refuse the job, and warnings; `validate_level` says which of the two a short text is."""
    texts = {name: xml.text_of(asked.job, name) for name in ("title", "description", "reference")}
    errors = [f"{name.upper()}: the value is missing" for name, text in texts.items() if not text]
    if next(xml.children(asked.job, "sender"), None) is None:
        errors.append("SENDER: the value is missing")
    least = {"title": SHORTEST_TITLE, "reference": SHORTEST_REFERENCE}
    short = [f"{name}: at least {length} characters" for name, length in least.items() if 0 < len(texts[name]) < length]
    return (errors + short, []) if asked.config("validate_level", "warning") == "fail" else (errors, short)


def _requested(asked: Asked) -> dict[int, int | None]:
    """The boards to post to, each with its days where the request names them."""
    wanted: dict[int, int | None] = {}
    for posts in xml.children(asked.job, "posts"):
        for board in xml.children(posts, "board"):
            days = next(xml.children(board, "duration"), None)
            given = None if days is None else xml.number_of(xml.attribute(days, "days"))
            wanted[xml.number_of(xml.attribute(board, "id")) or 0] = given
    return wanted


def _hindrance(asked: Asked, board: int) -> str:
    if board not in asked.boards:
        return f"The account is not subscribed to board {board}"
    return "" if asked.has_quota(board) else f"The account has no quota left for board {board}"


def _delayed(asked: Asked, job: Job, warnings: list[str]) -> Said:
    posting = asked.world.posting + 1
    element = _element(job, "delayed")
    element.set("postingid", str(posting))
    if asked.config("completionurl", "") != "email":
        xml.add(element, "postcompletionurl", COMPLETION_PAGE.format(posting=posting))
    change = Change(jobs=(replace(job, posting=posting),), posting=posting)
    return _answer(element, change, "delayed", warnings)


def _added(asked: Asked, job: Job, boards: dict[int, int | None], warnings: list[str]) -> Said:
    """What was posted before is taken down first, and takes a place in the queue too: so do the seed's queue ids run."""
    queue = asked.world.queue
    if boards:
        queue += sum(post.live for post in job.posts)
        job = without_posts(job, "replaced")
    publish = xml.text_of(asked.job, "publish") or date(asked.now)[:16]
    new = tuple(
        QueuedPost(queue + place, board, "add", publish, days or asked.boards[board].days)
        for place, (board, days) in enumerate(boards.items(), 1)
    )
    element = _element(job, "added")
    posts = xml.add(element, "posts")
    for post in new:
        add_post(posts, "posts", post)
    change = Change(jobs=(replace(job, posts=job.posts + new, posting=None),), queue=queue + len(new))
    return _answer(element, change, "added", warnings)


def _element(job: Job, status: str) -> etree._Element:
    element = etree.Element("job", status=status, id=str(job.id))
    if job.client_reference:
        element.set("client_reference", job.client_reference)
    return element


def _failed(job: Job, errors: Iterable[str]) -> etree._Element:
    element = etree.Element("job", status="FAILED")
    for error in errors:
        xml.add(element, "error", error)
    return element


def _answer(element: etree._Element, change: Change | None, note: str, warnings: Iterable[str] = ()) -> Said:
    log = etree.Element("log")
    listed = xml.add(log, "warnings")
    for warning in warnings:
        xml.add(listed, "warning", warning)
    content = (element, log) if len(listed) else (element,)
    return Said(True, content=content, change=change, note=f"job {element.get('id', '')} {note}")
