"""What is counted on an event loop is written together a moment later, and nothing of it is lost."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from apptrack_ingest import metric_files
from apptrack_ingest.metric_files import Unwritten

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


def test_away_from_a_loop_nothing_waits(counter: Counter) -> None:
    Unwritten().add(counter)
    assert value(counter) == 1


def test_what_a_loop_left_behind_is_written_by_the_next_one(counter: Counter) -> None:
    unwritten = Unwritten()

    async def count(wait: float) -> None:
        unwritten.add(counter)
        await asyncio.sleep(wait)

    asyncio.run(count(0))
    assert value(counter) == 0
    asyncio.run(count(2 * metric_files.WRITTEN_AFTER))
    assert value(counter) == 2


def test_what_a_child_counted_last_outlives_it(tmp_path: Path) -> None:
    work = (
        "import asyncio\nfrom apptrack_ingest import metrics\nasync def end(): metrics.replied(250)\nasyncio.run(end())"
    )
    environment = {**os.environ, **metric_files.multiprocess_dir(tmp_path)}
    subprocess.run([sys.executable, "-c", work], env=environment, check=True, timeout=60)
    collected = metric_files.Children(CollectorRegistry(), str(tmp_path)).collect()
    samples = {s.name: s.value for family in collected for s in family.samples if s.labels == {"code": "250"}}
    assert samples == {"apptrack_smtp_replies_total": 1.0}
