"""Whole mails read: text, documents, limits, and damage that costs a warning and never the candidate."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.model import Candidate, HeldReason, Role
from apptrack_ingest.parse import mime
from apptrack_ingest.parse.limits import Limits
from apptrack_ingest.parse.mime import parse

PDF = base64.b64encode(b"%PDF-1.4 some content").decode()


def mixed(*parts: str | bytes, head: str = "X-iTrackID: 1\r\n") -> bytes:
    body = b"".join(
        b"--b\r\n" + (part if isinstance(part, bytes) else part.encode()).replace(b"\n", b"\r\n") + b"\r\n"
        for part in parts
    )
    return f'{head}Content-Type: multipart/mixed; boundary="b"\r\n\r\n'.encode() + body + b"--b--\r\n"


def part(headers: str, body: str = PDF) -> str:
    return f"{headers}\nContent-Transfer-Encoding: base64\n\n{body}"


def test_a_documented_mail(sample):
    parsed = parse(sample("documented-lower-case"))
    assert parsed.applicant_id == 33139609 and parsed.client_reference == "Some-CUSTOM-Ref"
    assert parsed.candidate == Candidate("Jane Doe", "jane.doe@example.org", "From")
    assert parsed.subject == "Application for Financial Services Roles"
    assert parsed.text and parsed.text.startswith("Dear Sir") and "Salário" in parsed.text
    assert parsed.html == "<p>Dear Sir, please find my CV attached.</p>\n"
    assert [(one.name, one.role) for one in parsed.documents] == [
        ("JaneDoeCV.pdf", Role.CV),
        ("logo.png", Role.INLINE_IMAGE),
    ]
    assert parsed.documents[0].content.startswith(b"%PDF-1.4")
    assert parsed.headers[0][0] == "Received" and ("X-Itrackid", "33139609") in parsed.headers
    assert parsed.warnings == ()


def test_a_mail_without_mime_and_without_a_name(sample):
    parsed = parse(sample("documented-mixed-case"))
    assert parsed.candidate == Candidate(None, "applicant77@example.org", "From")
    assert parsed.text == "My details are below.\n" and parsed.html is None and parsed.documents == ()


def test_eight_bit_headers(sample):
    parsed = parse(sample("eight-bit-headers"))
    assert parsed.client_reference is None
    assert parsed.candidate.name == "José Peña" and parsed.subject == "Candidatura España"
    assert parsed.job.title == "Jefe de área" and parsed.owner.office == "Málaga"
    assert parsed.text == "España\n"
    for word in ("ClientReference", "Office", "Subject", "From", "body's text"):
        assert any(word in warning for warning in parsed.warnings), word
    assert not any("Title" in warning for warning in parsed.warnings)


def test_reply_to_nameless_pdf_and_attached_mail(sample):
    raw = sample("reply-to-and-nameless-pdf")
    parsed = parse(raw)
    assert parsed.candidate.name == "Smith, Pat" and parsed.candidate.source == "Reply-To"
    assert [(one.name, one.claimed_type) for one in parsed.documents] == [
        ("document.pdf", "application/pdf"),
        ("document.eml", "message/rfc822"),
        ("inner.doc", "application/msword"),
    ]
    assert [one.inside for one in parsed.documents] == [None, None, "document.eml"]
    assert parsed.documents[0].role is Role.CV
    attached = parsed.documents[1].content
    assert attached in raw and attached.startswith(b"From: Pat Smith") and attached.endswith(b"--c--")


def test_a_doubled_id_is_held_but_read(sample):
    parsed = parse(sample("doubled-id"))
    assert parsed.applicant_id is None and parsed.id_problem is HeldReason.INVALID_APPLICANT_ID
    assert parsed.candidate.email == "jane.doe@example.org"


def test_equal_names_do_not_collide():
    parsed = parse(mixed(*[part('Content-Type: application/pdf; name="cv.pdf"')] * 3))
    assert [one.name for one in parsed.documents] == ["cv.pdf", "cv-2.pdf", "cv-3.pdf"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("filename*=utf-8''J%C3%BCrgen.pdf", "Jürgen.pdf"),
        ("filename*0*=utf-8''J%C3%BC; filename*1=rgen.pdf", "Jürgen.pdf"),
        ('filename="=?utf-8?q?J=C3=BCrgen=2Epdf?="', "Jürgen.pdf"),
        ('filename="Jürgen.pdf"', "Jürgen.pdf"),
        ("filename=cv 2025.pdf", "cv 2025.pdf"),
        ('filename="../../../cv.pdf"', "../../../cv.pdf"),
        ("filename*=no-such''J%FC.pdf", "Jü.pdf"),
    ],
)
def test_file_names_in_all_their_spellings(header, expected):
    (document,) = parse(
        mixed(part(f"Content-Type: application/pdf\nContent-Disposition: attachment; {header}"))
    ).documents
    assert document.original_name == expected
    assert document.name == expected.rpartition("/")[2]


def test_a_file_name_in_latin_1():
    raw = mixed(b'Content-Disposition: attachment; filename="J\xfcrgen.pdf"\n\nx')
    assert parse(raw).documents[0].original_name == "Jürgen.pdf"


@pytest.mark.parametrize(
    ("encoding", "body", "content", "warning"),
    [
        ("base64", "JVBE Ri0x\nLjQ=", b"%PDF-1.4", None),
        ("BASE64;", "JVBERi0xLjQ=", b"%PDF-1.4", None),
        ("base64", "JVBERi0xLj", b"%PDF-1.", "damaged base64"),
        ("base64", "JVBE*Ri0x!LjQ=", b"%PDF-1.4", "damaged base64"),
        ("base64", "JVBERi0xLjQ=\n-- \nlist footer", b"%PDF-1.4", "damaged base64"),
        ("base64", "\x01!!", b"\x01!!", "not the base64"),
        ("quoted-printable", "%PDF=2D1=\n.4=XX", b"%PDF-1.4=XX", None),
        ("x-unknown", "raw", b"raw", "unknown transfer encoding"),
        ("8bit", "raw", b"raw", None),
        ("x-uuencode", "begin 644 f\n#86)C\n`\nend\n", b"abc", None),
    ],
)
def test_transfer_encodings(encoding, body, content, warning):
    head = f'Content-Type: application/pdf; name="cv.pdf"\nContent-Transfer-Encoding: {encoding}\n\n'
    parsed = parse(mixed("Content-Type: text/plain\n\nhello", head + body))
    assert parsed.text == "hello"
    assert parsed.documents[0].content == content
    assert [warning in found for found in parsed.warnings[1:]] == ([True] if warning else [])


@pytest.mark.parametrize("charset", ["no-such", "undefined", "utf-16", "idna", "base64", "\udce9"])
def test_a_bad_charset_costs_a_warning_not_the_text(charset):
    raw = b"Content-Type: text/plain; charset=" + charset.encode("utf-8", "surrogateescape") + b"\r\n\r\nhello w\xf6rld"
    parsed = parse(raw)
    assert parsed.text is not None
    assert any("the body's text" in warning for warning in parsed.warnings)
    parsed.text.encode()


def test_seven_bit_japanese():
    raw = b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + "履歴書です".encode("iso-2022-jp")
    assert parse(raw).text == "履歴書です"


def test_text_of_several_parts_is_joined_and_named_text_is_a_document():
    parsed = parse(
        mixed(
            "Content-Type: text/plain\n\none",
            "Content-Type: text/plain\n\ntwo",
            'Content-Type: text/plain; name="cv.txt"\n\nmy cv',
            "Content-Type: text/html\nContent-Disposition: attachment\n\n<p>file</p>",
            "Content-Type: text/calendar\n\nBEGIN:VCALENDAR",
        )
    )
    assert parsed.text == "one\ntwo" and parsed.html is None
    assert [one.name for one in parsed.documents] == ["cv.txt", "document.html", "document.ics"]


def test_text_inside_an_attached_container_is_no_body():
    inner = (
        'Content-Type: multipart/mixed; boundary="c"\nContent-Disposition: attachment\n\n'
        "--c\nContent-Type: text/plain\n\nforwarded\n--c--"
    )
    parsed = parse(mixed("Content-Type: text/plain\n\nhello", inner))
    assert parsed.text == "hello"
    assert [one.content for one in parsed.documents] == [b"forwarded"]


@pytest.mark.parametrize(
    ("raw", "words", "text"),
    [
        (b"Content-Type: multipart/mixed\r\n\r\nlost?", "no boundary", "lost?"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nlost?", "read as text", "lost?"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nx--b lost?", "never starts", "x--b lost?"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ncut", "not closed", "cut"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\na\r\n--b--\r\nmore", "after the last part", "a"),
        (b"\r\n\r\na\x00b", "NUL", "\nab"),
    ],
)
def test_damaged_structure(raw, words, text):
    parsed = parse(raw)
    assert parsed.text == text
    assert any(words in warning for warning in parsed.warnings)


def test_an_unterminated_nested_multipart_keeps_its_parts():
    raw = mixed(
        'Content-Type: multipart/alternative; boundary="c"\n\n--c\nContent-Type: text/plain\n\nhello', part("A: b")
    )
    parsed = parse(raw)
    assert parsed.text and parsed.text.startswith("hello")


def nested(depth: int) -> bytes:
    heads = [b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(depth)]
    return b"".join(heads) + b"\r\ndeep"


@pytest.mark.parametrize(
    ("raw", "limits", "code"),
    [
        (b"A: " + b"x" * 200, Limits(header_block=100), "header-block-too-large"),
        (mixed(*["\nx"] * 11), Limits(parts=10), "too-many-parts"),
        (nested(11), Limits(depth=10), "too-deep"),
        (nested(1_500), Limits(), "too-deep"),
        (mixed("\n" + "x" * 60, "\n" + "x" * 60), Limits(decoded_bytes=100), "too-large"),
    ],
)
def test_limits(raw, limits, code):
    with pytest.raises(Unreadable) as caught:
        parse(raw, limits)
    assert caught.value.code == code


def test_at_the_limits_a_mail_is_still_read():
    assert len(parse(mixed(*["\nx"] * 9), Limits(parts=10)).text or "") == 17
    assert parse(nested(10), Limits(depth=10)).text == "deep"


def test_a_hundred_warnings_are_cut():
    raw = mixed(
        *[part(f'Content-Type: application/pdf; name="{number}.pdf"', "*JVBERi0xLjQ=") for number in range(100)]
    )
    warnings = parse(raw, Limits(warnings=5)).warnings
    assert len(warnings) == 6 and warnings[-1] == "and 96 more warnings"


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (ValueError("jane@example.org"), "parser-error", "ValueError"),
        (MemoryError(), "memory", ""),
        (RecursionError(), "too-deep", ""),
    ],
)
def test_what_was_not_foreseen_is_unreadable_and_tells_the_type_alone(monkeypatch, error, code, detail):
    def fail(*_):
        raise error

    monkeypatch.setattr(mime, "read_metadata", fail)
    with pytest.raises(Unreadable) as caught:
        parse(b"A: b\r\n\r\n")
    assert (caught.value.code, caught.value.detail) == (code, detail)


LINES = st.sampled_from(
    [
        b"--b",
        b"--b--",
        b"",
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Type: text/html; charset=\xff",
        b"\xe9\x00",
        b"Content-Type: message/rfc822",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: x-uuencode",
        b"AAA=A",
        b"Content-Disposition: attachment; filename*0*=\"x; filename*='",
        b"From: <a@b",
        b" fold",
        b"X-iTrackID: 1",
        b"=?x?b?a?=",
        b"Content-Type: text/plain; name*=utf-8''%ff%00; charset*=a'b'c",
        b"Subject: =?utf-7?q?+2AA-?=",
        b"begin 644 a",
    ]
)


@given(st.lists(LINES, max_size=30))
def test_any_mail_is_read_into_clean_values(lines):
    parsed = parse(b"\r\n".join(lines))
    values = [parsed.subject, parsed.text, parsed.html, parsed.headers, parsed.warnings, parsed.candidate.name]
    values += [(one.name, one.original_name, one.claimed_type, one.why) for one in parsed.documents]
    text = json.dumps(values, ensure_ascii=False)
    text.encode("utf-8")
    assert "\\u0000" not in text
    assert len({one.name.casefold() for one in parsed.documents}) == len(parsed.documents)


@pytest.mark.parametrize("claimed", ["X-Nothing: of its type", "Content-Type: application", "Content-Type: text/plain"])
def test_a_file_sent_as_text_is_a_document(claimed):
    parsed = parse(mixed("\nhello", part(claimed)))
    assert parsed.text == "hello"
    assert [(one.content, one.role) for one in parsed.documents] == [(base64.b64decode(PDF), Role.CV)]


def test_a_type_with_a_forgotten_semicolon_is_understood():
    parsed = parse(mixed("Content-Type: text/html charset=utf-8\n\n<p>hello</p>"))
    assert (parsed.html, parsed.documents) == ("<p>hello</p>", ())
