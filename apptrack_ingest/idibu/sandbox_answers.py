"""The sandbox's answers in idibu's XML, with any of idibu's quirks."""

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto

from lxml import etree

from apptrack_ingest.idibu.sandbox_script import Quirk
from apptrack_ingest.idibu.sandbox_store import Applicant, Saved
from apptrack_ingest.idibu.sandbox_world import Change

_TAG = re.compile(r"<[^<>]*>")


class Style(Enum):
    """How a service of idibu writes its answers."""

    STATUS = auto()
    """Words as text of `<response>`, then `<status>`."""
    SERVICE = auto()
    """Words in `<response><message>`, then `<status>`."""
    JOBS = auto()
    """No `<response>` and no `<status>`: jobs, or `<log><errors>`."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is to be answered: success or not, words, applicants or other `content`.

    `saved` and `change` are what it leaves behind; `note` says in words what is answered without any.
    """

    succeeded: bool
    message: str = ""
    applicants: tuple[Applicant, ...] = ()
    saved: Saved | None = None
    style: Style = Style.STATUS
    content: tuple[etree._Element, ...] = field(default=(), repr=False)
    change: Change | None = None
    note: str = ""

    def __str__(self) -> str:
        words = self.message or self.note or f"{len(self.applicants)} applicants"
        return words if self.succeeded else f"failed: {words}"


def date(epoch: float) -> str:
    """As idibu writes dates; in UTC."""
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M:%S}"


def render(said: Said, quirks: Iterable[Quirk] = ()) -> bytes:
    """The answer as bytes on the wire."""
    quirks = frozenset(quirks)
    root = _tree(said, quirks)
    if Quirk.UPPER_CASE in quirks:
        _upper(root)
    text = etree.tostring(root, encoding="unicode")
    declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
    if Quirk.UTF8 in quirks:
        declaration = declaration.replace("UTF-8", "utf8")
    text = declaration + text
    if Quirk.SINGLE_QUOTES in quirks:
        text = _TAG.sub(_single_quoted, text)
    before = "\r\n \t" if Quirk.WHITE_SPACE in quirks else ""
    return f"{before}{text}".encode()


def _tree(said: Said, quirks: frozenset[Quirk]) -> etree._Element:
    if said.style is Style.JOBS:
        return _jobs(said, quirks)
    if said.succeeded and not said.applicants and not said.content and Quirk.SHORT in quirks:
        root = etree.Element("idibu")
    else:
        root = etree.Element("idibu", generator="idibu", version="1.0")
        _words(root, said, quirks)
    _text(root, "status", "success" if said.succeeded else "fail" if Quirk.FAIL in quirks else "failed")
    return root


def _jobs(said: Said, quirks: frozenset[Quirk]) -> etree._Element:
    root = etree.Element("idibu")
    root.extend(deepcopy(element) for element in said.content)
    if not said.succeeded:
        _error(root, said.message)
    if Quirk.POST in quirks:
        for post in root.iterfind(".//posts/posts"):
            post.tag = "post"
    return root


def _words(root: etree._Element, said: Said, quirks: frozenset[Quirk]) -> None:
    if not said.succeeded and Quirk.LOG_ERRORS in quirks:
        _error(root, said.message)
        return
    response = etree.SubElement(root, "response")
    if said.message and (Quirk.MESSAGE in quirks or said.style is Style.SERVICE):
        _text(response, "message", said.message)
    elif said.message:
        response.text = said.message
    for applicant in said.applicants:
        _applicant(response, applicant)
    response.extend(deepcopy(element) for element in said.content)


def _error(root: etree._Element, message: str) -> None:
    _text(etree.SubElement(etree.SubElement(root, "log"), "errors"), "error", message)


def _applicant(response: etree._Element, held: Applicant) -> None:
    element = etree.SubElement(response, "applicant")
    _text(element, "id", str(held.id))
    _text(element, "status", held.status)
    _text(element, "remote-id", held.remote_id)
    _text(element, "error-message", held.error_message)
    _text(element, "date-processed", held.date_processed)
    info = etree.SubElement(element, "status-info")
    _text(info, "date-created", date(held.created))
    _text(info, "date-modified", date(held.modified))


def _text(parent: etree._Element, name: str, text: str) -> None:
    etree.SubElement(parent, name).text = text or None


def _single_quoted(tag: re.Match[str]) -> str:
    return tag[0] if "'" in tag[0] else tag[0].replace('"', "'")


def _upper(root: etree._Element) -> None:
    """Names, and the values that are words of idibu's own."""
    for element in root.iter():
        element.tag = str(element.tag).upper()
        values = {key.upper(): value for key, value in element.items()}
        for name in {"STATUS", "TYPE"} & values.keys():
            values[name] = values[name].upper()
        element.attrib.clear()
        element.attrib.update(values)
        if element.tag == "STATUS":
            element.text = (element.text or "").upper()
