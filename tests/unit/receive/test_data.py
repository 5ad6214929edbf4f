"""The bulk DATA reader against a naive one, over every way to cut the bytes."""

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apptrack_ingest.receive.data import DataReader, joined

# Bytes made of what matters, so that ends, dots and bare CR or LF are found often.
wires = st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"\x00\xff", b"\r\n.\r\n"]), max_size=40).map(
    b"".join
)


def naive(wire: bytes) -> tuple[bytes, bytes] | None:
    """What a reader of CRLF lines makes of the bytes: content and rest; None when the mail has not ended."""
    content = b""
    *lines, last = wire.split(b"\r\n")
    for number, line in enumerate(lines):
        if line == b".":
            return content, b"\r\n".join([*lines[number + 1 :], last])
        content += line.removeprefix(b".") + b"\r\n"
    return None


def read(chunks: list[bytes], limit: int = 10_000) -> tuple[DataReader, bytes | None]:
    """Feed the chunks until the mail ends; what follows its end includes the chunks not fed."""
    reader = DataReader(limit)
    for number, chunk in enumerate(chunks):
        rest = reader.feed(chunk)
        if rest is not None:
            return reader, rest + b"".join(chunks[number + 1 :])
    return reader, None


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(wire), *(place % (len(wire) + 1) for place in places)})
    return [wire[start:end] for start, end in itertools.pairwise(edges)]


@given(wires, st.lists(st.integers(0, 200), max_size=8))
@example(b"\r\n.\r\r\n.\r\n", [4])
@example(b".\r\nQUIT\r\n", [])
def test_any_chunking_reads_like_the_naive_reader(wire, places):
    reader, rest = read(cut(wire, places))
    expected = naive(wire)
    if expected is None:
        assert rest is None and not reader.finished
    else:
        assert (reader.content, rest) == expected
        assert reader.finished and reader.size == len(reader.content)


@given(wires.filter(lambda wire: naive(wire) is not None), st.lists(st.integers(0, 200), max_size=8))
def test_any_chunking_finds_the_same_bare_cr_and_lf(wire, places):
    reader, _ = read(cut(wire, places))
    odd = wire[: wire.index(b"\r\n.\r\n" if not wire.startswith(b".\r\n") else b".\r\n")].replace(b"\r\n", b"")
    kinds = ((b"\r", "bare CR in the data"), (b"\n", "bare LF in the data"))
    assert reader.warnings == tuple(text for kind, text in kinds if kind in odd)


@pytest.mark.parametrize("before", [0, 1, 4092, 4093, 4094, 4095, 4096, 4097, 4098, 8190, 8192, 20_000])
@pytest.mark.parametrize("dots", [b"", b".", b"." * 4096, b".a\r" * 3000, b"\n." * 3000])
def test_a_line_that_begins_with_a_dot_is_found_however_far_and_behind_whatever_dots(before, dots):
    content = b"x" + b"a" * before + dots + b"a" * before
    reader, rest = read([content + b"\r\n..\r\n.\r\nQUIT\r\n"], 10**6)
    assert (reader.content, rest) == (content + b"\r\n.\r\n", b"QUIT\r\n")


@pytest.mark.parametrize("edge", range(1, 12))
def test_the_end_is_found_split_at_every_offset(edge):
    wire = b"ab\r\n.\r\nQUIT\r\n"
    reader, rest = read([wire[:edge], wire[edge:]])
    assert (reader.content, rest) == (b"ab\r\n", b"QUIT\r\n")


@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\r\n.\r\r\n"])
def test_only_crlf_dot_crlf_ends_a_mail(end):
    reader, rest = read([b"one" + end + b"MAIL FROM:<x@y>\r\n", b".\r\n"])
    assert rest == b""
    assert b"MAIL FROM:<x@y>\r\n" in reader.content
    assert reader.warnings


@pytest.mark.parametrize(
    ("wire", "warnings"),
    [
        (b"a\r\n.\r\n", ()),
        (b"a\rb\r\n.\r\n", ("bare CR in the data",)),
        (b"a\nb\r\n.\r\n", ("bare LF in the data",)),
        (b"a\n\rb\r\n.\r\n", ("bare CR in the data", "bare LF in the data")),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_bare_cr_and_lf_are_noted_and_kept(wire, warnings, size):
    reader, _ = read([wire[start : start + size] for start in range(0, len(wire), size)])
    assert reader.warnings == warnings
    assert reader.content == wire[:-3]


@given(wires.filter(lambda wire: naive(wire) is not None), st.integers(0, 30), st.lists(st.integers(0, 200)))
def test_a_mail_over_the_limit_is_read_to_its_end_and_not_kept(wire, limit, places):
    content, rest = naive(wire)
    reader, left = read(cut(wire, places), limit)
    assert left == rest
    assert reader.too_big == (len(content) > limit)
    assert reader.content == (b"" if reader.too_big else content)


async def test_what_is_over_the_limit_takes_no_memory():
    reader = DataReader(1000)
    for _ in range(100):
        reader.feed(b"x" * 1000)
    assert reader.held == 0 and len(reader._small) + sum(map(len, reader._pieces)) == 0
    assert reader.size == 100_000
    assert await reader.whole() == b""


@given(wires.filter(lambda wire: naive(wire) is not None), st.lists(st.integers(0, 200)), st.integers(0, 8))
def test_a_discarded_mail_is_read_to_its_end_and_not_kept(wire, places, after):
    content, rest = naive(wire)
    reader, left = DataReader(10_000), None
    for number, chunk in enumerate(chunks := cut(wire, places)):
        if number == after:
            reader.discard()
            assert reader.held == 0
        left = reader.feed(chunk)
        if left is not None:
            left += b"".join(chunks[number + 1 :])
            break
    assert left == rest
    assert reader.size == len(content) and not reader.too_big
    assert reader.content == (b"" if reader.discarding else content)


@given(wires, st.lists(st.integers(0, 200), max_size=8), st.integers(0, 60))
def test_what_it_holds_is_known_after_every_chunk(wire, places, limit):
    reader = DataReader(limit)
    for chunk in cut(wire, places):
        if reader.feed(chunk) is not None:
            break
        assert reader.held == len(reader.content)
        assert reader.held == (0 if reader.too_big else reader.size)


@pytest.mark.parametrize("sizes", [[1], [70_000], [1, 70_000], [40_000, 3, 3, 16_384, 16_383, 1], [262_144, 1460]])
async def test_small_and_large_chunks_keep_their_order(sizes):
    text = b"".join(b"%07d\r\n" % number for number in range(20_000))
    reader, place, size = DataReader(10**6), 0, itertools.cycle(sizes)
    while place < len(text):
        reader.feed(text[place : (place := place + next(size))])
    assert reader.feed(b".\r\n") == b""
    assert await reader.whole() == text
    assert await reader.whole() is reader.content is reader.content


# --- its cost ---------------------------------------------------------------------------------------------------------

CHUNK = 256 * 1024
"""What asyncio's transports hand over at most."""


def slowest(make: Callable[[], DataReader], chunks) -> float:
    """CPU seconds of the slowest feed, in the best of three tries: what is too slow is so every time."""
    return min(slowest_once(make(), chunks) for _ in range(3))


def slowest_once(reader: DataReader, chunks) -> float:
    worst = 0.0
    for chunk in chunks:
        started = time.thread_time()
        assert reader.feed(chunk) is None
        worst = max(worst, time.thread_time() - started)
    return worst


@pytest.mark.parametrize(
    "unit", [b"x", b"\r\n.x", b"\r\n..", b"\r", b"\n", b"\r\n", b"\r\n.\r", b"\n.\n", b"x" * 76 + b"\r\n"]
)
def test_no_chunk_of_a_large_mail_holds_up_the_loop(unit):
    mail = unit * (10_000_000 // len(unit))
    chunks = [mail[start : start + CHUNK] for start in range(0, len(mail), CHUNK)]

    def discarded() -> DataReader:
        reader = DataReader(2**30)
        reader.discard()
        return reader

    assert max(slowest(lambda: DataReader(2**30), chunks), slowest(discarded, chunks)) < 0.050


def test_a_byte_costs_the_same_after_thirty_megabytes():
    def full() -> DataReader:
        reader = DataReader(2**30)
        reader.feed(b"0123456789abcdef\r\n" * 1_700_000)
        return reader

    assert slowest(full, [b"\r", b"\n", b".", b"\r", b"x"] * 20_000) < 0.050


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_pieces_are_joined_in_their_order(size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await joined(b"Received: us\r\n", content) == b"Received: us\r\n" + content
    assert await joined(content, b"", b"end", content) == content + b"end" + content
    assert await joined() == b""


async def test_others_have_their_turn_while_much_is_joined():
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await joined(b"Received: us\r\n", b"x" * (CHUNK - 100))
    assert others == 0
    await joined(b"Received: us\r\n", *[b"x" * 1000] * 1000, b"x" * (10 * CHUNK))
    assert others >= 12
    task.cancel()
