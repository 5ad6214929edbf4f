"""Housekeeping goes on whatever happens in one of its rounds."""

import asyncio

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.settings import Settings
from apptrack_ingest.worker.housekeeping import Housekeeping


class Rounds:
    """A clock that ends the third round."""

    rounds = 0

    def now(self) -> float:
        return 1_800_000_000.0

    async def sleep(self, seconds: float) -> None:
        self.rounds += 1
        if self.rounds == 3:
            raise asyncio.CancelledError


class FailingSpool:
    """A spool whose first erasure fails."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault
        self.calls = 0

    async def erase_finished(self, *, before: float, limit: int) -> int:
        self.calls += 1
        if self.calls == 1:
            raise self.fault
        return 0


@pytest.mark.parametrize("fault", [SpoolUnavailable("disk full"), ValueError("unforeseen")])
async def test_a_fault_in_one_round_does_not_end_the_rounds(fault):
    spool = FailingSpool(fault)
    with pytest.raises(asyncio.CancelledError):
        await Housekeeping(spool, Rounds(), Settings()).run()
    assert spool.calls == 3
