"""Jobs whose posts are sent again or taken away: what idibu would say to QUICKREPOST, DELETE and CANCEL."""

from collections.abc import Iterable
from dataclasses import replace

from lxml import etree

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.sandbox_answers import Said, date
from apptrack_ingest.idibu.sandbox_jobs_asked import Asked, Refused, add_post
from apptrack_ingest.idibu.sandbox_world import Change, Job, QueuedPost

_GONE = "The record was cancelled"
_UNKNOWN = "There is no such record"


def quick_repost(asked: Asked) -> Said:
    """QUICKREPOST: each board for itself, to all earlier ones where none is named."""
    job = asked.found()
    earlier = list(dict.fromkeys(post.board for post in job.posts if post.kind == "add" and post.status != "cancelled"))
    element = etree.Element("job", id=str(job.id))
    for kind, words in _critical(asked, earlier):
        xml.add(element, "error", words, type=kind)
    if len(element):
        return _said(element, None)
    new: list[QueuedPost] = []
    for board in _boards(asked.job) or earlier:
        reason = _reason(asked, board, earlier)
        if reason:
            xml.add(element, "post", "Not posted to this board", status="FAILED", boardid=str(board), reason=reason)
            continue
        queue = asked.world.queue + len(new) + 1
        new.append(QueuedPost(queue, board, "add", date(asked.now)[:16], asked.boards[board].days))
        add_post(element, "post", new[-1], quickrepost="YES")
    return _said(
        element, Change(jobs=(replace(job, posts=job.posts + tuple(new)),), queue=asked.world.queue + len(new))
    )


def delete(asked: Asked) -> Said:
    """DELETE: by id or client reference, or by the adverts' references."""
    references = xml.attribute(asked.job, "ref")
    if not references:
        return _deleted(asked, [asked.found()], _boards(next(xml.children(asked.job, "posts"), asked.job)))
    jobs: list[Job] = []
    for reference in references.split(";!;"):
        named = [job for job in asked.jobs() if job.reference == reference]
        if not named:
            raise Refused("No job was found with this reference")
        if len(named) > 1 and xml.attribute(asked.job, "all").lower() != "yes":
            raise Refused("Several jobs have this reference")
        jobs += named
    return _deleted(asked, list(dict.fromkeys(jobs)), [])


def cancel(asked: Asked) -> Said:
    """CANCEL: queued posts and postings by their ids, or all that waits of a job."""
    jobs = {job.id: job for job in asked.jobs()}
    queue, postings = _ids(asked.root, "postqueue", "queue"), _ids(asked.root, "jobpostings", "posting")
    if next(xml.children(asked.root, "job"), None) is not None:
        job = asked.found()
        queue += [post.queue for post in job.posts if post.status == "pending"]
        postings += [job.posting] if job.posting else []
    if not queue and not postings:
        raise Refused("There is nothing to cancel")
    answers = [_cancelled(jobs, "queue", number) for number in queue]
    answers += [_cancelled(jobs, "posting", number) for number in postings]
    return Said(
        True, content=tuple(answers), change=Change(jobs=tuple(jobs.values())), note=f"{len(answers)} looked for"
    )


def _critical(asked: Asked, earlier: list[int]) -> list[tuple[str, str]]:
    found = []
    if asked.account.credits == 0:
        found.append(("credit", "The account has no credits left"))
    if not asked.boards:
        found.append(("boards", "The account is subscribed to no board"))
    if not earlier:
        found.append(("posts", "The job has no posts that could be sent again"))
    return found


def _reason(asked: Asked, board: int, earlier: list[int]) -> str:
    if board not in asked.boards:
        return "not-subscribed"
    if board not in earlier:
        return "no-post"
    return "" if asked.has_quota(board) else "no-quota"


def _deleted(asked: Asked, jobs: list[Job], boards: list[int]) -> Said:
    queue, elements, changed = asked.world.queue, [], []
    for job in jobs:
        element = etree.Element("job", id=str(job.id))
        taken = [post for post in job.posts if post.live and (not boards or post.board in boards)]
        deletions = tuple(
            QueuedPost(queue + place, post.board, "del", date(asked.now)[:16], 0) for place, post in enumerate(taken, 1)
        )
        queue += len(deletions)
        _tell_deleted(element, deletions, [board for board in boards if all(post.board != board for post in taken)])
        kept = tuple(replace(post, status="replaced") if post in taken else post for post in job.posts)
        changed.append(replace(job, posts=kept + deletions))
        elements.append(element)
    note = f"{queue - asked.world.queue} posts of {len(jobs)} jobs"
    return Said(True, content=tuple(elements), change=Change(jobs=tuple(changed), queue=queue), note=note)


def _tell_deleted(element: etree._Element, deletions: Iterable[QueuedPost], without: Iterable[int]) -> None:
    for board in without:
        xml.add(element, "post", "There is no post on this board to delete", boardid=str(board), status="FAILED")
    for post in deletions:
        numbers = {"boardid": str(post.board), "remoteid": f"R{post.queue}", "queueid": str(post.queue)}
        xml.add(element, "post", "The post will be deleted", status="PENDING", type="Del", **numbers)
    if not len(element):
        xml.add(element, "error", "The job has no posts that could be deleted")


def _cancelled(jobs: dict[int, Job], name: str, number: int) -> etree._Element:
    """The answer for one id; the job that it belongs to is replaced in `jobs`."""
    element = etree.Element(name, status="failed", id=str(number))
    element.text = _UNKNOWN
    for job in jobs.values():
        after = _without(job, name, number)
        if after != job:
            jobs[job.id] = after
            element.set("status", "cancelled")
            element.text = _GONE
            break
    return element


def _without(job: Job, name: str, number: int) -> Job:
    if name == "posting":
        return replace(job, posting=None) if job.posting == number else job
    posts = tuple(
        replace(post, status="cancelled") if post.queue == number and post.status == "pending" else post
        for post in job.posts
    )
    return replace(job, posts=posts)


def _ids(root: etree._Element, parent: str, name: str) -> list[int]:
    elements = [child for listed in xml.children(root, parent) for child in xml.children(listed, name)]
    return [xml.number_of(xml.attribute(element, "id")) or 0 for element in elements]


def _boards(element: etree._Element) -> list[int]:
    return [xml.number_of(xml.attribute(board, "id")) or 0 for board in xml.children(element, "board")]


def _said(element: etree._Element, change: Change | None) -> Said:
    return Said(True, content=(element,), change=change, note=f"job {element.get('id')}, {len(element)} results")
