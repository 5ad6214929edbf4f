"""Which of several worker processes under one `serve` a process is, and what of the numbers meant for all is its own."""

from dataclasses import dataclass, replace
from typing import Self
from zlib import crc32

from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.worker.desk import Desk


@dataclass(frozen=True, slots=True)
class Part:
    """Process `number` (from 1 on) of `of`."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> Self:
        """From `2/3`, as a supervisor writes it."""
        number, _, of = text.partition("/")
        return cls(int(number), int(of))

    def share(self, total: int, first: int = 0) -> int:
        """This process's part of a number, nothing lost and nothing twice over all of them; `first` says with whom dealing
        out what is left over begins, or the first process would get it of everything."""
        return total // self.of + ((self.number - 1 + first) % self.of < total % self.of)

    def some(self, total: int) -> int:
        """This process's part of what no process can be without: at least one."""
        return max(1, self.share(total))

    def restrained(self, name: str, desk: Desk) -> Desk:
        """The desk of the account `name` with its part of the account's concurrency and rates, so that all processes
        together keep to them. Where there is less to be dealt out than there are processes, some get nothing: their
        `concurrency` is 0, and others do all of that account's work."""
        first = crc32(name.encode()) % self.of  # the same in each of them and after each start
        counts = [self.share(rate.count, first) for rate in desk.rates]
        concurrency = self.share(desk.concurrency, first) if all(counts) else 0
        rates = tuple(Rate(max(1, count), rate.seconds) for count, rate in zip(counts, desk.rates, strict=True))
        return replace(desk, concurrency=concurrency, rates=rates)


WHOLE = Part()
"""The only process of its role."""
