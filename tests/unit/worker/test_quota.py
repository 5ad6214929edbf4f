"""Quotas: exact in every span of time, whatever is reserved, called and given back."""

from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.worker.quota import Quota


def call(quota: Quota, now: float) -> None:
    quota.reserve()
    quota.use(now)


def test_without_rates_there_is_no_limit() -> None:
    quota = Quota([])
    for at in range(1000):
        call(quota, float(at))
    assert quota.left(1000.0) is None
    assert quota.free_at(1000.0) is None


def test_a_call_counts_until_its_span_is_over() -> None:
    quota = Quota([Rate(2, 60.0)])
    call(quota, 0.0)
    call(quota, 30.0)
    assert (quota.left(59.9), quota.free_at(59.9)) == (0, 60.0)
    assert (quota.left(60.0), quota.free_at(60.0)) == (1, None)
    call(quota, 60.0)
    assert (quota.left(60.0), quota.free_at(60.0)) == (0, 90.0)


def test_what_is_reserved_counts_until_it_is_given_back_and_from_its_call_on() -> None:
    quota = Quota([Rate(1, 60.0)])
    quota.reserve()
    assert (quota.left(0.0), quota.free_at(0.0)) == (0, None)
    quota.give_back()
    assert quota.left(0.0) == 1
    quota.reserve()
    quota.use(45.0)  # the mail was long in being read: the ATS counts from here
    assert quota.free_at(45.0) == 105.0


def test_all_spans_hold() -> None:
    quota = Quota([Rate(2, 1.0), Rate(3, 3600.0)])
    call(quota, 0.0)
    call(quota, 0.0)
    assert quota.free_at(0.5) == 1.0
    call(quota, 1.0)
    assert (quota.left(2.0), quota.free_at(2.0)) == (0, 3600.0)


def test_a_clock_that_is_set_back_does_not_prolong_the_wait() -> None:
    quota = Quota([Rate(1, 60.0)])
    call(quota, 1_000_000.0)
    assert quota.left(0.0) == 0
    assert quota.left(60.0) == 1


def test_new_rates_count_what_was_called_before() -> None:
    quota = Quota([Rate(100, 60.0)])
    for _ in range(5):
        call(quota, 0.0)
    quota.configure([Rate(5, 60.0)])
    assert quota.left(1.0) == 0


@given(
    st.lists(st.tuples(st.sampled_from(["claim", "call", "drop"]), st.floats(0, 20)), max_size=150),
    st.integers(1, 6),
    st.integers(1, 12),
)
def test_no_span_ever_sees_more_than_its_count(steps: list[tuple[str, float]], few: int, many: int) -> None:
    rates = [Rate(few, 10.0), Rate(many, 60.0)]
    quota, now, reserved, calls = Quota(rates), 0.0, 0, []
    for step, passed in steps:
        now += passed
        left = quota.left(now)
        assert left is not None
        if step == "claim" and left > 0:
            quota.reserve()
            reserved += 1
        elif step == "call" and reserved:
            quota.use(now)
            calls.append(now)
            reserved -= 1
        elif step == "drop" and reserved:
            quota.give_back()
            reserved -= 1
        for rate in rates:
            assert sum(now - rate.seconds < at <= now for at in calls) <= rate.count
        free_at = quota.free_at(now)
        assert free_at is None or now < free_at <= now + 60.0
