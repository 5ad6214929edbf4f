"""Thousands of random histories a second: nothing lost, nothing stuck, no quota broken, an ATS that is away left in peace.

`SIMULATION_SEED=123 SIMULATION_HISTORIES=100000 pytest tests/simulation -s` plays others, or one again.
"""

import os
import time
from random import SystemRandom

from simulation.history import History

HISTORIES = int(os.environ.get("SIMULATION_HISTORIES", "2000"))


def first_seed() -> int:
    return int(os.environ.get("SIMULATION_SEED") or SystemRandom().randrange(10**9))


def test_random_histories() -> None:
    first, begun, calls = first_seed(), time.perf_counter(), 0
    print(f"\nhistories {first} to {first + HISTORIES - 1}")
    for seed in range(first, first + HISTORIES):
        try:
            history = History(seed).run()
            history.check_end()
        except Exception as error:
            again = f"SIMULATION_SEED={seed} SIMULATION_HISTORIES=1 pytest tests/simulation/test_histories.py"
            raise AssertionError(f"history {seed} broke: {error!r}; again: {again}") from error
        calls += history.calls
    seconds = time.perf_counter() - begun
    print(f"{HISTORIES / seconds:,.0f} histories and {calls / seconds:,.0f} calls a second")
    assert calls > HISTORIES
