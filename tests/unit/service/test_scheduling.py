"""Several intakes divide the cores among them, and processes of ours wait for their turn, where the system lets them."""

import os
import threading

import pytest

from apptrack_ingest.service.scheduling import keep_to_share, share, without_haste


@pytest.mark.parametrize("cores", [{0, 1}, {3, 5, 9}, set(range(8)), set(range(2, 66))])
@pytest.mark.parametrize("of", [1, 2, 3, 8, 64])
def test_each_has_some_and_none_is_for_two(cores, of):
    shares = [share(cores, number, of) for number in range(1, of + 1)]
    if len(cores) < of:
        assert shares == [cores] * of, "too few to be divided"
    else:
        assert set.union(*map(set, shares)) == cores and sum(map(len, shares)) == len(cores)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def in_a_thread(told, look):
    """What `look` finds in a thread that was told so; none but itself is."""
    found = []

    def run():
        told()
        found.append(look())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def cores_after(number, of):
    return in_a_thread(lambda: keep_to_share(number, of), lambda: os.sched_getaffinity(0))


def policy():
    return os.sched_getscheduler(0)


@pytest.fixture
def usual():
    """The policy of these tests, which has to be the usual one to be changed."""
    found = policy()
    if found != os.SCHED_OTHER:
        pytest.skip("NOT TESTED: the tests themselves run with another scheduling policy than the usual one")
    return found


def test_a_share_is_of_what_the_process_was_allowed():
    allowed = os.sched_getaffinity(0)
    assert cores_after(1, 1) == allowed
    assert cores_after(1, 2) | cores_after(2, 2) == allowed
    assert cores_after(1, len(allowed) + 1) == allowed
    assert os.sched_getaffinity(0) == allowed


def test_where_the_system_does_not_let_us_all_stays_as_it_is(monkeypatch):
    def forbidden(pid, cores):
        raise PermissionError(1, "Operation not permitted")  # seccomp, as some sandboxes have it

    allowed = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    assert cores_after(1, 2) == allowed
    monkeypatch.delattr(os, "sched_setaffinity")
    assert cores_after(2, 2) == allowed


def test_who_is_woken_waits_for_its_turn_and_so_does_what_it_starts(usual):
    assert in_a_thread(without_haste, policy) == os.SCHED_BATCH
    assert in_a_thread(without_haste, lambda: in_a_thread(lambda: None, policy)) == os.SCHED_BATCH
    assert policy() == usual


def test_a_policy_that_somebody_chose_stays():
    def told():
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # systemd's CPUSchedulingPolicy=idle
        without_haste()

    assert in_a_thread(told, policy) == os.SCHED_IDLE


def test_where_the_system_does_not_let_us_wait_all_stays_as_it_is(monkeypatch, usual):
    def forbidden(pid, policy, parameters):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    assert in_a_thread(without_haste, policy) == usual
    monkeypatch.delattr(os, "SCHED_BATCH")
    assert in_a_thread(without_haste, policy) == usual
