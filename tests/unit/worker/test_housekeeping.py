"""Housekeeping goes on whatever happens in one of its rounds."""

import asyncio

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Action
from apptrack_ingest.worker import housekeeping
from apptrack_ingest.worker.housekeeping import (
    GIVE_BACK,
    GIVE_BACK_AT_ONCE,
    GIVE_BACK_PAUSE,
    KEEP_FREE,
    Housekeeping,
)


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


class Clock:
    """Time that stands still; remembers how long it was asked to wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def now(self) -> float:
        return 1_800_000_000.0

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


class Full:
    """A spool with tombstones and free space, which it gives up as it is told."""

    def __init__(self, tombstones: int, free: int) -> None:
        self.tombstones, self.free = tombstones, free
        self.before = 0.0

    async def erase_tombstones(self, *, before: float, limit: int) -> int:
        self.before = before
        removed = min(limit, self.tombstones)
        self.tombstones -= removed
        return removed

    async def give_back(self, *, keep: int, limit: int) -> int:
        given = min(limit, max(0, self.free - keep))
        self.free -= given
        return given


async def test_tombstones_go_after_their_own_time_until_none_is_left():
    spool = Full(tombstones=250, free=0)
    await Housekeeping(spool, Clock(), Settings()).erase_tombstones()
    assert (spool.tombstones, spool.before) == (0, 1_800_000_000.0 - 400 * 86400)


async def test_free_space_is_given_back_in_steps_with_time_between_them_for_the_mail():
    spool, clock = Full(tombstones=0, free=KEEP_FREE + 5 * GIVE_BACK_AT_ONCE), Clock()
    await Housekeeping(spool, clock, Settings()).give_back()
    assert spool.free == KEEP_FREE
    assert clock.waits == [GIVE_BACK_PAUSE] * 5


async def test_one_round_gives_back_only_so_much():
    spool = Full(tombstones=0, free=KEEP_FREE + 2 * GIVE_BACK)
    await Housekeeping(spool, Clock(), Settings()).give_back()
    assert spool.free == KEEP_FREE + GIVE_BACK


async def test_of_several_workers_one_sends_the_digest(world, monkeypatch):
    await world.receive("acme")
    await world.spool.act(1, Action(Event.HOLD, "jo"), now=world.clock.now())  # a person has to look
    sent, going = [], asyncio.Event()

    async def deliver(note, where):
        sent.append(note)
        await going.wait()
        return failures.pop() if failures else ()

    monkeypatch.setattr(housekeeping.digest, "deliver", deliver)
    failures = [("webhook:http-500",)]
    wanted = Settings(digest={"webhook_url": "https://chat.example/x", "every": "1h"})
    workers = [Housekeeping(world.spool, world.clock, wanted) for _ in range(3)]

    async def all_tell() -> int:
        before = len(sent)
        telling = [asyncio.create_task(one.tell()) for one in workers]
        going.set()
        await asyncio.gather(*telling)
        return len(sent) - before

    assert await all_tell() == 1
    assert await all_tell() == 0, "it was not delivered; not at once again"
    world.clock.time += 601
    assert await all_tell() == 1
    world.clock.time += 3599
    assert await all_tell() == 0
    world.clock.time += 2
    assert await all_tell() == 1


@pytest.mark.parametrize("cut_off_in", ["deliver", "take_mark"])
async def test_a_digest_that_a_stop_came_before_is_the_next_workers(world, monkeypatch, cut_off_in):
    await world.receive("acme")
    await world.spool.act(1, Action(Event.HOLD, "jo"), now=world.clock.now())
    sent, reached = [], asyncio.Event()

    async def delivered(note, where):
        sent.append(note)
        return ()

    async def for_ever(*_, **__):
        reached.set()
        await asyncio.Event().wait()

    async def taken_all_the_same(*arguments, **named):
        monkeypatch.setattr(world.spool, "take_mark", take_mark)
        await take_mark(*arguments, **named)
        await for_ever()

    take_mark = world.spool.take_mark
    monkeypatch.setattr(housekeeping.digest, "deliver", for_ever)
    if cut_off_in == "take_mark":
        monkeypatch.setattr(world.spool, "take_mark", taken_all_the_same)
    wanted = Settings(digest={"webhook_url": "https://chat.example/x", "every": "1h"})
    stopped = asyncio.create_task(Housekeeping(world.spool, world.clock, wanted).tell())
    await reached.wait()
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    monkeypatch.setattr(housekeeping.digest, "deliver", delivered)
    world.clock.time += 1
    for _ in range(2):
        await Housekeeping(world.spool, world.clock, wanted).tell()
    assert len(sent) == 1
