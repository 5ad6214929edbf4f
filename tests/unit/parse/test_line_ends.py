"""Doubled line ends are put right where all of them are doubled, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.model import HeldReason
from apptrack_ingest.parse.headers import header_block, peek, scan_header_block
from apptrack_ingest.parse.line_ends import restored

LIMIT = 10_000
TRACE = b"Received: by mx.example\r\n"


@given(st.lists(st.text("ab: ", min_size=1), min_size=1), st.sampled_from([b"", TRACE]))
def test_a_doubled_mail_becomes_what_it_was(lines, trace):
    body = "\r\n".join(lines).encode()
    doubled = trace + b"From: a@b.c\r\n x\r\n\r\n".replace(b"\r\n", b"\r\r\n") + body.replace(b"\r\n", b"\r\r\n")
    block = header_block(doubled, LIMIT)
    mail, warnings = restored(doubled, len(block))
    assert mail == block + b"\r\n" + body
    assert len(warnings) == 1
    assert scan_header_block(block)[-1] == (b"From", b" a@b.c\r\r\n x")


@pytest.mark.parametrize(
    "mail", [b"A: 1\r\n\r\nx\r\r\ny", b"A: 1\n\nx\r\r\n", b"A: 1\r\r\nB: 2\r\n\r\nx", b"A: 1\r\r\n", b""]
)
def test_another_mail_stays_as_it_is(mail):
    assert restored(mail, len(header_block(mail, LIMIT))) == (mail, ())


def test_the_intake_finds_the_headers_of_a_doubled_mail_and_no_more():
    block = header_block(TRACE + b"X-iTrackID: 7\r\r\n\r\r\nX-iTrackID: 8\r\r\n", LIMIT)
    assert block == TRACE + b"X-iTrackID: 7\r\r\n"
    assert peek(block).applicant_id == 7


def test_a_byte_order_mark_hides_no_header():
    block = TRACE + b"\xef\xbb\xbfX-iTrackID: 7\r\nSubject: \xef\xbb\xbfx\r\n"
    assert peek(block).applicant_id == 7
    assert scan_header_block(block)[1:] == [(b"X-iTrackID", b" 7"), (b"Subject", b" \xef\xbb\xbfx")]


def test_a_mailboxs_from_line_is_no_header():
    block = b"From jane@example.org Mon Jun  2 08:59:59 2025\n>From x\nSubject: x\n"
    assert scan_header_block(block) == [(b"Subject", b" x")]
    assert peek(block).id_problem is HeldReason.NO_APPLICANT_ID
