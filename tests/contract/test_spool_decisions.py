"""What people rule about the spool as a whole, on every database: pauses, orders, selections, tombstones, and forgetting."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apptrack_ingest.errors import NotAllowed, NotFound
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import (
    Arrival,
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
    Order,
    Pause,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Spool,
)

T = 1000.0
LEASE = 60.0
DAY = 86400.0
JANE = "jane.doe@example.com"
RAW = b"From: Jane Doe <jane.doe@example.com>\r\nX-iTrackID: 7\r\n\r\n" + b"Zeitgeist " * 4000
Opener = Callable[[], Awaitable[Spool]]


async def put(
    spool: Spool,
    applicant_id: int | None = 7,
    *accounts: str | None,
    at: float = T,
    trusted: bool = True,
    raw: bytes = RAW,
) -> list[int]:
    """A mail with an application for each account (acme); their ids."""
    envelope = Envelope("jane.doe@example.com", ("cv@acme.example",), "192.0.2.77", helo="jane-doe.example.com")
    arrivals = [
        Arrival(account, applicant_id, trusted, "DKIM of jane-doe.example.com") for account in accounts or ("acme",)
    ]
    message_id = await spool.put(Message(envelope, at, raw, ("SPF: jane-doe.example.com",)), arrivals)
    found = await spool.find(Filter(limit=1000, oldest_first=True))
    return [row.application_id for row in found if row.message_id == message_id]


async def claim(spool: Spool, now: float = T, **options: Any) -> list[Claim]:
    return await spool.claim(worker="w1", now=now, lease=LEASE, limit=10, **options)


async def claim_reports(spool: Spool, now: float = T) -> list[ReportClaim]:
    return await spool.claim_reports(worker="w1", now=now, lease=LEASE, limit=10, accounts=("acme", "blue"))


def facts(email: str | None = JANE, **changes: Any) -> Facts:
    return replace(Facts("VAC-1", "Jane Doe", email, "Nurse", "Seek", "v1:aa", ("one page of Jane's",)), **changes)


async def settle(spool: Spool, event: Event, *, now: float = T, **changes: Any) -> None:
    """Claims all that is due and settles it in the same way."""
    claims = await claim(spool, now)
    assert claims
    for claimed in claims:
        given: dict[str, Any] = {"facts": facts(), "due_at": now + 300, "reason": HeldReason.UNREADABLE}
        given["remote_id"] = "ats-7" if event is Event.DELIVER else None
        settlement = Settlement(event, "code", "Jane Doe's own words", **{**given, **changes})
        await spool.settle(claimed, settlement, now=now)


async def send(spool: Spool, state: ReportState = ReportState.CONFIRMED, now: float = T) -> None:
    for claimed in await claim_reports(spool, now):
        await spool.settle_report(claimed, ReportSettlement(state, "code", "about Jane Doe"), now=now)


def report(status: ReportStatus = ReportStatus.SUCCESS, applicant_id: int = 7) -> Report:
    fail = status is ReportStatus.FAIL
    return Report(applicant_id, status, T, None if fail else "ats-7", "Jane Doe was rejected" if fail else None)


# --- pauses -----------------------------------------------------------------------------------------------------------


def by_jo(stage: Stage = Stage.HAND_OFF, until: float | None = None, **changes: Any) -> Pause:
    return replace(Pause("acme", stage, "maintenance", T, until, actor="jo"), **changes)


async def test_a_paused_hand_off_waits_until_told_and_everything_else_goes_on(spool: Spool) -> None:
    await put(spool, 7, "acme")
    await put(spool, 8, "blue")
    assert await spool.pause(by_jo())
    assert [each.account for each in await claim(spool)] == ["blue"]
    assert (await spool.next_due(now=T, accounts=())).hand_off is None
    assert (await spool.backlog()).paused == {("acme", Stage.HAND_OFF): PausedBy.PERSON}
    assert await spool.resume("acme", Stage.HAND_OFF, now=T + 9, actor="jo")
    assert [each.account for each in await claim(spool, T + 9)] == ["acme"]


async def test_a_pause_for_a_time_is_over_by_itself(spool: Spool) -> None:
    await put(spool)
    await spool.pause(by_jo(until=T + 100))
    assert await claim(spool, T + 99) == []
    assert (await spool.next_due(now=T, accounts=())).hand_off == T + 100
    assert len(await claim(spool, T + 100)) == 1


async def test_pauses_of_the_two_stages_know_nothing_of_each_other(spool: Spool) -> None:
    await put(spool)
    await settle(spool, Event.REJECT, report=report(ReportStatus.FAIL))
    await put(spool, 9)
    await spool.pause(by_jo(Stage.REPORT))
    assert await claim_reports(spool) == []
    assert (await spool.next_due(now=T, accounts=("acme",))).report is None
    assert len(await claim(spool)) == 1
    await spool.pause(by_jo(Stage.HAND_OFF))
    assert await spool.resume("acme", Stage.REPORT, now=T, actor="jo")
    assert [each.stage for each in await spool.pauses()] == [Stage.HAND_OFF]
    assert len(await claim_reports(spool)) == 1


async def test_what_a_person_paused_is_neither_paused_nor_resumed_by_us(spool: Spool) -> None:
    await spool.pause(by_jo(Stage.REPORT))
    ours = Pause("acme", Stage.REPORT, "unauthorized", T + 1, T + 900, "f1")
    assert not await spool.pause(ours)
    assert not await spool.resume("acme", Stage.REPORT, now=T + 2)
    assert await spool.pauses() == [by_jo(Stage.REPORT)]


async def test_a_person_can_take_our_own_pause_over_and_end_it(spool: Spool) -> None:
    await spool.pause(Pause("acme", Stage.REPORT, "unauthorized", T, T + 900, "f1"))
    assert (await spool.backlog()).paused == {("acme", Stage.REPORT): PausedBy.ITSELF}
    assert await spool.pause(by_jo(Stage.REPORT, since=T + 5))
    assert await spool.pauses() == [by_jo(Stage.REPORT, since=T)]
    assert await spool.resume("acme", Stage.REPORT, now=T + 6, actor="jo")
    assert await spool.pauses() == []


async def test_after_a_pause_hand_offs_have_their_whole_schedule_and_go_at_once(spool: Spool) -> None:
    await put(spool)
    await settle(spool, Event.POSTPONE, due_at=T + 4 * 3600)
    await put(spool, 8, "blue")
    await settle(spool, Event.POSTPONE, due_at=T + 4 * 3600)
    await spool.pause(by_jo())
    await spool.resume("acme", Stage.HAND_OFF, now=T + 9 * 60, actor="jo")
    (claimed,) = await claim(spool, T + 9 * 60)
    assert (claimed.account, claimed.attempt, claimed.series_attempt) == ("acme", 2, 1)
    assert claimed.first_attempt_at == T + 9 * 60


async def test_what_has_no_account_has_its_whole_schedule_after_its_pause_too(spool: Spool) -> None:
    await put(spool, None, None)
    await settle(spool, Event.POSTPONE, due_at=T + 4 * 3600)
    await put(spool, 8, "blue")
    await settle(spool, Event.POSTPONE, due_at=T + 4 * 3600)
    await spool.pause(by_jo(account=""))
    await spool.resume("", Stage.HAND_OFF, now=T + 9 * 60, actor="jo")
    (claimed,) = await claim(spool, T + 9 * 60)
    assert (claimed.account, claimed.attempt, claimed.series_attempt) == (None, 2, 1)


async def test_the_end_of_a_pause_reaches_all_that_waited(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sqlite", "postgres"):
        monkeypatch.setattr(f"apptrack_ingest.spool.{module}.pauses.RESET_AT_ONCE", 2)
    for number in range(1, 6):
        await put(spool, number)
    await settle(spool, Event.POSTPONE, due_at=T + 4 * 3600)
    await spool.pause(by_jo())
    await spool.resume("acme", Stage.HAND_OFF, now=T + 60, actor="jo")
    assert [each.series_attempt for each in await claim(spool, T + 60)] == [1] * 5


async def test_what_is_under_way_when_a_pause_ends_keeps_its_lease(spool: Spool) -> None:
    await put(spool)
    (held,) = await claim(spool)
    await spool.pause(by_jo())
    await spool.resume("acme", Stage.HAND_OFF, now=T + 5, actor="jo")
    await spool.settle(held, Settlement(Event.DELIVER, "delivered"), now=T + 6)
    assert (await spool.story(held.application_id)).summary.state is State.DELIVERED


async def test_pauses_whose_time_is_up_are_ended_with_all_that_goes_with_it(spool: Spool) -> None:
    await put(spool)
    await settle(spool, Event.POSTPONE, due_at=T + 4 * 3600)
    ours = Pause("blue", Stage.REPORT, "unauthorized", T, T + 10, "f1")
    for pause in (by_jo(until=T + 100), by_jo(Stage.REPORT), ours):
        await spool.pause(pause)
    assert await spool.end_pauses(now=T + 99) == []
    assert await spool.end_pauses(now=T + 100) == [by_jo(until=T + 100)]
    assert await spool.pauses() == [by_jo(Stage.REPORT), ours]
    assert [each.series_attempt for each in await claim(spool, T + 100)] == [1]
    ended = (await spool.orders())[0].order
    assert (ended.action, ended.actor, ended.account) == ("resume", "", "acme")


async def test_a_pause_that_was_prolonged_meanwhile_is_not_ended(spool: Spool, another: Opener) -> None:
    await spool.pause(by_jo(until=T + 100))
    await (await another()).pause(by_jo(until=T + 500))
    assert await spool.end_pauses(now=T + 100) == []


# --- orders -----------------------------------------------------------------------------------------------------------


async def test_who_paused_and_resumed_what_when_and_why_is_kept(spool: Spool) -> None:
    await spool.pause(by_jo(until=T + 100))
    await spool.resume("acme", Stage.HAND_OFF, now=T + 9, actor="ann", note="it is back")
    resumed, paused = await spool.orders()
    assert (resumed.at, resumed.ended_at, resumed.order) == (
        T + 9,
        T + 9,
        Order("resume", "ann", "acme", "hand-off", "it is back"),
    )
    assert (paused.at, paused.order.actor, paused.order.note) == (T, "jo", "maintenance")
    assert paused.order.subject == "hand-off until 1970-01-01 00:18:20+00:00"


async def test_a_wrong_hash_is_told_once_however_often_its_pause_is_prolonged(spool: Spool) -> None:
    for number in range(3):
        await spool.pause(Pause("acme", Stage.REPORT, "unauthorized", T + number, T + 900 + number, "f1"))
    await spool.resume("acme", Stage.REPORT, now=T + 9, note="the hash was changed")
    told = [(each.order.action, each.order.actor, each.order.note) for each in await spool.orders()]
    assert told == [("resume", "", "the hash was changed"), ("pause", "", "unauthorized")]


async def test_an_order_about_many_stands_in_their_histories_with_its_number(spool: Spool) -> None:
    (application_id,) = await put(spool)
    number = await spool.begin_order(Order("hold", "jo", "acme", "--account acme", "wait"), now=T)
    (under_way,) = await spool.orders()
    assert (under_way.done, under_way.ended_at) == (0, None)
    await spool.act(application_id, Action(Event.HOLD, "jo", "wait", order_id=number), now=T)
    await spool.end_order(number, done=1, refused=2, now=T + 3)
    assert [each.order_id for each in (await spool.story(application_id)).actions] == [number]
    (record,) = await spool.orders()
    assert (record.order_id, record.done, record.refused, record.ended_at) == (number, 1, 2, T + 3)


async def test_orders_are_found_by_account_and_page_by_page(spool: Spool) -> None:
    numbers = [
        await spool.begin_order(Order("hold", "jo", account), now=T) for account in ("acme", "blue", None, "acme")
    ]
    assert [each.order_id for each in await spool.orders(account="acme")] == [numbers[3], numbers[0]]
    assert [each.order_id for each in await spool.orders(before_id=numbers[3], limit=2)] == [numbers[2], numbers[1]]


# --- selections -------------------------------------------------------------------------------------------------------


async def test_selections_by_portal_time_and_what_has_no_account(spool: Spool) -> None:
    (first,), (second,) = await put(spool), await put(spool, 8, at=T + 10)
    await settle(spool, Event.HOLD, now=T + 10)
    (unrouted,) = await put(spool, 9, None, at=T + 20)

    async def ids(**wanted: Any) -> list[int]:
        found = [row.application_id for row in await spool.find(Filter(**wanted))]
        assert await spool.count(Filter(**wanted, limit=1)) == len(found)
        return found

    assert await ids(portal="Seek") == [second, first]
    assert await ids(portal="seek") == []
    assert await ids(until=T + 10) == [first]
    assert await ids(since=T + 10, until=T + 20) == [second]
    assert await ids(account="") == [unrouted]
    assert await ids(account="acme") == [second, first]
    assert await ids(unread=True) == [unrouted]
    assert await ids(after_id=first, oldest_first=True) == [second, unrouted]
    assert await ids(states=(State.HELD,), oldest_first=True) == [first, second]
    assert await ids() == [unrouted, second, first]


# --- tombstones -------------------------------------------------------------------------------------------------------


async def finished(spool: Spool, applicant_id: int = 7, *, at: float = T, event: Event = Event.DELIVER) -> int:
    """An application finished at once, told to idibu."""
    (application_id,) = await put(spool, applicant_id, at=at)
    await settle(spool, event, now=at, report=report(applicant_id=applicant_id))
    await send(spool, now=at)
    return application_id


async def tombstones(spool: Spool, *, before: float = T + 500 * DAY, limit: int = 100) -> int:
    return await spool.erase_tombstones(before=before, limit=limit)


async def erased(spool: Spool, before: float = T + 500 * DAY) -> int:
    return await spool.erase_finished(before=before, limit=100)


async def test_of_a_tombstone_nothing_is_left(spool: Spool) -> None:
    application_id = await finished(spool)
    await spool.act(application_id, Action(Event.AGAIN, "jo"), now=T)
    await settle(spool, Event.DELIVER, report=report())
    await send(spool)
    assert await tombstones(spool) == 0, "only what retention has erased is a tombstone"
    await erased(spool)
    assert await tombstones(spool, before=T) == 0, "not before its time"
    assert await tombstones(spool) == 1
    assert await spool.find(Filter()) == []
    with pytest.raises(NotFound):
        await spool.story(application_id)
    backlog = await spool.backlog()
    assert (sum(backlog.applications.values()), sum(backlog.reports.values())) == (0, 0)
    assert await spool.delivered_before("acme", 7) == []


async def test_ids_are_never_given_again(spool: Spool) -> None:
    application_id = await finished(spool)
    await erased(spool)
    await tombstones(spool)
    assert await put(spool) > [application_id]


async def test_an_applicants_tombstones_go_together(spool: Spool) -> None:
    await finished(spool)
    await finished(spool, at=T + 300 * DAY)
    await finished(spool, 8)
    await erased(spool)
    assert await tombstones(spool, before=T + 200 * DAY) == 1
    assert len(await spool.delivered_before("acme", 7)) == 2
    assert await tombstones(spool, before=T + 400 * DAY) == 2


@pytest.mark.parametrize("event", [Event.POSTPONE, Event.HOLD, Event.REJECT, Event.EXHAUST])
async def test_what_an_update_that_still_waits_may_need_stays(spool: Spool, event: Event) -> None:
    await finished(spool)
    await erased(spool)
    await put(spool)
    await settle(spool, event)
    assert await tombstones(spool) == 0
    assert len(await spool.delivered_before("acme", 7)) == 1


async def test_what_a_duplicate_refers_to_goes_after_it_or_with_it(spool: Spool) -> None:
    first = await finished(spool)
    (second,) = await put(spool)
    await settle(spool, Event.RECOGNISE, duplicate_of=first)
    await erased(spool)
    while await tombstones(spool, limit=1):
        known = {row.application_id for row in await spool.find(Filter())}
        assert known != {second}
    assert await spool.find(Filter()) == []


async def test_a_mail_with_several_applications_goes_when_all_may(spool: Spool) -> None:
    await put(spool, 7, "acme", "blue")
    await settle(spool, Event.DELIVER)
    await erased(spool)
    await put(spool, 7, "blue", at=T + 1)
    assert await tombstones(spool) == 0
    await settle(spool, Event.DELIVER, now=T + 1)
    await erased(spool)
    assert await tombstones(spool) == 2


@pytest.mark.parametrize("state", [ReportState.REFUSED, ReportState.FAILED])
async def test_a_report_still_owed_keeps_it(spool: Spool, state: ReportState) -> None:
    """One forgotten is erased at once, whatever idibu is still to be told."""
    await put(spool)
    await settle(spool, Event.POSTPONE)
    (application_id,) = await forget(spool)
    assert await tombstones(spool) == 0
    await send(spool, state, now=T + 60)
    assert await tombstones(spool) == 0
    report_id = (await spool.story(application_id)).reports[0].report_id
    await spool.drop_report(report_id, actor="jo", note="deleted at idibu", now=T + 70)
    assert await tombstones(spool) == 1


async def test_old_orders_go_with_the_tombstones(spool: Spool) -> None:
    await spool.pause(by_jo())
    number = await spool.begin_order(Order("hold", "jo"), now=T + 50)
    await tombstones(spool, before=T + 20)
    assert [each.order_id for each in await spool.orders()] == [number]


async def test_space_is_given_back_bit_by_bit_until_there_is_none(spool: Spool, tmp_path: Path) -> None:
    for number in range(1, 11):
        await put(spool, number, raw=b"x" * 15_000)
    await settle(spool, Event.DELIVER)
    await erased(spool)
    steps = []
    while given := await spool.give_back(keep=0, limit=50_000):
        steps.append(given)
    assert all(step <= 50_000 for step in steps)
    # PostgreSQL makes room for what comes by itself (autovacuum).
    assert sum(steps) >= (100_000 if (tmp_path / "data").exists() else 0)


# --- forgetting -------------------------------------------------------------------------------------------------------


async def forget(spool: Spool, address: str = JANE, now: float = T + 50) -> list[int]:
    """As the command does: what waits first, then everything."""
    found = await spool.traces(address)
    for trace in found:
        if trace.state in (State.RECEIVED, State.HELD, State.REJECTED, State.FAILED):
            told = replace(report(ReportStatus.FAIL), error_message="discarded: erased on request")
            await spool.act(trace.application_id, Action(Event.FORGET, "jo", report=told), now=now)
    ids = [trace.application_id for trace in found]
    await spool.forget(address, ids, actor="jo", note="asked by letter", now=now)
    return ids


async def test_a_persons_traces_are_found_by_address_applicant_and_mail(spool: Spool) -> None:
    both = await put(spool, 7, "acme", "blue")
    await settle(spool, Event.DELIVER)
    (by_applicant,) = await put(spool, at=T + 1)
    await settle(spool, Event.DELIVER, now=T + 1, facts=facts("jd@home.example"))
    (other,) = await put(spool, 8, at=T + 2)
    await settle(spool, Event.DELIVER, now=T + 2, facts=facts("john@example.com"))
    (unread,) = await put(spool, None, at=T + 3)
    for address in (JANE, " Jane.DOE@example.com "):
        assert [trace.application_id for trace in await spool.traces(address)] == [*both, by_applicant]
    assert [trace.application_id for trace in await spool.traces(JANE, [unread])] == [*both, by_applicant, unread]
    assert [trace.application_id for trace in await spool.traces("john@example.com")] == [other]
    assert await spool.traces("doe@example.com") == []
    (trace,) = await spool.traces("john@example.com")
    assert (trace.account, trace.applicant_id, trace.state, trace.remote_id) == ("acme", 8, State.DELIVERED, "ats-7")
    assert (trace.believed, trace.attempted, trace.in_work, trace.erased) == (True, True, False, False)


async def test_of_one_forgotten_no_word_is_left_but_ids_digests_and_times(spool: Spool) -> None:
    (application_id,) = await put(spool)
    await settle(spool, Event.REJECT, report=report(ReportStatus.FAIL))
    await send(spool)
    await spool.act(application_id, Action(Event.RETRY, "jo", "Jane Doe called"), now=T)
    await settle(spool, Event.DELIVER, report=report())
    before = await spool.story(application_id)
    assert await forget(spool) == [application_id]
    story = await spool.story(application_id)
    assert "jane" not in repr(story).casefold()
    assert "doe" not in repr(story).casefold()
    assert story.erased
    assert (story.sha256, story.size) == (before.sha256, before.size)
    assert story.sha256
    assert (story.summary.applicant_id, story.summary.remote_id, story.summary.facts.content_digest) == (
        7,
        "ats-7",
        "v1:aa",
    )
    assert [each.code for each in story.attempts] == [each.code for each in before.attempts]
    assert [(each.action, each.actor) for each in story.actions] == [("retry", "jo"), ("forget", "jo")]
    with pytest.raises(NotFound):
        await spool.raw(story.summary.message_id)
    assert await spool.find(Filter(candidate="doe")) == []


async def test_a_mail_read_again_while_it_is_erased_brings_nobody_back(spool: Spool) -> None:
    (application,) = await put(spool)
    await settle(spool, Event.DELIVER)
    await spool.forget(JANE, [application], actor="jo", note="", now=T)
    with pytest.raises(NotFound, match="erased"):
        await spool.update_facts(application, facts(), None)
    assert (await spool.story(application)).summary.facts.candidate_email is None
    with pytest.raises(NotFound, match="no application 99"):
        await spool.update_facts(99, facts(), None)


@pytest.mark.parametrize("event", [Event.POSTPONE, Event.HOLD, Event.REJECT, Event.EXHAUST])
async def test_what_waits_of_one_forgotten_is_discarded_and_idibu_is_told(spool: Spool, event: Event) -> None:
    await put(spool)
    await settle(spool, event, report=report(ReportStatus.FAIL))
    (application_id,) = await forget(spool)
    story = await spool.story(application_id)
    assert story.summary.state is State.DISCARDED
    (claimed,) = await claim_reports(spool, T + 60)
    assert (claimed.report.status, claimed.report.error_message) == (ReportStatus.FAIL, "discarded: erased on request")


async def test_a_success_that_idibu_is_still_owed_is_told_all_the_same(spool: Spool) -> None:
    await put(spool)
    await settle(spool, Event.DELIVER, report=report())
    await forget(spool)
    (claimed,) = await claim_reports(spool, T + 60)
    assert (claimed.report.status, claimed.report.remote_id) == (ReportStatus.SUCCESS, "ats-7")


async def test_a_remote_id_that_is_the_address_goes_too(spool: Spool) -> None:
    await put(spool)
    remote_id = "mailto:Jane.Doe@Example.com"
    await settle(spool, Event.DELIVER, remote_id=remote_id, report=replace(report(), remote_id=remote_id))
    (application_id,) = await forget(spool)
    story = await spool.story(application_id)
    assert (story.summary.remote_id, story.reports[0].report.remote_id) == (None, None)


async def test_nobody_is_forgotten_amid_an_attempt(spool: Spool) -> None:
    (first,) = await put(spool)
    await settle(spool, Event.DELIVER, report=report())
    await claim_reports(spool)
    (trace,) = await spool.traces(JANE)
    assert trace.in_work
    with pytest.raises(NotAllowed, match="being worked on"):
        await spool.forget(JANE, [first], actor="jo", note="", now=T)
    assert not (await spool.story(first)).erased
    await spool.reap(now=T + LEASE, reports_for=())
    (second,) = await put(spool, at=T + 1)
    with pytest.raises(NotAllowed, match="still waits"):
        await spool.forget(JANE, [first, second], actor="jo", note="", now=T)
    assert not (await spool.story(first)).erased
    assert await spool.forgotten(JANE) == []


async def test_only_who_knows_the_address_can_tell_that_it_was_forgotten(spool: Spool, another: Opener) -> None:
    await put(spool)
    await settle(spool, Event.DELIVER)
    await forget(spool)
    (left,) = await (await another()).forgotten(" JANE.doe@example.com")
    assert (left.at, left.actor, left.applications) == (T + 50, "jo", 1)
    assert await spool.forgotten("john@example.com") == []
    (order,) = await spool.orders()
    assert (order.order.action, order.order.subject, order.order.note) == ("forget", left.digest, "asked by letter")
    assert order.done == 1
    # Again, of another mail: the digest is the same, so that it can be counted but not linked to anything else.
    await put(spool, at=T + 60)
    await settle(spool, Event.DELIVER, now=T + 60)
    await forget(spool, now=T + 70)
    again = await spool.forgotten(JANE)
    assert [(each.digest, each.at) for each in again] == [(left.digest, T + 70), (left.digest, T + 50)]


async def test_orders_that_name_the_person_are_emptied(spool: Spool) -> None:
    named = await spool.begin_order(Order("hold", "jo", None, "--held-reason untrusted", f"of {JANE.title()}"), now=T)
    by_name = await spool.begin_order(Order("hold", "jo", None, "--state held", "asked for by JANE DOE"), now=T)
    kept = await spool.begin_order(Order("hold", "jo", None, "--state held", "of Seek, for jane"), now=T)
    await put(spool)
    await settle(spool, Event.DELIVER)
    await forget(spool)
    notes = {each.order_id: (each.order.subject, each.order.note) for each in await spool.orders()}
    assert notes[named] == notes[by_name] == ("", "")
    assert notes[kept] == ("--state held", "of Seek, for jane")


async def test_the_others_lose_nothing(spool: Spool) -> None:
    await put(spool)
    await settle(spool, Event.DELIVER)
    (other,) = await put(spool, 8, at=T + 1)
    await settle(spool, Event.DELIVER, now=T + 1, facts=facts("john@example.com", candidate_name="John Roe"))
    before = await spool.story(other)
    await forget(spool)
    assert await spool.story(other) == before
    assert await spool.raw(before.summary.message_id) == RAW


async def test_no_file_of_a_sqlite_spool_holds_a_word_of_one_forgotten(spool: Spool, tmp_path: Path) -> None:
    if not (tmp_path / "data").exists():
        return  # what PostgreSQL keeps in its files is its own affair (docs/privacy.md)
    await put(spool)
    await settle(spool, Event.HOLD)
    await put(spool, raw=RAW[:200], at=T + 1)
    await settle(spool, Event.DELIVER, now=T + 1)

    def holding() -> list[str]:
        files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        words = (b"jane.doe@example.com", b"Jane Doe", b"Zeitgeist", b"jane-doe.example.com")
        return [path.name for path in files if any(word in path.read_bytes() for word in words)]

    assert holding()
    await forget(spool)
    assert holding() == []
