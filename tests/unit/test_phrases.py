"""What idibu's users read: times as people write them, and nothing of our insides."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest

from apptrack_ingest import phrases
from apptrack_ingest.model import HeldReason

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("until", "now", "zone", "text"),
    [
        ("2026-03-01T14:30:00Z", "2026-03-01T09:00:00Z", UTC, "14:30 UTC"),
        ("2026-03-01T14:29:01Z", "2026-03-01T09:00:00Z", UTC, "14:30 UTC"),  # never a minute too early
        ("2026-03-01T23:59:30Z", "2026-03-01T09:00:00Z", UTC, "2026-03-02 00:00 UTC"),
        ("2026-03-08T09:00:00Z", "2026-03-01T09:00:00Z", UTC, "2026-03-08 09:00 UTC"),
        ("2027-03-01T14:30:00Z", "2026-03-01T09:00:00Z", UTC, "2027-03-01 14:30 UTC"),
        # Today is what it is where they read it.
        ("2026-03-01T23:30:00Z", "2026-03-01T22:00:00Z", BERLIN, "2026-03-02 00:30 CET"),
        ("2026-03-02T03:30:00Z", "2026-03-01T22:00:00Z", NEW_YORK, "22:30 EST"),
        # The night in which clocks are set forward, and that in which they are set back.
        ("2026-03-29T00:59:30Z", "2026-03-28T23:30:00Z", BERLIN, "03:00 CEST"),
        ("2026-10-25T00:59:30Z", "2026-10-24T22:30:00Z", BERLIN, "02:00 CET"),
        ("2026-10-25T00:30:00Z", "2026-10-24T22:30:00Z", BERLIN, "02:30 CEST"),
    ],
)
def test_a_time_has_its_zone_and_where_it_is_not_today_its_date(until: str, now: str, zone: tzinfo, text: str) -> None:
    assert phrases.shown(at(until), at(now), zone) == text


@pytest.mark.parametrize("until", [1e18, -1e18, float("nan"), float("inf")])
def test_a_time_that_no_calendar_has_is_told_without_one(until: float) -> None:
    assert phrases.shown(until, 0.0) == "further notice"


def test_what_waits_says_whether_it_was_tried() -> None:
    day = 86400.0
    assert phrases.waiting(day - 60, 0.0, tried=True) == "not delivered yet, retrying until 23:59 UTC"
    assert phrases.waiting(day - 60, 0.0, tried=False) == "not delivered yet, trying until 23:59 UTC"


CODES = [
    "retry-later",
    "timeout",
    "overrunning",
    "exception",
    "bad-verdict",
    "internal-error",
    "dns-failed",
    "no-such-code",
]


@pytest.mark.parametrize("code", CODES)
def test_what_was_given_up_names_no_internals(code: str) -> None:
    text = phrases.given_up(code)
    assert text.startswith("not delivered, gave up retrying")
    assert not any(word in text for word in (code, "Error", "Exception", "Traceback", "http", "handler"))


@pytest.mark.parametrize("reason", list(HeldReason))
def test_every_reason_to_hold_has_words_for_people(reason: HeldReason) -> None:
    assert phrases.held(reason).startswith("held until a person has looked at it: ")
    assert reason.value not in phrases.held(reason)
