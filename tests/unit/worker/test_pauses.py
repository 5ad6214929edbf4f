"""What a person paused rests until they say so, however long, and nothing is lost or gives up over it."""

from worlds import World

from apptrack_ingest.errors import RetryLater
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Application, ReportState, Stage, State, Verdict
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Action, Pause
from apptrack_ingest.testing import RecordingHandler
from apptrack_ingest.worker.housekeeping import Housekeeping

HOUR = 3600.0


class Down:
    """An ATS that is away."""

    async def handle(self, application: Application) -> Verdict:
        raise RetryLater("the ATS is down")


def by_jo(world: World, stage: Stage, until: float | None = None) -> Pause:
    return Pause("acme", stage, "maintenance", world.clock.now(), until, actor="jo")


async def test_what_was_paused_for_nine_days_has_its_whole_schedule_after(world: World) -> None:
    world.handlers["acme"] = Down()
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.receive("acme")
    await world.work()
    await world.spool.pause(by_jo(world, Stage.HAND_OFF, world.clock.now() + 9 * 24 * HOUR))
    await world.pass_time(9 * 24 * HOUR - 60, step=1800)
    (row,) = await world.rows()
    assert row.attempts == 1
    await world.pass_time(60, step=60)
    await Housekeeping(world.spool, world.clock, Settings()).end_pauses()
    await world.pass_time(6 * 24 * HOUR, step=1800)
    (row,) = await world.rows()
    assert (row.state, row.attempts > 10) == (State.RECEIVED, True)


async def test_the_other_account_does_not_wait_and_what_is_decided_is_still_reported(world: World) -> None:
    await world.receive("acme")
    await world.work()
    world.sandbox.misbehave(Step(fault=Fault.ERROR, times=1))
    (row,) = await world.rows()
    await world.spool.act(row.application_id, Action(Event.AGAIN, "jo"), now=world.clock.now())
    await world.work()
    await world.spool.pause(by_jo(world, Stage.HAND_OFF))
    await world.receive("acme")
    await world.receive("beta")
    await world.pass_time(HOUR, step=60)
    states = {row.account: row.state for row in await world.rows() if row.attempts != 2}
    assert states == {"acme": State.RECEIVED, "beta": State.DELIVERED}
    assert {row.report for row in await world.rows() if row.state is State.DELIVERED} == {ReportState.CONFIRMED}
    await world.spool.resume("acme", Stage.HAND_OFF, now=world.clock.now(), actor="jo")
    await world.work()
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_a_persons_pause_of_reporting_outlives_a_report_under_way_and_a_changed_hash(world: World) -> None:
    await world.receive("acme")
    world.handlers["acme"] = Pausing(world)
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.work()
    await world.receive("acme")
    await world.work()
    world.hashes["acme"] = "another"
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    await world.work()
    assert [pause.actor for pause in await world.spool.pauses()] == ["jo"]
    assert [row.report for row in await world.rows()] == [ReportState.DUE, ReportState.DUE]


class Pausing(RecordingHandler):
    """While it works, a person pauses the account's reporting."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def handle(self, application: Application) -> Verdict:
        await self._world.spool.pause(by_jo(self._world, Stage.REPORT))
        return await super().handle(application)


async def test_a_pause_over_the_hash_that_is_ended_by_hand_is_tried_at_once(world: World) -> None:
    world.sandbox.misbehave(Step(fault=Fault.HTML, status=403, times=None))
    world.point_at(world.sandbox.base_url)
    await world.receive("acme")
    await world.work()
    assert [(pause.actor, pause.stage) for pause in await world.spool.pauses()] == [("", Stage.REPORT)]
    told = len(world.sandbox.requests())
    await world.spool.resume("acme", Stage.REPORT, now=world.clock.now(), actor="jo")
    await world.work()
    assert len(world.sandbox.requests()) == told + 1
    assert [pause.actor for pause in await world.spool.pauses()] == [""]


async def test_a_report_confirmed_since_ends_a_pause_over_the_hash_that_another_worker_made(world: World) -> None:
    await world.receive("acme")
    await world.work()
    since = world.clock.now() + 1
    await world.spool.pause(Pause("acme", Stage.REPORT, "unauthorized", since, since + 900, "hash of acme"))
    world.clock.time += 2
    await world.work()
    assert len(await world.spool.pauses()) == 1, "what idibu confirmed before says nothing"
    world.clock.time += 900
    await world.receive("acme")
    await world.work()
    assert await world.spool.pauses() == []
