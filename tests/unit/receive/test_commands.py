"""The lines of a session, however its bytes come: the same ones, bounded memory, and nothing lost."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.receive.authentication import LONGEST_LINE
from apptrack_ingest.receive.commands import CommandLines, LineTooLong
from apptrack_ingest.receive.dialogue import at_once

TOO_LONG = "too long"


def all_of(lines: CommandLines) -> list[bytes | str]:
    found: list[bytes | str] = []
    while True:
        try:
            line = lines.next()
        except LineTooLong:
            found.append(TOO_LONG)
            continue
        if line is None:
            return found
        found.append(line)


def naive(wire: bytes) -> list[bytes | str]:
    whole = wire.split(b"\n")[:-1]
    return [TOO_LONG if len(line) > LONGEST_LINE else line.rstrip(b"\r") for line in whole]


pieces = st.lists(st.sampled_from([b"NOOP", b"\r\n", b"\n", b"\r", b"x" * 4000, b"y" * LONGEST_LINE]), max_size=20)


@given(pieces, st.lists(st.sampled_from([b"NOOP", b"\r\n", b"\n", b"\r", b"x" * 4000]), max_size=3))
def test_a_line_that_is_next_needs_no_looking_for(before, parts):
    lines, data = CommandLines(), b"".join(parts)
    lines.feed(b"".join(before))
    all_of(lines)
    if lines.is_next(data):
        lines.feed(data)
        assert all_of(lines) == [data.rstrip(b"\r\n")]


def test_one_whole_line_is_next_where_nothing_else_waits():
    lines = CommandLines()
    assert lines.is_next(b"NOOP\r\n")
    for other in (b"", b"NOOP", b"NOOP\r\nQUIT\r\n", b"NOOP\r\nQU", b"x" * 4000 + b"\r\n"):
        assert not lines.is_next(other)
    lines.feed(b"NO")
    assert not lines.is_next(b"OP\r\n")


@given(pieces, st.lists(st.integers(0, 40_000), max_size=6))
def test_any_chunking_gives_the_same_lines(parts, places):
    wire = b"".join(parts)
    edges = sorted(place % (len(wire) + 1) for place in places)
    lines, found = CommandLines(), []
    for start, end in zip([0, *edges], [*edges, len(wire)], strict=True):
        lines.feed(wire[start:end])
        found += all_of(lines)
    assert found == naive(wire)


def test_of_a_line_that_is_too_long_nothing_is_kept():
    lines = CommandLines()
    for _ in range(100):
        lines.feed(b"x" * 10_000)
        assert all_of(lines) == []
        assert len(lines._buffer) <= 2 * LONGEST_LINE
    lines.feed(b"x\r\nNOOP\r\n")
    assert all_of(lines) == [TOO_LONG, b"NOOP"]


def test_it_says_when_it_has_enough():
    lines = CommandLines()
    lines.feed(b"NOOP\r\n" * 4000)
    assert not lines.enough
    lines.feed(b"NOOP\r\n" * 200)
    assert lines.enough
    assert len(all_of(lines)) == 4200 and not lines.enough


@pytest.mark.parametrize("before", [b"", b"half a li"])
def test_what_is_taken_is_another_ones_and_what_is_put_back_comes_first(before):
    lines = CommandLines()
    lines.feed(before)
    assert all_of(lines) == []
    lines.feed(b"ne\r\nrest")
    assert lines.take_all() == before + b"ne\r\nrest" and lines.take_all() == b""
    lines.feed(b"second\r\n")
    lines.put_back(b"first\r\n")
    assert all_of(lines) == [b"first", b"second"]


async def test_a_command_that_would_wait_is_a_fault_and_not_half_a_command():
    ended = []

    async def waits() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="waits"):
        at_once(waits())
    assert ended == [True]
