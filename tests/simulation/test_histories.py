"""Thousands of random histories a second: nothing lost, nothing stuck, no quota broken, an ATS that is away left in peace.

`SIMULATION_SEED=123 SIMULATION_HISTORIES=100000 pytest tests/simulation -s` plays others, or one again. Many are played
on all cores, a few in this process, where a debugger can look.
"""

import gc
import multiprocessing
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from random import SystemRandom

from simulation.history import History

HISTORIES = int(os.environ.get("SIMULATION_HISTORIES", "2000"))

AT_ONCE = 250
"""As many histories go to a process at a time; fewer stay in this one."""


def first_seed() -> int:
    return int(os.environ.get("SIMULATION_SEED") or SystemRandom().randrange(10**9))


def play(seeds: range) -> tuple[int, float]:
    """How many calls were made in these histories, and how many seconds of one core's time they took."""
    begun, calls = time.process_time(), 0
    for seed in seeds:
        try:
            history = History(seed).run()
            history.check_end()
        except Exception as error:
            again = f"SIMULATION_SEED={seed} SIMULATION_HISTORIES=1 pytest tests/simulation/test_histories.py"
            raise AssertionError(f"history {seed} broke: {error!r}; again: {again}") from error
        calls += history.calls
    return calls, time.process_time() - begun


def play_all(seeds: range) -> Iterable[tuple[int, float]]:
    """Each history is a function of its seed alone, so it does not matter where it is played."""
    parts = [seeds[at : at + AT_ONCE] for at in range(0, len(seeds), AT_ONCE)]
    processes = min(os.cpu_count() or 1, len(parts))
    if processes < 2:
        yield from map(play, parts)
        return
    # Forked, for another interpreter takes seconds to start; what they play takes no lock that a thread here may hold.
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=forked, initializer=gc.freeze) as pool:
        yield from pool.map(play, parts)


def test_random_histories() -> None:
    first, begun = first_seed(), time.perf_counter()
    print(f"\nhistories {first} to {first + HISTORIES - 1}")
    played = list(play_all(range(first, first + HISTORIES)))
    calls, seconds = sum(calls for calls, _ in played), time.perf_counter() - begun
    of_a_core = sum(seconds for _, seconds in played)
    print(f"{HISTORIES / seconds:,.0f} histories and {calls / seconds:,.0f} calls a second", end=", ")
    print(f"{HISTORIES / of_a_core:,.0f} histories a second of one core")
    assert calls > HISTORIES or HISTORIES < 100  # there are histories in which nothing needs a call


def test_a_history_is_a_function_of_its_seed() -> None:
    seed = first_seed()
    one, other = History(seed).run(), History(seed).run()
    assert [str(app.state) for app in one.apps] == [str(app.state) for app in other.apps], seed
    assert (one.now, one.calls, one.random.random()) == (other.now, other.calls, other.random.random()), seed
