"""The newest outcome of an applicant, found by the applicant, and told again where idibu lost it."""

import pytest

from apptrack_ingest.errors import NotAllowed, NotFound
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Envelope, Message, Report, ReportState, ReportStatus
from apptrack_ingest.spool.contract import Filter, ReportSettlement, Settlement, Spool

CONFIRMED = ReportSettlement(ReportState.CONFIRMED, "confirmed")


async def put(spool: Spool, applicant_id: int | None, account: str | None = "acme", at: float = 1000.0) -> int:
    message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), at, b"Subject: hello\r\n\r\n")
    await spool.put(message, [Arrival(account, applicant_id, True)])
    return (await spool.find(Filter(limit=1)))[0].application_id


async def outcome(spool: Spool, application_id: int, report: Report | None, event: Event = Event.DELIVER) -> None:
    claims = await spool.claim(worker="w", now=2000.0, lease=60.0, limit=9)
    claim = next(each for each in claims if each.application_id == application_id)
    await spool.settle(claim, Settlement(event, event.value, remote_id="ats-1", report=report), now=2000.0)


async def sent(spool: Spool, settlement: ReportSettlement = CONFIRMED, now: float = 3000.0) -> None:
    for claim in await spool.claim_reports(worker="w", now=now, lease=60.0, limit=9, accounts=["acme", "beta"]):
        await spool.settle_report(claim, settlement, now=now)


def success(applicant_id: int) -> Report:
    return Report(applicant_id, ReportStatus.SUCCESS, 2000.0, remote_id="ats-1")


async def told(spool: Spool, applicant_id: int, account: str = "acme") -> int:
    """A delivered application whose report idibu confirmed; the report's id."""
    await outcome(spool, await put(spool, applicant_id, account), success(applicant_id))
    await sent(spool)
    return (await spool.outcomes(account, [applicant_id]))[0].report_id


async def test_the_newest_report_of_each_applicant_of_the_account(spool: Spool) -> None:
    first = await put(spool, 7)
    await outcome(spool, first, Report(7, ReportStatus.FAIL, 2000.0, error_message="position filled"), Event.REJECT)
    second = await put(spool, 7)
    await outcome(spool, second, success(7))
    await outcome(spool, await put(spool, 5), success(5))
    await outcome(spool, await put(spool, 7, "beta"), success(7))
    await put(spool, 9)  # no outcome yet
    five, seven = await spool.outcomes("acme", [9, 7, 5, 6])
    assert (five.report.applicant_id, seven.report.applicant_id) == (5, 7)
    assert (seven.application_id, seven.report, seven.state) == (second, success(7), ReportState.DUE)
    assert (seven.created_at, seven.settled_at, seven.code, seven.erased) == (2000.0, None, None, False)
    assert await spool.outcomes("acme", []) == []
    await sent(spool)
    (seven,) = await spool.outcomes("acme", [7])
    assert (seven.state, seven.settled_at, seven.code) == (ReportState.CONFIRMED, 3000.0, "confirmed")


async def test_which_applicants_have_arrived(spool: Spool) -> None:
    for applicant_id, account in [(5, "acme"), (5, "acme"), (6, "beta"), (7, None), (None, "acme")]:
        await put(spool, applicant_id, account)
    assert await spool.arrived("acme", [4, 5, 6, 7]) == {5}
    assert await spool.arrived("beta", [4, 5, 6, 7]) == {6}
    assert await spool.arrived("acme", []) == set()


async def test_what_was_erased_is_said_to_be(spool: Spool) -> None:
    await told(spool, 5)
    assert await spool.erase_finished(before=4000.0, limit=9) == 1
    (five,) = await spool.outcomes("acme", [5])
    assert five.erased
    assert five.report == success(5)


async def test_a_confirmed_report_is_told_again_with_its_whole_schedule_and_its_history(spool: Spool) -> None:
    report_id = await told(spool, 5)
    await spool.tell_again(report_id, actor="jo", note="idibu shows nothing", now=4000.0)
    (five,) = await spool.outcomes("acme", [5])
    assert (five.state, five.settled_at) == (ReportState.DUE, None)
    story = await spool.story(five.application_id)
    assert [(a.actor, a.action, a.note) for a in story.actions] == [
        ("jo", f"tell report {report_id} again", "idibu shows nothing")
    ]
    assert await spool.erase_finished(before=9000.0, limit=9) == 0  # it waits again (invariant 6)
    (claim,) = await spool.claim_reports(worker="w", now=4000.0, lease=60.0, limit=9, accounts=["acme"])
    assert (claim.report_id, claim.report, claim.attempt, claim.first_attempt_at) == (report_id, success(5), 1, 4000.0)
    await spool.settle_report(claim, CONFIRMED, now=4001.0)
    assert (await spool.backlog()).reports == {("acme", ReportState.CONFIRMED): 1}


async def test_a_newer_outcome_takes_the_place_of_one_told_again(spool: Spool) -> None:
    report_id = await told(spool, 5)
    await spool.tell_again(report_id, actor="jo", note="", now=4000.0)
    await outcome(spool, await put(spool, 5), success(5))
    (five,) = await spool.outcomes("acme", [5])
    assert five.report_id != report_id
    with pytest.raises(NotAllowed, match="not the newest"):
        await spool.tell_again(report_id, actor="jo", note="", now=4000.0)


@pytest.mark.parametrize("state", [ReportState.DUE, ReportState.REFUSED, ReportState.FAILED])
async def test_only_what_was_confirmed_is_told_again(spool: Spool, state: ReportState) -> None:
    await outcome(spool, await put(spool, 5), success(5))
    await sent(spool, ReportSettlement(state, "not-reached", due_at=9000.0))
    (five,) = await spool.outcomes("acme", [5])
    with pytest.raises(NotAllowed, match=f"is {state}"):
        await spool.tell_again(five.report_id, actor="jo", note="", now=4000.0)
    assert (await spool.story(five.application_id)).actions == ()


async def test_a_report_that_is_not_there(spool: Spool) -> None:
    with pytest.raises(NotFound, match="there is no report 77"):
        await spool.tell_again(77, actor="jo", note="", now=4000.0)
