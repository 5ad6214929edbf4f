"""File names are safe on any system and unique, whatever the mail says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse.names import LONGEST_NAME, SafeNames


def safe(original, content_type="application/pdf"):
    return SafeNames().name(original, content_type)


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ("cv.pdf", "cv.pdf"),
        ("Jürgen Müller CV.pdf", "Jürgen Müller CV.pdf"),
        ("Ju\u0308rgen.pdf", "Jürgen.pdf"),
        ("../../etc/passwd", "passwd.pdf"),
        ("/absolute/cv.pdf", "cv.pdf"),
        (r"C:\Users\jane\cv.pdf", "cv.pdf"),
        ("..", "document.pdf"),
        ("", "document.pdf"),
        (None, "document.pdf"),
        (".pdf", "pdf.pdf"),
        (".htaccess", "htaccess.pdf"),
        ("cv\u202efdp.exe", "cvfdp.exe"),
        ("c\x00v\r\n.pdf", "cv.pdf"),
        ("c\udce9v.pdf", "cv.pdf"),
        ('a<b>:"c|?*.pdf', "a_b___c___.pdf"),
        ("CON.pdf", "_CON.pdf"),
        ("nul", "_nul.pdf"),
        ("com1.tar.pdf", "_com1.tar.pdf"),
        ("cv.pdf . .", "cv.pdf"),
        ("  cv   2025.pdf ", "cv 2025.pdf"),
        ("no extension", "no extension.pdf"),
    ],
)
def test_names(original, expected):
    assert safe(original) == expected


@pytest.mark.parametrize(
    ("original", "content_type", "expected"),
    [
        (None, "message/rfc822", "document.eml"),
        ("Re: my mail", "message/rfc822", "Re_ my mail.eml"),
        ("mail.EML", "message/rfc822", "mail.EML"),
        (None, "application/x-nobody-knows", "document.bin"),
        (None, "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "document.docx"),
        (None, "text/plain", "document.txt"),
    ],
)
def test_extensions(original, content_type, expected):
    assert safe(original, content_type) == expected


def test_long_names_keep_their_extension():
    name = safe("ü" * 300 + ".docx")
    assert name.endswith("ü.docx") and LONGEST_NAME - 2 < len(name.encode()) <= LONGEST_NAME


def test_equal_names_are_numbered_whatever_their_case():
    names = SafeNames()
    given_names = [names.name(one, "application/pdf") for one in ("cv.pdf", "CV.pdf", "cv-2.pdf", "cv.pdf", "Ｃv.pdf")]
    assert given_names[:2] == ["cv.pdf", "CV-2.pdf"]
    assert len({name.casefold() for name in given_names}) == 5


@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=300), st.sampled_from(["con", "a/..", "cv.pdf", "\ud800.p"])), max_size=8
    )
)
def test_any_names(originals):
    names = SafeNames()
    safe_names = [names.name(original, "application/pdf") for original in originals]
    assert len({name.casefold() for name in safe_names}) == len(originals)
    for name in safe_names:
        assert 0 < len(name.encode("utf-8")) <= LONGEST_NAME
        assert name.isprintable() and not set(name) & set('/\\<>:"|?*')
        assert name[0] not in ". " and name[-1] not in ". "
        assert name.partition(".")[0].lower() not in {"con", "prn", "aux", "nul"}
