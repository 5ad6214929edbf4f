"""Whose turn it is: what a claim takes when more is due than it may take, on every database there is."""

from dataclasses import replace

import pytest
from contract.test_spool import LEASE, SETTLEMENTS, Opener, T, claim, claim_reports, failure, mail, put, success

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Report, ReportStatus, Stage, State
from apptrack_ingest.spool.contract import Action, Claim, Due, Facts, Filter, Load, Pause, ReportSettlement, Spool


async def flood(spool: Spool, account: str | None, number: int, *, at: float = T, trusted: bool = True) -> None:
    """Many applications at once, each of another applicant (of nobody known where not trusted)."""
    for start in range(0, number, 100):
        arrivals = [Arrival(account, n if trusted else None, trusted) for n in range(start, min(start + 100, number))]
        await spool.put(mail(at=at), arrivals)


def accounts(claims: list[Claim]) -> list[str]:
    return [each.account or "" for each in claims]


async def next_due(spool: Spool, *, now: float = T, **options: object) -> Due:
    return await spool.next_due(now=now, accounts=["acme", "blue"], **options)  # type: ignore[arg-type]


# --- accounts ---------------------------------------------------------------------------------------------------------


async def test_a_flood_for_one_account_delays_no_other(spool: Spool) -> None:
    await flood(spool, "flood", 300)
    await flood(spool, "blue", 3, at=T + 5)
    await flood(spool, None, 1, at=T + 6)
    assert accounts(await claim(spool, now=T + 6, limit=6)) == ["flood", "blue", "", "flood", "blue", "flood"]
    assert accounts(await claim(spool, now=T + 6, limit=3)) == ["blue", "flood", "flood"]


async def test_who_has_the_fewest_in_work_with_all_workers_is_first(spool: Spool, another: Opener) -> None:
    await flood(spool, "acme", 5)
    await claim(await another(), worker="w2", limit=2)
    await flood(spool, "blue", 5, at=T + 1)
    assert accounts(await claim(spool, now=T + 1, limit=5)) == ["blue", "blue", "acme", "blue", "acme"]


async def test_of_equals_the_one_that_waits_longest_is_first(spool: Spool) -> None:
    for account, at in (("acme", T + 3), ("blue", T + 1), ("red", T + 2)):
        await put(spool, 7, account, at=at)
    assert accounts(await claim(spool, now=T + 3, limit=2)) == ["blue", "red"]


async def test_an_account_without_room_is_passed_by_however_much_of_it_waits(spool: Spool) -> None:
    await flood(spool, "flood", 250)
    await put(spool, 7, "blue", at=T + 9)
    assert accounts(await claim(spool, now=T + 9, limit=5, room={"flood": 0, "blue": 3})) == ["blue"]
    assert accounts(await claim(spool, now=T + 9, limit=5, room={"flood": 2})) == ["flood", "flood"]


async def test_reports_of_accounts_take_turns_too(spool: Spool) -> None:
    await flood(spool, "acme", 6)
    await flood(spool, "blue", 2, at=T + 1)
    for each in await claim(spool, now=T + 1, limit=8):
        report = Report(each.applicant_id or 0, ReportStatus.SUCCESS, T)
        at = T + 1 if each.account == "acme" else T + 2
        await spool.settle(each, replace(SETTLEMENTS[Event.DELIVER], report=report), now=at)
    both = {"worker": "w1", "now": T + 2, "lease": LEASE, "accounts": ["acme", "blue"]}
    first = await spool.claim_reports(limit=3, **both)  # type: ignore[arg-type]
    assert [each.account for each in first] == ["acme", "blue", "acme"]
    rest = await spool.claim_reports(limit=9, **both)  # type: ignore[arg-type]
    assert [each.account for each in rest] == ["blue", "acme", "acme", "acme", "acme"]


# --- trust ------------------------------------------------------------------------------------------------------------


async def test_what_is_trusted_or_vouched_for_goes_before_what_is_not(spool: Spool) -> None:
    stranger = await put(spool, None, trusted=False)
    vouched = await put(spool, None, trusted=False, at=T + 1)
    await spool.act(vouched, Action(Event.HOLD, "jo"), now=T + 1)
    await spool.act(vouched, Action(Event.RELEASE, "jo"), now=T + 1)
    trusted = await put(spool, 7, at=T + 2)
    assert [c.application_id for c in await claim(spool, now=T + 2)] == [vouched, trusted, stranger]


async def test_no_more_strangers_are_taken_than_wanted(spool: Spool) -> None:
    await flood(spool, "acme", 5, trusted=False)
    await flood(spool, None, 5, trusted=False)
    await flood(spool, "blue", 2, at=T + 9)
    assert accounts(await claim(spool, now=T + 9, untrusted=0)) == ["blue", "blue"]
    claimed = await claim(spool, now=T + 9, untrusted=3)
    assert [(c.trusted, c.account) for c in claimed] == [(False, "acme"), (False, None), (False, "acme")]
    assert len(await claim(spool, now=T + 9)) == 7


async def test_strangers_before_them_keep_nobody_trusted_from_the_claim(spool: Spool) -> None:
    await flood(spool, "acme", 200, trusted=False)
    await flood(spool, "acme", 3, at=T + 9)
    assert [c.trusted for c in await claim(spool, now=T + 9, limit=4, untrusted=1)] == [True, True, True, False]


# --- applicants -------------------------------------------------------------------------------------------------------


async def test_of_thousands_of_one_applicant_each_comes_when_the_one_before_has_an_outcome(spool: Spool) -> None:
    for n in range(12):
        await spool.put(mail(at=T + n), [Arrival("acme", 7, True)] * 10)
    ids = sorted(s.application_id for s in await spool.find(Filter(limit=200)))
    taken = []
    for event in (Event.DELIVER, Event.HOLD, Event.REJECT, Event.EXHAUST, Event.RECOGNISE):
        (claimed,) = await claim(spool, now=T + 50)
        assert (await next_due(spool, now=T + 50)).hand_off is None
        await spool.settle(claimed, SETTLEMENTS[event], now=T + 50)
        taken.append(claimed.application_id)
    assert taken == ids[:5]


@pytest.mark.parametrize("event", [Event.HOLD, Event.EXHAUST])
async def test_an_older_one_set_going_again_is_in_front_of_those_that_wait(spool: Spool, event: Event) -> None:
    older, between, younger = [await put(spool) for _ in range(3)]
    (claimed,) = await claim(spool)
    await spool.settle(claimed, SETTLEMENTS[event], now=T)
    await spool.act(older, Action(Event.RETRY, "jo"), now=T)
    for wanted in (older, between, younger):
        (claimed,) = await claim(spool)
        assert claimed.application_id == wanted
        await spool.settle(claimed, SETTLEMENTS[Event.DELIVER], now=T)


async def test_what_a_person_takes_away_or_routes_leaves_one_line_and_enters_the_other(spool: Spool) -> None:
    first, second = await put(spool, 7, None), await put(spool, 7, "acme")
    third = await put(spool, 7, "acme")
    await claim(spool)
    await spool.reap(now=T + LEASE, reports_for=())
    await spool.act(first, Action(Event.HOLD, "jo"), now=T + LEASE)
    await spool.act(first, Action(Event.ROUTE, "jo", account="acme"), now=T + LEASE)
    assert [c.application_id for c in await claim(spool, now=T + LEASE)] == [first]
    assert await claim(spool, now=T + LEASE, solo=True) == []
    (summary,) = [s for s in await spool.find(Filter()) if s.application_id == first]
    assert summary.in_work
    with_verdict = await spool.story(second)
    assert with_verdict.summary.attempts == 1
    assert (await next_due(spool, now=T + LEASE)).hand_off is None
    assert (await next_due(spool, now=T + LEASE)).solo is None
    assert (await spool.story(third)).summary.state is State.RECEIVED


async def test_an_id_found_in_the_mail_puts_it_into_the_applicants_line(spool: Spool) -> None:
    unknown = await put(spool, None)
    known = await put(spool, 7)
    await spool.update_facts(unknown, Facts(), 7)
    assert [c.application_id for c in await claim(spool)] == [unknown]
    assert (await next_due(spool)).hand_off is None
    await spool.settle(
        (await spool_claims(spool, unknown)), replace(SETTLEMENTS[Event.REJECT], report=failure()), now=T
    )
    assert [c.application_id for c in await claim(spool)] == [known]


async def spool_claims(spool: Spool, application_id: int) -> Claim:
    """The claim that was just made on an application, as its worker holds it."""
    story = await spool.story(application_id)
    return Claim(
        application_id=application_id,
        message_id=story.summary.message_id,
        account=story.summary.account,
        applicant_id=story.summary.applicant_id,
        token=1,
        attempt=1,
        series_attempt=1,
        crashes=0,
        first_attempt_at=T,
        received_at=T,
        trusted=True,
        vouched=False,
        again=False,
    )


# --- pauses -----------------------------------------------------------------------------------------------------------


async def test_a_paused_accounts_hand_offs_wait_and_are_due_when_the_pause_ends(spool: Spool) -> None:
    await put(spool, 7, "acme")
    await put(spool, 7, None)
    await spool.pause(Pause("acme", Stage.HAND_OFF, "moving house", T, T + 100, actor="jo"))
    await spool.pause(Pause("", Stage.HAND_OFF, "moving house", T, None, actor="jo"))
    assert await claim(spool, now=T + 99) == []
    assert (await next_due(spool)).hand_off == T + 100
    assert accounts(await claim(spool, now=T + 100)) == ["acme"]
    assert (await next_due(spool, now=T + 100)).hand_off is None
    await spool.resume("", Stage.HAND_OFF, now=T + 101, actor="jo")
    assert accounts(await claim(spool, now=T + 101)) == [""]


async def test_a_pause_of_one_stage_leaves_the_other(spool: Spool) -> None:
    await put(spool, 7, "acme")
    await spool.pause(Pause("acme", Stage.REPORT, "moving house", T, None, actor="jo"))
    (claimed,) = await claim(spool)
    await spool.settle(claimed, replace(SETTLEMENTS[Event.DELIVER], report=success()), now=T)
    assert await claim_reports(spool) == []
    assert (await next_due(spool)).report is None
    await spool.pause(Pause("acme", Stage.HAND_OFF, "moving house", T, None, actor="jo"))
    await spool.resume("acme", Stage.REPORT, now=T, actor="jo")
    (sending,) = await claim_reports(spool)
    await spool.settle_report(sending, ReportSettlement("confirmed", "confirmed"), now=T)  # type: ignore[arg-type]


async def test_solo_work_of_a_paused_account_waits_too(spool: Spool) -> None:
    await put(spool, 7)
    await claim(spool, lease=0)
    await spool.reap(now=T, reports_for=())
    await spool.pause(Pause("acme", Stage.HAND_OFF, "moving house", T, T + 9, actor="jo"))
    assert await claim(spool, solo=True) == []
    assert (await next_due(spool)).solo == T + 9
    assert len(await claim(spool, now=T + 9, solo=True)) == 1


# --- when -------------------------------------------------------------------------------------------------------------


async def test_what_there_is_no_room_for_is_not_due(spool: Spool) -> None:
    await put(spool, 7, "acme", at=T + 1)
    await put(spool, None, "blue", at=T + 2, trusted=False)
    await put(spool, None, None, at=T + 3, trusted=False)
    assert (await next_due(spool)).hand_off == T + 1
    assert (await next_due(spool, full=["acme"])).hand_off == T + 2
    assert (await next_due(spool, full=["acme", "blue"])).hand_off == T + 3
    assert (await next_due(spool, full=["acme", "blue", ""])).hand_off is None
    assert (await next_due(spool, untrusted=False)).hand_off == T + 1
    assert (await next_due(spool, untrusted=False, full=["acme"])).hand_off is None


async def test_solo_work_there_is_no_room_for_is_not_due(spool: Spool) -> None:
    await put(spool, None, "blue", trusted=False)
    await claim(spool, lease=0)
    await spool.reap(now=T, reports_for=())
    assert (await next_due(spool)).solo == T
    assert (await next_due(spool, full=["blue"])).solo is None
    assert (await next_due(spool, untrusted=False)).solo is None
    assert await claim(spool, solo=True, untrusted=0) == []
    assert await claim(spool, solo=True, room={"blue": 0}) == []
    assert len(await claim(spool, solo=True, room={"blue": 1}, untrusted=1)) == 1


# --- counts -----------------------------------------------------------------------------------------------------------


async def test_a_strangers_message_counts_until_the_last_of_its_applications_is_settled(spool: Spool) -> None:
    await spool.put(mail(), [Arrival(name, None, False) for name in ("acme", "blue", None)])
    size = (await spool.load()).untrusted_bytes
    claimed = await claim(spool)
    for left, each in zip((1, 1, 0), claimed, strict=True):
        assert await spool.load() == Load(len(claimed), 1, size)
        await spool.settle(each, SETTLEMENTS[Event.REJECT], now=T)
        claimed = claimed[1:]
        assert await spool.load() == Load(len(claimed), left, left * size)


# --- finding ----------------------------------------------------------------------------------------------------------

DAY = 86_400.0


async def test_the_time_of_receipt_is_found_whatever_the_order_in_which_mail_came(spool: Spool) -> None:
    """A machine whose clock is wrong must not hide what others received."""
    times = [T + 9 * DAY, T + 2 * DAY, T + 3 * DAY, T, T + 9 * DAY + 5, T + 2 * DAY + 1]
    ids = [await put(spool, n, at=at) for n, at in enumerate(times)]
    for since in sorted({*times, T + 4 * DAY, T + 20 * DAY}):
        found = [s.application_id for s in await spool.find(Filter(since=since))]
        assert found == [i for i, at in reversed(list(zip(ids, times, strict=True))) if at >= since]
        found = [s.application_id for s in await spool.find(Filter(until=since, oldest_first=True))]
        assert found == [i for i, at in zip(ids, times, strict=True) if at < since]


async def test_what_was_routed_elsewhere_after_its_report_is_found_in_its_new_account(spool: Spool) -> None:
    application_id = await put(spool)
    (claimed,) = await claim(spool)
    await spool.settle(claimed, replace(SETTLEMENTS[Event.HOLD], report=failure()), now=T)
    await spool.act(application_id, Action(Event.ROUTE, "jo", account="blue"), now=T)
    due = Filter(account="blue", report_states=((await spool.story(application_id)).reports[0].state,))
    assert [s.application_id for s in await spool.find(due)] == [application_id]
    assert await spool.find(replace(due, account="acme")) == []
    assert await spool.count(due) == 1
