"""Names for documents on a disk: whatever is asked for, a file in its own directory comes out."""

import pytest
from apptrack_handlers.file_names import MAX_BYTES, file_names
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("Jane Doe CV.pdf", "Jane Doe CV.pdf"),
        ("履歴書.pdf", "履歴書.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\CVs\\cv.doc", "cv.doc"),
        ("..", "document"),
        ("", "document"),
        (".htaccess", "htaccess"),
        ("a\0b\n.txt", "a_b_.txt"),
        ("a\ud800.txt", "a_.txt"),
        ("x" * 300 + ".pdf", "x" * (MAX_BYTES - 4) + ".pdf"),
        ("é" * 300 + ".pdf", "é" * ((MAX_BYTES - 4) // 2) + ".pdf"),
    ],
)
def test_one_name(wanted: str, name: str) -> None:
    assert file_names([wanted]) == [name]


def test_names_differ_whatever_the_case() -> None:
    assert file_names(["cv.pdf", "CV.pdf", "cv.pdf", "application.eml"], reserved=["Application.eml"]) == [
        "cv.pdf",
        "CV-2.pdf",
        "cv-3.pdf",
        "application-2.eml",
    ]


@given(st.lists(st.text(alphabet=st.characters(), max_size=300), max_size=6))
def test_always_safe_and_unique(wanted: list[str]) -> None:
    names = file_names(wanted)
    assert len({name.casefold() for name in names}) == len(wanted)
    for name in names:
        assert 0 < len(name.encode()) <= 255
        assert not name.startswith(".")
        assert not {"/", "\\", "\0"} & set(name)
