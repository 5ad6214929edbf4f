"""The worker's own promises: drain, leases, solo work, a spool that fails, accounts that share a worker fairly."""

import asyncio
import contextlib
import math
import sqlite3
from dataclasses import replace

import pytest

from apptrack_ingest.errors import SpoolUnavailable, Unreadable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Accepted, Arrival, Envelope, HeldReason, Message, ReportState, State
from apptrack_ingest.spool.contract import Action
from apptrack_ingest.testing import RecordingHandler, an_email


class Waiting:
    """A handler whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0
        self.most = 0
        self.called = asyncio.Event()

    async def handle(self, application):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.called.set()
        try:
            await self.go.wait()
        finally:
            self.inside -= 1
        return Accepted(f"R-{application.applicant_id}")


async def use(world, **handlers):
    world.handlers.update(handlers)
    await world.worker.configure(world.desks(), world.tools.report_schedule)


async def put(world, raw, *arrivals):
    message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.now(), raw)
    return await world.spool.put(message, arrivals)


async def test_a_drain_gives_back_what_does_not_finish_and_counts_no_attempt(world):
    waiting = Waiting()
    await use(world, acme=waiting)
    await world.receive("acme")
    await world.worker.step()
    await waiting.called.wait()
    object.__setattr__(world.tools.options, "drain_timeout", 0.05)
    await world.worker.drain()
    [row] = await world.rows()
    assert (row.state, row.attempts, row.in_work, row.code) == (State.RECEIVED, 0, False, "interrupted")
    story = await world.spool.story(row.application_id)
    assert [attempt.code for attempt in story.attempts] == ["interrupted"]
    waiting.go.set()
    await world.work()
    assert [row.state for row in await world.rows()] == [State.DELIVERED]


async def test_run_wakes_by_a_hint_works_and_drains(world, monkeypatch):
    monkeypatch.setattr("apptrack_ingest.worker.LOOK_AGAIN", 3600.0)  # nothing but the hint can wake it
    stop = asyncio.Event()
    handler = RecordingHandler()
    await use(world, acme=handler)
    running_worker = asyncio.create_task(world.worker.run(stop))
    await world.receive("acme")

    async def confirmed():
        while [row.report for row in await world.rows()] != [ReportState.CONFIRMED]:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(confirmed(), 30)
    stop.set()
    await asyncio.wait_for(running_worker, 30)
    assert len(handler.applications) == 1


async def test_while_something_is_under_way_not_every_event_leads_to_a_look_at_the_spool(world, monkeypatch):
    monkeypatch.setattr("apptrack_ingest.worker.REST", math.inf)
    monkeypatch.setattr("apptrack_ingest.worker.LONGEST_REST", 3600.0)
    looks, next_due = [], world.spool.next_due

    async def counted(**asked):
        looks.append(asked)
        return await next_due(**asked)

    waiting, stop = Waiting(), asyncio.Event()
    await use(world, acme=waiting)
    monkeypatch.setattr(world.spool, "next_due", counted)
    await world.receive("acme")
    running_worker = asyncio.create_task(world.worker.run(stop))
    await waiting.called.wait()
    for _ in range(3):
        await world.receive("acme")
        await asyncio.sleep(0.01)
    assert len(looks) == 1
    waiting.go.set()  # now nothing is under way, and it looks at once
    async with asyncio.timeout(30):
        while [row.report for row in await world.rows()] != [ReportState.CONFIRMED] * 4:
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(running_worker, 30)


async def test_what_was_claimed_is_worked_on_though_reports_cannot_be_claimed(world, monkeypatch):
    handler = RecordingHandler()
    await use(world, acme=handler)
    await world.receive("acme")
    await world.worker.step()
    await world.worker.idle()
    await world.receive("acme")

    async def unavailable(**_):
        raise SpoolUnavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(world.spool, "claim_reports", unavailable)
        await world.worker.step()
        await world.worker.idle()
    assert len(handler.applications) == 2
    await world.work()
    assert [row.report for row in await world.rows()] == [ReportState.CONFIRMED] * 2


async def test_a_lost_lease_stops_the_job_and_changes_nothing(world):
    waiting = Waiting()
    await use(world, acme=waiting)
    await world.receive("acme")
    await world.worker.step()
    await waiting.called.wait()
    # Another process reaps it (as after a long pause of this one) and delivers it itself.
    await world.spool.abandon("test/worker-1", now=world.clock.now() + 61)
    world.clock.time += 120
    await world.spool.reap(now=world.clock.now(), reports_for=["acme"])
    [claim] = await world.spool.claim(worker="other", now=world.clock.now(), lease=60, limit=1, solo=True)
    await world.worker.renew()
    await world.worker.idle()
    [row] = await world.rows()
    assert row.in_work and row.state is State.RECEIVED
    assert claim.token == 3 and claim.crashes == 1


async def test_leases_are_renewed_while_a_handler_works(world):
    waiting = Waiting()
    await use(world, acme=waiting)
    await world.receive("acme")
    await world.worker.step()
    await waiting.called.wait()
    for _ in range(10):
        world.clock.time += 20
        await world.worker.renew()
        assert await world.spool.reap(now=world.clock.now(), reports_for=[]) == []
    waiting.go.set()
    await world.work()
    assert [row.state for row in await world.rows()] == [State.DELIVERED]


async def test_the_outcome_is_settled_once_the_spool_can_be_written_again(world, monkeypatch):
    handler = RecordingHandler()
    await use(world, acme=handler)
    failures = 3
    settle = world.spool.settle

    async def failing(*args, **kwargs):
        nonlocal failures
        if failures:
            failures -= 1
            raise SpoolUnavailable("disk full")
        await settle(*args, **kwargs)

    monkeypatch.setattr(world.spool, "settle", failing)
    await world.receive("acme")
    await world.work()
    assert [row.state for row in await world.rows()] == [State.DELIVERED]
    assert len(handler.applications) == 1


async def test_one_account_takes_no_more_than_its_places(world):
    waiting, quick = Waiting(), RecordingHandler()
    await use(world, acme=waiting, beta=quick)
    waiting.go.set()
    for _ in range(4):  # the ramp after a start
        await world.receive("acme")
    await world.work()
    waiting.go.clear()
    for _ in range(12):
        await world.receive("acme")
    for _ in range(3):
        await world.receive("beta")
    await world.worker.step()
    while len(quick.applications) < 3:
        await asyncio.sleep(0.01)
        await world.worker.step()
    assert waiting.most == 4
    waiting.go.set()
    await world.work()


async def test_solo_work_has_nothing_beside_it(world):
    waiting = Waiting()
    await use(world, acme=waiting)
    for _ in range(2):
        await world.receive("acme")
    # Both were under way when their worker died.
    await world.spool.claim(worker="dead", now=world.clock.now(), lease=60, limit=2)
    await world.spool.abandon("dead", now=world.clock.now())
    await world.receive("beta")
    waiting.go.set()
    order = []

    class Noting(Waiting):
        async def handle(self, application):
            order.append((application.applicant_id, len(world.worker._hand_offs())))
            return Accepted()

    await use(world, acme=Noting(), beta=Noting())
    await world.work()
    assert sorted(number for number, _ in order) == [1, 2, 3]
    assert {beside for number, beside in order if number in (1, 2)} == {1}
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_what_is_held_and_why(world):
    await put(world, an_email(1), Arrival("acme", None, False))
    await put(world, an_email(None), Arrival("acme", None, True))
    await put(world, an_email("1x"), Arrival("acme", None, True))
    await put(world, an_email(4), Arrival(None, 4, True))
    await put(world, an_email(5), Arrival("gone", 5, True))
    await world.work()
    assert [row.reason for row in reversed(await world.rows())] == [
        HeldReason.UNTRUSTED,
        HeldReason.NO_APPLICANT_ID,
        HeldReason.INVALID_APPLICANT_ID,
        HeldReason.UNROUTED,
        HeldReason.UNROUTED,
    ]
    assert world.sandbox.applicants() == []
    assert all(row.facts.candidate_name == "Jane Doe" for row in await world.rows())


async def test_an_untrusted_id_is_not_believed_until_a_person_vouches(world):
    handler = RecordingHandler()
    await use(world, acme=handler)
    await put(world, an_email(7), Arrival("acme", None, False))
    await world.work()
    [row] = await world.rows()
    assert row.applicant_id is None and handler.applications == []
    route = Action(Event.ROUTE, "tester", account="acme", applicant_id=7)
    await world.spool.act(row.application_id, route, now=world.clock.now())
    await world.work()
    assert [a.applicant_id for a in handler.applications] == [7]
    assert [a.id for a in world.sandbox.applicants()] == [7]


async def test_untrusted_mail_for_nobody_without_an_id_is_held_for_the_lack_of_it(world):
    await put(world, an_email(None), Arrival(None, None, False))
    await put(world, an_email(9), Arrival(None, None, False))
    await world.work()
    assert [row.reason for row in reversed(await world.rows())] == [HeldReason.NO_APPLICANT_ID, HeldReason.UNTRUSTED]


async def test_documents_of_blocked_extensions_are_left_out_with_a_warning(world):
    handler = RecordingHandler()
    await use(world, acme=handler)
    desks = {name: replace(desk, block_extensions=("pdf",)) for name, desk in world.desks().items()}
    await world.worker.configure(desks, world.tools.report_schedule)
    await world.receive("acme")
    await world.work()
    (application,) = handler.applications
    assert not [one.name for one in application.documents if one.name.endswith(".pdf")]
    assert any("extension is blocked" in warning for warning in application.warnings)


async def test_an_unreadable_mail_is_held_and_reported(world):
    class Killed:
        async def parse(self, raw):
            raise Unreadable("deadline")

    world.tools.parser = Killed()
    await world.receive("acme")
    await world.work()
    [row] = await world.rows()
    assert (row.state, row.reason) == (State.HELD, HeldReason.UNREADABLE)
    [told] = world.sandbox.applicants()
    assert told.status == "fail" and "could not be read" in told.error_message


async def test_a_fault_of_our_own_postpones_and_ends_in_failed(world, monkeypatch):
    async def broken(*_):
        raise RuntimeError("a candidate's secret")

    monkeypatch.setattr(world.spool, "to_work_on", broken)
    await world.receive("acme")
    await world.work()
    [row] = await world.rows()
    assert (row.state, row.code) == (State.RECEIVED, "internal-error")
    assert "secret" not in (row.detail or "")
    await world.pass_time(8 * 86400, step=3600)
    [row] = await world.rows()
    assert row.state is State.FAILED


@pytest.mark.parametrize("fault", [None, SpoolUnavailable("disk full"), RuntimeError("unforeseen")])
async def test_what_is_under_way_is_not_taken_for_dead_when_its_lease_ran_out(world, monkeypatch, fault):
    """The clock leapt, the machine slept, or the leases could not be renewed for a while."""
    waiting = Waiting()
    await use(world, acme=waiting)
    await world.receive("acme")
    await world.worker.step()
    await waiting.called.wait()
    world.clock.time += 3600
    renew = world.spool.renew

    async def failing(*args, **kwargs):
        raise fault

    if fault:
        monkeypatch.setattr(world.spool, "renew", failing)
        await world.worker.step()
        monkeypatch.setattr(world.spool, "renew", renew)
    await world.worker.step()
    waiting.go.set()
    await world.work()
    [row] = await world.rows()
    story = await world.spool.story(row.application_id)
    assert [a.code for a in story.attempts if a.kind == "hand-off"] == ["delivered"]


async def test_an_outcome_known_at_the_end_of_a_drain_is_committed_and_not_lost(world):
    handler = RecordingHandler()
    await use(world, acme=handler)
    await world.receive("acme")
    object.__setattr__(world.tools.options, "drain_timeout", 0.05)
    settling = asyncio.Event()
    settle = world.spool.settle

    async def noted(*args, **kwargs):
        settling.set()
        await settle(*args, **kwargs)

    world.spool.settle = noted
    await world.worker.step()
    with contextlib.closing(sqlite3.connect(world.spool.database, isolation_level=None)) as another:
        # What the writer is at waits for another process's lock, and the outcome waits behind it.
        another.execute("BEGIN IMMEDIATE")
        mark = asyncio.create_task(world.spool.set_mark("anything", 1.0))
        await settling.wait()
        draining = asyncio.create_task(world.worker.drain())
        [job] = world.worker._running
        async with asyncio.timeout(30):
            while not job.cancelling():
                await asyncio.sleep(0.01)
        another.execute("ROLLBACK")
    await asyncio.gather(mark, draining)
    [row] = await world.rows()
    assert (row.state, row.in_work) == (State.DELIVERED, False)
    assert len(handler.applications) == 1


async def test_a_drain_waits_until_an_interrupted_handler_has_tidied_up(world):
    class Tidy:
        called, stopped, tidied = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def handle(self, application):
            self.called.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
                await self.tidied.wait()

    tidy = Tidy()
    await use(world, acme=tidy)
    await world.receive("acme")
    object.__setattr__(world.tools.options, "drain_timeout", 0.05)
    await world.worker.step()
    await tidy.called.wait()
    draining = asyncio.create_task(world.worker.drain())
    await tidy.stopped.wait()
    done, _ = await asyncio.wait({draining}, timeout=0.3)
    tidy.tidied.set()
    await draining
    [row] = await world.rows()
    assert not done
    assert (row.attempts, row.in_work, row.code) == (0, False, "interrupted")
