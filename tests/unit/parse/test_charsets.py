"""Bytes read in the charset they are really in, and said to be uncertain where that is not what was declared."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse import charsets
from apptrack_ingest.parse.charsets import (
    Text,
    charset_of_html,
    charset_of_mark,
    charset_parameter,
    decode_bytes,
    known_codecs,
    scrub,
)


@pytest.mark.parametrize(
    ("data", "charset", "expected"),
    [
        (b"Gr+APwA3w-e", "utf-7", "Grüße"),
        (b"~{VPND~}", "HZ-GB-2312", "中文"),
        ("朱镕基".encode("gb18030"), "gb2312", "朱镕基"),  # the middle one is in GBK alone
        ("①㈱髙".encode("cp932"), "shift_jis", "①㈱髙"),
        (b"\x1b$B-!\x1b(B", "iso-2022-jp", "①"),  # NEC's row 13
        (b"\x1b(I1\x1b(B", "iso-2022-jp", "ｱ"),  # half-width katakana
        ("喆".encode("big5hkscs"), "big5", "喆"),
        ("ไทย".encode("cp874"), "windows-874", "ไทย"),
        ("żółć".encode("cp1250"), "win-1250", "żółć"),
        ("Жук".encode("koi8-u"), "koi8-ru", "Жук"),
        ("שלום".encode("iso8859-8"), "iso-8859-8-i", "שלום"),
        (b"\x80", '"windows-1252http-equivContent-Type"', "€"),
        ("é".encode(), "charset=utf-8", "é"),
        ("é".encode(), "utf-8;", "é"),
        (b"\xe9", "x-iso-8859-1", "é"),
        ("é".encode("utf-16"), "unicode", "é"),
    ],
)
def test_labels_as_senders_mean_them(data, charset, expected):
    assert decode_bytes(data, charset) == Text(expected)


@pytest.mark.parametrize(
    ("data", "charset", "hint", "expected"),
    [
        ("José".encode(), "iso-8859-1", None, "José"),
        ("José’s “CV”".encode(), "windows-1252", None, "José’s “CV”"),
        ("简历中文".encode(), "gb2312", None, "简历中文"),
        ("JosÃ©".encode(), "utf-8", None, "José"),  # encoded twice
        ("JosÃ©".encode(), None, None, "José"),
        ("応募".encode("iso-2022-jp"), None, None, "応募"),
        ("Петров".encode("cp1251"), None, "windows-1251", "Петров"),
        ("Петров".encode("cp1251"), "us-ascii", "windows-1251", "Петров"),
        (b"caf\xe9 \xc3\xa9", None, None, "café é"),  # a stray byte among UTF-8
        (b"caf\xe9 \xc3\xa9", "utf-8", None, "café é"),
        (b"\xd6\xd0\xce\xc4\xff", "gb2312", None, "中文\ufffd"),  # what can be had of the declared charset
        (b"\x81", "windows-1252", None, "\ufffd"),
    ],
)
def test_what_is_not_as_declared_is_read_but_not_certain(data, charset, hint, expected):
    assert decode_bytes(data, charset, hint) == Text(expected, certain=False)


@pytest.mark.parametrize(
    ("data", "charset", "expected"),
    [
        (b"\xc3\x9c", "koi8-r", "ц°"),  # Cyrillic, not Latin: what is declared is believed
        (b"\xc2\xa1\xc2", "iso-8859-1", "Â¡Â"),  # no UTF-8
        ("Ã".encode(), "utf-8", "Ã"),
        ("Ãª Ãª".encode(), "utf-8", "Ãª Ãª"),  # too little to tell
        ("Ãª".encode("latin-1"), "iso-8859-1", "Ãª"),
        ("é".encode("gb18030"), "gb2312", "é"),
        ("Â¤ª".encode(), "utf-8", "Â¤ª"),
        ("中文".encode(), "utf-8", "中文"),
    ],
)
def test_honest_text_is_left_alone(data, charset, expected):
    assert decode_bytes(data, charset) == Text(expected)


@pytest.mark.parametrize(
    "label", ["", " ", "x-user-defined", "zlib", "hex", "rot13", "idna", "undefined", "\x00", "é" * 99]
)
def test_labels_that_name_no_charset(label):
    assert known_codecs(label) == ()


def test_a_charset_of_html_and_of_a_header():
    assert charset_of_html(b'<META charset="koi8-r">') == "koi8-r"
    assert charset_of_html(b'<meta http-equiv=x content="text/html; charset=utf-8">') == "utf-8"
    assert charset_of_html(b"<p>charset=utf-8") is None
    assert charset_parameter(b'text/plain; format=flowed; Charset="KOI8-R"; x=y') == "KOI8-R"
    assert charset_parameter(b"text/plain; mycharset=x") is None


def test_byte_order_marks():
    assert [charset_of_mark("x".encode(codec)) for codec in ("utf-8-sig", "utf-16", "utf-8")] == [
        "utf-8-sig",
        "utf-16",
        None,
    ]


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["utf-8", "utf-16", "utf-7", "gb18030"]))
def test_what_was_written_honestly_is_read_as_written(text, charset):
    read = decode_bytes(text.encode(charset), charset)
    assert read == Text(text) or (charset == "utf-8" and not read.certain)


@given(st.binary(max_size=300), st.sampled_from(["utf-8", "utf-7", "hz", "iso-2022-jp", "big5", "cp1252", "x", None]))
def test_nothing_comes_out_that_cannot_be_written(data, charset):
    read = decode_bytes(data, charset, "utf-7")
    assert scrub(read.value) == read.value
    assert read.value or not data or data.startswith(b"\x1b") or charset in ("hz", "utf-7", "iso-2022-jp")


@pytest.mark.parametrize(
    ("unit", "charset"),
    [
        (b"\xe9", "utf-8"),
        (b"\xe9\xc3\xa9", None),
        ("é☃".encode(), "iso-8859-1"),
        ("Ã©".encode(), "utf-8"),
        (b"\x1b$B", None),
        (b"+2AA-", "utf-7"),
        (b"~{VPND~}", "hz"),
    ],
)
def test_a_megabyte_of_anything_is_read_in_a_moment(unit, charset):
    data = unit * (1_000_000 // len(unit))
    started = time.thread_time()
    decode_bytes(data, charset)
    assert time.thread_time() - started < 3


@given(
    st.lists(
        st.sampled_from(
            ["\u00c3", "\u00a9", "\u00e2\u20ac\u2122", "\u00fc", "\u65e5", "a", " ", "\n", "\x81", "\u00ef\u00bf"]
        )
    ).map("".join)
)
def test_text_was_encoded_twice_whatever_letters_come_first(text):
    try:
        whole = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        whole = None
    assert charsets._encoded_once(text) == (None if text.isascii() else whole)
