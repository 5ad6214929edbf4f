"""The XML of job requests, for the form field `xml_text` (shapes: seed-client-reference.html.txt; docs/idibu.md, Jobs)."""

from collections.abc import Iterable
from datetime import UTC

from lxml import etree

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.job_models import Advert, Board, ById, JobConfig, JobKey, Method

_SEPARATOR = ";!;"


def add(client_reference: str, advert: Advert, config: JobConfig) -> str:
    """ADD: the seed's first example."""
    root, job = _start(Method.ADD, config)
    xml.add(job, "client_reference", client_reference)
    _sender(job, advert)
    _fields(job, advert)
    return _text(root)


def change(method: Method, key: JobKey, advert: Advert, config: JobConfig, new_reference: str | None) -> str:
    """UPDATE (the seed's second and third examples) and REPOST, which share it (assumed of REPOST by reference)."""
    root, job = _start(method, config)
    if isinstance(key, ById):
        job.set("id", str(key.id))
    _sender(job, advert)
    reference = new_reference if isinstance(key, ById) else key.client_reference
    if reference is not None:
        xml.add(job, "client_reference", reference)
    _fields(job, advert)
    return _text(root)


def quick_repost(key: JobKey, boards: Iterable[int]) -> str:
    """QUICKREPOST: boards directly in the job."""
    root, job = _keyed(Method.QUICKREPOST, key)
    _boards(job, boards)
    return _text(root)


def delete(key: JobKey, boards: tuple[int, ...]) -> str:
    """DELETE: boards, if any, in `posts`."""
    root, job = _keyed(Method.DELETE, key)
    if boards:
        _boards(xml.add(job, "posts"), boards)
    return _text(root)


def delete_by_references(references: Iterable[str], every: bool) -> str:
    """DELETE by the adverts' own references, several joined by `;!;`."""
    root, job = _start(Method.DELETE)
    job.set("ref", xml.fit(_SEPARATOR.join(references)))
    if every:
        job.set("all", "yes")
    return _text(root)


def cancel(queue_ids: Iterable[int], posting_ids: Iterable[int]) -> str:
    """CANCEL of queued posts and of postings that wait for completion."""
    root = _root(Method.CANCEL)
    for name, child, ids in (("postqueue", "queue", queue_ids), ("jobpostings", "posting", posting_ids)):
        listed = list(ids)
        parent = xml.add(root, name) if listed else root
        for number in listed:
            xml.add(parent, child, id=str(number))
    return _text(root)


def cancel_job(key: JobKey) -> str:
    """CANCEL of all that waits of a job (assumed: the seed says that it can be named, and not how)."""
    return _text(_keyed(Method.CANCEL, key)[0])


def _root(method: Method) -> etree._Element:
    root = etree.Element("idibu")
    xml.add(root, "method", method)
    return root


def _start(method: Method, config: JobConfig | None = None) -> tuple[etree._Element, etree._Element]:
    root = _root(method)
    if config is not None:
        _config(root, config)
    return root, xml.add(root, "job")


def _keyed(method: Method, key: JobKey) -> tuple[etree._Element, etree._Element]:
    """A job named by its id in an attribute, or by its reference in a child (assumed of the methods but UPDATE)."""
    root, job = _start(method)
    if isinstance(key, ById):
        job.set("id", str(key.id))
    else:
        xml.add(job, "client_reference", key.client_reference)
    return root, job


def _config(root: etree._Element, config: JobConfig) -> None:
    durations = None if config.show_durations is None else "yes" if config.show_durations else "no"
    values = {
        "show_durations": durations,
        "lockboards": config.lockboards,
        "partnerid": config.partner_id,
        "redirecturl": config.redirect_url,
        "validate_level": config.validate_level,
        "utf8_enable": "yes",
        "completionurl": "email" if config.completion_email else None,
        "advertcompletionemail": config.completion_email,
    }
    block = xml.add(root, "config")
    for name, value in values.items():
        if value is not None:
            xml.add(block, name, value)


def _sender(job: etree._Element, advert: Advert) -> None:
    xml.add(job, "sender", id=str(advert.sender_id))


def _fields(job: etree._Element, advert: Advert) -> None:
    """Free text in CDATA; ids and choices as attributes where idibu's examples have them so."""
    for name, text in (("title", advert.title), ("description", advert.description), ("reference", advert.reference)):
        xml.add_cdata(job, name, text)
    _optional(job, "startdate", None if advert.start_date is None else f"{advert.start_date:%Y-%m-%d}")
    _optional(job, "salarymin", advert.salary_min)
    _optional(job, "salarymax", advert.salary_max)
    _optional(job, "salaryper", advert.salary_per, "value")
    _optional(job, "currency", advert.currency)
    _optional(job, "jobtype", advert.job_type, "id")
    _optional(job, "job_time", advert.job_time)
    for name in ("category", "location", "sublocation"):
        _optional(job, name, getattr(advert, name), "id")
    _optional(job, "publish", None if advert.publish is None else f"{advert.publish.astimezone(UTC):%Y-%m-%d %H:%M}")
    if advert.boards:
        _posts(job, advert.boards)


def _optional(job: etree._Element, name: str, value: object, attribute: str = "") -> None:
    if value is None:
        return
    if attribute:
        xml.add(job, name, **{attribute: format(value)})
    else:
        xml.add(job, name, format(value))


def _posts(job: etree._Element, boards: Iterable[Board]) -> None:
    posts = xml.add(job, "posts")
    for board in boards:
        element = xml.add(posts, "board", id=str(board.id))
        if board.days is not None:
            xml.add(element, "duration", days=str(board.days))


def _boards(parent: etree._Element, boards: Iterable[int]) -> None:
    for board in boards:
        xml.add(parent, "board", id=str(board))


def _text(root: etree._Element) -> str:
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + etree.tostring(root, encoding="unicode")
