"""Text from bytes: what is certain is said to be, and nothing unsafe survives."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse.text import (
    Text,
    clean_body,
    decode_body,
    decode_bytes,
    decode_header,
    header_charset,
    read_preamble,
    read_subject,
    unfold,
)


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
        (b"=?utf-8?q?why?_me??=", "why? me?"),  # question marks, against RFC 2047
        (b"=?utf-8?q?a=3D?==?utf-8?q?b?=", "a=b"),
        (b"=?utf-8?b?QsO?= =?utf-8?b?8cm8=?=", "Büro"),  # one base64 text cut anywhere
        (b"=?utf-8?b??=", ""),
        (b"=?utf-7?q?+AGE-?= =?utf-7?q?bc?=", "abc"),
        (b"=?utf-7?q?+AGE?= =?utf-7?q?bc?=", "abc"),  # each word by itself, or "+AGEbc" would be one
        (b"=?iso-2022-jp?b?GyRCRnw=?= =?iso-2022-jp?b?GyRCS1wbKEI=?=", "日本"),
        (b"100 =? 200", "100 =? 200"),
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
        b"=?utf-8?q?never closed",
        b"=?utf-8?q?never closed =?utf-8?q?x?=",
        b"=?utf-8?b?SsO8c?=",
        b"=?utf-8?b?Sg==Sg==?=",
        b"=?iso-8859-1?q?Jos=C3=A9?=",
        "JosÃ©".encode(),
        b"=?us-ascii?Q?=3D=3Futf-8=3FQ=3Fa=3F=3D?=",
        b"\x1b$BF|K\\\x1b(B",
    ],
)
def test_uncertain_headers_are_marked_and_safe(raw):
    text = decode_header(raw)
    assert not text.certain
    text.value.encode("utf-8")
    assert not set(text.value) & set("\x00\r\n")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"=?utf-8?q?100=_J=C3=BCrgen?=", "100= Jürgen"),
        (b"=?utf-8?b?SsO8c?=", "Jü"),
        (b"=?utf-8?b?Sg==Sg==?=", "JJ"),
        (b"=?utf-8?q?open =?utf-8?q?x?=", "=?utf-8?q?open x"),
        (b"=?us-ascii?Q?=3D=3Futf-8=3FQ=3FCaf=3DC3=3DA9=3F=3D?=", "Café"),
        (b"\x1b$BF|K\\\x1b(B", "日本"),
        (b"=?utf-8?b?%%%?=", "=?utf-8?b?%%%?="),
    ],
)
def test_what_is_broken_is_read_as_far_as_it_goes(raw, expected):
    assert decode_header(raw) == Text(expected, certain=False)


def test_raw_bytes_are_read_in_the_charset_of_the_body():
    fields = [(b"Subject", "Отклик".encode("cp1251")), (b"content-TYPE", b' text/plain;\r\n charset="windows-1251"')]
    assert header_charset(fields) == "windows-1251"
    assert read_subject(fields) == (
        "Отклик",
        ("Subject is damaged or of no certain charset; it was read as well as possible",),
    )
    assert header_charset([]) is None


def test_subjects():
    assert read_subject([]) == (None, ())
    assert read_subject([(b"SUBJECT", b" a"), (b"subject", b"a")]) == ("a", ())
    subject, warnings = read_subject([(b"Subject", b"a"), (b"subject", b"b")])
    assert subject == "a" and "more than once" in warnings[0]


@pytest.mark.parametrize(
    ("content", "content_type", "charset", "expected"),
    [
        ("\ufeffé".encode("utf-16-le"), "text/plain", None, "é"),
        ("\ufeffé".encode(), "text/plain", "iso-8859-1", "é"),
        ('<meta charset="koi8-r">Я'.encode("koi8-r"), "text/html", None, '<meta charset="koi8-r">Я'),
        ('<meta charset="koi8-r">Я'.encode(), "text/html", None, '<meta charset="koi8-r">Я'),  # recoded by a relay
        ('<meta charset="koi8-r">Я'.encode("koi8-r"), "text/plain", "koi8-r", '<meta charset="koi8-r">Я'),
        (b"a\r\nb\n", "text/plain", "us-ascii", "a\nb\n"),
    ],
)
def test_bodies(content, content_type, charset, expected):
    assert decode_body(content, content_type, charset) == (expected, ())


def test_html_names_the_charset_where_the_declared_one_fails():
    html = '<meta charset="koi8-r">Я'
    text, [warning] = decode_body(html.encode("koi8-r"), "text/html", "utf-8")
    assert text == html and "damaged or not utf-8 as it says" in warning


def test_a_declared_charset_is_shown_clean_and_short():
    _, [warning] = decode_body(b"\xff", "text/plain", "x\x00\udcff" * 99)
    assert len(warning) < 150 and "\x00" not in warning and warning.encode()


@pytest.mark.parametrize(
    "preamble",
    [
        b"",
        b"\r\n \r\n",
        b"This is a multi-part message in MIME format.\r\n",
        b"This is an S/MIME signed message\r\n",
        b"Dies ist eine mehrteilige Nachricht im MIME-Format.\r\n",
    ],
)
def test_what_mail_programs_write_before_the_first_part_is_no_text(preamble):
    assert read_preamble(preamble) == (None, ())


def test_what_people_write_before_the_first_part_is_text():
    text, warnings = read_preamble("\r\nGrüße\r\nJane\r\n".encode())
    assert text == "Grüße\nJane" and len(warnings) == 1
    assert read_preamble(b"I study mime and dance.")[0] == "I study mime and dance."


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


@pytest.mark.parametrize(
    "unit",
    [b"=?utf-8?q?", b"=?utf-8?q?a?=", b"=?utf-8?b?YQ==?= ", b"=?", b"?=", b"=?a?b?=", b"\n ", b"=?x?q?\xe9?= ", b"= "],
)
def test_a_megabyte_of_encoded_words_is_read_in_a_moment(unit):
    raw = unit * (1_000_000 // len(unit))
    started = time.thread_time()
    decode_header(raw)
    assert time.thread_time() - started < 6


@given(st.text(st.characters(codec="utf-8", categories=["L"]), min_size=1), st.integers(1, 9), st.booleans())
def test_encoded_words_cut_anywhere_are_made_whole(text, size, quoted_printable):
    content = text.encode()
    if quoted_printable:
        parts = [content[at : at + size] for at in range(0, len(content), size)]
        words = [b"=?utf-8?q?=%b?=" % part.hex("=").upper().encode() for part in parts]
    else:
        packed = base64.b64encode(content).rstrip(b"=")
        words = [b"=?utf-8?b?%b?=" % packed[at : at + size] for at in range(0, len(packed), size)]
    assert decode_header(b"\r\n ".join(words)).value == decode_bytes(content, "utf-8").value


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1), st.sampled_from("qb"))
def test_what_the_standard_library_encodes_comes_back(text, encoding):
    from email.charset import BASE64, QP, Charset
    from email.header import Header

    charset = Charset("utf-8")
    charset.header_encoding = QP if encoding == "q" else BASE64
    encoded = Header(text, charset).encode(linesep="\r\n")
    assert decode_header(encoded.encode("ascii")) == Text(text.strip())
