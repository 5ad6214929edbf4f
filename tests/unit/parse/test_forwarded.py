"""An application forwarded as an attachment: when it is unwrapped, when not, and what of the outer mail comes along."""

import base64

from apptrack_ingest.model import HeldReason, Role
from apptrack_ingest.parse.limits import Limits
from apptrack_ingest.parse.mime import parse

HEAD = b'X-iTrackID: 1\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'


def test_the_inner_mail_is_the_application_and_marked_as_unwrapped(sample):
    parsed = parse(sample("forwarded-application"))
    assert parsed.unwrapped and (parsed.applicant_id, parsed.id_problem) == (40809300, None)
    assert parsed.subject == "Application" and parsed.candidate.name == "Jane Doe"
    assert ("Subject", "FW: Application") not in parsed.headers


def test_what_else_was_attached_comes_along_and_words_do_not(sample):
    parsed = parse(sample("forwarded-application"))
    assert [(one.name, one.inside) for one in parsed.documents] == [
        ("cv.pdf", None),
        ("notes.pdf", "the forwarding mail"),
    ]
    assert parsed.text == "I apply for the job."
    assert "what the forwarding mail says itself was left out" in parsed.warnings


def test_a_forwarded_copy_is_the_same_content_as_the_application_itself(sample):
    raw = sample("forwarded-application")
    inner = raw[raw.index(b"From: Jane") : raw.index(b"--i--") + 7]
    direct = parse(inner)
    assert not direct.unwrapped and direct.content_digest == parse(raw).content_digest
    assert parse(sample("forwarded-twice")).content_digest == direct.content_digest


def test_without_unwrapping_it_is_a_document(sample):
    parsed = parse(sample("forwarded-application"), unwrap=False)
    assert not parsed.unwrapped and parsed.id_problem is HeldReason.NO_APPLICANT_ID
    assert parsed.subject == "FW: Application"
    assert {one.name: one.inside for one in parsed.documents} == {
        "cv.pdf": "Application.eml",
        "notes.pdf": None,
        "Application.eml": None,
    }


def test_an_outer_mail_with_an_id_of_its_own_is_never_unwrapped(sample):
    raw = sample("forwarded-application")
    for header, number in (
        (b"X-iTrackID: 7\r\n", 7),
        (b"X-Itrackid: none\r\n", None),
        (b"x-itrackid: 1\r\n" * 2, None),
    ):
        parsed = parse(header + raw)
        assert not parsed.unwrapped and parsed.applicant_id == number


def test_of_several_applications_none_is_guessed(sample):
    parsed = parse(sample("forwarded-two-applications"))
    assert not parsed.unwrapped and parsed.id_problem is HeldReason.NO_APPLICANT_ID
    assert any("several applications" in warning for warning in parsed.warnings)


def test_an_inner_id_that_is_no_number_is_not_believed_either(sample):
    parsed = parse(sample("forwarded-application").replace(b"X-iTrackID: 40809300", b"X-iTrackID: 4x"))
    assert parsed.unwrapped and parsed.id_problem is HeldReason.INVALID_APPLICANT_ID


def test_an_application_attached_in_base64(sample):
    raw = sample("forwarded-application")
    start, end = raw.index(b"From: Jane"), raw.index(b"--i--") + 5
    packed = raw[:start].replace(b"Content-Disposition: attachment\r\n\r\nFrom", b"\r\n")
    packed = packed.rstrip(b"\r\n") + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    parsed = parse(packed + base64.encodebytes(raw[start:end]) + raw[end:])
    assert parsed.unwrapped and parsed.applicant_id == 40809300 and parsed.documents[0].name == "cv.pdf"


def test_an_application_attached_as_a_file_called_eml(sample):
    raw = sample("forwarded-application").replace(b"message/rfc822", b"application/octet-stream")
    assert parse(raw).unwrapped and parse(raw).applicant_id == 40809300
    assert not parse(raw.replace(b".eml", b".dat")).unwrapped


def wrapped(depth: int) -> bytes:
    return b"Content-Type: message/rfc822\r\n\r\n" * depth + b"X-iTrackID: 5\r\nSubject: innermost\r\n\r\nhello"


def test_wrappers_in_wrappers_are_opened_so_deep_and_no_deeper():
    assert parse(wrapped(5)).applicant_id == 5
    parsed = parse(wrapped(6))
    assert parsed.applicant_id is None
    assert any("too deep" in warning for warning in parsed.warnings)


def test_an_attached_mail_beyond_the_limits_stays_a_document_and_costs_nothing_else():
    inner = b'Content-Type: multipart/mixed; boundary="c"\r\n\r\n' + b"--c\r\n\r\nx\r\n" * 50
    raw = (
        b'X-iTrackID: 1\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nhello\r\n'
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"--b--\r\n"
    )
    parsed = parse(raw, Limits(parts=10))
    assert parsed.text == "hello" and len(parsed.documents) == 1
    assert "an attached mail was not opened: too-many-parts" in parsed.warnings


def test_what_an_attached_mail_took_in_vain_is_there_for_what_comes_after_it():
    text = b"A: b\r\n\r\n" + b"x" * 600
    mail = b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 2 + text
    raw = HEAD + mail + b"\r\n--b\r\nContent-Type: application/pdf\r\n\r\n%PDF " + b"y" * 600 + b"\r\n--b--\r\n"
    parsed = parse(raw, Limits(decoded_bytes=1800))
    assert "an attached mail was not opened: too-large" in parsed.warnings
    assert [(one.claimed_type, one.role) for one in parsed.documents] == [
        ("application/pdf", Role.CV),
        ("message/rfc822", Role.OTHER),
    ]
