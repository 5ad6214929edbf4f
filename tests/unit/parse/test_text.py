"""Text from bytes: what is certain is said to be, and nothing unsafe survives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse.text import Text, clean_body, decode_bytes, decode_header, unfold


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b" plain ", "plain"),
        (b"=?utf-8?q?J=C3=BCrgen_M?=", "Jürgen M"),
        (b"=?UTF-8?B?SsO8cmdlbg==?=", "Jürgen"),
        (b"=?UTF-8?B?SsO8cmdlbg?=", "Jürgen"),  # padding left out
        (b"=?iso-8859-1*de?q?J=FCrgen?=", "Jürgen"),  # RFC 2231, section 5
        (b"a =?utf-8?q?b?= =?utf-8?q?c?= d", "a bc d"),
        (b"a =?utf-8?q?b?=\r\n\t=?iso-8859-1?q?c?=\r\n d", "a bc d"),
        (b"Foo\r\n =?utf-8?q?B=C3=A4r?=\r\n Baz", "Foo Bär Baz"),  # the space at a fold stays
        (b"=?utf-8?b?w4Q=?= =?utf-8?q?=C3?= =?utf-8?q?=96?=", "ÄÖ"),  # a character cut in two
        (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),
        (b"=?gb2312?b?1tDOxA==?=", "中文"),
        ("Jürgen".encode(), "Jürgen"),
        (b"=?utf-8?q?two words?=", "two words"),
    ],
)
def test_certain_headers(raw, expected):
    assert decode_header(raw) == Text(expected)


@pytest.mark.parametrize(
    "raw",
    [
        b"REF\xe9-1",
        b"=?us-ascii?q?REF=E9?=",
        b"=?no-such-charset?q?REF?=",
        b"=?utf-8?q?REF=ZZ?=",
        b"=?utf-8?b?%%%?=",
        b"=?utf-8?x?REF?=",
        b"=?utf-8?q?REF=0D=0A-1?=",
        b"REF\x00-1",
        b"REF\r-1",
        b"=?utf-7?q?+2AA-?=",  # a lone surrogate
        b"=?idna?q?xn--a?=",
        b"=?undefined?q?a?=",
    ],
)
def test_uncertain_headers_are_marked_and_safe(raw):
    text = decode_header(raw)
    assert not text.certain
    text.value.encode("utf-8")
    assert not set(text.value) & set("\x00\r\n")


def test_undeclared_western_bytes_are_shown_as_such():
    assert decode_header(b"Espa\xf1a") == Text("España", certain=False)


@pytest.mark.parametrize(
    ("data", "charset", "expected"),
    [
        ("日本語".encode("iso-2022-jp"), "iso-2022-jp", Text("日本語")),
        ("한국".encode("cp949"), "ks_c_5601-1987", Text("한국")),
        (b"\x93quoted\x94", "iso-8859-1", Text("“quoted”")),  # the label of Latin-1 on windows-1252
        ("é".encode(), None, Text("é")),
        (b"\xe9", None, Text("é", certain=False)),
        (b"\xe9", "utf-8", Text("é", certain=False)),
        ("é".encode(), "us-ascii", Text("é", certain=False)),
        ("é".encode(), "\x00'", Text("é", certain=False)),
    ],
)
def test_charsets(data, charset, expected):
    assert decode_bytes(data, charset) == expected


def test_body_loses_nuls_and_surrogates_but_no_line():
    assert clean_body("\ufeffa\r\nb\x00\n\udce9") == Text("a\nb\n\ufffd", certain=False)


def test_unfold_makes_every_fold_one_space():
    assert unfold(b" a\r\n\t  b \n c\r\n \r\n") == b"a b c"


@given(
    st.binary(max_size=200),
    st.sampled_from(["utf-8", "utf-7", "utf-16", "undefined", "zlib", "gb18030", None, "x" * 99]),
)
def test_any_bytes_in_any_charset_become_clean_text(data, charset):
    clean_body(decode_bytes(data, charset).value).value.encode("utf-8")


@given(
    st.lists(
        st.sampled_from([b"=?utf-8?q?", b"=?utf-7?b?", b"?=", b"=?", b"=C3", b" ", b"\r\n ", b"a", b"\xe9", b"=", b"?"])
    )
)
def test_any_header_becomes_one_clean_line(pieces):
    line = decode_header(b"".join(pieces)).value
    line.encode("utf-8")
    assert line == line.strip() and "\n" not in line and "\r" not in line


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1), st.sampled_from("qb"))
def test_what_the_standard_library_encodes_comes_back(text, encoding):
    from email.charset import BASE64, QP, Charset
    from email.header import Header

    charset = Charset("utf-8")
    charset.header_encoding = QP if encoding == "q" else BASE64
    encoded = Header(text, charset).encode(linesep="\r\n")
    assert decode_header(encoded.encode("ascii")) == Text(text.strip())
