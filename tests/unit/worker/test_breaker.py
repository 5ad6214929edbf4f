"""The breaker: what opens it and what does not, how it asks again, and how gently it comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.lifecycle import parse_schedule
from apptrack_ingest.worker.breaker import LONGEST_REST, Breaker, Caution, Closed, Opened

CAUTION = Caution(3, parse_schedule("10s, 30s, 1m"))


def a_breaker(most: int = 8, *, failures: int = 3) -> Breaker:
    return Breaker(Caution(failures, CAUTION.wait), most)


def opened(most: int = 8) -> Breaker:
    breaker = a_breaker(most)
    for number in range(3):
        breaker.failed((number, 1), 0.0, 0.0)
    assert breaker.is_open
    return breaker


def probe(breaker: Breaker, number: int) -> tuple[int, int]:
    breaker.begun((number, 1))
    return number, 1


def test_it_begins_with_one_and_doubles_by_rounds_up_to_its_most() -> None:
    breaker, rounds = a_breaker(most=12), []
    for turn in range(5):
        now_allowed = breaker.allows(0.0)
        rounds.append(now_allowed)
        for number in range(now_allowed):
            breaker.answered((100 * turn + number, 1))
    assert rounds == [1, 2, 4, 8, 12]


def test_different_applications_in_a_row_open_it() -> None:
    breaker = a_breaker()
    assert [breaker.failed((number, 1), 5.0, 0.0) for number in range(3)] == [None, None, Opened("failures", 10.0)]
    assert (breaker.allows(14.9), breaker.probes_at(14.9), breaker.allows(15.0)) == (0, 15.0, 1)


def test_one_application_again_and_again_does_not() -> None:
    breaker = a_breaker()
    assert [breaker.failed((7, token), 0.0, 0.0) for token in range(100)] == [None] * 100


def test_any_verdict_begins_the_row_anew() -> None:
    breaker = a_breaker()
    for number in range(100):
        breaker.failed((number, 1), 0.0, 0.0)
        breaker.failed((number + 1000, 1), 0.0, 0.0)
        breaker.answered((number + 2000, 1))
    assert not breaker.is_open


def test_one_failure_alone_slows_nothing_down_two_in_a_row_do() -> None:
    breaker = a_breaker()
    for number in range(7):
        breaker.answered((number, 1))
    breaker.failed((10, 1), 0.0, 0.0)
    assert breaker.allows(0.0) == 8
    breaker.failed((11, 1), 0.0, 0.0)
    assert breaker.allows(0.0) == 4


def test_nought_failures_never_open_it() -> None:
    breaker = a_breaker(failures=0)
    for number in range(1000):
        assert breaker.failed((number, 1), 0.0, 0.0) is None


def test_each_failed_probe_waits_longer_and_the_last_wait_stays() -> None:
    breaker, now, waits = opened(), 10.0, []
    for number in range(10, 14):
        change = breaker.failed(probe(breaker, number), now, 0.0)
        assert isinstance(change, Opened) and change.code == "probe-failed"
        waits.append(change.seconds)
        now += change.seconds
    assert waits == [30.0, 60.0, 60.0, 60.0]


def test_a_probe_with_a_verdict_closes_it_and_the_ramp_begins_anew() -> None:
    breaker = opened()
    assert breaker.answered(probe(breaker, 10)) == Closed()
    assert breaker.allows(10.0) == 2


def test_the_waits_begin_anew_only_once_the_ramp_is_over() -> None:
    breaker = opened()
    breaker.answered(probe(breaker, 10))
    for number in (11, 12, 13):
        change = breaker.failed((number, 1), 20.0, 0.0)
    assert change == Opened("failures", 30.0)
    breaker.answered(probe(breaker, 14))
    for number in range(20, 26):
        breaker.answered((number, 1))
    assert breaker.allows(60.0) == 8
    for number in (30, 31, 32):
        change = breaker.failed((number, 1), 60.0, 0.0)
    assert change == Opened("failures", 10.0)


def test_of_what_was_under_way_as_it_opened_nothing_is_heard() -> None:
    breaker = opened()
    assert breaker.answered((50, 1)) is None
    assert breaker.failed((51, 1), 5.0, 0.0) is None
    assert breaker.probes_at(5.0) == 10.0


def test_a_probe_that_never_called_leaves_its_place_to_the_next() -> None:
    breaker = opened()
    probe(breaker, 10)
    assert breaker.allows(10.0) == 1
    assert breaker.answered(probe(breaker, 11)) == Closed()


def test_retry_after_holds_the_account_at_once_and_within_bounds() -> None:
    breaker = a_breaker()
    assert breaker.told_to_wait((1, 1), 90.0, 0.0, 0.0) == Opened("retry-after", 90.0)
    assert (breaker.allows(89.0), breaker.allows(90.0)) == (0, 1)
    assert breaker.told_to_wait((2, 1), 30.0, 10.0, 0.0) is None, "the longer one holds"
    assert breaker.told_to_wait((3, 1), 1e9, 10.0, 0.0) == Opened("retry-after", LONGEST_REST)
    assert breaker.told_to_wait((4, 1), 0.0, 5000.0, 0.0) == Opened("retry-after", 1.0)


def test_switched_off_it_still_heeds_retry_after_and_no_probe_keeps_it_shut() -> None:
    breaker = a_breaker(failures=0)
    breaker.told_to_wait((1, 1), 5.0, 0.0, 0.0)
    assert breaker.allows(1.0) == 0
    assert breaker.failed(probe(breaker, 2), 5.0, 0.0) == Closed()


def test_a_clock_that_is_set_back_does_not_prolong_the_rest() -> None:
    breaker = a_breaker()
    for number in range(3):
        breaker.failed((number, 1), 1_000_000.0, 0.0)
    assert breaker.allows(5.0) == 0
    assert breaker.allows(15.0) == 1


@given(st.lists(st.sampled_from(["answered", "failed", "told", "nothing", "time"]), max_size=60), st.integers(1, 9))
def test_whatever_happens_it_never_allows_more_than_its_most_and_always_a_probe_in_the_end(
    events: list[str], most: int
) -> None:
    breaker, now = a_breaker(most), 0.0
    for number, event in enumerate(events):
        key = (number, 1)
        breaker.begun(key)
        if event == "answered":
            breaker.answered(key)
        elif event == "failed":
            breaker.failed(key, now, 1.0)
        elif event == "told":
            breaker.told_to_wait(key, 40.0, now, 1.0)
        elif event == "time":
            now += 25.0
        assert 0 <= breaker.allows(now) <= most
        assert breaker.allows(now + 1.1 * max(LONGEST_REST, 72.0)) >= 1
        assert breaker.is_open or breaker.allows(now) >= 1


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_jitter_only_ever_prolongs_a_rest(jitter: float) -> None:
    breaker = a_breaker()
    for number in range(3):
        change = breaker.failed((number, 1), 0.0, jitter)
    assert isinstance(change, Opened)
    assert 10.0 <= change.seconds == 10.0 * (1 + 0.2 * jitter)
