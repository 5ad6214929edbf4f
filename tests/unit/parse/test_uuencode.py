"""Files written into a text: found whole, found damaged, and not found where a sentence merely begins alike."""

import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse.uuencode import MOST_FILES, find_files, has_yenc, take_files


def encoded(content: bytes, name: str = "cv.pdf", end: str = "`\nend\n") -> bytes:
    lines = b"".join(binascii.b2a_uu(content[start : start + 45]) for start in range(0, len(content), 45))
    return f"begin 644 {name}\n".encode() + lines + end.encode()


def test_a_file_is_taken_out_of_the_text_around_it():
    text, (file,) = take_files(b"before\n" + encoded(b"content" * 30) + b"after\n")
    assert text == b"before\nafter\n"
    assert (file.name, file.content, file.whole) == (b"cv.pdf", b"content" * 30, True)


@pytest.mark.parametrize("end", [" \nend\n", "\nend\r\n", "end"])
def test_ends_as_they_come(end):
    (file,) = find_files(encoded(b"abc", end=end))
    assert file.whole and file.content == b"abc"


def test_line_ends_of_mail_blanks_lost_at_the_end_and_check_sums():
    content = bytes(90) + b"x" * 20
    (file,) = find_files(encoded(content).replace(b"\n", b"\r\n"))
    assert file.whole and file.content == content
    lines = encoded(b"x" * 45 + bytes(90)).replace(b"`", b" ").split(b"\n")
    (file,) = find_files(b"\n".join(line.rstrip() for line in lines))
    assert file.content == b"x" * 45 + bytes(90)
    (file,) = find_files(encoded(b"x" * 44).replace(b"\n`", b"K\n`"))
    assert file.whole and file.content == b"x" * 44


@pytest.mark.parametrize(
    "text",
    [
        b"begin 644 the job on Monday\nwith pleasure.\n",
        b"begin 2025 well\nHello there\nend\n",
        b"begin 644 a\nend\n",
        b"to begin 644 f\n#86)C\nend\n",
    ],
)
def test_sentences_are_left_alone(text):
    assert take_files(text) == (text, [])


def test_a_file_without_its_end_keeps_what_is_there_and_the_text_after_it():
    text, (file,) = take_files(encoded(b"x" * 60, end="") + b"Regards, Jane\n")
    assert (file.content, file.whole, text) == (b"x" * 60, False, b"Regards, Jane\n")


def test_a_file_without_a_name():
    (file,) = find_files(encoded(b"abc").replace(b" cv.pdf", b" "))
    assert file.name == b"" and file.content == b"abc"


def test_not_more_files_than_anybody_sends():
    text, files = take_files(encoded(b"abc") * (MOST_FILES + 1))
    assert len(files) == MOST_FILES and text == encoded(b"abc")


def test_yenc_is_noticed():
    assert has_yenc(b"x\n=ybegin line=128 size=3 name=cv.pdf\n") and not has_yenc(b"=ybegin is a word")


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=40))
def test_any_file_comes_back(content, after):
    _, files = take_files(encoded(content) + after)
    assert files[0].content == content and files[0].whole


@given(st.binary(max_size=200))
def test_any_bytes_are_read(text):
    take_files(b"begin 644 a\n" + text)
