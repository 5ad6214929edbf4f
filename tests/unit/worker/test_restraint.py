"""One account's restraint: places, quota and breaker together, and what is claimed ahead once the ramp is over."""

import pytest

from apptrack_ingest import Accepted
from apptrack_ingest.handoff import Again, Done, Outcome
from apptrack_ingest.lifecycle import Rate, parse_schedule
from apptrack_ingest.worker.breaker import Caution
from apptrack_ingest.worker.restraint import AHEAD, Restraint

DONE = Done(Accepted())
FAILED = Again("exception", "500")
CAUTION = Caution(2, parse_schedule("10s, 30s"))


def answered(restraint: Restraint, *ids: int, outcome: Outcome = DONE, now: float = 0.0) -> None:
    """Claims, calls and ends them one after the other."""
    for number in ids:
        restraint.claimed((number, 1))
        restraint.calling((number, 1), now)
        restraint.answered((number, 1), outcome, now, 0.0)
        restraint.ended((number, 1))


def failed(restraint: Restraint, *ids: int, now: float = 0.0) -> None:
    answered(restraint, *ids, outcome=FAILED, now=now)


@pytest.mark.parametrize("most", [1, 2, 4, 10])
def test_one_in_so_many_is_claimed_ahead_once_the_ramp_is_over(most: int) -> None:
    restraint, rooms = Restraint(most, (), CAUTION), []
    for number in range(most):
        rooms.append(restraint.room(0.0))
        answered(restraint, number)
    assert rooms[:-1] == list(range(1, most)), "nothing ahead while it grows"
    assert restraint.room(0.0) == most + most // AHEAD


def test_nothing_is_claimed_ahead_while_it_rests_nor_with_the_probe() -> None:
    restraint = Restraint(AHEAD, (), CAUTION)
    answered(restraint, *range(AHEAD))
    failed(restraint, 91, 92)
    assert (restraint.room(0.0), restraint.opens_at(0.0)) == (0, 10.0)
    assert (restraint.room(10.0), restraint.opens_at(10.0)) == (1, None)


def test_what_is_over_the_quota_is_not_claimed_ahead_either() -> None:
    restraint = Restraint(AHEAD, (Rate(AHEAD + 2, 60.0),), CAUTION)
    answered(restraint, *range(AHEAD))
    assert restraint.room(0.0) == 2
    restraint.claimed((91, 1))
    restraint.claimed((92, 1))
    assert (restraint.room(0.0), restraint.opens_at(0.0)) == (0, None), "the end of what is reserved is awaited"
    assert restraint.is_rationed(0.0)
    restraint.calling((91, 1), 5.0)
    restraint.calling((92, 1), 5.0)
    assert (restraint.room(5.0), restraint.opens_at(5.0)) == (0, 60.0)
    restraint.ended((91, 1))
    restraint.answered((92, 1), DONE, 6.0, 0.0)
    restraint.ended((92, 1))
    assert restraint.room(60.0) == AHEAD


def test_it_opens_when_both_the_rest_and_the_quota_are_over() -> None:
    restraint = Restraint(4, (Rate(2, 60.0),), CAUTION)
    failed(restraint, 1, 2, now=5.0)
    assert restraint.opens_at(6.0) == 65.0, "the rest of ten seconds is over before"
    assert restraint.opens_at(65.0) is None and restraint.room(65.0) == 1


def test_while_all_its_places_are_taken_no_time_opens_it() -> None:
    restraint = Restraint(1, (), CAUTION)
    restraint.claimed((1, 1))
    assert (restraint.room(0.0), restraint.opens_at(0.0)) == (0, None)
    restraint.ended((1, 1))
    assert (restraint.room(1.0), restraint.opens_at(1.0)) == (1, None)


def test_where_others_do_all_of_the_work_not_even_a_probe_is_claimed() -> None:
    """A reload may leave this process nothing of the account while a call of its is under way."""
    restraint = Restraint(4, (), CAUTION)
    restraint.claimed((1, 1))
    restraint.calling((1, 1), 0.0)
    restraint.configure(0, (), CAUTION)
    restraint.answered((1, 1), Again("retry-later", "", 5.0, "ats"), 1.0, 0.0)
    restraint.ended((1, 1))
    assert restraint.breaker.is_open
    assert (restraint.room(100.0), restraint.opens_at(1.0)) == (0, None)
