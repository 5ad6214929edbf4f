"""What idibu shows before there is an outcome: with the first failure, after a time, in a rest or a pause."""

import asyncio
from dataclasses import replace

import pytest

from apptrack_ingest.errors import RetryLater
from apptrack_ingest.lifecycle import EarlyRule, Event
from apptrack_ingest.model import Accepted, Arrival, Envelope, Message, Rejected, ReportState, Stage, State
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Action, Pause
from apptrack_ingest.testing import an_email
from apptrack_ingest.worker.housekeeping import Housekeeping

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Ats:
    """Says what it was told to say."""

    def __init__(self) -> None:
        self.answer: Accepted | Rejected | Exception = RetryLater("ats.internal:8443 refused the connection")
        self.calls = 0

    async def handle(self, application):
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def housekeeping(world, **account):
    """The housekeeping of one account, acme, that has these settings."""
    return Housekeeping(world.spool, world.clock, Settings(accounts={"acme": account}))


async def serve(world, ats, rule):
    world.handlers["acme"] = ats
    desks = {name: replace(desk, early=rule) for name, desk in world.desks().items()}
    await world.worker.configure(desks, world.tools.report_schedule)


def shown(world, applicant_id=1):
    """What idibu shows of the applicant."""
    found = [one for one in world.sandbox.applicants("acme") if one.id == applicant_id]
    return (found[0].status, found[0].error_message or None) if found else None


async def test_the_first_failure_is_told_once_and_put_right_by_the_delivery(world, monkeypatch):
    seconds: list[float] = []
    monkeypatch.setattr("apptrack_ingest.worker.report.metrics.reported", seconds.append)
    ats = Ats()
    await serve(world, ats, EarlyRule(first_failure=True, window=world.desks()["acme"].schedule.window))
    await world.receive("acme")
    await world.work()
    first = shown(world)
    await world.pass_time(HOUR)
    assert ats.calls > 3
    assert first == shown(world) and first[0] == "fail"
    assert first[1].startswith("not delivered yet, retrying until 2027-01-22 ") and first[1].endswith(" UTC")
    assert "ats.internal" not in first[1] and "Error" not in first[1]
    ats.answer = Accepted("R-1")
    await world.pass_time(2 * HOUR)
    assert shown(world) == ("success", None)
    story = await world.spool.story(1)
    assert [record.state for record in story.reports] == [ReportState.CONFIRMED, ReportState.CONFIRMED]
    assert len(seconds) == 1 and seconds[0] > HOUR, "the time to the outcome is that of the outcome"


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (Rejected("the vacancy is filled"), State.REJECTED, "the vacancy is filled"),
        (
            RuntimeError("Traceback at 10.0.0.7"),
            State.FAILED,
            "not delivered, gave up retrying: the recruitment system could not be reached, or did not answer as expected",
        ),
    ],
    ids=["rejected", "failed"],
)
async def test_any_other_outcome_replaces_it_too(world, answer, state, words):
    ats = Ats()
    await serve(world, ats, EarlyRule(first_failure=True))
    await world.receive("acme")
    await world.work()
    ats.answer = answer
    await world.pass_time(8 * DAY, step=HOUR)
    assert [row.state for row in await world.rows()] == [state]
    assert shown(world) == ("fail", words)


async def test_nothing_is_told_early_unless_it_is_wanted(world):
    await serve(world, Ats(), EarlyRule())
    await world.receive("acme")
    await world.pass_time(HOUR)
    await housekeeping(world).report_waiting()
    await world.work()
    assert shown(world) is None


async def test_what_is_never_tried_is_told_after_its_time(world):
    """A pause keeps even the first attempt from being made."""
    ats = Ats()
    await world.spool.pause(Pause("acme", Stage.HAND_OFF, "moving house", world.clock.now(), None, actor="jo"))
    await serve(world, ats, EarlyRule())
    await world.receive("acme")
    keeping = housekeeping(world, report_waiting_after="10m", timezone="Europe/Berlin")
    await world.pass_time(9 * MINUTE)
    await keeping.report_waiting()
    await world.work()
    assert shown(world) is None
    await world.pass_time(MINUTE)
    await keeping.report_waiting()
    await world.work()
    assert ats.calls == 0
    assert shown(world)[0] == "fail" and "trying until 2027-01-22 " in shown(world)[1] and "CET" in shown(world)[1]
    ats.answer = Accepted("R-1")
    await world.spool.resume("acme", Stage.HAND_OFF, now=world.clock.now(), actor="jo")
    await world.work()
    assert shown(world) == ("success", None)


async def test_what_rests_behind_an_open_breaker_is_told_after_its_time(world):
    ats = Ats()
    ats.answer = RetryLater("503", after=HOUR, about="ats")
    await serve(world, ats, EarlyRule())
    await world.receive("acme")
    await world.work()
    calls = ats.calls
    late = await world.receive("acme")  # the breaker is open: nothing is tried for it
    keeping = housekeeping(world, report_waiting_after="10m")
    await world.pass_time(11 * MINUTE)
    await keeping.report_waiting()
    await world.work()
    assert ats.calls == calls
    assert "trying until" in shown(world, late)[1]


async def test_a_time_that_is_over_is_told_anew_and_not_before(world):
    ats = Ats()
    await serve(world, ats, EarlyRule())
    await world.receive("acme")
    await world.spool.pause(Pause("acme", Stage.HAND_OFF, "because", world.clock.now(), None, actor="jo"))
    keeping, seen = housekeeping(world, report_waiting_after="10m", retry="1h"), []
    for _ in range(20):
        await keeping.report_waiting()
        await world.pass_time(10 * MINUTE, step=10 * MINUTE)
        if (now := shown(world)) not in seen:
            seen.append(now)
    texts = [each[1].removeprefix("not delivered yet, trying until ") for each in seen if each]
    assert texts == ["09:10 UTC", "10:10 UTC", "11:10 UTC", "12:10 UTC"]
    story = await world.spool.story(1)
    assert len(story.reports) == 4


async def test_a_success_waits_for_the_early_report_that_is_under_way(world):
    """In flight at once, idibu could get them in the wrong order; however slow it is, the success is the last."""
    ats = Ats()
    await serve(world, ats, EarlyRule(first_failure=True))
    slow, sent = asyncio.Event(), []
    real = world.tools.reports.send

    async def send(account, report):
        sent.append(report.status.value)
        if report.status.value == "fail":
            await slow.wait()
        return await real(account, report)

    world.tools.reports = type("Slow", (), {"send": staticmethod(send)})()
    await world.receive("acme")
    await world.worker.step()
    while not sent:
        await asyncio.sleep(0)
        await world.worker.step()
    ats.answer = Accepted("R-1")
    world.clock.time += 2 * MINUTE
    while [row.state for row in await world.rows()] != [State.DELIVERED]:
        await asyncio.sleep(0)
        await world.worker.renew()
        await world.worker.step()
    await world.worker.step()
    assert sent == ["fail"]
    slow.set()
    await world.worker.idle()
    await world.work()
    assert sent == ["fail", "success"] and shown(world) == ("success", None)


async def test_of_a_stranger_nothing_is_told(world):
    await serve(world, Ats(), EarlyRule(first_failure=True))
    message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.now(), an_email(1))
    await world.spool.put(message, [Arrival("acme", 1, False)])
    await world.spool.pause(Pause("acme", Stage.HAND_OFF, "because", world.clock.now(), None, actor="jo"))
    world.clock.time += HOUR
    await housekeeping(world, report_waiting_after="10m").report_waiting()
    await world.work()
    assert shown(world) is None


async def test_a_reload_switches_it_on_and_off(world):
    ats = Ats()
    await serve(world, ats, EarlyRule())
    await world.receive("acme")
    await world.pass_time(10 * MINUTE)
    assert shown(world) is None
    await serve(world, ats, EarlyRule(first_failure=True))
    await world.pass_time(HOUR)
    assert shown(world)[0] == "fail", "the next failure is the first that may be told"
    await serve(world, ats, EarlyRule())
    await world.receive("acme")
    await world.pass_time(HOUR)
    assert shown(world, 2) is None
    keeping = housekeeping(world)
    await keeping.report_waiting()
    await world.work()
    assert shown(world, 2) is None
    keeping.settings = Settings(accounts={"acme": {"report_waiting_after": "10m"}})
    await keeping.report_waiting()
    await world.work()
    assert shown(world, 2)[0] == "fail"


async def test_what_a_person_holds_or_discards_meanwhile_is_told_as_that(world):
    await serve(world, Ats(), EarlyRule(first_failure=True))
    await world.receive("acme")
    await world.work()
    await world.spool.act(1, Action(Event.HOLD, "jo"), now=world.clock.now())
    world.clock.time += DAY
    await housekeeping(world, report_waiting_after="10m").report_waiting()
    story = await world.spool.story(1)
    assert len(story.reports) == 1, "what is held waits for a person, and is not retried until any time"
