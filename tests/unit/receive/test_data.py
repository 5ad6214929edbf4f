"""The bulk DATA reader against a naive one, over every way to cut the bytes."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apptrack_ingest.receive.data import DataReader

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


def test_what_is_over_the_limit_takes_no_memory():
    reader = DataReader(1000)
    for _ in range(100):
        reader.feed(b"x" * 1000)
    assert len(reader._kept) + len(reader._tail) < 1010
    assert reader.size == 100_000
