"""The header block is read right and in linear time whatever comes."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apptrack_ingest.model import HeldReason
from apptrack_ingest.parse.headers import Peek, header_block, peek, read_integer, scan_header_block

INVALID = HeldReason.INVALID_APPLICANT_ID
LIMIT = 128 * 1024

# Blocks made of what matters, so that names, folds and line ends meet in every order.
blocks = st.lists(
    st.sampled_from(
        [
            *(b"\n", b"\r\n", b"\r", b" ", b"\t", b":", b"\n ", b"\x0b\xff", b"\x00"),
            *(b"X-iTrackID", b"x-ITRACKID-ClientID", b"Received"),
            *(b"\nX-iTrackID:", b"\nX-iTrackID-ClientID:", b"\nReceived:"),
            *(b"7", b"07", b"12", b"a", b"9" * 19),
        ]
    ),
    max_size=40,
).map(b"".join)


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


# --- against a plain reading, line by line --------------------------------------------------------------------------


def plain_scan(block: bytes) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, list[bytes]]] = []
    for line in block.split(b"\n"):
        if line[:1] in (b" ", b"\t"):
            if fields:
                fields[-1][1].append(line)
            continue
        field = re.match(rb"([!-9;-~]+)[ \t]*:", line)
        fields.append((field[1], [line[field.end() :]]) if field else (b"", []))
    return [(name, b"\n".join(lines).rstrip(b"\r")) for name, lines in fields if name]


def plain_integer(value: bytes) -> int | None:
    lines = filter(None, (line.strip(b" \t\r") for line in value.split(b"\n")))
    digits = b" ".join(lines)
    return int(digits) if re.fullmatch(rb"[0-9]{1,19}", digits) and int(digits) < 2**63 else None


def plain_peek(block: bytes) -> Peek:
    found: dict[bytes, list[bytes]] = {}
    for name, value in plain_scan(block):
        found.setdefault(name.lower(), []).append(value)
    ids = [plain_integer(value) for value in found.get(b"x-itrackid", [])]
    number = ids[0] if len(ids) == 1 else None
    clients = {plain_integer(value) for value in found.get(b"x-itrackid-clientid", [])}
    return Peek(
        applicant_id=number or None,
        id_problem=None if number else INVALID if ids else HeldReason.NO_APPLICANT_ID,
        client_id=clients.pop() if len(clients) == 1 else None,
        received_count=len(found.get(b"received", [])),
    )


def plain_header_block(raw: bytes, limit: int) -> bytes | None:
    block = b""
    for line in re.findall(rb"[^\n]*\n|[^\n]+", raw):
        if line in (b"\n", b"\r\n", b"\r\r\n"):
            break
        block += line
    return block if len(block) <= limit else None


@given(blocks)
@example(b"X-iTrackID-ClientID:7\nX-iTrackID-ClientID: 07\nx-itrackid-clientid:\n 007\n")
def test_reads_like_the_plain_reading(block):
    assert scan_header_block(block) == plain_scan(block)
    assert peek(block) == plain_peek(block)


@given(st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"b: "]), max_size=12).map(b"".join), st.integers(0, 12))
def test_the_block_ends_where_the_plain_reading_ends_it(raw, limit):
    assert header_block(raw, limit) == plain_header_block(raw, limit)


@given(st.text("0123456789 \t\r\nx", max_size=30))
def test_an_integer_reads_like_the_plain_reading(text):
    assert read_integer(text.encode()) == plain_integer(text.encode())


@pytest.mark.parametrize("digits", [1, 2, 18, 19])
def test_one_client_id_in_all_its_spellings_is_one(digits):
    spellings = [str(10 ** (digits - 1)).rjust(width, "0") for width in range(digits, 20)]
    block = "".join(f"X-iTrackID-ClientID: {spelling}\r\n" for spelling in spellings * 2).encode()
    assert peek(block).client_id == 10 ** (digits - 1)
    assert peek(block + b"X-iTrackID-ClientID: 99\r\n").client_id is None


# --- its cost ---------------------------------------------------------------------------------------------------------


def seconds(work) -> float:
    """CPU time of the quickest of a few runs."""

    def once() -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    return min(once() for _ in range(5))


@pytest.mark.parametrize(
    "unit",
    [
        *(b"a:\n", b"a\n", b"\n", b"\r\n", b"\r", b" ", b"a", b"a: \n \n", b"\n\n "),
        *(b"x-itrackid", b"X-iTrackID\n", b"X-iTrackID: 7\r\n", b"Received:\n", b"Received :\n"),
        *(b"X-iTrackID-ClientID:7\n", b"X-iTrackID-ClientID: 7 \t \n \n"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"X-iTrackID: 7", b"X-iTrackID-ClientID:7\n "])
def test_the_worst_block_there_can_be_is_read_in_milliseconds(before, unit):
    block = before + unit * ((LIMIT - len(before)) // len(unit))
    assert seconds(lambda: peek(block)) < 0.015
    assert seconds(lambda: header_block(block, LIMIT)) < 0.005


@pytest.mark.parametrize("unit", [b"x", b"\n", b"a\n", b"\r\n\r", b"\na\r\na"])
def test_a_body_without_an_empty_line_is_looked_at_no_further_than_the_limit(unit):
    raw = b"a" + unit * (30_000_000 // len(unit))
    assert seconds(lambda: header_block(raw, LIMIT)) < 0.005
