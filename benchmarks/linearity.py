"""Prints how the cost of what the intake does before the 250 grows with a mail's size: linear, whatever a peer sends.

Run `python benchmarks/linearity.py`. Each figure is a ratio of CPU times within one run, the least of five: a cost that grew
with the square of the length would show the second number.
"""

import time
from collections.abc import Callable

from apptrack_ingest.parse.headers import peek
from apptrack_ingest.receive.data import DataReader

HEADER_UNITS = (b"A:\r\n", b"\r\n ", b"A", b" ", b"X-iTrackID: 1\r\n", b"A: \t")


def cpu(work: Callable[[], object], times: int = 5) -> float:
    def once() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(once() for _ in range(times))


def headers(unit: bytes) -> float:
    small, large = unit * (30_000 // len(unit)), unit * (480_000 // len(unit))
    return cpu(lambda: peek(large)) / cpu(lambda: peek(small))


def data() -> float:
    line = b"0123456789abcdef\r\n"
    fresh, full = DataReader(2**30), DataReader(2**30)
    full.feed(line * 1_100_000)

    def byte_by_byte(reader: DataReader) -> None:
        for place in range(len(line) * 500):
            reader.feed(line[place % len(line) : place % len(line) + 1])

    return cpu(lambda: byte_by_byte(full)) / cpu(lambda: byte_by_byte(fresh))


if __name__ == "__main__":
    print("looking at a header block of 480 KB against 30 KB (linear 16, square 256):")
    for unit in HEADER_UNITS:
        print(f"  {unit!r:24} {headers(unit):6.1f}")
    print(f"reading DATA byte by byte after 20 MB against the first bytes (linear 1, square 1000): {data():.1f}")
