"""What mails come packed in: winmail.dat, compressed RTF, S/MIME; each read within bounds, whatever the bytes are."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse import cms, rtf, tnef

PDF = b"%PDF-1.4 a document"
STRING, UNICODE, OBJECT, BINARY, LONG = 0x1E, 0x1F, 0x0D, 0x102, 0x03


def wide(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


def attribute(identity: int, data: bytes) -> bytes:
    return struct.pack("<BII", 2, identity, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def variable(kind: int, identity: int, data: bytes) -> bytes:
    return struct.pack("<HHII", kind, identity, 1, len(data)) + data + bytes(-len(data) % 4)


def properties(*each: bytes) -> bytes:
    return struct.pack("<I", len(each)) + b"".join(each)


def winmail(*attributes: bytes) -> bytes:
    return tnef.SIGNATURE + b"\x01\x00" + b"".join(attributes)


def message(*each: bytes) -> bytes:
    return attribute(0x00069003, properties(*each))


def file(*more: bytes, data: bytes = PDF) -> bytes:
    return attribute(0x00069002, bytes(14)) + attribute(0x0006800F, data) + b"".join(more)


def described(*each: bytes) -> bytes:
    return attribute(0x00069005, properties(*each))


def test_files_with_their_long_names_and_types():
    found = tnef.unpack(
        winmail(
            attribute(0x00069007, struct.pack("<II", 1250, 0)),
            file(attribute(0x00018010, "ŽIVOTO~1.PDF\0".encode("cp1250"))),
            file(
                described(
                    struct.pack("<HHI", LONG, 0x3705, 1),
                    struct.pack("<HH", UNICODE, 0x8001)
                    + bytes(16)
                    + struct.pack("<II", 0, 7)
                    + variable(STRING, 0, b"x")[4:],
                    variable(UNICODE, 0x3707, wide("životopis.pdf")),
                    variable(STRING, 0x370E, b"application/pdf\0"),
                    variable(UNICODE, 0x3712, wide("id@example.org")),
                ),
                data=b"second",
            ),
        )
    )
    assert [(one.name, one.content_type, one.content_id, one.content) for one in found.files] == [
        ("ŽIVOTO~1.PDF", None, None, PDF),
        ("životopis.pdf", "application/pdf", "id@example.org", b"second"),
    ]
    assert found.complete and found.text is None


def test_texts():
    assert tnef.unpack(winmail(attribute(0x0002800C, b"plain\0"))).text == "plain"
    found = tnef.unpack(
        winmail(message(variable(UNICODE, 0x1000, wide("words")), variable(BINARY, 0x1013, b"<p>words</p>")))
    )
    assert (found.text, found.html) == ("words", "<p>words</p>")


@pytest.mark.parametrize(
    ("page", "charset"), [(1251, "cp1251"), (28592, "iso8859-2"), (65001, "utf-8"), (99999, "utf-8")]
)
def test_code_pages(page, charset):
    text = {"cp1251": "Привет"}.get(charset, "žluťoučký")
    body = attribute(0x0002800C, text.encode(charset) + b"\0")
    assert tnef.unpack(winmail(attribute(0x00069007, struct.pack("<II", page, 0)), body)).text == text


def test_html_names_its_own_charset_and_rtf_too_large_is_said():
    html = '<meta charset="iso-8859-2"><p>ž'
    assert tnef.unpack(winmail(message(variable(BINARY, 0x1013, html.encode("iso8859-2"))))).html == html
    large = tnef.unpack(winmail(message(variable(BINARY, 0x1009, struct.pack("<II4sI", 20, 2**30, b"LZFu", 0)))))
    assert large.text is None and not large.complete


def test_a_text_in_compressed_rtf_alone():
    assert tnef.unpack(winmail(message(variable(BINARY, 0x1009, PACKED)))).text == "hello world"


def test_a_mail_embedded_in_a_winmail_gives_its_text_and_files():
    inner = bytes(16) + winmail(message(variable(UNICODE, 0x1000, wide("inner"))), file())
    found = tnef.unpack(winmail(attribute(0x00069002, bytes(14)), described(variable(OBJECT, 0x3701, inner))))
    assert [(one.content_type, one.content) for one in found.files] == [("text/plain", b"inner"), (None, PDF)]


def test_what_broke_off_is_read_as_far_as_it_goes():
    whole = winmail(file(), file(data=b"second"))
    found = tnef.unpack(whole[:-20])
    assert found.files[0].content == PDF and not found.complete


@pytest.mark.parametrize(
    "content", [b"", b"no winmail", tnef.SIGNATURE, winmail(attribute(0x00069003, b"")), winmail(b"\x01")]
)
def test_what_is_none(content):
    assert tnef.unpack(content).files == []


def test_files_without_end_are_not_all_taken():
    found = tnef.unpack(winmail(attribute(0x00069002, b"") * 2000))
    assert len(found.files) == 500 and not found.complete


@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=4))
def test_any_winmail_is_survived(tail, place, change):
    whole = winmail(message(variable(UNICODE, 0x1000, wide("x"))), file(described(variable(STRING, 0x3707, b"a\0"))))
    tnef.unpack(whole[:place] + change + whole[place + len(change) :] + tail)
    tnef.unpack(winmail(tail))


# --- compressed RTF; the two examples are those of [MS-OXRTFCP], sections 3.1.1 and 3.1.2

PACKED = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
)


def test_the_specifications_examples():
    assert rtf.decompress(PACKED) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    again = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")
    assert rtf.decompress(again) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"


def test_rtf_that_is_not_compressed_and_rtf_that_is_too_large():
    assert rtf.decompress(struct.pack("<II4sI", 20, 3, b"MELA", 0) + b"abcd") == b"abc"
    assert rtf.decompress(struct.pack("<II4sI", 20, rtf.LARGEST + 1, b"LZFu", 0) + b"\0abcd") is None
    assert rtf.decompress(struct.pack("<II4sI", 20, 3, b"????", 0) + b"abcd") is None
    assert rtf.decompress(b"") is None


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (rb"{\rtf1\ansi\ansicpg1251{\fonttbl{\f0 Arial;}}\pard \'cf\'f0\'e8\par a\tab b}", "При\na\tb"),
        (rb"{\rtf1 {\*\generator x;}Z\u252\'fcrich \{a\} \u8364?1}", "Zürich {a} €1"),
        (rb"{\rtf1\ansicpg99999 \'41\u55357?}", "A\ufffd"),
        (rb"Yours \u-10179?\u-8704?", "Yours \U0001f600"),
        (rb"}}}} words {{{", "words"),
        (b"", ""),
    ],
)
def test_words_of_rtf(source, text):
    assert rtf.to_text(source) == text


@given(st.binary(max_size=300))
def test_any_rtf_is_survived(data):
    rtf.to_text(data)
    assert len(rtf.decompress(struct.pack("<II4sI", 0, 1000, b"LZFu", 0) + data) or b"") <= 1000


# --- S/MIME; real ones are in tests/mails (signed-smime-*)


def element(tag: int, *inner: bytes, indefinite: bool = False) -> bytes:
    content = b"".join(inner)
    if indefinite:
        return bytes([tag, 0x80]) + content + b"\0\0"
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


DATA, SIGNED, ENVELOPED = (bytes.fromhex("06092a864886f70d01070" + last) for last in "123")


def container(kind: bytes, content: bytes | None, indefinite: bool = False) -> bytes:
    def part(tag, *inner):
        return element(tag, *inner, indefinite=indefinite)

    inner = part(0x30, DATA) if content is None else part(0x30, DATA, part(0xA0, content))
    return part(0x30, kind, part(0xA0, part(0x30, b"\x02\x01\x01", element(0x31), inner, element(0x31))))


def test_a_signed_container_in_one_piece_and_in_segments():
    assert cms.open_container(container(SIGNED, element(0x04, b"mail"))) == (cms.Kind.SIGNED, b"mail")
    segments = element(
        0x24, element(0x04, b"ma"), element(0x24, element(0x04, b"i")), element(0x04, b"l"), indefinite=True
    )
    assert cms.open_container(container(SIGNED, segments, indefinite=True)) == (cms.Kind.SIGNED, b"mail")


def test_other_containers():
    assert cms.open_container(container(ENVELOPED, None)) == (cms.Kind.ENCRYPTED, None)
    assert cms.open_container(container(SIGNED, None)) == (cms.Kind.SIGNED, None)
    assert cms.open_container(container(DATA, None)) == (cms.Kind.OTHER, None)
    assert cms.open_container(b"-----BEGIN PKCS7-----") == (cms.Kind.OTHER, None)
    assert cms.open_container(b"") == (cms.Kind.OTHER, None)


@given(st.integers(0, 80), st.binary(max_size=6))
def test_any_container_is_survived(place, change):
    whole = container(SIGNED, element(0x24, element(0x04, b"ma"), indefinite=True))
    cms.open_container(whole[:place] + change + whole[place + len(change) :])


def test_octet_strings_nested_without_end():
    assert cms.open_container(container(SIGNED, b"\x24\x80" * 1000)) == (cms.Kind.OTHER, None)
