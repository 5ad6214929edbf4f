"""The life of an application: every pair of state and event, what idibu is told, and when one tries again."""

import math
import re
from itertools import product
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.errors import NotAllowed
from apptrack_ingest.lifecycle import (
    ANNOUNCE_AGAIN,
    BY_A_PERSON,
    DEFAULT_RETRY,
    FINISHED,
    LONGEST_WAIT,
    OFFERED,
    REFUSED_FOR,
    SOLO_ATTEMPTS,
    TRANSITIONS,
    UNREPORTED,
    WAITING,
    EarlyRule,
    Event,
    Rate,
    Schedule,
    after,
    idempotency_key,
    is_crash_loop,
    next_attempt,
    parse_rates,
    parse_schedule,
    reason_to_hold,
    report_of,
    states_a_person_can,
)
from apptrack_ingest.model import HeldReason, Report, ReportStatus, State

DAY = 86400.0
DOCS = Path(__file__).parents[2] / "docs" / "lifecycle.md"
T = 1_700_000_000.0

# --- the table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_event_leads_on_or_is_refused_with_what_is_possible(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[(state, event)]
        return
    with pytest.raises(NotAllowed) as refused:
        after(state, event)
    text = str(refused.value)
    assert f"{event.value} is not possible while {state.value}" in text
    possible = {e.value for e in OFFERED if (state, e) in TRANSITIONS}
    named = set(text.partition("possible: ")[2].split(", ")) - {""}
    assert named == possible
    assert possible or text.endswith("nothing is left to decide")


def test_a_state_waits_or_is_finished_and_whoever_waits_can_be_helped() -> None:
    assert set(State) == WAITING | FINISHED
    assert not WAITING & FINISHED
    assert {State.DELIVERED, State.DUPLICATE, State.DISCARDED} == FINISHED
    for state in WAITING:
        assert any((state, event) in TRANSITIONS for event in BY_A_PERSON)


def test_from_every_state_that_waits_an_end_can_be_reached() -> None:
    for state in WAITING:
        reached = {state}
        while more := {to for (of, _), to in TRANSITIONS.items() if of in reached} - reached:
            reached |= more
        assert reached & FINISHED


def test_the_states_from_which_a_person_can_do_something_are_the_tables() -> None:
    assert set(states_a_person_can(Event.RETRY)) == {State.HELD, State.REJECTED, State.FAILED}
    assert set(states_a_person_can(Event.AGAIN)) == {State.DELIVERED}


def test_the_page_shows_the_table_as_it_is() -> None:
    rows = re.findall(r"^\| `(\S+)` \| `([^`]+)` \| `(\S+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {(State(of), Event(event)): State(to) for of, event, to in rows} == TRANSITIONS
    assert len(rows) == len(TRANSITIONS)


def test_the_page_names_the_numbers_and_reasons_as_they_are() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert f"`{DEFAULT_RETRY}`" in page
    for reason in HeldReason:
        assert f"`{reason.value}`" in page
    assert (SOLO_ATTEMPTS, REFUSED_FOR, LONGEST_WAIT) == (3, DAY, DAY)


def test_a_crash_loop_is_the_first_crash_and_all_solo_attempts() -> None:
    assert [is_crash_loop(n) for n in range(6)] == [False, False, False, False, True, True]


# --- what a person must look at -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "vouched", "applicant_id", "problem", "account", "reason"),
    [
        (True, False, 7, None, "acme", None),
        (False, True, 7, None, "acme", None),
        (False, False, 7, None, "acme", HeldReason.UNTRUSTED),
        (False, False, None, HeldReason.INVALID_APPLICANT_ID, None, HeldReason.UNTRUSTED),
        (True, False, None, HeldReason.INVALID_APPLICANT_ID, None, HeldReason.INVALID_APPLICANT_ID),
        (True, False, None, HeldReason.NO_APPLICANT_ID, None, HeldReason.NO_APPLICANT_ID),
        (True, False, None, None, "acme", HeldReason.NO_APPLICANT_ID),
        (False, True, None, HeldReason.INVALID_APPLICANT_ID, "acme", HeldReason.INVALID_APPLICANT_ID),
        (True, False, 7, None, None, HeldReason.UNROUTED),
        (False, True, 7, None, None, HeldReason.UNROUTED),
    ],
)
def test_trust_comes_first_then_the_id_then_the_account(
    trusted: bool,
    vouched: bool,
    applicant_id: int | None,
    problem: HeldReason | None,
    account: str | None,
    reason: HeldReason | None,
) -> None:
    found = reason_to_hold(
        trusted=trusted, vouched=vouched, applicant_id=applicant_id, id_problem=problem, account=account
    )
    assert found is reason


def test_an_idempotency_key_is_one_applications_content() -> None:
    key = idempotency_key("acme", 7, "v1:aa")
    assert key == idempotency_key("acme", 7, "v1:aa")
    others = {idempotency_key("blue", 7, "v1:aa"), idempotency_key("acme", 8, "v1:aa"), idempotency_key("acme", 7, "b")}
    assert len(others | {key}) == 4
    assert re.fullmatch("[0-9a-f]{64}", key)


# --- what idibu is told -------------------------------------------------------------------------------------------


def test_a_delivery_is_told_as_success_with_the_remote_id() -> None:
    told = report_of(State.DELIVERED, applicant_id=7, believed=True, now=T, remote_id="ats-1", words="ignored")
    assert told == Report(7, ReportStatus.SUCCESS, T, remote_id="ats-1")


@pytest.mark.parametrize(
    ("state", "reason", "words", "text"),
    [
        (State.REJECTED, None, "no such job", "no such job"),
        (State.REJECTED, None, "", "the recruitment system did not accept the application"),
        (
            State.FAILED,
            None,
            "ConnectError: https://ats.internal:8443/",
            "not delivered, gave up retrying: the recruitment system did not answer in time",
        ),
        (State.HELD, HeldReason.UNREADABLE, "", "held until a person has looked at it: the e-mail could not be read"),
        (
            State.HELD,
            HeldReason.CRASH_LOOP,
            "",
            "held until a person has looked at it: the e-mail could not be processed",
        ),
        (State.HELD, HeldReason.BY_OPERATOR, "", "held until a person has looked at it: somebody asked for it to wait"),
        (State.DISCARDED, None, "spam", "discarded: spam"),
        (State.DISCARDED, None, "", "discarded: no reason given"),
    ],
)
def test_anything_else_is_told_as_fail_in_words(state: State, reason: HeldReason | None, words: str, text: str) -> None:
    told = report_of(state, applicant_id=7, believed=True, now=T, reason=reason, words=words, code="timeout")
    assert told == Report(7, ReportStatus.FAIL, T, error_message=text)


def test_a_duplicate_and_what_has_no_outcome_are_not_told() -> None:
    for state in (State.DUPLICATE, State.RECEIVED):
        assert report_of(state, applicant_id=7, believed=True, now=T, words="x") is None


@pytest.mark.parametrize(
    ("first", "now", "until"),
    [
        (None, 1000.0, 1600.0),  # no attempt yet: the schedule cannot begin before now
        (1000.0, 1000.0, 1600.0),
        (1000.0, 1599.0, 1600.0),
        (1000.0, 1600.0, 1600.0 + ANNOUNCE_AGAIN),  # what was announced is over, and still nothing is decided
        (1000.0, 9000.0, 9000.0 + ANNOUNCE_AGAIN),
    ],
)
def test_a_time_that_is_announced_lies_ahead(first: float | None, now: float, until: float) -> None:
    assert EarlyRule(window=600.0).until(first, now) == until


def test_an_early_report_is_a_fail_that_says_until_when() -> None:
    rule = EarlyRule(after=60.0, zone=ZoneInfo("Europe/Berlin"))
    told = rule.report(7, 1_800_003_600.0, 1_800_000_000.0, tried=True)
    assert told == Report(
        7, ReportStatus.FAIL, 1_800_000_000.0, error_message="not delivered yet, retrying until 10:00 CET"
    )
    assert (EarlyRule().wanted, rule.wanted, EarlyRule(first_failure=True).wanted) == (False, True, True)


@pytest.mark.parametrize("state", list(State))
def test_nothing_is_told_without_an_id_or_of_an_id_nobody_believes(state: State) -> None:
    assert report_of(state, applicant_id=None, believed=True, now=T, words="x") is None
    assert report_of(state, applicant_id=7, believed=False, now=T, words="x") is None


@pytest.mark.parametrize("reason", list(HeldReason))
def test_held_is_told_only_where_account_and_id_are_certain(reason: HeldReason) -> None:
    certain = {HeldReason.UNREADABLE, HeldReason.CRASH_LOOP, HeldReason.BY_OPERATOR}
    assert set(HeldReason) - UNREPORTED == certain
    told = report_of(State.HELD, applicant_id=7, believed=True, now=T, reason=reason)
    assert (told is not None) == (reason in certain)


# --- when to try again --------------------------------------------------------------------------------------------


def test_the_default_schedule_is_seven_days() -> None:
    schedule = parse_schedule(DEFAULT_RETRY)
    assert schedule.window == pytest.approx(7 * DAY, rel=0.02)
    assert schedule.waits[:4] == (60, 300, 300, 900)


def test_a_schedule_is_read_with_its_units_and_repetitions() -> None:
    assert parse_schedule(" 30s,1m ,2h*2, 1 d * 2").waits == (30, 60, 7200, 7200, 86400, 86400)
    assert parse_schedule("5m").text == "5m"


@pytest.mark.parametrize(
    "text", ["", ",", "5m,", "5", "m", "-5m", "1.5h", "5 weeks", "5m*0", "0s", "5m*1001", "5m*", "*3", "9" * 5000 + "d"]
)
def test_what_is_no_schedule_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="is no step"):
        parse_schedule(text)


schedules = st.lists(st.integers(1, 10**6), min_size=1, max_size=20).map(
    lambda waits: parse_schedule(",".join(f"{wait}s" for wait in waits))
)
anything = st.floats(allow_nan=True, allow_infinity=True)


@given(
    schedule=schedules,
    attempt=st.integers(1, 50),
    elapsed=st.floats(0, 10**7),
    jitter=st.floats(0, 1),
    wished=st.none() | anything,
)
def test_the_next_attempt_lies_ahead_and_within_the_window(
    schedule: Schedule, attempt: int, elapsed: float, jitter: float, wished: float | None
) -> None:
    now = T + elapsed
    due = next_attempt(schedule, attempt=attempt, first=T, now=now, jitter=jitter, wished=wished)
    if now - T >= schedule.window:
        assert due is None
        return
    assert due is not None
    assert math.isfinite(due)
    assert now + 1.0 <= due <= max(T + schedule.window, now + 1.0)
    assert due <= now + 1.2 * max(LONGEST_WAIT, *schedule.waits)


@given(schedule=schedules, jitters=st.lists(st.floats(0, 1), min_size=100, max_size=100))
def test_the_last_attempt_falls_on_the_windows_end_and_then_one_gives_up(
    schedule: Schedule, jitters: list[float]
) -> None:
    now, end = T, T + schedule.window
    for attempt, jitter in enumerate(jitters, start=1):
        due = next_attempt(schedule, attempt=attempt, first=T, now=now, jitter=jitter)
        if due is None:
            break
        assert due > now
        now = due
    assert due is None
    assert end <= now <= end + 1.0


@pytest.mark.parametrize(("attempt", "wait"), [(1, 60), (2, 300), (3, 900), (4, 900), (99, 900)])
def test_the_last_wait_repeats_and_jitter_adds_up_to_a_fifth(attempt: int, wait: float) -> None:
    schedule = parse_schedule("1m, 5m, 15m")
    assert schedule.wait_after(attempt, 0.0) == wait
    assert schedule.wait_after(attempt, 1.0) == pytest.approx(1.2 * wait)


@pytest.mark.parametrize(
    ("wished", "wait"),
    [(5.0, 5.0), (0.0, 1.0), (-3.0, 1.0), (math.nan, 1.0), (7200.0, 7200.0), (10 * DAY, DAY), (math.inf, DAY)],
)
def test_a_retry_after_replaces_the_schedules_wait_as_far_as_it_is_believable(wished: float, wait: float) -> None:
    schedule = parse_schedule("1m, 1d*7")
    assert next_attempt(schedule, attempt=1, first=T, now=T, jitter=0.0, wished=wished) == T + wait


def test_a_retry_after_never_stretches_the_window() -> None:
    schedule = parse_schedule("1m, 5m")
    assert next_attempt(schedule, attempt=1, first=T, now=T + 60, jitter=0.0, wished=7200.0) == T + 360
    assert next_attempt(schedule, attempt=2, first=T, now=T + 360, jitter=0.0, wished=5.0) is None


# --- how often at most ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("", ()),
        ("  ", ()),
        ("100/1m", (Rate(100, 60.0),)),
        ("100/m, 5000 / 1d", (Rate(100, 60.0), Rate(5000, 86400.0))),
        ("1/10s,3/2h", (Rate(1, 10.0), Rate(3, 7200.0))),
    ],
)
def test_rates_are_read(text: str, rates: tuple[Rate, ...]) -> None:
    assert parse_rates(text) == rates


@pytest.mark.parametrize("text", ["100", "100/", "/1m", "0/1m", "100/0m", "5 per minute", "1/1w", "100001/1d", "1/1m,"])
def test_what_is_no_rate_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate") as refused:
        parse_rates(text)
    assert repr(text.rpartition(",")[2].strip()) in str(refused.value)


def test_the_schedule_of_the_documentation_is_read_as_it_is_written() -> None:
    schedule = parse_schedule("1m, 5m*2, 15m, 1h*6, 4h*15")
    minute, hour = 60.0, 3600.0
    assert schedule.waits == (minute, *[5 * minute] * 2, 15 * minute, *[hour] * 6, *[4 * hour] * 15)
    assert schedule.text == "1m, 5m*2, 15m, 1h*6, 4h*15"
