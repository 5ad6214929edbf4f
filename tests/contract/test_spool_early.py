"""Early reports, on every database: of what failed once or waits for long, once for as long as they hold."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from apptrack_ingest.lifecycle import EarlyRule, Event
from apptrack_ingest.model import Arrival, Envelope, Message, Report, ReportState, ReportStatus, Stage, State
from apptrack_ingest.spool.contract import (
    Action,
    Claim,
    EarlyReport,
    Filter,
    Pause,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Spool,
)

T = 1_800_000_000.0
MINUTE, WINDOW, DAY = 60.0, 3600.0, 86400.0
RULE = EarlyRule(after=10 * MINUTE, window=WINDOW)
Opener = Callable[[], Awaitable[Spool]]


async def put(spool: Spool, applicant_id: int | None = 7, account: str | None = "acme", **changes: Any) -> int:
    """A mail received at T; its application's id."""
    envelope = Envelope("", ("cv@acme.example",), "192.0.2.1")
    arrival = Arrival(account, applicant_id, changes.get("trusted", True))
    await spool.put(Message(envelope, changes.get("at", T), b"x"), [arrival])
    [newest] = await spool.find(Filter(limit=1))
    return newest.application_id


async def claim(spool: Spool, now: float = T) -> Claim:
    [taken] = await spool.claim(worker="w", now=now, lease=60, limit=1)
    return taken


def told(text: str, at: float) -> Report:
    return Report(7, ReportStatus.FAIL, at, error_message=text)


def postponed(now: float, until: float = T + WINDOW) -> Settlement:
    early = EarlyReport(told("not delivered yet", now), until)
    return Settlement(Event.POSTPONE, "timeout", due_at=now + 5, early=early)


async def due_reports(spool: Spool, now: float) -> list[ReportClaim]:
    return await spool.claim_reports(worker="w", now=now, lease=60, limit=10, accounts=("acme", "blue"))


async def texts(spool: Spool, application_id: int) -> list[tuple[str | None, ReportState]]:
    story = await spool.story(application_id)
    return [(record.report.error_message, record.state) for record in story.reports]


async def sweep(spool: Spool, now: float, rule: EarlyRule = RULE, account: str = "acme") -> int:
    return await spool.report_waiting(account, rule, now=now, limit=100)


async def test_what_waits_is_told_once_and_again_when_the_time_is_over(spool: Spool) -> None:
    application = await put(spool)
    assert await sweep(spool, T + 10 * MINUTE - 1) == 0
    assert await sweep(spool, T + 10 * MINUTE) == 1
    until = T + 10 * MINUTE + WINDOW
    assert await sweep(spool, until - 1) == 0, "what idibu was told still holds"
    assert await sweep(spool, until) == 1
    assert await texts(spool, application) == [
        ("not delivered yet, trying until 09:10 UTC", ReportState.SUPERSEDED),
        ("not delivered yet, trying until 10:10 UTC", ReportState.DUE),
    ]


async def test_what_was_tried_says_until_when_it_is_retried(spool: Spool) -> None:
    application = await put(spool)
    await spool.settle(await claim(spool), Settlement(Event.POSTPONE, "timeout", due_at=T + DAY), now=T)
    assert await sweep(spool, T + 10 * MINUTE) == 1
    assert await texts(spool, application) == [("not delivered yet, retrying until 09:00 UTC", ReportState.DUE)]


async def test_neither_a_pause_nor_an_attempt_under_way_makes_a_difference(spool: Spool) -> None:
    await put(spool, 7)
    await put(spool, 8)
    await claim(spool)
    await spool.pause(Pause("acme", Stage.HAND_OFF, "maintenance", T, None, actor="jo"))
    assert await sweep(spool, T + 10 * MINUTE) == 2


@pytest.mark.parametrize(
    "changes", [{"trusted": False}, {"account": None}, {"account": "blue"}, {"applicant_id": None}], ids=str
)
async def test_nothing_is_told_of_what_is_not_certain_or_of_another_account(spool: Spool, changes: Any) -> None:
    await put(spool, **changes)
    assert await sweep(spool, T + DAY) == 0


async def test_of_one_applicant_only_the_front_of_the_line_is_told_of(spool: Spool) -> None:
    first, second = await put(spool), await put(spool)
    assert await sweep(spool, T + 10 * MINUTE) == 1
    assert len(await texts(spool, first)) == 1 and await texts(spool, second) == []


async def test_whom_the_ats_has_got_already_is_not_told_as_a_fail(spool: Spool) -> None:
    await put(spool)
    await spool.settle(await claim(spool), Settlement(Event.DELIVER, "delivered", remote_id="R-7"), now=T)
    update = await put(spool)
    assert await sweep(spool, T + DAY) == 0
    await spool.settle(await claim(spool), postponed(T), now=T)
    assert await texts(spool, update) == []


async def test_a_failed_attempt_is_told_once_for_as_long_as_it_holds(spool: Spool) -> None:
    application = await put(spool)
    for now in (T, T + 10, T + 20):
        await spool.settle(await claim(spool, now), postponed(now), now=now)
    assert await texts(spool, application) == [("not delivered yet", ReportState.DUE)]
    assert await sweep(spool, T + 10 * MINUTE) == 0, "it was told already"
    over = T + WINDOW
    await spool.settle(await claim(spool, over), postponed(over, over + WINDOW), now=over)
    assert await texts(spool, application) == [
        ("not delivered yet", ReportState.SUPERSEDED),
        ("not delivered yet", ReportState.DUE),
    ]


@pytest.mark.parametrize("event", [Event.DELIVER, Event.HOLD, Event.EXHAUST])
async def test_with_an_outcome_there_is_no_early_report(spool: Spool, event: Event) -> None:
    application = await put(spool)
    early = EarlyReport(told("early", T), T + WINDOW)
    await spool.settle(await claim(spool), Settlement(event, "x", early=early), now=T)
    assert await texts(spool, application) == []
    assert await sweep(spool, T + DAY) == 0


async def test_the_outcome_supersedes_an_early_report_that_is_still_due(spool: Spool) -> None:
    application = await put(spool)
    taken = await claim(spool)
    await sweep(spool, T + 10 * MINUTE)
    done = Report(7, ReportStatus.SUCCESS, T, remote_id="R-7")
    await spool.settle(taken, Settlement(Event.DELIVER, "delivered", report=done), now=T + 11 * MINUTE)
    assert [state for _, state in await texts(spool, application)] == [ReportState.SUPERSEDED, ReportState.DUE]
    assert [one.report for one in await due_reports(spool, T + 11 * MINUTE)] == [done]


@pytest.mark.parametrize("answer", [ReportState.CONFIRMED, ReportState.DUE, ReportState.REFUSED])
async def test_the_outcome_waits_for_an_early_report_under_way_and_is_last(spool: Spool, answer: ReportState) -> None:
    application, now = await put(spool), T + 10 * MINUTE
    taken = await claim(spool, now)
    await sweep(spool, now)
    [early] = await due_reports(spool, now)
    done = Report(7, ReportStatus.SUCCESS, now, remote_id="R-7")
    await spool.settle(taken, Settlement(Event.DELIVER, "delivered", report=done), now=now + 1)
    assert await due_reports(spool, now + 2) == [], "they could overtake one another"
    assert await spool.settle_report(early, ReportSettlement(answer, "x"), now=now + 3) is ReportState.SUPERSEDED
    assert [one.report for one in await due_reports(spool, now + 3)] == [done]
    assert [state for _, state in await texts(spool, application)] == [ReportState.SUPERSEDED, ReportState.DUE]


async def test_what_a_person_sets_going_again_waits_from_then_on(spool: Spool) -> None:
    application = await put(spool)
    await sweep(spool, T + 10 * MINUTE)
    later = T + DAY
    await spool.act(application, Action(Event.HOLD, "jo"), now=later)
    assert await sweep(spool, later + DAY) == 0, "it is held"
    await spool.act(application, Action(Event.RETRY, "jo"), now=later)
    assert await sweep(spool, later + 10 * MINUTE - 1) == 0
    assert await sweep(spool, later + 10 * MINUTE) == 1


@pytest.mark.parametrize(
    ("rule", "first", "again"),
    [
        (EarlyRule(), 0, 0),
        (
            EarlyRule(first_failure=True, window=WINDOW),
            0,
            1,
        ),  # with the attempt itself; here only when its time is over
        (RULE, 1, 1),
    ],
    ids=["off", "first failure", "after a time"],
)
async def test_what_is_not_wanted_is_not_told(spool: Spool, rule: EarlyRule, first: int, again: int) -> None:
    await put(spool, 7)
    assert await sweep(spool, T + 10 * MINUTE, rule) == first
    await put(spool, 8, "blue")
    taken = await claim(spool) if first == 0 else None
    if taken is not None:
        await spool.settle(taken, postponed(T), now=T)
    assert await sweep(spool, T + 2 * DAY, rule) == again


async def test_a_round_takes_no_more_than_it_is_allowed(spool: Spool) -> None:
    for number in range(1, 6):
        await put(spool, number, at=T + number)
    rounds = [await spool.report_waiting("acme", RULE, now=T + DAY, limit=2) for _ in range(4)]
    assert rounds == [2, 2, 1, 0]


async def test_of_two_that_sweep_at_once_one_tells(another: Opener) -> None:
    one, two = await another(), await another()
    for number in range(1, 21):
        await put(one, number)
    counts = await asyncio.gather(*(sweep(spool, T + DAY) for spool in (one, two, one, two)))
    rest = await sweep(one, T + DAY)
    assert sum(counts) + rest == 20
    assert len(await due_reports(one, T + DAY)) == 10
    found = await one.find(Filter(states=(State.RECEIVED,), limit=100))
    assert [row.report for row in found] == [ReportState.DUE] * 20
