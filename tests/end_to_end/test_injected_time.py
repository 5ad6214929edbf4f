"""Outages that last hours and days, with time that the test moves: real spool, real handler, real HTTP to the sandbox."""

import pytest
from worlds import START, World

from apptrack_ingest.errors import RetryLater
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Accepted, Arrival, Envelope, Message, Rejected, ReportState, State
from apptrack_ingest.spool.contract import Action
from apptrack_ingest.testing import RecordingHandler, an_email

HOUR = 3600.0


@pytest.fixture
async def world(tmp_path):
    async with running(Sandbox({"hash-a": "acme", "hash-b": "beta"}, None)) as sandbox:
        world = World(tmp_path, sandbox)
        yield world
        await world.close()


async def test_idibu_down_for_an_hour_runs_no_handler_again_and_all_reports_arrive(world):
    nobody = "http://127.0.0.1:9/"
    world.point_at(nobody)
    numbers = [await world.receive("acme") for _ in range(20)]
    await world.pass_time(HOUR)
    assert len(world.handlers["acme"].applications) == 20
    assert {row.report for row in await world.rows()} == {ReportState.DUE}
    assert all(row.state is State.DELIVERED for row in await world.rows())
    world.point_at(world.sandbox.base_url)
    await world.pass_time(2 * HOUR)
    assert {a.id for a in world.sandbox.applicants()} == set(numbers)
    assert {row.report for row in await world.rows()} == {ReportState.CONFIRMED}
    assert len(world.handlers["acme"].applications) == 20
    # What idibu is told is when the outcome was reached, not when idibu could be.
    assert all(a.date_processed.startswith("2027-01-15 08:0") for a in world.sandbox.applicants())


async def test_one_ats_down_makes_no_other_accounts_reports_late(world):
    class Down:
        async def handle(self, application):
            raise RetryLater("the ATS is down")

    world.handlers["acme"] = Down()
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    for _ in range(30):
        await world.receive("acme")
        await world.receive("beta")
    await world.work()
    assert len(world.sandbox.applicants("beta")) == 30
    assert world.clock.time == START
    assert {row.state for row in await world.rows(account="acme")} == {State.RECEIVED}
    await world.pass_time(3 * HOUR, step=300)
    world.handlers["acme"] = RecordingHandler()
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.pass_time(5 * HOUR, step=300)
    assert {row.state for row in await world.rows(account="acme")} == {State.DELIVERED}


async def test_an_ats_down_for_eight_days_ends_in_failed_and_is_reported_and_a_retry_puts_it_right(world):
    class Down:
        calls = 0

        async def handle(self, application):
            Down.calls += 1
            raise RetryLater("the ATS is down")

    world.handlers["acme"] = Down()
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    number = await world.receive("acme")
    await world.pass_time(8 * 24 * HOUR, step=1800)
    [row] = await world.rows()
    assert row.state is State.FAILED and row.report is ReportState.CONFIRMED
    assert 40 <= Down.calls <= 60
    [told] = world.sandbox.applicants()
    assert told.status == "fail" and told.error_message.startswith("not delivered, gave up retrying: ")
    world.handlers["acme"] = RecordingHandler(Accepted("R-1"))
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.spool.act(row.application_id, Action(Event.RETRY, "tester"), now=world.clock.now())
    await world.work()
    [told] = world.sandbox.applicants()
    assert (told.id, told.status, told.remote_id, told.error_message or "") == (number, "success", "R-1", "")


async def test_refused_for_a_day_is_refused_and_unreachable_for_a_week_is_failed(world):
    world.sandbox.misbehave(Step(fault=Fault.FAILED, times=None))
    await world.receive("acme")
    await world.work()
    await world.pass_time(23 * HOUR, step=600)
    assert [row.report for row in await world.rows()] == [ReportState.DUE]
    await world.pass_time(2 * HOUR, step=600)
    assert [row.report for row in await world.rows()] == [ReportState.REFUSED]
    world.point_at("http://127.0.0.1:9/")
    await world.receive("beta")
    await world.pass_time(8 * 24 * HOUR, step=1800)
    assert [row.report for row in await world.rows(account="beta")] == [ReportState.FAILED]


async def test_a_wrong_hash_pauses_the_account_and_a_changed_one_ends_the_pause(world):
    world.hashes["acme"] = "wrong"
    world.point_at(world.sandbox.base_url)
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    for _ in range(3):
        await world.receive("acme")
        await world.receive("beta")
    await world.work()
    assert [pause.account for pause in await world.spool.pauses()] == ["acme"]
    assert len(world.sandbox.applicants("beta")) == 3
    await world.pass_time(9 * 24 * HOUR, step=3 * HOUR)
    assert {row.report for row in await world.rows(account="acme")} == {ReportState.DUE}
    world.hashes["acme"] = "hash-a"
    world.point_at(world.sandbox.base_url)
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.work()
    assert await world.spool.pauses() == []
    assert {row.report for row in await world.rows(account="acme")} == {ReportState.CONFIRMED}


async def test_one_forbidden_applicant_does_not_pause_the_account(world):
    await world.receive("acme")
    await world.work()
    odd = 1000
    world.sandbox.misbehave(Step(fault=Fault.HTML, status=403, times=None, applicant=odd))
    message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.time, an_email(odd))
    await world.spool.put(message, [Arrival("acme", odd, True)])
    for _ in range(4):
        await world.receive("acme")
    await world.work()
    assert await world.spool.pauses() == []
    assert len(world.sandbox.applicants("acme")) == 5
    for _ in range(25 * 12):
        await world.receive("acme")
        await world.pass_time(300, step=300)
    states = {row.applicant_id: row.report for row in await world.rows()}
    assert states.pop(odd) is ReportState.REFUSED
    assert set(states.values()) == {ReportState.CONFIRMED}


async def test_only_the_newest_outcome_is_reported(world):
    world.handlers["acme"] = RecordingHandler(Rejected("no such vacancy"), Accepted("R-2"))
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    world.point_at("http://127.0.0.1:9/")
    number = await world.receive("acme")
    await world.work()
    update = an_email(number, text="an update")
    message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.time, update)
    await world.spool.put(message, [Arrival("acme", number, True)])
    await world.work()
    assert [row.report for row in await world.rows()] == [ReportState.DUE, ReportState.SUPERSEDED]
    world.point_at(world.sandbox.base_url)
    await world.pass_time(HOUR)
    [told] = world.sandbox.applicants()
    assert (told.status, told.remote_id, told.posts) == ("success", "R-2", 1)
    assert world.handlers["acme"].applications[1].previous is None


async def test_an_update_of_a_delivered_applicant_carries_the_earlier_remote_id(world):
    world.handlers["acme"] = RecordingHandler(Accepted("R-1"), Accepted("R-1"))
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    number = await world.receive("acme")
    await world.work()
    message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.time, an_email(number, text="new"))
    await world.spool.put(message, [Arrival("acme", number, True)])
    await world.work()
    first, second = world.handlers["acme"].applications
    assert second.previous is not None and second.previous.remote_id == "R-1"
    assert first.idempotency_key != second.idempotency_key
