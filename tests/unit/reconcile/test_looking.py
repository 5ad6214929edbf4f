"""What is found, from a real ledger and a real sandbox over HTTP; and what a fix does about it, and what it never does."""

import pytest
from reconciled import HOUR, QUICK, SINCE, Reconciled

from apptrack_ingest import RetryLater
from apptrack_ingest.idibu.answers import Answer
from apptrack_ingest.idibu.calls import Request
from apptrack_ingest.idibu.sandbox_applicants import NewApplicant
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.model import Arrival, Envelope, Message, Rejected, ReportState, Stage
from apptrack_ingest.reconcile import Kind, Pace, fix, look, looking
from apptrack_ingest.spool.contract import Pause
from apptrack_ingest.testing import an_email

DAY = 24 * HOUR


async def test_they_agree(world: Reconciled) -> None:
    await world.told(1, 2, 3)
    looked = await world.look()
    assert (looked.counts, looked.shown, looked.fixable, looked.error) == ({}, [], [], None)
    assert (looked.statuses, looked.outcomes, looked.applicants, looked.unavailable) == (3, 3, 3, "")


async def test_somebody_wrote_over_it(world: Reconciled) -> None:
    await world.told(1, 2, 3)
    world.write(1, "success", "theirs")
    world.write(2, "fail", "eaten by a dog")
    found = await world.findings()
    assert {n: (one.kind, one.ours, one.theirs) for n, one in found.items()} == {
        1: (Kind.DIFFERENT, "success remote-1", "success theirs"),
        2: (Kind.DIFFERENT, "success remote-2", "fail eaten by a dog"),
    }
    outcome = await world.outcome(1)
    assert (found[1].application_id, found[1].report_id) == (outcome.application_id, outcome.report_id)
    assert await world.fix() == [False, False]
    assert await world.found() == [(Kind.DUE, 1), (Kind.DUE, 2)]
    await world.work()
    world.clock.time += HOUR
    assert await world.found() == []
    assert world.shown(2) == ("success", "remote-2", "")


async def test_idibu_lost_it(world: Reconciled) -> None:
    await world.told(1, 2)
    world.sandbox.store.lose("acme", 2)
    assert await world.found() == [(Kind.MISSING, 2)]
    await world.fix()
    await world.work()
    assert world.shown(2) == ("success", "remote-2", "")
    world.clock.time += HOUR
    assert await world.found() == []


async def test_what_is_not_told_yet_or_was_given_up(world: Reconciled) -> None:
    await world.told(1)
    world.sandbox.misbehave(
        Step(fault=Fault.FAILED, applicant=2, times=None), Step(fault=Fault.CLOSE, applicant=3, times=None)
    )
    await world.apply(2)
    await world.apply(3)
    await world.work()
    assert await world.found() == [(Kind.DUE, 2), (Kind.DUE, 3)]
    pause = Pause("acme", Stage.REPORT, "a rest", world.clock.now(), None, actor="jo")
    await world.spool.pause(pause)
    assert await world.found() == [(Kind.PAUSED, 2), (Kind.PAUSED, 3)]
    await world.spool.resume("acme", Stage.REPORT, now=world.clock.now(), actor="jo")
    for _ in range(40):
        world.clock.time += 6 * HOUR
        await world.work()
    # Received long before, and none the less not told.
    assert await world.found(since=world.clock.now() - DAY) == [(Kind.FAILED, 3), (Kind.REFUSED, 2)]
    world.sandbox.misbehave()
    assert await world.fix() == [False, False]
    await world.work()
    assert {(await world.outcome(n)).state for n in (1, 2, 3)} == {ReportState.CONFIRMED}
    assert world.shown(3) == ("success", "remote-3", "")


async def test_what_we_never_reported_is_never_touched(world: Reconciled) -> None:
    await world.told(1)
    world.write(77, "success", "theirs")
    world.handlers["acme"]._script.append(RetryLater("later"))
    await world.apply(78)  # it came in, and has no outcome yet
    await world.work()
    world.write(78, "fail", "theirs")
    assert await world.found() == [(Kind.NOT_OURS, 77), (Kind.NOT_OURS, 78)]
    assert await world.fix() == []
    world.clock.time += 99 * DAY
    assert await world.found(since=world.clock.now() - DAY) == []


async def test_mails_that_never_came(world: Reconciled) -> None:
    await world.told(1)
    now = world.clock.now()
    world.sandbox.arrive(
        NewApplicant(account="acme", id=1, date=now - HOUR),
        NewApplicant(account="acme", id=5, date=now - 2 * HOUR),
        NewApplicant(account="acme", id=6, date=now - 60),  # on its way, perhaps
        NewApplicant(account="acme", id=7, date=now - 2 * HOUR, email="deleted@idibu.com"),
        NewApplicant(account="acme", id=8, date=SINCE - DAY),
        NewApplicant(account="acme", id=9, date=now - 2 * HOUR),
        NewApplicant(account="beta", id=10, date=now - 2 * HOUR),
    )
    message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), now, an_email(9))
    await world.spool.put(message, [Arrival("acme", 9, True)])  # here, and not worked on yet
    assert await world.found() == [(Kind.NO_MAIL, 5)]
    assert await world.found("beta") == [(Kind.NO_MAIL, 10)]
    assert await world.fix() == []


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step(fault=Fault.FAILED, text="You may not use this service"), "refused"),
        (Step(fault=Fault.UNAUTHORIZED), "unauthorized"),
        (Step(fault=Fault.ERROR, status=404), "not-understood"),
    ],
    ids=str,
)
async def test_an_account_without_the_list_of_applicants_is_no_error(world: Reconciled, step: Step, code: str) -> None:
    await world.told(1)
    world.write(1, "fail", "theirs")
    world.sandbox.misbehave(step.model_copy(update={"call": "applicants"}))
    looked = await world.look()
    assert [one.kind for one in looked.shown] == [Kind.DIFFERENT]
    assert (looked.applicants, looked.unavailable, looked.error) == (None, code, None)


async def test_an_update_is_compared_and_not_what_it_replaced(world: Reconciled) -> None:
    await world.told(1)
    world.handlers["acme"]._script.append(Rejected("position filled"))
    await world.apply(1, text="an update")
    await world.work()
    world.clock.time += HOUR
    assert await world.found() == []
    world.write(1, "success", "remote-1")  # the first report, arriving late
    assert await world.found() == [(Kind.DIFFERENT, 1)]
    await world.fix()
    await world.work()
    assert world.shown(1) == ("fail", "", "position filled")


async def test_a_newer_outcome_between_looking_and_fixing_is_the_one_that_is_told(world: Reconciled) -> None:
    await world.told(1, 2)
    world.write(1, "fail", "theirs")
    world.write(2, "fail", "theirs")
    looked = await world.look()
    await world.apply(1, text="an update")
    await world.work()
    pace = Pace(QUICK, world.clock)
    fixed = [one async for one in fix(world.spool, looked.fixable, actor="jo", clock=world.clock, pace=pace)]
    assert [one.overtaken for one in fixed] == [True, False]
    assert (await world.outcome(1)).state is ReportState.CONFIRMED


class Meanwhile:
    """Lets something happen between idibu's answer to one call and whoever asked."""

    def __init__(self, world: Reconciled, path: str) -> None:
        self.world, self.path = world, path
        calls = world.accounts["acme"].client._calls
        self._call, calls.call = calls.call, self.call  # type: ignore[method-assign]
        self.times = 0

    async def call(self, request: Request) -> Answer:
        try:
            return await self._call(request)
        finally:
            if request.path.endswith(self.path) and not self.times:
                self.times += 1
                await self.world.apply(2, text="an update")
                await self.world.work()


@pytest.mark.parametrize("path", ["/applicant-status", "/applicant-status/2"])
async def test_what_is_told_while_it_is_compared_is_no_difference(world: Reconciled, path: str) -> None:
    """idibu's answer is of before the update, the ledger of after it."""
    await world.told(1, 2)
    if path.endswith("/2"):
        world.sandbox.store.lose("acme", 2)
    meanwhile = Meanwhile(world, path)
    world.handlers["acme"]._script.append(Rejected("position filled"))
    assert await world.found() == []
    assert meanwhile.times == 1
    assert world.shown(2) == ("fail", "", "position filled")


async def test_the_history_says_who_told_it_again_and_why(world: Reconciled) -> None:
    await world.told(1)
    world.sandbox.store.lose("acme", 1)
    await world.fix()
    outcome = await world.outcome(1)
    (action,) = (await world.spool.story(outcome.application_id)).actions
    assert (action.actor, action.action) == ("jo", f"tell report {outcome.report_id} again")
    assert action.note == "reconcile: idibu shows no outcome"


async def test_cut_off_anywhere_another_fix_does_the_rest(world: Reconciled) -> None:
    await world.told(*range(1, 8))
    for n in range(1, 8):
        world.sandbox.store.lose("acme", n)
    looked = await world.look()
    fixing = fix(world.spool, looked.fixable, actor="jo", clock=world.clock, pace=Pace(QUICK, world.clock))
    for _ in range(3):
        await anext(fixing)
    await fixing.aclose()
    await world.work()
    assert sorted(kind for kind, _ in await world.found()) == [Kind.MISSING] * 4
    assert await world.fix() == [False] * 4
    await world.work()
    assert len(world.sandbox.applicants("acme")) == 7


async def test_many_pages_and_only_the_first_findings_are_kept(
    world: Reconciled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LARGEST_PAGE", 10)
    await world.told(*range(1, 36))
    for n in range(1, 36, 2):
        world.write(n, "fail", "theirs")
    world.sandbox.store.lose("acme", 2)
    steps = []

    async def step() -> None:
        steps.append(1)

    looked = await world.look(most=5, step=step)
    assert looked.counts == {Kind.DIFFERENT: 18, Kind.MISSING: 1}
    assert (len(looked.shown), len(looked.fixable)) == (6, 19)
    assert (looked.statuses, looked.outcomes, looked.applicants) == (34, 35, 34)
    assert len(steps) >= 12


async def test_idibu_is_asked_no_faster_than_told(world: Reconciled) -> None:
    await world.told(*range(1, 13))
    for n in range(1, 11):
        world.sandbox.store.lose("acme", n)
    begun, asked = world.clock.now(), len(world.sandbox.requests())
    pace = Pace(Rate(1, 2.0), world.clock)
    await look(world.spool, world.accounts["acme"], since=SINCE, clock=world.clock, pace=pace)
    # The two empty pages that end the lists follow at once.
    assert world.clock.now() - begun >= 2.0 * (len(world.sandbox.requests()) - asked - 2 - 1)


async def test_a_pace_is_not_held_up_by_a_clock_that_is_set_back(world: Reconciled) -> None:
    pace = Pace(QUICK, world.clock)
    await pace.wait()
    world.clock.time -= DAY
    before = world.clock.now()
    await pace.wait()
    assert world.clock.now() - before < 1
