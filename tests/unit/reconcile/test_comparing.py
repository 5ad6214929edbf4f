"""The comparison as a table: what each pair of what we said and what idibu shows comes to."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from apptrack_ingest.idibu import ApplicantStatus, ListedApplicant
from apptrack_ingest.model import Report, ReportState, ReportStatus
from apptrack_ingest.reconcile import FIXABLE, MEANING, SETTLING, WRONG, Kind
from apptrack_ingest.reconcile.comparing import MAIL_UNDER_WAY, Span, in_words, never_came, of_ledger, of_status, same
from apptrack_ingest.spool.contract import Outcome

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
DAY = 86400.0
SPAN = Span(NOW - 7 * DAY, NOW, UTC)
LONG = " and so on" * 20


def ours(
    status: ReportStatus = ReportStatus.SUCCESS,
    remote_id: str | None = "ats-1",
    message: str | None = None,
    state: ReportState = ReportState.CONFIRMED,
    erased: bool = False,
) -> Outcome:
    report = Report(7, status, NOW - DAY, remote_id, message)
    return Outcome(1, 2, report, state, NOW - DAY, NOW - 3600, "confirmed", erased)


def theirs(status: ReportStatus = ReportStatus.SUCCESS, remote_id: str | None = "ats-1", message: str | None = None):
    at = datetime(2027, 1, 14, 8)
    return ApplicantStatus(7, status, remote_id, message, at, at, at)


def failed(message: str | None, **given: object) -> Outcome:
    return ours(ReportStatus.FAIL, None, message, **given)  # type: ignore[arg-type]


def fail(message: str | None) -> ApplicantStatus:
    return theirs(ReportStatus.FAIL, None, message)


@pytest.mark.parametrize(
    ("said", "shown", "agree"),
    [
        (ours(), theirs(), True),
        (ours(), theirs(remote_id="other"), False),
        (ours(), theirs(remote_id=None), False),
        (ours(remote_id=None), theirs(remote_id=None), True),
        (ours(remote_id=None), theirs(remote_id="other"), False),
        (ours(), fail("eaten by a dog"), False),
        (ours(), theirs(message="of an earlier fail"), True),
        (ours(remote_id=" ats\r\n 1 "), theirs(remote_id="ats 1"), True),
        (failed("position filled"), fail("position filled"), True),
        (failed("position filled"), fail("something else"), False),
        (failed("position filled"), theirs(), False),
        (failed("position filled"), replace(fail("position filled"), remote_id="of an earlier success"), True),
        (failed(None), fail("The application could not be processed."), True),
        (failed("bad \x07 character"), fail("bad  character"), True),
        (failed("full" + LONG * 9), fail(("full" + LONG * 9)[:999]), True),
        (failed("full" + LONG), fail(("full" + LONG)[:120] + "…"), True),
        (failed("full" + LONG), fail("full"), False),
        (failed(None, erased=True), fail("words that were erased here"), True),
        (failed(None, erased=True), theirs(), False),
        (ours(erased=True), theirs(), True),
        (ours(erased=True), theirs(remote_id="other"), False),
        (ours(remote_id=None, erased=True), theirs(remote_id="erased here, for it held the address"), True),
    ],
)
def test_whether_idibu_shows_what_we_said(said: Outcome, shown: ApplicantStatus, agree: bool) -> None:
    assert same(said, shown) is agree
    assert of_status(said, shown, SPAN) is (None if agree else Kind.DIFFERENT)


OTHER = theirs(remote_id="other")


@pytest.mark.parametrize("state", [s for s in ReportState if s is not ReportState.CONFIRMED])
def test_what_idibu_did_not_confirm_it_need_not_show(state: ReportState) -> None:
    assert of_status(ours(state=state), OTHER, SPAN) is None


@pytest.mark.parametrize(("ago", "kind"), [(SETTLING, Kind.DIFFERENT), (SETTLING - 1, None), (-60.0, None)])
def test_what_was_confirmed_a_moment_ago_is_not_judged(ago: float, kind: Kind | None) -> None:
    assert of_status(replace(ours(), settled_at=NOW - ago), OTHER, SPAN) is kind


@pytest.mark.parametrize(
    ("created", "modified", "kind"),
    [
        (NOW - DAY, datetime(2026, 1, 1), Kind.DIFFERENT),
        (NOW - 99 * DAY, datetime(2027, 1, 14), Kind.DIFFERENT),  # somebody wrote it this week
        (NOW - 99 * DAY, None, Kind.DIFFERENT),
        (NOW - 99 * DAY, datetime(2026, 1, 1), None),
    ],
)
def test_a_difference_counts_where_either_side_was_touched_since(
    created: float, modified: datetime | None, kind: Kind | None
) -> None:
    assert of_status(replace(ours(), created_at=created), replace(OTHER, date_modified=modified), SPAN) is kind


@pytest.mark.parametrize(
    ("modified", "created", "kind"),
    [
        (datetime(2027, 1, 14), datetime(2020, 1, 1), Kind.NOT_OURS),
        (None, datetime(2027, 1, 14), Kind.NOT_OURS),
        (None, None, Kind.NOT_OURS),
        (datetime(2026, 12, 1), datetime(2020, 1, 1), None),
    ],
)
def test_what_we_never_reported(modified: datetime | None, created: datetime | None, kind: Kind | None) -> None:
    assert of_status(None, replace(theirs(), date_modified=modified, date_created=created), SPAN) is kind


def test_idibus_dates_are_of_its_zone() -> None:
    edge = datetime(2027, 1, 8, 8, 30)  # half an hour within in UTC, and half an hour too early an hour east of it
    assert SPAN.began_after(edge)
    assert not replace(SPAN, zone=ZoneInfo("Europe/Berlin")).began_after(edge)


@pytest.mark.parametrize(
    ("state", "paused", "kind"),
    [
        (ReportState.DUE, False, Kind.DUE),
        (ReportState.DUE, True, Kind.PAUSED),
        (ReportState.REFUSED, True, Kind.REFUSED),
        (ReportState.FAILED, False, Kind.FAILED),
        (ReportState.CONFIRMED, True, None),
        (ReportState.SUPERSEDED, False, None),
    ],
)
def test_what_the_ledger_alone_tells(state: ReportState, paused: bool, kind: Kind | None) -> None:
    assert of_ledger(ours(state=state), paused=paused) is kind


@pytest.mark.parametrize(
    ("listed", "missed"),
    [
        (ListedApplicant(7, datetime(2027, 1, 15, 6)), True),
        (ListedApplicant(7), True),
        (ListedApplicant(7, datetime.fromtimestamp(NOW - MAIL_UNDER_WAY, UTC).replace(tzinfo=None)), True),
        (ListedApplicant(7, datetime(2027, 1, 15, 7, 30)), False),  # its mail may be under way
        (ListedApplicant(7, datetime(2026, 12, 1)), False),  # a server that ignores after_date
        (ListedApplicant(7, datetime(2027, 1, 15, 6), email="Deleted@idibu.com "), False),
    ],
)
def test_whose_mail_never_came(listed: ListedApplicant, missed: bool) -> None:
    assert never_came(listed, SPAN) is missed


def test_an_outcome_in_words() -> None:
    assert in_words(ours().report) == "success ats-1"
    assert in_words(ours(remote_id=None).report) == "success"
    assert in_words(fail("eaten by\r\na dog")) == "fail eaten by a dog"


def test_every_kind_has_its_line_and_what_is_told_stays_out_of_reprs() -> None:
    assert set(MEANING) == set(Kind)
    assert all("\n" not in line and len(line) > 30 for line in MEANING.values())
    assert FIXABLE < WRONG < set(Kind)
