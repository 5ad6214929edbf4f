"""The spool's contract, each promise once, on every database there is (conftest.DATABASES)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from apptrack_ingest.errors import LeaseLost, NotAllowed, NotFound, SpoolUnavailable
from apptrack_ingest.lifecycle import BY_A_PERSON, SOLO_ATTEMPTS, TRANSITIONS, Event
from apptrack_ingest.model import (
    Arrival,
    AttemptKind,
    Envelope,
    HeldReason,
    Message,
    PausedBy,
    Report,
    ReportState,
    ReportStatus,
    Stage,
    State,
)
from apptrack_ingest.spool.contract import (
    Action,
    Claim,
    Facts,
    Filter,
    Load,
    Pause,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Spool,
)

T = 1000.0
"""When the tests' mails come in; times after it are written T + seconds."""
LEASE = 60.0
EVIDENCE = ("SPF for mail from idibu.example: pass",)
RAW = b"X-iTrackID: 7\r\n\r\nna\xefve \x00 bytes\r\n"
Opener = Callable[[], Awaitable[Spool]]


def mail(*, at: float = T, raw: bytes = RAW, **envelope: Any) -> Message:
    given = {"sender": "bounce@idibu.example", "recipients": ("cv@acme.example",), "peer": "192.0.2.1", "helo": "mx"}
    return Message(Envelope(**{**given, **envelope}), at, raw, EVIDENCE, warnings=("bare LF",))


async def put(
    spool: Spool, applicant_id: int | None = 7, account: str | None = "acme", *, at: float = T, trusted: bool = True
) -> int:
    """Puts a mail of one application; returns the application's id."""
    message_id = await spool.put(mail(at=at), [Arrival(account, applicant_id, trusted, "by address")])
    (found,) = [s for s in await spool.find(Filter(limit=1000)) if s.message_id == message_id]
    return found.application_id


async def claim(spool: Spool, *, now: float = T, limit: int = 10, **options: Any) -> list[Claim]:
    return await spool.claim(**{"worker": "w1", "now": now, "lease": LEASE, "limit": limit, **options})


async def claim_reports(spool: Spool, *, now: float = T, accounts: tuple[str, ...] = ("acme",)) -> list[ReportClaim]:
    return await spool.claim_reports(worker="w1", now=now, lease=LEASE, limit=10, accounts=accounts)


def success(applicant_id: int = 7, remote_id: str = "ats-1") -> Report:
    return Report(applicant_id, ReportStatus.SUCCESS, T, remote_id=remote_id)


def failure(applicant_id: int = 7) -> Report:
    return Report(applicant_id, ReportStatus.FAIL, T, error_message="no")


SETTLEMENTS: dict[Event, Settlement] = {
    Event.DELIVER: Settlement(Event.DELIVER, "delivered", remote_id="ats-1", facts=Facts(content_digest="v1:aa")),
    Event.RECOGNISE: Settlement(Event.RECOGNISE, "duplicate"),
    Event.REJECT: Settlement(Event.REJECT, "rejected", "not a person"),
    Event.EXHAUST: Settlement(Event.EXHAUST, "timeout", "gave up"),
    Event.POSTPONE: Settlement(Event.POSTPONE, "timeout", "later", due_at=T + 300),
    Event.HOLD: Settlement(Event.HOLD, "unreadable", "words", reason=HeldReason.UNREADABLE),
}


async def work(spool: Spool, event: Event, *, now: float = T, **changes: Any) -> Claim:
    """Claims the one due application and settles it."""
    (claimed,) = await claim(spool, now=now)
    await spool.settle(claimed, replace(SETTLEMENTS[event], **changes), now=now)
    return claimed


async def bring_to(spool: Spool, state: State) -> int:
    """An application in the wanted state."""
    application_id = await put(spool)
    ways = {
        State.DELIVERED: Event.DELIVER,
        State.DUPLICATE: Event.RECOGNISE,
        State.REJECTED: Event.REJECT,
        State.FAILED: Event.EXHAUST,
        State.HELD: Event.HOLD,
        State.DISCARDED: Event.HOLD,
    }
    if state in ways:
        await work(spool, ways[state])
    if state is State.DISCARDED:
        await spool.act(application_id, Action(Event.DISCARD, "jo"), now=T)
    return application_id


async def report_in(spool: Spool, state: ReportState) -> int:
    """The id of the only report of applicant 7, brought to the wanted state."""
    application_id = await put(spool)
    await work(spool, Event.REJECT, report=failure())
    if state is not ReportState.DUE:
        (claimed,) = await claim_reports(spool)
        await spool.settle_report(claimed, ReportSettlement(state, "code"), now=T)
    return (await spool.story(application_id)).reports[-1].report_id


async def report_states(spool: Spool, *applications: int) -> list[ReportState]:
    return [report.state for one in applications for report in (await spool.story(one)).reports]


# --- receive ------------------------------------------------------------------------------------------------------


async def test_what_was_put_is_there_for_everybody_byte_by_byte(spool: Spool, another: Opener) -> None:
    message_id = await spool.put(mail(smtputf8=True), [Arrival("acme", 7, True, "by address")])
    other = await another()
    assert await other.raw(message_id) == RAW
    (summary,) = await other.find(Filter())
    story = await other.story(summary.application_id)
    assert (summary.state, summary.due_at, summary.received_at, summary.attempts) == (State.RECEIVED, T, T, 0)
    assert (story.sender, story.recipients, story.peer) == ("bounce@idibu.example", ("cv@acme.example",), "192.0.2.1")
    assert (story.helo, story.size, story.trusted, story.trust_note) == ("mx", len(RAW), True, "by address")
    assert story.evidence == EVIDENCE
    assert (story.message_warnings, story.erased) == (("bare LF",), False)


async def test_a_message_for_two_accounts_is_kept_once_and_yields_two_applications(spool: Spool) -> None:
    message_id = await spool.put(
        mail(), [Arrival("acme", 7, True), Arrival("blue", 7, True), Arrival(None, None, True)]
    )
    found = await spool.find(Filter())
    assert {(s.account, s.applicant_id, s.message_id) for s in found} == {
        ("acme", 7, message_id),
        ("blue", 7, message_id),
        (None, None, message_id),
    }


async def test_a_peers_bytes_that_are_no_text_cost_nothing(spool: Spool) -> None:
    message_id = await spool.put(mail(helo="caf\udce9", sender="j\udce9@x.example"), [Arrival("acme", 7, True)])
    (summary,) = await spool.find(Filter())
    story = await spool.story(summary.application_id)
    assert (story.helo, story.sender) == ("caf\ufffd", "j\ufffd@x.example")
    await work(spool, Event.REJECT, detail="words \ud83d of a handler", facts=Facts(candidate_name="J\udce9"))
    assert (await spool.story(summary.application_id)).summary.detail == "words \ufffd of a handler"
    assert await spool.raw(message_id) == RAW


async def test_the_bytes_of_an_unknown_message_are_not_found(spool: Spool) -> None:
    with pytest.raises(NotFound):
        await spool.raw(4711)


# --- claims -------------------------------------------------------------------------------------------------------


async def test_claims_come_oldest_due_first_and_no_more_than_asked_for(spool: Spool) -> None:
    ids = [await put(spool, n, at=T + at) for n, at in ((1, 30), (2, 10), (3, 20), (4, 40))]
    claimed = await claim(spool, now=T + 35, limit=2)
    assert [c.application_id for c in claimed] == [ids[1], ids[2]]
    assert [c.application_id for c in await claim(spool, now=T + 35)] == [ids[0]]
    assert await claim(spool, now=T + 39) == []


async def test_of_one_applicant_only_the_oldest_is_taken(spool: Spool) -> None:
    first, second = await put(spool), await put(spool)
    elsewhere, nobody, nobody_either = await put(spool, account="blue"), await put(spool, None), await put(spool, None)
    taken = {c.application_id for c in await claim(spool)}
    assert taken == {first, elsewhere, nobody, nobody_either}
    assert await claim(spool) == []
    assert second not in taken


async def test_a_younger_one_waits_while_the_older_is_postponed_and_goes_on_when_it_has_an_outcome(
    spool: Spool,
) -> None:
    await put(spool)
    younger = await put(spool, at=T + 1)
    await work(spool, Event.POSTPONE, now=T + 1, due_at=T + 3600)
    assert await claim(spool, now=T + 2) == []
    await work(spool, Event.REJECT, now=T + 3600)
    assert [c.application_id for c in await claim(spool, now=T + 3600)] == [younger]


async def test_an_older_one_set_going_again_waits_for_the_younger_under_way(spool: Spool) -> None:
    older = await put(spool)
    await work(spool, Event.EXHAUST)
    await put(spool)
    (younger,) = await claim(spool)
    await spool.act(older, Action(Event.RETRY, "jo"), now=T)
    assert await claim(spool) == []
    await spool.settle(younger, SETTLEMENTS[Event.DELIVER], now=T)
    assert [c.application_id for c in await claim(spool)] == [older]


async def test_an_account_gets_no_more_than_its_room_and_hides_nobody_behind_it(spool: Spool) -> None:
    for n in range(6):
        await put(spool, n, "slow")
    for n in range(2):
        await put(spool, n, "quick")
        await put(spool, None, None)
    claimed = await claim(spool, limit=6, room={"slow": 2, "": 1})
    assert sorted(str(c.account) for c in claimed) == ["None", "quick", "quick", "slow", "slow"]
    assert await claim(spool, room={"slow": 0, "": 0}) == []


async def test_the_attempt_is_counted_and_committed_before_the_claim_is_answered(spool: Spool, another: Opener) -> None:
    application_id = await put(spool)
    (claimed,) = await claim(spool, worker="w9", now=T + 5)
    story = await (await another()).story(application_id)
    assert (claimed.attempt, claimed.series_attempt, claimed.first_attempt_at, claimed.crashes) == (1, 1, T + 5, 0)
    assert (claimed.account, claimed.applicant_id, claimed.received_at) == ("acme", 7, T)
    assert (claimed.trusted, claimed.vouched, claimed.again) == (True, False, False)
    assert (story.summary.attempts, story.summary.in_work, story.summary.state) == (1, True, State.RECEIVED)
    (attempt,) = story.attempts
    assert (attempt.kind, attempt.number, attempt.worker) == (AttemptKind.HAND_OFF, 1, "w9")
    assert (attempt.started_at, attempt.ended_at) == (T + 5, None)


async def test_a_series_of_attempts_keeps_its_beginning(spool: Spool) -> None:
    await put(spool)
    await work(spool, Event.POSTPONE, now=T + 1)
    (second,) = await claim(spool, now=T + 300)
    assert (second.attempt, second.series_attempt, second.first_attempt_at) == (2, 2, T + 1)


async def test_many_tasks_on_two_handles_never_get_the_same_application(spool: Spool, another: Opener) -> None:
    other, got = await another(), []
    await asyncio.gather(*(spool.put(mail(), [Arrival("acme", n % 60, True)]) for n in range(120)))

    async def take(handle: Spool, worker: str) -> None:
        while claims := await claim(handle, worker=worker, limit=3):
            got.extend(claims)
            for one in claims:
                await handle.settle(one, SETTLEMENTS[Event.DELIVER], now=T)

    await asyncio.gather(*(take(handle, f"w{n}{i}") for n in range(4) for i, handle in enumerate((spool, other))))
    assert sorted(c.application_id for c in got) == sorted(
        s.application_id for s in await spool.find(Filter(limit=200))
    )
    assert len(got) == 120
    assert {c.attempt for c in got} == {1}


# --- leases -------------------------------------------------------------------------------------------------------


async def test_who_lost_the_lease_cannot_settle_and_changes_nothing(spool: Spool, another: Opener) -> None:
    application_id = await put(spool)
    (lost,) = await claim(spool)
    other = await another()
    await other.reap(now=T + LEASE, reports_for=())
    (held,) = await claim(other, now=T + LEASE, worker="w2", solo=True)
    before = await spool.story(application_id)
    with pytest.raises(LeaseLost):
        await spool.settle(lost, replace(SETTLEMENTS[Event.DELIVER], report=success()), now=T + LEASE)
    assert await spool.story(application_id) == before
    assert held.token > lost.token
    await other.settle(held, SETTLEMENTS[Event.DELIVER], now=T + LEASE)
    with pytest.raises(LeaseLost):
        await other.settle(held, SETTLEMENTS[Event.REJECT], now=T + LEASE)
    assert (await spool.story(application_id)).summary.state is State.DELIVERED


async def test_a_reaped_lease_is_lost_even_before_somebody_else_claims(spool: Spool) -> None:
    await put(spool)
    (lost,) = await claim(spool)
    await spool.reap(now=T + LEASE, reports_for=())
    with pytest.raises(LeaseLost):
        await spool.settle(lost, SETTLEMENTS[Event.DELIVER], now=T + LEASE)
    assert await spool.renew([lost], now=T + LEASE, lease=LEASE) == [lost]


async def test_renewing_prolongs_and_tells_what_was_lost(spool: Spool) -> None:
    await put(spool, 1)
    await put(spool, 2)
    kept, left = await claim(spool)
    assert await spool.renew([kept], now=T + 50, lease=LEASE) == []
    assert [r.application_id for r in await spool.reap(now=T + 109, reports_for=())] == [left.application_id]
    assert await spool.renew([kept, left], now=T + 109, lease=LEASE) == [left]
    await spool.settle(kept, SETTLEMENTS[Event.DELIVER], now=T + 120)


async def test_an_attempt_whose_lease_ran_out_ended_without_a_verdict_and_the_next_one_is_alone(spool: Spool) -> None:
    application_id = await put(spool)
    await put(spool, 8)
    (cut_off,) = await claim(spool, limit=1)
    assert await spool.reap(now=T + LEASE - 1, reports_for=()) == []
    (reaped,) = await spool.reap(now=T + LEASE, reports_for=())
    assert (reaped.application_id, reaped.crashes, reaped.held) == (application_id, 1, False)
    (attempt,) = (await spool.story(application_id)).attempts
    assert (attempt.ended_at, attempt.code) == (T + LEASE, "no-verdict")
    assert [c.applicant_id for c in await claim(spool, now=T + LEASE)] == [8]
    (alone,) = await claim(spool, now=T + LEASE, solo=True, limit=5)
    assert (alone.application_id, alone.crashes, alone.attempt) == (application_id, 1, 2)
    assert alone.token > cut_off.token


async def test_solo_takes_one_and_nothing_that_never_crashed(spool: Spool) -> None:
    await put(spool, 1)
    assert await claim(spool, solo=True) == []
    await put(spool, 2)
    await claim(spool)
    await spool.reap(now=T + LEASE, reports_for=())
    assert len(await claim(spool, now=T + LEASE, solo=True, limit=5)) == 1


async def crash(spool: Spool, reports_for: tuple[str, ...] = ("acme",)) -> bool:
    """One attempt that is cut off; whether the application is held now."""
    if not await claim(spool, lease=0):
        assert await claim(spool, lease=0, solo=True)
    (reaped,) = await spool.reap(now=T, reports_for=reports_for)
    return reaped.held


async def test_a_crash_loop_is_held_after_the_last_attempt_alone(spool: Spool) -> None:
    application_id = await put(spool)
    held = [await crash(spool) for _ in range(1 + SOLO_ATTEMPTS)]
    assert held == [False] * SOLO_ATTEMPTS + [True]
    summary = (await spool.story(application_id)).summary
    assert (summary.state, summary.reason, summary.due_at) == (State.HELD, HeldReason.CRASH_LOOP, None)
    assert summary.attempts == 1 + SOLO_ATTEMPTS
    (report,) = (await spool.story(application_id)).reports
    assert (report.state, report.report.status, report.report.applicant_id) == (ReportState.DUE, ReportStatus.FAIL, 7)


@pytest.mark.parametrize(
    ("trusted", "applicant_id", "account", "reports_for"),
    [
        (False, 7, "acme", ("acme",)),
        (True, None, "acme", ("acme",)),
        (True, 7, None, ("acme",)),
        (True, 7, "acme", ("blue",)),
    ],
    ids=["untrusted", "no-id", "unrouted", "not-reported"],
)
async def test_a_crash_loop_is_reported_only_where_something_may_be_said(
    spool: Spool, trusted: bool, applicant_id: int | None, account: str | None, reports_for: tuple[str, ...]
) -> None:
    application_id = await put(spool, applicant_id, account, trusted=trusted)
    while not await crash(spool, reports_for):
        pass
    assert (await spool.story(application_id)).reports == ()


async def test_a_crash_loop_of_one_that_a_person_vouched_for_is_reported(spool: Spool) -> None:
    application_id = await put(spool, trusted=False)
    await work(spool, Event.HOLD, reason=HeldReason.UNTRUSTED)
    await spool.act(application_id, Action(Event.RELEASE, "jo"), now=T)
    while not await crash(spool):
        pass
    assert await report_states(spool, application_id) == [ReportState.DUE]


async def test_a_verdict_in_between_ends_the_row_of_crashes(spool: Spool) -> None:
    application_id = await put(spool)
    await crash(spool)
    (alone,) = await claim(spool, solo=True)
    await spool.settle(alone, replace(SETTLEMENTS[Event.POSTPONE], due_at=T + 100), now=T)
    (normal,) = await claim(spool, now=T + 100)
    assert (normal.application_id, normal.crashes) == (application_id, 0)


async def test_a_drain_is_no_attempt_and_forgives_no_crash(spool: Spool) -> None:
    application_id = await put(spool)
    await crash(spool)
    due_at = (await spool.story(application_id)).summary.due_at
    (alone,) = await claim(spool, solo=True)
    await spool.settle(alone, Settlement(Event.POSTPONE, "interrupted", counts=False), now=T + 1)
    story = await spool.story(application_id)
    assert (story.summary.attempts, story.summary.due_at) == (1, due_at)
    assert [a.code for a in story.attempts] == ["no-verdict", "interrupted"]
    (again,) = await claim(spool, now=T + 1, solo=True)
    assert (again.attempt, again.crashes) == (2, 1)


async def test_what_is_given_back_untried_has_its_whole_schedule_before_it(spool: Spool) -> None:
    given_back = Settlement(Event.POSTPONE, "interrupted", counts=False)
    await put(spool)
    (first,) = await claim(spool, now=T)
    await spool.settle(first, given_back, now=T)
    (tried,) = await claim(spool, now=T + 900)
    assert (tried.attempt, tried.first_attempt_at) == (1, T + 900)
    await spool.settle(tried, SETTLEMENTS[Event.POSTPONE], now=T + 900)
    (again,) = await claim(spool, now=T + 5000)
    await spool.settle(again, given_back, now=T + 5000)
    (last,) = await claim(spool, now=T + 6000)
    assert (last.attempt, last.first_attempt_at) == (2, T + 900), "the series goes on once something was tried in it"


async def test_what_is_given_back_keeps_its_place_in_the_line(spool: Spool) -> None:
    first, second = await put(spool, 1), await put(spool, 2, at=T + 1)
    (claimed,) = await claim(spool, now=T + 5, limit=1)
    await spool.settle(claimed, Settlement(Event.POSTPONE, "interrupted", counts=False), now=T + 9)
    assert [one.application_id for one in await claim(spool, now=T + 9, limit=2)] == [first, second]


async def test_the_leases_of_a_dead_worker_run_out_at_once(spool: Spool) -> None:
    for n in (1, 2):
        await put(spool, n)
    (dead,) = await claim(spool, limit=1, worker="dead")
    await spool.settle(dead, replace(SETTLEMENTS[Event.DELIVER], report=success(1)), now=T)
    await put(spool, 3)
    (unfinished,) = await claim(spool, limit=1, worker="dead")
    (alive,) = await claim(spool, limit=1, worker="alive")
    await spool.claim_reports(worker="dead", now=T, lease=LEASE, limit=5, accounts=["acme"])
    assert await spool.abandon("dead", now=T + 1) == 2
    assert [r.application_id for r in await spool.reap(now=T + 1, reports_for=())] == [unfinished.application_id]
    assert len(await claim_reports(spool, now=T + 1)) == 1
    await spool.settle(alive, SETTLEMENTS[Event.DELIVER], now=T + 1)


# --- settling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", SETTLEMENTS)
async def test_an_outcome_is_kept_with_its_reason_and_ends_the_attempt(
    spool: Spool, another: Opener, event: Event
) -> None:
    application_id = await put(spool)
    await work(spool, event, now=T + 2)
    story = await (await another()).story(application_id)
    wanted, summary = SETTLEMENTS[event], story.summary
    assert summary.state is TRANSITIONS[(State.RECEIVED, event)]
    assert (summary.code, summary.detail, summary.reason) == (wanted.code, wanted.detail, wanted.reason)
    assert (summary.remote_id, summary.due_at, summary.in_work) == (wanted.remote_id, wanted.due_at, False)
    assert summary.settled_at == (None if event is Event.POSTPONE else T + 2)
    (attempt,) = story.attempts
    assert (attempt.ended_at, attempt.code, attempt.detail) == (T + 2, wanted.code, wanted.detail)


async def test_a_persons_event_is_no_outcome_of_an_attempt(spool: Spool) -> None:
    application_id = await put(spool)
    (claimed,) = await claim(spool)
    before = await spool.story(application_id)
    for event in (Event.ROUTE, Event.RELEASE, Event.RETRY, Event.AGAIN, Event.DISCARD):
        with pytest.raises(NotAllowed):
            await spool.settle(claimed, Settlement(event, "x", report=failure()), now=T)
    assert await spool.story(application_id) == before


async def test_facts_and_the_id_the_mail_turned_out_to_say_are_kept(spool: Spool) -> None:
    application_id = await put(spool, None)
    facts = Facts("REF-1", "Jane Doe", "jane@x.example", "Cook", "Seek", "v1:aa", ("one",))
    await work(spool, Event.POSTPONE, facts=facts, applicant_id=9, due_at=T)
    summary = (await spool.story(application_id)).summary
    assert (summary.facts, summary.applicant_id) == (facts, 9)
    await work(spool, Event.POSTPONE, due_at=T)
    assert (await spool.story(application_id)).summary.facts == facts
    await work(spool, Event.HOLD, applicant_id=10, reason=HeldReason.BY_OPERATOR)
    assert (await spool.story(application_id)).summary.applicant_id == 10


async def test_a_duplicate_names_the_one_delivered(spool: Spool) -> None:
    first = await put(spool)
    await work(spool, Event.DELIVER)
    second = await put(spool)
    await work(spool, Event.RECOGNISE, duplicate_of=first)
    assert (await spool.story(second)).summary.duplicate_of == first


async def test_reparsing_replaces_the_facts_and_keeps_an_id_the_mail_does_not_name(spool: Spool) -> None:
    application_id = await put(spool)
    await work(spool, Event.DELIVER)
    await spool.update_facts(application_id, Facts(candidate_name="New"), None)
    summary = (await spool.story(application_id)).summary
    assert (summary.facts, summary.applicant_id, summary.state) == (Facts(candidate_name="New"), 7, State.DELIVERED)


async def test_the_report_is_due_from_the_outcomes_own_commit_on(spool: Spool, another: Opener) -> None:
    application_id = await put(spool)
    await work(spool, Event.DELIVER, now=T + 3, report=success())
    (report,) = (await (await another()).story(application_id)).reports
    assert (report.state, report.report, report.created_at) == (ReportState.DUE, success(), T + 3)
    assert (report.due_at, report.attempts) == (T + 3, 0)


async def test_nobody_is_told_of_an_application_without_an_account(spool: Spool) -> None:
    application_id = await put(spool, 7, None)
    await spool.act(application_id, Action(Event.HOLD, "jo"), now=T)
    assert await spool.act(application_id, Action(Event.DISCARD, "jo", report=failure()), now=T) is State.DISCARDED
    assert (await spool.story(application_id)).reports == ()


# --- reports ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (ReportState.DUE, ReportState.SUPERSEDED),
        (ReportState.REFUSED, ReportState.SUPERSEDED),
        (ReportState.FAILED, ReportState.SUPERSEDED),
        (ReportState.CONFIRMED, ReportState.CONFIRMED),
    ],
)
async def test_only_the_newest_outcome_is_reported(spool: Spool, was: ReportState, becomes: ReportState) -> None:
    old = await report_in(spool, was)
    await put(spool)
    await work(spool, Event.DELIVER, report=success())
    (claimed,) = await claim_reports(spool)
    assert claimed.report == success()
    (older, _) = sorted(await spool.find(Filter(account="acme")), key=lambda s: s.application_id)
    assert [(r.report_id, r.state) for r in (await spool.story(older.application_id)).reports] == [(old, becomes)]


async def test_an_outcome_supersedes_no_other_applicants_and_no_other_accounts_report(spool: Spool) -> None:
    for applicant_id, account in ((7, "acme"), (8, "acme"), (7, "blue")):
        await put(spool, applicant_id, account)
        await work(spool, Event.DELIVER, report=success(applicant_id))
    assert len(await claim_reports(spool, accounts=("acme", "blue"))) == 3


async def test_reports_come_oldest_due_first_and_only_of_the_accounts_asked_for(spool: Spool) -> None:
    for applicant_id, at, account in ((1, 20, "acme"), (2, 10, "acme"), (3, 0, "blue")):
        await put(spool, applicant_id, account)
        await work(spool, Event.DELIVER, now=T + at, report=success(applicant_id))
    assert [c.report.applicant_id for c in await claim_reports(spool, now=T + 30)] == [2, 1]


async def test_a_report_claim_says_what_to_send_and_is_counted(spool: Spool, another: Opener) -> None:
    application_id = await put(spool)
    await work(spool, Event.DELIVER, now=T + 1, report=success())
    (claimed,) = await claim_reports(spool, now=T + 2)
    assert (claimed.account, claimed.report, claimed.application_id) == ("acme", success(), application_id)
    assert (claimed.attempt, claimed.first_attempt_at, claimed.refused_since) == (1, T + 2, None)
    assert (claimed.created_at, claimed.received_at) == (T + 1, T)
    story = await (await another()).story(application_id)
    assert story.reports[0].attempts == 1
    assert [(a.kind, a.report_id) for a in story.attempts][1:] == [(AttemptKind.REPORT, claimed.report_id)]
    assert story.attempts[1].ended_at is None


async def test_never_two_reports_of_one_applicant_in_flight_and_what_was_superseded_in_flight_stays_so(
    spool: Spool,
) -> None:
    first = await put(spool)
    await work(spool, Event.REJECT, report=failure())
    (in_flight,) = await claim_reports(spool)
    second = await put(spool)
    await work(spool, Event.DELIVER, report=success())
    assert await claim_reports(spool) == []
    confirmed = ReportSettlement(ReportState.CONFIRMED, "confirmed")
    assert await spool.settle_report(in_flight, confirmed, now=T) is ReportState.SUPERSEDED
    (newer,) = await claim_reports(spool)
    assert await spool.settle_report(newer, confirmed, now=T) is ReportState.CONFIRMED
    assert await report_states(spool, first, second) == [ReportState.SUPERSEDED, ReportState.CONFIRMED]


async def test_a_report_tried_again_remembers_since_when_it_is_refused(spool: Spool) -> None:
    await report_in(spool, ReportState.DUE)
    for n, refused in enumerate((False, True, True)):
        (claimed,) = await claim_reports(spool, now=T + n)
        later = ReportSettlement(ReportState.DUE, "refused", "words", due_at=T + n + 1, refused=refused)
        assert await spool.settle_report(claimed, later, now=T + n) is ReportState.DUE
        assert await claim_reports(spool, now=T + n) == []
    (claimed,) = await claim_reports(spool, now=T + 3)
    assert (claimed.attempt, claimed.first_attempt_at, claimed.refused_since) == (4, T, T + 1)


async def test_an_interrupted_report_is_no_attempt(spool: Spool) -> None:
    await report_in(spool, ReportState.DUE)
    (claimed,) = await claim_reports(spool)
    await spool.settle_report(claimed, ReportSettlement(ReportState.DUE, "interrupted", counts=False), now=T)
    (again,) = await claim_reports(spool)
    assert again.attempt == 1


async def test_a_reports_lease_is_fenced_renewed_and_reaped_too(spool: Spool) -> None:
    await report_in(spool, ReportState.DUE)
    (lost,) = await claim_reports(spool)
    assert await spool.renew([lost], now=T + 50, lease=LEASE) == []
    await spool.reap(now=T + LEASE, reports_for=())
    assert await claim_reports(spool, now=T + LEASE) == []
    await spool.reap(now=T + 110, reports_for=())
    (held,) = await claim_reports(spool, now=T + 110)
    with pytest.raises(LeaseLost):
        await spool.settle_report(lost, ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=T + 110)
    assert await spool.renew([lost, held], now=T + 110, lease=LEASE) == [lost]
    story = await spool.story(held.application_id)
    assert [a.code for a in story.attempts] == ["rejected", "no-verdict", None]


async def test_a_pause_stops_one_accounts_reports_until_it_is_over_or_ended(spool: Spool) -> None:
    await report_in(spool, ReportState.DUE)
    await put(spool, 8, "blue")
    await work(spool, Event.DELIVER, report=success(8))
    await spool.pause(Pause("acme", Stage.REPORT, "unauthorized", T, T + 100, "f1"))
    assert [c.account for c in await claim_reports(spool, accounts=("acme", "blue"))] == ["blue"]
    await spool.pause(Pause("acme", Stage.REPORT, "unauthorized", T + 50, T + 200, "f2"))
    assert await spool.pauses() == [Pause("acme", Stage.REPORT, "unauthorized", T, T + 200, "f2")]
    assert (await spool.backlog()).paused == {("acme", Stage.REPORT): PausedBy.ITSELF}
    assert await claim_reports(spool, now=T + 199) == []
    assert len(await claim_reports(spool, now=T + 200)) == 1
    assert await spool.resume("acme", Stage.REPORT, now=T)
    assert not await spool.resume("acme", Stage.REPORT, now=T)
    assert await spool.pauses() == []


async def test_ending_a_pause_lets_the_reports_go_at_once(spool: Spool) -> None:
    await report_in(spool, ReportState.DUE)
    await spool.pause(Pause("acme", Stage.REPORT, "unauthorized", T, T + 100, "f1"))
    await spool.resume("acme", Stage.REPORT, now=T)
    assert len(await claim_reports(spool)) == 1


@pytest.mark.parametrize("state", [ReportState.REFUSED, ReportState.FAILED])
async def test_a_person_can_have_a_refused_or_failed_report_sent_again(spool: Spool, state: ReportState) -> None:
    report_id = await report_in(spool, state)
    await spool.retry_report(report_id, actor="jo", note="idibu is back", now=T + 9)
    (claimed,) = await claim_reports(spool, now=T + 9)
    assert (claimed.attempt, claimed.first_attempt_at, claimed.refused_since) == (1, T + 9, None)
    (action,) = (await spool.story(claimed.application_id)).actions
    assert (action.at, action.actor, action.note) == (T + 9, "jo", "idibu is back")


@pytest.mark.parametrize("state", [ReportState.DUE, ReportState.CONFIRMED, ReportState.SUPERSEDED])
async def test_no_other_report_can_be_sent_again(spool: Spool, state: ReportState) -> None:
    report_id = await report_in(spool, state)
    with pytest.raises(NotAllowed, match=state.value):
        await spool.retry_report(report_id, actor="jo", note="", now=T)
    with pytest.raises(NotFound):
        await spool.retry_report(4711, actor="jo", note="", now=T)


@pytest.mark.parametrize("state", [ReportState.REFUSED, ReportState.FAILED])
async def test_a_person_can_give_a_refused_or_failed_report_up(spool: Spool, state: ReportState) -> None:
    report_id = await report_in(spool, state)
    await spool.drop_report(report_id, actor="jo", note="deleted at idibu", now=T + 9)
    (summary,) = await spool.find(Filter())
    assert summary.report is ReportState.SUPERSEDED
    assert await claim_reports(spool, now=T + 9) == []
    (action,) = (await spool.story(summary.application_id)).actions
    assert (action.at, action.actor, action.note) == (T + 9, "jo", "deleted at idibu")
    with pytest.raises(NotAllowed, match="superseded"):
        await spool.drop_report(report_id, actor="jo", note="", now=T + 9)
    with pytest.raises(NotFound):
        await spool.drop_report(4711, actor="jo", note="", now=T)


# --- when something is due ----------------------------------------------------------------------------------------


async def test_nothing_is_due_in_an_empty_spool(spool: Spool) -> None:
    due = await spool.next_due(now=T, accounts=["acme"])
    assert (due.hand_off, due.solo, due.report, due.lease_end) == (None, None, None, None)


async def test_next_due_tells_hand_offs_solo_ones_and_ends_of_leases_apart(spool: Spool) -> None:
    await put(spool, 1)
    await put(spool, 2, at=T + 20)
    assert (await spool.next_due(now=T, accounts=[])).hand_off == T
    await claim(spool)
    due = await spool.next_due(now=T, accounts=[])
    assert (due.hand_off, due.solo, due.lease_end) == (T + 20, None, T + LEASE)
    await spool.reap(now=T + LEASE, reports_for=())
    due = await spool.next_due(now=T + LEASE, accounts=[])
    assert (due.hand_off, due.solo, due.lease_end) == (T + 20, T + LEASE, None)


async def test_what_waits_for_another_of_its_applicant_is_not_due(spool: Spool) -> None:
    await put(spool)
    await put(spool, at=T + 1)
    await work(spool, Event.POSTPONE, now=T + 1, due_at=T + 500, report=failure())
    assert (await spool.next_due(now=T + 2, accounts=[])).hand_off == T + 500
    await claim_reports(spool, now=T + 2)
    await work(spool, Event.POSTPONE, now=T + 500, due_at=T + 900, report=success())
    due = await spool.next_due(now=T + 3, accounts=["acme"])
    assert (due.report, due.lease_end) == (None, T + 2 + LEASE)


async def test_next_due_looks_at_reports_of_these_accounts_and_knows_when_a_pause_ends(spool: Spool) -> None:
    await report_in(spool, ReportState.DUE)
    assert (await spool.next_due(now=T, accounts=["blue"])).report is None
    assert (await spool.next_due(now=T, accounts=["acme"])).report == T
    await spool.pause(Pause("acme", Stage.REPORT, "unauthorized", T, T + 100, "f1"))
    assert (await spool.next_due(now=T, accounts=["acme"])).report == T + 100


async def test_a_put_through_one_handle_wakes_who_listens_on_another(spool: Spool, another: Opener) -> None:
    woken = asyncio.Event()
    spool.listen(woken.set)
    await (await another()).put(mail(), [Arrival("acme", 7, True)])
    async with asyncio.timeout(10):
        await woken.wait()


# --- people -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", sorted(BY_A_PERSON))
@pytest.mark.parametrize("state", list(State))
async def test_a_persons_decision_is_carried_out_or_refused_as_the_table_says(
    spool: Spool, state: State, event: Event
) -> None:
    application_id = await bring_to(spool, state)
    before = await spool.story(application_id)
    action = Action(event, "jo", "because", account="blue" if event is Event.ROUTE else None)
    becomes = TRANSITIONS.get((state, event))
    if becomes is None:
        with pytest.raises(NotAllowed):
            await spool.act(application_id, action, now=T + 5)
        assert await spool.story(application_id) == before
        return
    assert await spool.act(application_id, action, now=T + 5) is becomes
    story = await spool.story(application_id)
    assert story.summary.state is becomes
    assert story.summary.due_at == (T + 5 if becomes is State.RECEIVED else None)
    assert story.summary.reason is (HeldReason.BY_OPERATOR if becomes is State.HELD else None)
    done = story.actions[-1]
    assert (done.at, done.actor, done.action, done.note) == (T + 5, "jo", event.value, "because")


async def test_an_outcome_is_no_decision_of_a_person(spool: Spool) -> None:
    application_id = await put(spool)
    for event in sorted(set(Event) - BY_A_PERSON):
        with pytest.raises(NotAllowed):
            await spool.act(application_id, Action(event, "jo"), now=T)
    assert (await spool.story(application_id)).summary.state is State.RECEIVED


async def test_nobody_interferes_with_an_attempt_under_way(spool: Spool) -> None:
    application_id = await put(spool)
    (claimed,) = await claim(spool)
    with pytest.raises(NotAllowed, match="at this moment"):
        await spool.act(application_id, Action(Event.HOLD, "jo"), now=T)
    await spool.settle(claimed, SETTLEMENTS[Event.DELIVER], now=T)


async def test_what_is_not_there_is_not_found(spool: Spool) -> None:
    with pytest.raises(NotFound):
        await spool.act(4711, Action(Event.RETRY, "jo"), now=T)
    with pytest.raises(NotFound):
        await spool.story(4711)


async def test_route_gives_account_and_id_and_is_vouched_for(spool: Spool) -> None:
    application_id = await put(spool, None, None)
    await work(spool, Event.HOLD, reason=HeldReason.UNROUTED)
    await spool.act(application_id, Action(Event.ROUTE, "jo", account="blue", applicant_id=12), now=T)
    (claimed,) = await claim(spool)
    assert (claimed.account, claimed.applicant_id, claimed.vouched) == ("blue", 12, True)


@pytest.mark.parametrize(("event", "vouched"), [(Event.RELEASE, True), (Event.RETRY, False)])
async def test_release_vouches_and_retry_does_not(spool: Spool, event: Event, vouched: bool) -> None:
    application_id = await put(spool, trusted=False)
    await work(spool, Event.HOLD, reason=HeldReason.UNTRUSTED)
    await spool.act(application_id, Action(event, "jo"), now=T)
    (claimed,) = await claim(spool)
    assert (claimed.vouched, claimed.trusted, claimed.account, claimed.applicant_id) == (vouched, False, "acme", 7)


async def test_a_retry_begins_a_new_series_without_the_old_crashes(spool: Spool) -> None:
    application_id = await put(spool)
    while not await crash(spool):
        pass
    await spool.act(application_id, Action(Event.RETRY, "jo"), now=T + 500)
    (claimed,) = await claim(spool, now=T + 500)
    assert (claimed.attempt, claimed.series_attempt, claimed.first_attempt_at) == (SOLO_ATTEMPTS + 2, 1, T + 500)
    assert claimed.crashes == 0


async def test_a_delivered_one_is_handed_over_again_knowing_what_was_delivered(spool: Spool) -> None:
    application_id = await put(spool)
    await work(spool, Event.DELIVER, now=T + 1)
    await spool.act(application_id, Action(Event.AGAIN, "jo"), now=T + 2)
    (claimed,) = await claim(spool, now=T + 2)
    assert claimed.again
    (delivered,) = await spool.delivered_before("acme", 7)
    assert (delivered.application_id, delivered.remote_id) == (application_id, "ats-1")
    assert (delivered.content_digest, delivered.delivered_at) == ("v1:aa", T + 1)


@pytest.mark.parametrize("detour", ["fails", "is-held", "crashes"])
async def test_the_wish_to_hand_over_again_outlives_a_detour(spool: Spool, detour: str) -> None:
    application_id = await put(spool)
    await work(spool, Event.DELIVER)
    await spool.act(application_id, Action(Event.AGAIN, "jo"), now=T)
    if detour == "fails":
        await work(spool, Event.EXHAUST)
    elif detour == "is-held":
        await spool.act(application_id, Action(Event.HOLD, "jo"), now=T)
    else:
        while not await crash(spool):
            pass
    await spool.act(application_id, Action(Event.RETRY, "jo"), now=T)
    (claimed,) = await claim(spool)
    assert claimed.again


async def test_earlier_deliveries_come_newest_first_and_only_the_applicants(spool: Spool) -> None:
    for n, (applicant_id, account) in enumerate(((7, "acme"), (7, "acme"), (8, "acme"), (7, "blue"))):
        await put(spool, applicant_id, account)
        await work(spool, Event.DELIVER, now=T + n, remote_id=f"ats-{n}")
    await put(spool)
    await work(spool, Event.REJECT)
    assert [d.remote_id for d in await spool.delivered_before("acme", 7)] == ["ats-1", "ats-0"]
    assert await spool.delivered_before("acme", 9) == []


async def test_work_begins_with_the_mail_and_what_was_delivered_before(spool: Spool) -> None:
    for _ in range(2):
        await put(spool)
        await work(spool, Event.DELIVER)
    await put(spool)
    (claimed,) = await claim(spool)
    raw, earlier = await spool.to_work_on(claimed)
    assert raw == RAW and earlier == await spool.delivered_before("acme", 7) and len(earlier) == 2
    for unknown in ({"account": None}, {"applicant_id": None}):
        assert await spool.to_work_on(replace(claimed, **unknown)) == (RAW, [])
    with pytest.raises(NotFound):
        await spool.to_work_on(replace(claimed, message_id=4711))


async def test_a_discarded_one_is_reported_as_the_person_says(spool: Spool) -> None:
    application_id = await bring_to(spool, State.FAILED)
    await spool.act(application_id, Action(Event.DISCARD, "jo", report=failure()), now=T)
    (report,) = (await spool.story(application_id)).reports
    assert (report.report, report.state) == (failure(), ReportState.DUE)


# --- finding ------------------------------------------------------------------------------------------------------


async def fill(spool: Spool) -> list[int]:
    """Four applications: two of acme (delivered and confirmed, held), one of blue (rejected), one unrouted."""
    ids = [await put(spool, 1, at=T), await put(spool, 2, at=T + 10)]
    ids += [await put(spool, 3, "blue", at=T + 20), await put(spool, None, None, at=T + 30)]
    first, second, third, _ = sorted(await claim(spool, now=T + 30), key=lambda c: c.application_id)
    facts = [
        Facts("REF-1", "Jürgen Groß", "jg@x.example"),
        Facts("REF-2", None, "ann@Y.example"),
        Facts("REF-2", "Ann"),
    ]
    deliver = replace(SETTLEMENTS[Event.DELIVER], facts=facts[0], report=success(1))
    await spool.settle(first, deliver, now=T + 30)
    await spool.settle(second, replace(SETTLEMENTS[Event.HOLD], facts=facts[1]), now=T + 30)
    await spool.settle(third, replace(SETTLEMENTS[Event.REJECT], facts=facts[2], report=failure(3)), now=T + 30)
    (report,) = await claim_reports(spool, now=T + 30)
    await spool.settle_report(report, ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=T + 30)
    return ids


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), [3, 2, 1, 0]),
        (Filter(states=(State.DELIVERED, State.REJECTED)), [2, 0]),
        (Filter(reasons=(HeldReason.UNREADABLE, HeldReason.CRASH_LOOP)), [1]),
        (Filter(report_states=(ReportState.DUE,)), [2]),
        (Filter(report_states=(ReportState.DUE, ReportState.CONFIRMED)), [2, 0]),
        (Filter(account="acme"), [1, 0]),
        (Filter(applicant_id=3), [2]),
        (Filter(client_reference="REF-2"), [2, 1]),
        (Filter(candidate="GROSS"), [0]),
        (Filter(candidate="jürgen"), [0]),
        (Filter(candidate="ann"), [2, 1]),
        (Filter(candidate="@y.EXAMPLE"), [1]),
        (Filter(candidate="%"), []),
        (Filter(since=T + 10), [3, 2, 1]),
        (Filter(client_reference="REF-2", candidate="ann", account="blue"), [2]),
        (Filter(states=(State.DELIVERED,), account="blue"), []),
        (Filter(limit=2), [3, 2]),
    ],
)
async def test_a_list_shows_what_every_given_filter_selects_newest_first(
    spool: Spool, wanted: Filter, found: list[int]
) -> None:
    ids = await fill(spool)
    assert [s.application_id for s in await spool.find(wanted)] == [ids[n] for n in found]


async def test_a_list_is_paged_backwards(spool: Spool) -> None:
    ids = await fill(spool)
    page = await spool.find(Filter(limit=2))
    rest = await spool.find(Filter(limit=2, before_id=page[-1].application_id))
    assert [s.application_id for s in (*page, *rest)] == ids[::-1]


async def test_a_list_shows_the_state_of_the_newest_report(spool: Spool) -> None:
    ids = await fill(spool)
    assert {s.application_id: s.report for s in await spool.find(Filter())} == {
        ids[0]: ReportState.CONFIRMED,
        ids[1]: None,
        ids[2]: ReportState.DUE,
        ids[3]: None,
    }


async def test_the_backlog_counts_what_the_spool_holds(spool: Spool) -> None:
    await fill(spool)
    backlog = await spool.backlog()
    assert backlog.applications == {
        ("acme", State.DELIVERED): 1,
        ("acme", State.HELD): 1,
        ("blue", State.REJECTED): 1,
        ("", State.RECEIVED): 1,
    }
    assert backlog.held == {("acme", HeldReason.UNREADABLE): 1}
    assert backlog.reports == {("acme", ReportState.CONFIRMED): 1, ("blue", ReportState.DUE): 1}
    assert (backlog.oldest_hand_off, backlog.oldest_report) == ({"": T + 30}, {"blue": T + 30})
    assert backlog.paused == {}
    assert backlog.size_bytes > 0


async def test_a_marked_time_is_remembered(spool: Spool, another: Opener) -> None:
    assert await spool.mark("digest") is None
    await spool.set_mark("digest", T)
    await spool.set_mark("digest", T + 1)
    assert await (await another()).mark("digest") == T + 1


async def test_what_waits_is_committed_before_the_spool_closes_and_nothing_is_taken_after(another: Opener) -> None:
    closing, other = await another(), await another()
    puts = [asyncio.ensure_future(closing.put(mail(), [Arrival("acme", n, True)])) for n in range(20)]
    await asyncio.sleep(0)
    await closing.close()
    await asyncio.gather(*puts)
    assert len(await other.find(Filter())) == 20
    with pytest.raises(SpoolUnavailable):
        await closing.put(mail(), [])
    with pytest.raises(SpoolUnavailable):
        await closing.find(Filter())


async def test_a_writable_spool_says_so(spool: Spool) -> None:
    await spool.check_writable()
    await spool.close()
    with pytest.raises(SpoolUnavailable):
        await spool.check_writable()


# --- retention (invariant 6) --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
async def test_only_what_is_finished_is_ever_erased(spool: Spool, state: State) -> None:
    application_id = await bring_to(spool, state)
    message_id = (await spool.story(application_id)).summary.message_id
    finished = state in (State.DELIVERED, State.DUPLICATE, State.DISCARDED)
    assert await spool.erase_finished(before=T + 10**9, limit=10) == int(finished)
    if finished:
        with pytest.raises(NotFound):
            await spool.raw(message_id)
    else:
        assert await spool.raw(message_id) == RAW
    assert (await spool.story(application_id)).erased is finished


@pytest.mark.parametrize("state", list(ReportState))
async def test_nothing_is_erased_whose_report_still_waits(spool: Spool, state: ReportState) -> None:
    application_id = await put(spool)
    await work(spool, Event.DELIVER, report=success())
    if state is not ReportState.DUE:
        (claimed,) = await claim_reports(spool)
        await spool.settle_report(claimed, ReportSettlement(state, "code"), now=T)
    over = state in (ReportState.CONFIRMED, ReportState.SUPERSEDED)
    assert await spool.erase_finished(before=T + 10**9, limit=10) == int(over)
    assert (await spool.story(application_id)).erased is over


async def test_a_message_stays_while_one_of_its_applications_waits(spool: Spool) -> None:
    message_id = await spool.put(mail(), [Arrival("acme", 7, True), Arrival("blue", 7, True)])
    delivered, _ = await claim(spool)
    await spool.settle(delivered, SETTLEMENTS[Event.DELIVER], now=T)
    assert await spool.erase_finished(before=T + 10**9, limit=10) == 0
    assert await spool.raw(message_id) == RAW


HELD_AS_UNTRUSTED = {"code": "untrusted", "reason": HeldReason.UNTRUSTED}


async def test_the_load_counts_what_waits_and_apart_what_nobody_trusts(spool: Spool) -> None:
    assert await spool.load() == Load(0, 0, 0)
    await put(spool, 7)
    await put(spool, None, trusted=False)
    await spool.put(mail(), [Arrival("acme", None, False), Arrival("blue", None, False)])
    assert await spool.load() == Load(4, 2, 2 * len(RAW))
    for claimed in await claim(spool, limit=10):
        event = Event.DELIVER if claimed.trusted else Event.HOLD
        await spool.settle(
            claimed, replace(SETTLEMENTS[event], **({} if claimed.trusted else HELD_AS_UNTRUSTED)), now=T
        )
    assert await spool.load() == Load(0, 2, 2 * len(RAW))
    for row in await spool.find(Filter(states=(State.HELD,))):
        await spool.act(row.application_id, Action(Event.RELEASE, "jo"), now=T)
    assert await spool.load() == Load(3, 0, 0)


async def test_untrusted_mail_nobody_vouched_for_is_discarded_and_erased_in_time(spool: Spool) -> None:
    application_id = await put(spool, None, trusted=False)
    facts = Facts("REF-1", "Jane Doe", "jane@x.example", "Cook", "Seek", "v1:aa", ("about Jane",))
    await work(spool, Event.HOLD, facts=facts, **HELD_AS_UNTRUSTED)
    assert await spool.discard_untrusted(before=T, limit=10, now=T + 5) == 0
    assert await spool.discard_untrusted(before=T + 1, limit=10, now=T + 5) == 1
    story = await spool.story(application_id)
    assert (story.summary.state, story.erased, story.summary.facts.candidate_name) == (State.DISCARDED, True, None)
    assert [(a.actor, a.action, a.at) for a in story.actions] == [("retention", "discard", T + 5)]
    assert "nobody vouched" in story.actions[0].note
    assert await spool.load() == Load(0, 0, 0)
    assert await spool.discard_untrusted(before=T + 1, limit=10, now=T + 5) == 0


async def test_what_is_trusted_released_or_held_by_a_person_is_not_discarded(spool: Spool) -> None:
    await put(spool, 7)
    await work(spool, Event.HOLD, code="invalid-applicant-id", reason=HeldReason.INVALID_APPLICANT_ID)
    released = await put(spool, None, "blue", trusted=False)
    await work(spool, Event.HOLD, **HELD_AS_UNTRUSTED)
    await spool.act(released, Action(Event.RELEASE, "jo"), now=T)
    await work(spool, Event.HOLD)
    kept = await put(spool, None, "red", trusted=False)
    await spool.act(kept, Action(Event.HOLD, "jo"), now=T)
    assert await spool.discard_untrusted(before=T + 10, limit=10, now=T + 10) == 0
    assert len(await spool.find(Filter(states=(State.HELD,)))) == 3


@pytest.mark.parametrize("trusted", [True, False])
async def test_what_a_worker_found_out_about_trust_takes_the_place_of_what_the_intake_did(
    spool: Spool, trusted: bool
) -> None:
    application_id = await put(spool, None, trusted=not trusted)
    await work(spool, Event.HOLD, trust=(trusted, "by the attached mail's own signature"))
    story = await spool.story(application_id)
    assert (story.trusted, story.trust_note) == (trusted, "by the attached mail's own signature")
    await spool.act(application_id, Action(Event.RETRY, "jo"), now=T)
    (claimed,) = await claim(spool)
    assert claimed.trusted is trusted


async def test_a_message_another_account_trusts_outlives_the_untrusted_application(spool: Spool) -> None:
    message_id = await spool.put(mail(), [Arrival("acme", 7, True), Arrival("blue", None, False)])
    for claimed in await claim(spool):
        changes = {} if claimed.trusted else HELD_AS_UNTRUSTED
        await spool.settle(claimed, replace(SETTLEMENTS[Event.HOLD], **changes), now=T)
    assert await spool.discard_untrusted(before=T + 1, limit=10, now=T + 1) == 1
    assert await spool.raw(message_id) == RAW


async def test_what_finished_lately_stays_and_no_more_is_erased_than_asked_for(spool: Spool) -> None:
    for n in range(3):
        await put(spool, n)
    for n, claimed in enumerate(await claim(spool)):
        await spool.settle(claimed, SETTLEMENTS[Event.DELIVER], now=T + 10 * n)
    assert await spool.erase_finished(before=T, limit=10) == 0
    assert await spool.erase_finished(before=T + 20, limit=1) == 1
    assert await spool.erase_finished(before=T + 20, limit=10) == 1
    assert [(await spool.story(s.application_id)).erased for s in await spool.find(Filter())] == [False, True, True]


async def test_a_tombstone_keeps_ids_digests_and_times_and_nothing_of_the_candidate(spool: Spool) -> None:
    application_id = await put(spool)
    facts = Facts("REF-1", "Jane Doe", "jane@x.example", "Cook", "Seek", "v1:aa", ("about Jane",))
    await work(spool, Event.POSTPONE, detail="Jane is late", due_at=T)
    await work(spool, Event.DELIVER, detail="Jane is in", facts=facts, report=failure())
    (claimed,) = await claim_reports(spool)
    confirmed = ReportSettlement(ReportState.CONFIRMED, "confirmed", "Jane saved")
    await spool.settle_report(claimed, replace(confirmed), now=T)
    assert await spool.erase_finished(before=T + 1, limit=10) == 1
    story = await spool.story(application_id)
    kept = story.summary
    assert (kept.account, kept.applicant_id, kept.state, kept.remote_id) == ("acme", 7, State.DELIVERED, "ats-1")
    assert (kept.received_at, kept.settled_at, kept.attempts) == (T, T, 2)
    assert kept.facts == Facts("REF-1", None, None, "Cook", "Seek", "v1:aa", ())
    assert (story.size, len(story.sha256), len(story.attempts), len(story.reports)) == (len(RAW), 64, 3, 1)
    assert (story.sender, story.recipients, story.helo, story.message_warnings) == ("", (), "", ())
    assert "Jane" not in repr(story)
    assert "jane" not in repr(story)
    (delivered,) = await spool.delivered_before("acme", 7)
    assert (delivered.content_digest, delivered.remote_id) == ("v1:aa", "ats-1")
    with pytest.raises(NotAllowed, match="erased"):
        await spool.act(application_id, Action(Event.AGAIN, "jo"), now=T + 1)
