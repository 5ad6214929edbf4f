"""A spool that cannot be used for a while: what it costs is time, for every worker on it, and a few lines of the log."""

import asyncio
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
from worlds import HOUR

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.model import Accepted, Stage, State
from apptrack_ingest.spool.contract import Pause
from apptrack_ingest.worker import Options, Worker
from apptrack_ingest.worker.housekeeping import Housekeeping

CALLS = ("pauses", "next_due", "claim", "claim_reports", "renew", "settle", "settle_report", "reap")


class Door:
    """Closes a world's spool for all its workers."""

    def __init__(self, world, monkeypatch) -> None:
        self.closed = False
        for name in CALLS:
            monkeypatch.setattr(world.spool, name, self._guarded(getattr(world.spool, name)))

    def _guarded(self, call):
        async def guarded(*args, **kwargs):
            if self.closed:
                raise SpoolUnavailable("the password is s3cr3t", code="InvalidPasswordError")
            return await call(*args, **kwargs)

        return guarded


@pytest.fixture
def door(world, monkeypatch):
    return Door(world, monkeypatch)


@pytest.fixture
def said(caplog):
    """The worker's lines, as they were meant."""
    caplog.set_level(logging.INFO, "apptrack_ingest")
    return lambda: [record.msg for record in caplog.records if isinstance(record.msg, dict)]


class Slow:
    """A handler whose first call answers when it is let go; a second one would be the same candidate handed over twice."""

    def __init__(self) -> None:
        self.go, self.called, self.calls = asyncio.Event(), asyncio.Event(), 0

    async def handle(self, application):
        self.calls += 1
        self.called.set()
        await self.go.wait()
        return Accepted(f"R-{application.applicant_id}")


async def test_what_other_workers_are_at_is_not_taken_for_dead_right_after_an_outage(world, door):
    """It outlasted every lease. Whoever finds the spool again first must leave the others the time to renew theirs."""
    slow = Slow()
    world.handlers["acme"] = slow
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    other = Worker(replace(world.tools, options=Options("test/worker-2")))
    await world.receive("acme")
    await world.worker.step()
    await slow.called.wait()
    door.closed = True
    for _ in range(10):
        world.clock.time += 60.0
        await other.step()
        await world.worker.step()
    door.closed = False
    await other.step()
    await other.step()
    await world.worker.step()
    slow.go.set()
    await world.work()
    await other.step()
    await other.idle()
    [row] = await world.rows()
    assert (row.state, row.attempts, slow.calls) == (State.DELIVERED, 1, 1)


async def test_what_nobody_renews_after_an_outage_is_worked_again(world, door):
    slow = Slow()
    world.handlers["acme"] = slow
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.receive("acme")
    await world.worker.step()
    await slow.called.wait()
    [dead] = world.worker._running  # of a worker that was killed meanwhile
    slow.go.set()
    other = Worker(replace(world.tools, options=Options("test/worker-2")))
    door.closed = True
    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)
    world.clock.time += HOUR
    await other.step()
    door.closed = False
    for _ in range(5):
        await other.step()
        await other.idle()
        world.clock.time += 20.0
    await other.idle()
    [row] = await world.rows()
    assert (row.state, row.attempts) == (State.DELIVERED, 2)


async def test_a_reload_during_an_outage_is_taken_up_and_what_it_asks_of_the_spool_done_after(world, door):
    await world.spool.pause(Pause("acme", Stage.REPORT, "unauthorized", world.clock.now(), None, "old-hash"))
    world.hashes["acme"] = "new-hash"
    door.closed = True
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.worker.step()
    door.closed = False
    assert len(await world.spool.pauses()) == 1
    await world.worker.step()
    assert await world.spool.pauses() == []


async def test_an_outage_is_told_when_it_begins_and_when_it_ends_and_seldom_between(world, door, said):
    door.closed = True
    for _ in range(1000):
        await world.worker.step()
        world.clock.time += 1.0
    door.closed = False
    await world.worker.step()
    await world.worker.step()
    lines = [(line["event"], line.get("seconds")) for line in said()]
    assert lines == [
        ("the spool cannot be used; it is tried again every second", None),
        ("the spool cannot be used yet", 300),
        ("the spool cannot be used yet", 600),
        ("the spool cannot be used yet", 900),
        ("the spool can be used again", 1000),
    ]
    assert said()[0]["reason"] == "InvalidPasswordError"
    assert "s3cr3t" not in str(said()) and "frames" not in said()[0]


async def test_an_outcome_that_cannot_be_committed_is_told_once(world, door, said):
    slow = Slow()
    world.handlers["acme"] = slow
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.receive("acme")
    await world.worker.step()
    await slow.called.wait()
    before, door.closed = world.clock.time, True
    slow.go.set()
    while world.clock.time < before + 100:  # it tries again every second
        await asyncio.sleep(0)
    door.closed = False
    await world.work()
    assert [row.state for row in await world.rows()] == [State.DELIVERED]
    assert [line["event"] for line in said()].count("cannot settle yet") == 1


async def test_housekeeping_tells_once_what_it_left_out(world, monkeypatch, said):
    closed, real = True, world.spool.end_pauses

    async def end_pauses(**given):
        if closed:
            raise SpoolUnavailable("no connection", code="ECONNREFUSED")
        return await real(**given)

    monkeypatch.setattr(world.spool, "end_pauses", end_pauses)
    housekeeping = Housekeeping(world.spool, world.clock, SimpleNamespace())
    for _ in range(5):
        await housekeeping._guarded(housekeeping.end_pauses)
    closed = False
    await housekeeping._guarded(housekeeping.end_pauses)
    closed = True
    await housekeeping._guarded(housekeeping.end_pauses)
    found = [(line["event"], line["task"], line["reason"]) for line in said()]
    assert found == [("left out until the spool can be used", "end_pauses", "ECONNREFUSED")] * 2
