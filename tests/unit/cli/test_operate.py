"""`retry`, `discard`, `hold`, `release`, `route`: what changes, what idibu is told, who did it and why, exit codes."""

import getpass
import time

import pytest

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, ReportState, ReportStatus, Stage, State
from apptrack_ingest.spool.contract import Pause, Settlement
from apptrack_ingest.testing import an_email

from .conftest import HOSTILE, House

# --- retry -----------------------------------------------------------------------------------------------------------


def test_retry_hands_off_a_rejected_one_again_and_keeps_who_and_why(house: House) -> None:
    application_id = house.rejected()
    assert (
        f"{application_id}: the hand-off is tried again"
        in house.run("retry", application_id, "--reason", "why not").stdout
    )
    story = house.story(application_id)
    assert story.summary.state is State.RECEIVED and story.summary.due_at is not None
    (action,) = story.actions
    assert (action.action, action.actor, action.note) == ("retry", getpass.getuser(), "why not")


@pytest.mark.parametrize("state", [ReportState.REFUSED, ReportState.FAILED])
def test_retry_of_a_delivered_one_sends_its_report_again(house: House, state: ReportState) -> None:
    application_id = house.delivered(report=state)
    assert (
        "its report to idibu is sent again" in house.run("retry", application_id, "--reason", "hash put right").stdout
    )
    story = house.story(application_id)
    assert story.summary.state is State.DELIVERED
    assert story.reports[-1].state is ReportState.DUE
    assert story.actions[-1].note == "hash put right"


def test_retry_of_a_delivered_one_with_a_good_report_is_not_allowed(house: House) -> None:
    application_id = house.delivered(report=ReportState.CONFIRMED)
    told = house.run("retry", application_id, code=4).stderr
    assert f"{application_id}: error: retry is not possible while delivered; possible: retry --again" in told
    assert house.story(application_id).actions == ()


def test_retry_again_hands_a_delivered_one_over_once_more(house: House) -> None:
    application_id = house.delivered(report=ReportState.REFUSED)
    assert "is handed over again" in house.run("retry", application_id, "--again").stdout
    assert house.story(application_id).summary.state is State.RECEIVED


def test_retry_again_of_one_that_was_not_delivered_is_not_allowed(house: House) -> None:
    house.run("retry", house.rejected(), "--again", code=4)


def test_retry_report_leaves_a_rejected_one_rejected(house: House) -> None:
    application_id = house.rejected()
    house.run("retry", application_id, "--report", code=4)
    house.settle_report(ReportState.REFUSED)
    house.run("retry", application_id, "--report")
    story = house.story(application_id)
    assert (story.summary.state, story.reports[-1].state) == (State.REJECTED, ReportState.DUE)


def test_discard_report_gives_up_the_report_and_nothing_else(house: House) -> None:
    application_id = house.delivered(report=ReportState.REFUSED)
    told = house.run("discard", application_id, "--report", "--reason", "deleted at idibu").stdout
    assert "its report is given up" in told
    story = house.story(application_id)
    assert (story.summary.state, story.reports[-1].state) == (State.DELIVERED, ReportState.SUPERSEDED)
    assert story.actions[-1].note == "deleted at idibu"
    house.run("discard", application_id, "--report", "--reason", "again", code=4)


def test_retry_again_and_report_exclude_each_other(house: House) -> None:
    house.run("retry", 1, "--report", "--again", code=2)


@pytest.mark.parametrize(
    ("reason", "given", "advice"),
    [
        (HeldReason.UNTRUSTED, {"trusted": False}, "`release 1`"),
        (HeldReason.UNROUTED, {"account": None}, "`route 1 --account NAME`"),
        (HeldReason.UNROUTED, {"account": "gone"}, "account gone is not in the settings"),
    ],
)
def test_retry_refuses_what_would_be_held_again(
    house: House, reason: HeldReason, given: dict[str, object], advice: str
) -> None:
    application_id = house.held(reason, **given)
    assert advice in house.run("retry", application_id, code=4).stderr
    assert house.story(application_id).summary.state is State.HELD


def test_several_ids_are_told_line_by_line_and_the_worst_code_counts(house: House) -> None:
    good, bad = house.rejected(), house.delivered(report=ReportState.CONFIRMED)
    result = house.run("retry", 99, good, bad, good, code=4)
    assert result.stdout == f"{good}: the hand-off is tried again\n"
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["99", str(bad)]
    assert house.run("retry", 99, code=3).stdout == ""


def test_json_tells_each_result(house: House) -> None:
    good = house.rejected()
    assert house.json("retry", good, 99, code=3) == [
        {"application_id": good, "exit_code": 0, "text": "the hand-off is tried again"},
        {
            "application_id": 99,
            "exit_code": 3,
            "text": "there is no application 99; `apptrack-ingest list` shows those there are",
        },
    ]


def test_one_in_work_is_left_alone(house: House) -> None:
    application_id = house.put()
    house.claim()
    assert "worked on at this moment" in house.run("hold", application_id, code=4).stderr


# --- discard and hold ------------------------------------------------------------------------------------------------


def test_discard_reports_the_reason(house: House) -> None:
    application_id = house.rejected()
    assert "discarded, idibu is told" in house.run("discard", application_id, "--reason", "a test of ours").stdout
    story = house.story(application_id)
    assert story.summary.state is State.DISCARDED
    report = story.reports[-1].report
    assert (report.status, report.error_message) == (ReportStatus.FAIL, "discarded: a test of ours")
    assert story.reports[-2].state is ReportState.SUPERSEDED


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        (HeldReason.UNTRUSTED, {"trusted": False}),
        (HeldReason.NO_APPLICANT_ID, {"applicant_id": None}),
        (HeldReason.UNROUTED, {"account": None}),
        (HeldReason.CRASH_LOOP, {"account": "quiet"}),
    ],
)
def test_discard_tells_idibu_nothing_where_it_must_not(
    house: House, reason: HeldReason, given: dict[str, object]
) -> None:
    application_id = house.held(reason, **given)
    assert "idibu is not told" in house.run("discard", application_id, "--reason", "spam").stdout
    assert house.story(application_id).reports == ()


@pytest.mark.parametrize("words", [(), ("--reason", " ")])
def test_discard_needs_a_reason(house: House, words: tuple[str, ...]) -> None:
    application_id = house.rejected()
    assert "--reason" in house.run("discard", application_id, *words, code=2).stderr


def test_hold_and_release(house: House) -> None:
    application_id = house.put()
    house.run("hold", application_id, "--reason", "ask the consultant")
    story = house.story(application_id)
    assert (story.summary.state, story.summary.reason) == (State.HELD, HeldReason.BY_OPERATOR)
    assert "somebody asked for it to wait" in (story.reports[-1].report.error_message or "")
    house.run("release", application_id)
    assert house.story(application_id).summary.state is State.RECEIVED


def test_hold_of_one_that_is_not_reported_makes_no_report(house: House) -> None:
    application_id = house.put(account="quiet")
    house.run("hold", application_id)
    assert house.story(application_id).reports == ()


# --- release and route ----------------------------------------------------------------------------------------------


def test_release_of_an_untrusted_one_believes_the_mails_id(house: House) -> None:
    application_id = house.held(HeldReason.UNTRUSTED, raw=an_email(4711), trusted=False)
    assert house.story(application_id).summary.applicant_id is None
    assert "released as applicant 4711" in house.run("release", application_id).stdout
    summary = house.story(application_id).summary
    assert (summary.state, summary.applicant_id) == (State.RECEIVED, 4711)


DOUBLED = b"X-iTrackID: 1\r\n" + an_email(1)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (an_email(None), "the mail has no X-iTrackID"),
        (DOUBLED, "an X-iTrackID that is doubled or is no number"),
        (an_email("12x"), "an X-iTrackID that is doubled or is no number"),
        (b"A: " + b"x" * 200_000 + b"\r\n\r\n", "header is too long"),
    ],
)
def test_release_and_route_refuse_a_mail_without_a_usable_id(house: House, raw: bytes, words: str) -> None:
    application_id = house.held(HeldReason.UNTRUSTED, raw=raw, trusted=False)
    for command in (("release",), ("route", "--account", "acme")):
        told = house.run(*command, application_id, code=4).stderr
        assert words in told and f"`route {application_id} --account NAME --applicant-id N`" in told
    assert house.story(application_id).actions == ()


def test_release_needs_an_account(house: House) -> None:
    application_id = house.held(HeldReason.UNTRUSTED, trusted=False, account=None)
    assert f"`route {application_id} --account NAME`" in house.run("release", application_id, code=4).stderr


def test_release_of_what_is_not_held_is_not_allowed(house: House) -> None:
    assert "release is not possible while rejected" in house.run("release", house.rejected(), code=4).stderr


def test_route_takes_the_mails_id(house: House) -> None:
    application_id = house.held(HeldReason.UNROUTED, raw=an_email(4711), trusted=False, account=None)
    told = house.run("route", application_id, "--account", "beta", "--reason", "their office called").stdout
    assert "routed to beta as applicant 4711" in told
    story = house.story(application_id)
    assert (story.summary.account, story.summary.applicant_id) == ("beta", 4711)
    assert story.actions[-1].note == "their office called"


def test_route_takes_the_id_a_person_names(house: House) -> None:
    application_id = house.held(HeldReason.NO_APPLICANT_ID, raw=an_email(None), applicant_id=None)
    house.run("route", application_id, "--account", "acme", "--applicant-id", 55)
    assert house.story(application_id).summary.applicant_id == 55


def test_what_a_person_vouched_for_is_reported_when_discarded(house: House) -> None:
    application_id = house.held(HeldReason.UNTRUSTED, trusted=False)
    house.run("route", application_id, "--account", "acme", "--applicant-id", 55)
    house.settle(application_id, Settlement(Event.REJECT, "rejected", "no"))
    assert "idibu is told" in house.run("discard", application_id, "--reason", "no").stdout
    assert house.story(application_id).reports[-1].report.applicant_id == 55


def test_route_to_an_unknown_account_says_which_there_are(house: House) -> None:
    application_id = house.held(HeldReason.UNROUTED, account=None)
    told = house.run("route", application_id, "--account", "amce", code=3).stderr
    assert "there is no account amce in the settings; there are: acme, beta, quiet" in told


def test_an_applicant_id_goes_with_one_application(house: House) -> None:
    house.run("route", 1, 2, "--account", "acme", "--applicant-id", 5, code=2)


def test_several_are_routed_to_one_account(house: House) -> None:
    ids = [house.held(HeldReason.UNROUTED, account=None, applicant_id=n) for n in (1, 2)]
    house.run("route", *ids, "--account", "acme")
    assert {house.story(n).summary.account for n in ids} == {"acme"}


def test_a_reason_of_any_text_is_kept_and_shown_harmlessly(house: House) -> None:
    application_id = house.put()
    house.run("hold", application_id, "--reason", HOSTILE.replace("\ud800", ""))
    assert "\x1b" not in house.run("show", application_id).stdout


def test_a_pause_does_not_keep_a_report_from_being_retried(house: House) -> None:
    application_id = house.delivered(report=ReportState.REFUSED)
    house.do(lambda spool: spool.pause(Pause("acme", Stage.REPORT, "unauthorized", 1.0, time.time() + 600, "f")))
    house.run("retry", application_id)
    assert house.story(application_id).reports[-1].state is ReportState.DUE
