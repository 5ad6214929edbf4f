"""Transfer encodings, whole and damaged."""

import base64
import binascii
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse import transfer
from apptrack_ingest.parse.transfer import decode

PDF = b"%PDF-1.4 and some more bytes to fill two lines of base64, which takes fifty-seven each \xff"
WHOLE = base64.encodebytes(PDF)


def read(encoded: bytes, encoding: str) -> tuple[bytes, str | None]:
    return decode(b"before" + encoded + b"after", 6, 6 + len(encoded), encoding)


@pytest.mark.parametrize("encoding", ["base64", "base-64", "b64"])
def test_clean_base64(encoding):
    assert read(WHOLE, encoding) == (PDF, None)
    assert read(WHOLE.replace(b"\n", b" \r\n\t\r\n"), encoding) == (PDF, None)


@pytest.mark.parametrize(
    ("encoded", "content"),
    [
        (WHOLE.rstrip(b"\n="), PDF),
        (WHOLE.rstrip(b"\n=") + b"===", PDF),
        (WHOLE.replace(b"\n", b"!\n", 1), PDF),
        (b"> " + WHOLE, PDF),
        (WHOLE + b"\n-- \nSent from a phone", PDF),
        (WHOLE + b"___________\nA list's footer", PDF),
        (WHOLE + b"words", PDF),
        (b'Content-ID: <a>\nContent-Disposition: attachment;\n filename="x=y"\n\n' + WHOLE, PDF),
        (base64.b64encode(PDF)[:41], PDF[:30]),
    ],
)
def test_damaged_base64_is_repaired_and_said_so(encoded, content):
    assert read(encoded, "base64") == (content, "damaged base64; what could be decoded was kept")


def test_a_damaged_line_in_the_middle_is_no_footer():
    lines = base64.encodebytes(PDF * 10).splitlines()
    found, problem = read(b"\n".join([lines[0], b"--" + lines[1], *lines[2:]]), "base64")
    assert found == PDF * 10 and problem == "damaged base64; what could be decoded was kept"


def test_pieces_with_their_own_padding_are_joined():
    assert read(b"YQ==\nYmM=\nZGVm\nZw==", "base64") == (b"abcdefg", None)


@pytest.mark.parametrize("text", [b"", b"\r\n", b"\n \n"])
def test_empty_base64(text):
    assert read(text, "base64") == (b"", None)


@pytest.mark.parametrize("text", [b"Dear Sir, this was never base64.", b"!", b"a"])
def test_what_is_no_base64_is_kept_as_sent(text):
    assert read(text, "base64") == (text, "is not the base64 it claims to be; kept as sent")


@pytest.mark.parametrize(
    ("encoded", "content"),
    [
        (b"a=3Db=\r\nc", b"a=bc"),
        (b"soft= \t\nbreak", b"softbreak"),
        (b"100=% =zz =", b"100=% =zz "),
        (b"low=c3=bc", b"low\xc3\xbc"),
        (b"kept =20\nblanks", b"kept  \nblanks"),
    ],
)
def test_quoted_printable(encoded, content):
    assert read(encoded, "quoted-printable") == (content, None)


@pytest.mark.parametrize("encoding", ["", "7bit", "8bit", "binary", "8-bit", "utf-8"])
def test_no_encoding(encoding):
    assert read(b"a=3D\xff", encoding) == (b"a=3D\xff", None)


def test_unknown_encodings_are_said():
    assert read(b"x", "x-gzip64") == (b"x", "unknown transfer encoding 'x-gzip64'; kept as sent")
    assert len(read(b"x", "y" * 500)[1] or "") < 100


def test_uuencode():
    assert read(b"words\nbegin 644 f\n#86)C\n`\nend\n", "x-uuencode") == (b"abc", None)
    assert read(b"begin 644 f\n#86)C\n", "uue") == (b"abc", "damaged uuencode; what could be decoded was kept")
    assert read(b"no file", "uuencode") == (b"no file", "cannot be decoded; kept as sent")


@given(st.binary(max_size=400), st.integers(1, 100))
def test_base64_comes_back_however_its_lines_are_cut(content, width):
    packed = base64.b64encode(content)
    cut = b"\r\n".join(packed[start : start + width] for start in range(0, len(packed), width))
    assert read(cut, "base64") == (content, None)


@given(st.binary(max_size=400))
def test_quoted_printable_comes_back(content):
    assert read(binascii.b2a_qp(content, istext=False), "quoted-printable")[0] == content


@given(st.binary(max_size=200), st.sampled_from(["base64", "quoted-printable", "uuencode", "x", ""]))
def test_any_bytes_are_read(encoded, encoding):
    read(encoded, encoding)


@pytest.mark.parametrize("line", [1, 3, 57, 76])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 1000])
def test_base64_of_any_length_in_lines_of_any_length(monkeypatch: pytest.MonkeyPatch, size: int, line: int) -> None:
    monkeypatch.setattr(transfer, "_AT_ONCE", 64)  # so that pieces end anywhere in a line, and in a group of four
    content = os.urandom(size)
    encoded = base64.b64encode(content)
    raw = b"\r\n".join(encoded[at : at + line] for at in range(0, len(encoded), line)) + b"\r\n"
    assert decode(b"head" + raw + b"tail", 4, 4 + len(raw), "base64") == (content, None)


def test_what_follows_the_padding_is_found_in_a_later_piece_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_AT_ONCE", 8)
    raw = b"QUJDRA==" + b"\r\n" * 20 + b"!"
    content, problem = decode(raw, 0, len(raw), "base64")
    assert content == b"ABCD"
    assert problem is not None


@given(
    content=st.binary(min_size=1, max_size=50),
    times=st.integers(1, 200),
    width=st.integers(1, 100),
    end=st.sampled_from([b"\n", b"\r\n", b"\r\r\n", b" \n", b"\t\r\n"]),
    odd=st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from([b"\n", b"\r", b" ", b"\t", b"=", b"-", b"A", b""])),
        max_size=4,
    ),
)
def test_white_space_goes_the_same_by_columns_as_byte_by_byte(content, times, width, end, odd):
    encoded = base64.b64encode(content * times)
    lines = bytearray(b"".join(encoded[at : at + width] + end for at in range(0, len(encoded), width)))
    for at, sign in odd:
        lines[at : at + 1] = sign
    assert transfer.without_blanks(bytes(lines)) == lines.translate(None, b" \t\r\n")


def test_pieces_end_with_their_lines():
    assert transfer._AT_ONCE % 77 == transfer._AT_ONCE % 78 == 0


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_base64_of_several_pieces(line_end):
    content = os.urandom(3 * transfer._AT_ONCE)
    assert read(base64.encodebytes(content).replace(b"\n", line_end), "base64") == (content, None)
