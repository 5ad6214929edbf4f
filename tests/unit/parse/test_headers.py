"""The header block is read right and in linear time whatever comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.model import HeldReason
from apptrack_ingest.parse.headers import Peek, header_block, peek, read_integer, scan_header_block

INVALID = HeldReason.INVALID_APPLICANT_ID


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\n\r\n"])
def test_block_ends_at_first_empty_line(end):
    assert (
        header_block(b"A: 1\r\nB: 2" + end + b"body\r\n\r\nmore", 100) == b"A: 1\r\nB: 2" + end[: end.index(b"\n") + 1]
    )


def test_block_of_a_mail_without_headers_or_without_body():
    assert header_block(b"\r\nbody", 100) == b""
    assert header_block(b"A: 1\r\n", 100) == b"A: 1\r\n"


def test_block_over_the_limit_is_none():
    block = b"A: " + b"x" * 95 + b"\r\n"
    assert header_block(block + b"\r\nbody", len(block)) == block
    assert header_block(block + b"\r\nbody", len(block) - 1) is None
    assert header_block(b"x" * 101, 100) is None


def test_scan_keeps_order_folds_and_repetition():
    block = b"A: 1\r\n\tfolded\r\nnot a header\r\n lost with it\r\nB:2\r\na : 3\r\n"
    assert scan_header_block(block) == [(b"A", b" 1\r\n\tfolded"), (b"B", b"2"), (b"a", b" 3")]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"X-iTrackID: 33139609\r\n", Peek(33139609, None, None, 0)),
        (b"x-ITRACKID:\r\n 7 \r\nReceived: a\r\nreceived: b\r\n", Peek(7, None, None, 2)),
        (b"Subject: hello\r\n", Peek(None, HeldReason.NO_APPLICANT_ID, None, 0)),
        (b"X-iTrackID: 7\r\nX-Itrackid: 7\r\n", Peek(None, INVALID, None, 0)),
        (b"X-iTrackID: 7\r\nX-Itrackid: 8\r\n", Peek(None, INVALID, None, 0)),
        (b"X-iTrackID : 7\r\nX-iTrackID: 7\r\n", Peek(None, INVALID, None, 0)),
        (b"X-iTrackID: 7\r\nX-iTrackID-ClientID: 12\r\n", Peek(7, None, 12, 0)),
        (b"X-iTrackID: 7\r\nX-iTrackID-ClientID: 12\r\nX-itrackid-clientid: 12\r\n", Peek(7, None, 12, 0)),
        (b"X-iTrackID: 7\r\nX-iTrackID-ClientID: 12\r\nX-iTrackID-ClientID: 13\r\n", Peek(7, None, None, 0)),
    ],
)
def test_peek(block, expected):
    assert peek(block) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"0",
        b"-1",
        b"+1",
        b"1.0",
        b"12 34",
        b"12\r\n 34",
        b"0x1f",
        b"1e3",
        b"12a",
        b"7\x00",
        b"7\r8",
        b"=?utf-8?q?7?=",
        "٣".encode(),
        "７".encode(),
        b"\xb2",
        str(2**63).encode(),
        b"9" * 400,
    ],
)
def test_what_is_not_an_id_is_never_guessed(value):
    assert peek(b"X-iTrackID: " + value + b"\r\n").id_problem is INVALID


def test_a_header_cannot_hide_behind_a_bare_carriage_return():
    assert peek(b"Subject: x\rX-iTrackID: 7\r\n").id_problem is HeldReason.NO_APPLICANT_ID


@given(st.integers(1, 2**63 - 1), st.sampled_from([b"", b" ", b"\t ", b"\r\n "]))
def test_any_id_in_range_is_read(number, space):
    assert peek(b"X-iTrackID:" + space + str(number).encode() + b" \r\n").applicant_id == number


@given(st.binary(max_size=300))
def test_nothing_makes_the_scan_fail(data):
    found = peek(data)
    assert (found.applicant_id is None) == (found.id_problem is not None)
    assert read_integer(data) is None or data.strip().isdigit()
    for name, _ in scan_header_block(data):
        assert name.isascii() and b":" not in name and name.strip() == name
