"""What is counted on an event loop is written together a moment later, and nothing of it is lost."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from apptrack_ingest import metric_files
from apptrack_ingest.metric_files import Distribution, Unwritten

PATIENCE = 20.0


@pytest.fixture
def counter() -> Counter:
    return Counter("things", "counted", registry=CollectorRegistry())


def value(metric: Counter | Gauge) -> float:
    return next(iter(metric.collect())).samples[0].value


async def test_counts_wait_for_others_and_are_written_by_themselves(counter: Counter) -> None:
    unwritten, gauge = Unwritten(), Gauge("level", "set", registry=CollectorRegistry())
    for level in (3, 5):
        unwritten.add(counter)
        unwritten.set(gauge, level)
    assert (value(counter), value(gauge)) == (0, 0)
    async with asyncio.timeout(PATIENCE):
        while value(gauge) == 0:
            await asyncio.sleep(metric_files.WRITTEN_AFTER / 5)
    assert (value(counter), value(gauge)) == (2, 5)


async def test_they_are_written_at_once_when_asked_for(counter: Counter) -> None:
    unwritten = Unwritten()
    unwritten.add(counter, 2)
    unwritten.write()
    assert value(counter) == 2
    unwritten.write()
    assert value(counter) == 2


async def test_ones_and_other_numbers_add_up() -> None:
    unwritten, gauge = Unwritten(), Gauge("level", "added to", registry=CollectorRegistry())
    for by in (1, -1, 1.0, 1, 2.5, -1):
        unwritten.add(gauge, by)
    unwritten.write()
    assert value(gauge) == 3.5


def test_away_from_a_loop_nothing_waits(counter: Counter) -> None:
    Unwritten().add(counter)
    assert value(counter) == 1


@pytest.fixture
def written_late(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Not before a test has looked, however long that takes."""
    monkeypatch.setattr(metric_files, "WRITTEN_AFTER", 3600.0)
    return lambda seconds: monkeypatch.setattr(metric_files, "WRITTEN_AFTER", seconds)


def test_what_a_loop_left_behind_is_written_by_the_next_one(
    counter: Counter, written_late: Callable[[float], None]
) -> None:
    unwritten = Unwritten()

    async def count(wait: float) -> None:
        unwritten.add(counter)
        await asyncio.sleep(wait)

    asyncio.run(count(0))
    assert value(counter) == 0
    written_late(0.01)
    asyncio.run(count(0.1))
    assert value(counter) == 2


@pytest.mark.usefixtures("written_late")
def test_after_the_end_of_a_loop_nothing_waits_for_it(counter: Counter) -> None:
    unwritten, gauge = Unwritten(), Gauge("level", "set", registry=CollectorRegistry())

    async def count() -> None:
        unwritten.add(counter)

    asyncio.run(count())
    unwritten.set(gauge, 5)
    unwritten.add(counter)
    assert (value(counter), value(gauge)) == (1, 5)
    unwritten.write()
    assert value(counter) == 2


@pytest.mark.usefixtures("written_late")
async def test_beside_a_loop_nothing_waits_for_it(counter: Counter) -> None:
    """In a thread without a loop, while a writing is due in this one's."""
    unwritten = Unwritten()
    unwritten.add(counter)
    await asyncio.to_thread(unwritten.add, counter)
    assert value(counter) == 1
    unwritten.write()
    assert value(counter) == 2


def test_loops_in_several_threads_lose_and_double_nothing(counter: Counter) -> None:
    unwritten, histogram, ended = Unwritten(), Distribution("times", "", registry=CollectorRegistry()), Event()

    async def count() -> None:
        for number in range(2_000):
            unwritten.add(counter)
            unwritten.observe(histogram, 1.0)
            if number % 50 == 0:
                await asyncio.sleep(0)

    def write() -> None:
        while not ended.is_set():
            unwritten.write()

    with ThreadPoolExecutor() as threads:
        writer = threads.submit(write)
        for counting in [threads.submit(asyncio.run, count()) for _ in range(3)]:
            counting.result(PATIENCE)
        ended.set()
        writer.result(PATIENCE)
    unwritten.write()
    assert (value(counter), histogram._sum.get()) == (6_000, 6_000)


BOUNDS = (0.1, 1.0, 5.0)


@given(st.lists(st.sampled_from((0.0, *BOUNDS)) | st.floats(0.0, 10.0, width=16) | st.just(float("inf")), min_size=1))
def test_many_values_count_as_they_do_one_by_one(values: list[float]) -> None:
    expected = Histogram("times", "", ("of",), registry=CollectorRegistry(), buckets=BOUNDS)
    found = Distribution("times", "", ("of",), registry=CollectorRegistry(), buckets=BOUNDS)
    for one in values:
        expected.labels("a").observe(one)
    found.labels("a").observe_all(values)
    (of_found,), (of_expected,) = found.collect(), expected.collect()
    assert [(s.name, s.labels, s.value) for s in of_found.samples] == [
        (s.name, s.labels, pytest.approx(s.value)) for s in of_expected.samples
    ]


async def test_values_wait_for_others_too() -> None:
    unwritten, histogram = Unwritten(), Distribution("times", "", registry=CollectorRegistry(), buckets=BOUNDS)
    for seconds in (0.5, 0.7, 3.0):
        unwritten.observe(histogram, seconds)
    assert histogram._sum.get() == 0
    unwritten.write()
    assert [bucket.get() for bucket in histogram._buckets] == [0, 2, 1, 0]


def test_what_a_child_counted_last_outlives_it(tmp_path: Path) -> None:
    work = (
        "import asyncio\nfrom apptrack_ingest import metrics\nasync def end(): metrics.replied(250)\nasyncio.run(end())"
    )
    environment = {**os.environ, **metric_files.multiprocess_dir(tmp_path)}
    subprocess.run([sys.executable, "-c", work], env=environment, check=True, timeout=60)
    collected = metric_files.Children(CollectorRegistry(), str(tmp_path)).collect()
    samples = {s.name: s.value for family in collected for s in family.samples if s.labels == {"code": "250"}}
    assert samples == {"apptrack_smtp_replies_total": 1.0}
