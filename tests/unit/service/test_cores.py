"""Several intakes divide the machine's cores among them; where that cannot be, each may use all."""

import os
import threading

import pytest

from apptrack_ingest.service.cores import keep_to_share, share


@pytest.mark.parametrize("cores", [{0, 1}, {3, 5, 9}, set(range(8)), set(range(2, 66))])
@pytest.mark.parametrize("of", [1, 2, 3, 8, 64])
def test_each_has_some_and_none_is_for_two(cores, of):
    shares = [share(cores, number, of) for number in range(1, of + 1)]
    if len(cores) < of:
        assert shares == [cores] * of, "too few to be divided"
    else:
        assert set.union(*map(set, shares)) == cores and sum(map(len, shares)) == len(cores)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def cores_after(number, of):
    """The cores of a thread that was told to keep to its share; none but itself is."""
    found = []

    def told():
        keep_to_share(number, of)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=told)
    thread.start()
    thread.join()
    return found[0]


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
