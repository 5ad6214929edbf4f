"""XML from and for idibu: hostile input is refused, idibu's oddities are survived, our text is made fit for it.

The oddities are those of docs/idibu.md: names in capitals, `encoding="utf8"`, white space or a byte order mark before
the declaration. Nothing is fetched, no entity of a document is expanded, and a document type is refused altogether.
"""

import re
from collections.abc import Iterator

from lxml import etree

MAX_BYTES = 1024 * 1024
"""No answer of idibu comes near it (100 applicants take some 60 KB); it bounds what a peer can make us hold."""

ELLIPSIS = "…"

_DECLARATION = re.compile(rb"<\?xml\s[^>]{0,300}\?>")
_ENCODING = re.compile(rb"""encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
# Only these: Python has codecs that are slow, or no character sets. Windows-1252 contains what is sent as Latin-1.
_CODECS = {
    "iso-8859-1": "windows-1252",
    "latin1": "windows-1252",
    "windows-1252": "windows-1252",
    "cp1252": "windows-1252",
}
# XML 1.0, section 2.2 (Char): everything outside of it cannot be written, not even as a character reference.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class XmlError(ValueError):
    """The bytes are no XML we accept; the text says why and repeats nothing of them."""


def parse(body: bytes) -> etree._Element:
    """The root element of `body`. Raises XmlError for what is empty, too large, malformed or has a document type."""
    if len(body) > MAX_BYTES:
        raise XmlError(f"more than {MAX_BYTES} bytes")
    text = _decode(body)
    if not text:
        raise XmlError("an empty body")
    if "<!DOCTYPE" in text:
        raise XmlError("a document type (an HTML page, or worse)")
    try:
        return etree.fromstring(text.encode(), _parser())
    except etree.XMLSyntaxError:
        raise XmlError("no well-formed XML") from None


def fit(text: str) -> str:
    """`text` without what XML 1.0 forbids."""
    return _FORBIDDEN.sub("", text)


def add(parent: etree._Element, name: str, text: str = "", **attributes: str) -> etree._Element:
    """A new last child with this text and these attributes, made fit for XML 1.0."""
    child = etree.SubElement(parent, name, {key: fit(value) for key, value in attributes.items()})
    child.text = fit(text) or None
    return child


def add_cdata(parent: etree._Element, name: str, text: str) -> None:
    """A new last child with this text in a CDATA section; escaped where it holds the section's end."""
    text = fit(text)
    etree.SubElement(parent, name).text = text if "]]>" in text else etree.CDATA(text)


def attribute(element: etree._Element, wanted: str) -> str:
    """The stripped value of the attribute called `wanted`, in whatever case; empty where there is none."""
    return next((str(value).strip() for key, value in element.items() if str(key).lower() == wanted), "")


def clean(text: str, limit: int) -> str:
    """`text` without what XML 1.0 forbids, stripped, and cut to `limit` characters with an ellipsis as the last."""
    text = fit(text).strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + ELLIPSIS


def name(element: etree._Element) -> str:
    """The element's name without name space, in lower case: idibu's older services write it in capitals."""
    tag = element.tag
    if not isinstance(tag, str) or tag[0] == "{":
        return etree.QName(element).localname.lower()
    return tag.rpartition(":")[2].lower()  # a prefix that stands for nothing is let through with mere warnings at times


def children(element: etree._Element, wanted: str) -> Iterator[etree._Element]:
    """The direct children called `wanted`."""
    return (child for child in element if name(child) == wanted)


def text_of(element: etree._Element, wanted: str) -> str:
    """The stripped text of the first direct child called `wanted`; empty where there is none."""
    child = next(children(element, wanted), None)
    return "" if child is None else "".join(map(str, child.itertext())).strip()


def number_of(text: str) -> int | None:
    """A number of at most 18 digits, without a sign; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _decode(body: bytes) -> str:
    """The document as text without its declaration, so that no name of an encoding can make libxml2 stumble."""
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip().removeprefix(b"\xef\xbb\xbf")
    declaration = _DECLARATION.match(body)
    encoding = _ENCODING.search(declaration[0]) if declaration else None
    codec = _CODECS.get(encoding[1].decode().lower(), "utf-8") if encoding else "utf-8"
    text = body[declaration.end() if declaration else 0 :].decode(codec, errors="replace")
    return fit(text).strip()


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
