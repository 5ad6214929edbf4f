"""Hundreds of random histories of the real worker in virtual time, each in a few hundredths of a second.

`SIMULATION_SEED=123 SIMULATION_FACTORIES=1000 pytest tests/simulation/test_worker.py -s` plays others, or one again.
"""

import logging
import os
import time
from collections.abc import Iterator
from random import SystemRandom

import pytest
from simulation.factory import Factory
from simulation.virtual_time import run

FACTORIES = int(os.environ.get("SIMULATION_FACTORIES", "200"))

COUNTS = [min(20, FACTORIES), pytest.param(FACTORIES, marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _looks_seldom_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("apptrack_ingest.worker.LOOK_AGAIN", 15.0)  # virtual seconds, but each look is real work
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("count", COUNTS)
def test_random_histories_of_the_real_worker(count: int) -> None:
    first = int(os.environ.get("SIMULATION_SEED") or SystemRandom().randrange(10**9))
    print(f"\nfactories {first} to {first + count - 1}")
    begun = time.perf_counter()
    for seed in range(first, first + count):
        try:
            run(Factory(seed).play())
        except Exception as error:
            again = f"SIMULATION_SEED={seed} SIMULATION_FACTORIES=1 pytest tests/simulation/test_worker.py"
            raise AssertionError(f"factory {seed} broke: {error!r}; again: {again}") from error
    print(f"{count / (time.perf_counter() - begun):.0f} factories a second")
