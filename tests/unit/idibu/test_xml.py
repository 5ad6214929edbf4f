"""XML from strangers is refused or harmless; text of ours is always fit for XML 1.0."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from apptrack_ingest.idibu import xml

ANY_TEXT = st.text(st.characters(exclude_categories=[]))

BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]><a>&c;</a>"""
FETCH = b"""<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>"""
HTML = b"""<!doctype html><html><body>502 Bad Gateway<br></body></html>"""


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        FETCH,
        HTML,
        b"",
        b" \r\n",
        b"<a>",
        b"<a/><b/>",
        b"no",
        b"\x00\xff",
        b"<a>&b;</a>",
        b"<a" + b" " * xml.MAX_BYTES,
    ],
)
def test_refuses(body: bytes) -> None:
    with pytest.raises(xml.XmlError):
        xml.parse(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<a>x</a>", "x"),
        (b" \r\n\t<?xml version='1.0' encoding='utf8'?><a>\xc3\xa9</a>\n", "é"),
        (b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?><a>\xc3\xa9</a>', "é"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?><a>\xe9</a>', "é"),
        (b'<?xml version="1.0" encoding="rot13"?><a>x</a>', "x"),
        (b"<a>x\x01y\xffz</a>", "xy\ufffdz"),
        (b"<a>x<!-- c -->y<?php z?></a>", "xy"),
    ],
)
def test_survives(body: bytes, text: str) -> None:
    assert xml.parse(body).text == text


@given(st.binary() | st.text().map(lambda inner: f"<a>{inner}</a>".encode(errors="replace")))
def test_any_bytes_are_an_element_or_refused(body: bytes) -> None:
    try:
        root = xml.parse(body)
    except xml.XmlError:
        return
    assert etree.tostring(root)


@given(ANY_TEXT, st.integers(1, 20))
@example("a\x00\ud800\ufffe\uffff\x0bb", 20)
@example("\U0001f600" * 30, 20)
def test_clean_text_can_be_written_and_read_back(text: str, limit: int) -> None:
    cleaned = xml.clean(text, limit)
    element = etree.Element("a")
    element.text = cleaned
    assert len(cleaned) <= limit
    assert (etree.fromstring(etree.tostring(element)).text or "") == cleaned


def test_cut_text_shows_that_it_was_cut() -> None:
    assert xml.clean("x" * 10, 10) == "x" * 10
    assert xml.clean("x" * 11, 10) == "x" * 9 + "…"
    assert xml.clean(" a\x00b ", 10) == "ab"
