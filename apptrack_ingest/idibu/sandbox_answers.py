"""The sandbox's answers in idibu's XML, with any of idibu's quirks."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from lxml import etree

from apptrack_ingest.idibu.sandbox_script import Quirk
from apptrack_ingest.idibu.sandbox_store import Applicant, Saved


@dataclass(frozen=True, slots=True)
class Said:
    """What is to be answered: success or not, words, applicants; `saved` is what a success leaves behind."""

    succeeded: bool
    message: str = ""
    applicants: tuple[Applicant, ...] = ()
    saved: Saved | None = None

    def __str__(self) -> str:
        words = self.message or f"{len(self.applicants)} applicants"
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
    start, end, rest = text.partition(">")
    declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
    if Quirk.UTF8 in quirks:
        declaration = declaration.replace("UTF-8", "utf8")
    if Quirk.SINGLE_QUOTES in quirks:
        declaration, start = declaration.replace('"', "'"), start.replace('"', "'")
    before = "\r\n \t" if Quirk.WHITE_SPACE in quirks else ""
    return f"{before}{declaration}{start}{end}{rest}".encode()


def _tree(said: Said, quirks: frozenset[Quirk]) -> etree._Element:
    if said.succeeded and not said.applicants and Quirk.SHORT in quirks:
        root = etree.Element("idibu")
    else:
        root = etree.Element("idibu", generator="idibu", version="1.0")
        _words(root, said, quirks)
    _text(root, "status", "success" if said.succeeded else "fail" if Quirk.FAIL in quirks else "failed")
    return root


def _words(root: etree._Element, said: Said, quirks: frozenset[Quirk]) -> None:
    if not said.succeeded and Quirk.LOG_ERRORS in quirks:
        _text(etree.SubElement(etree.SubElement(root, "log"), "errors"), "error", said.message)
        return
    response = etree.SubElement(root, "response")
    if said.message and Quirk.MESSAGE in quirks:
        _text(response, "message", said.message)
    elif said.message:
        response.text = said.message
    for applicant in said.applicants:
        _applicant(response, applicant)


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


def _upper(root: etree._Element) -> None:
    for element in root.iter():
        element.tag = str(element.tag).upper()
        values = {key.upper(): value for key, value in element.items()}
        element.attrib.clear()
        element.attrib.update(values)
        if element.tag == "STATUS":
            element.text = (element.text or "").upper()
