"""The files in which a supervisor's children count: made anew, written, added up at a scrape, folded at a child's end."""

import asyncio
import collections
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock, get_ident
from typing import TypeVar, cast

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

Waiting = TypeVar("Waiting")

_ARCHIVE = 0
"""The file number under which the counts of ended processes are kept; no process has it."""

files = Lock()
"""A scrape must not see an ended process's counts both in its own file and in the archive, nor in neither."""


def multiprocess_dir(path: Path) -> dict[str, str]:
    """Makes an empty directory for the children's files; returns what to add to their environment.

    To be called once, at the start of a supervisor, before its first child.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in path.glob("*.db"):
        left_over.unlink()
    return {"PROMETHEUS_MULTIPROC_DIR": str(path)}


def child_exited(path: Path, pid: int) -> None:
    """Keeps what an ended child counted and forgets its gauges; to be called after the child was waited for.

    Its files are folded into one, so that a child that restarts for months does not fill the directory.
    """
    with files:
        mark_process_dead(pid, str(path))  # type: ignore[no-untyped-call]
        for kind, keep in _KEPT.items():
            _fold(path / f"{kind}_{pid}.db", path / f"{kind}_{_ARCHIVE}.db", keep)


Kept = tuple[float, float]
"""A value, and when it was set (0.0 where that is not kept)."""

_KEPT: dict[str, Callable[[Kept, Kept], Kept]] = {
    "counter": lambda before, own: (before[0] + own[0], 0.0),
    "histogram": lambda before, own: (before[0] + own[0], 0.0),
    "gauge_max": lambda before, own: (max(before[0], own[0]), 0.0),
    "gauge_mostrecent": lambda before, own: max(before, own, key=lambda one: one[1]),
}
"""How the values of an ended process go into those of all ended before."""


def _fold(source: Path, archive: Path, keep: Callable[[Kept, Kept], Kept]) -> None:
    if not source.exists():
        return
    kept = MmapedDict(str(archive))  # type: ignore[no-untyped-call]
    try:
        for key, value, at, _ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
            before = kept.read_value(key)  # type: ignore[no-untyped-call]
            kept.write_value(key, *keep(before, (value, at)))  # type: ignore[no-untyped-call]
    finally:
        kept.close()  # type: ignore[no-untyped-call]
    source.unlink()


class Children(MultiProcessCollector):
    """The sum over the children's files. A file is empty for the moment between its creation and its first use, and
    the library would stumble over it."""

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in Path(self._path).glob("*.db") if path.stat().st_size]
        return cast(Iterable[Metric], self.merge(files))  # type: ignore[no-untyped-call]


class Distribution(Histogram):
    """A histogram that takes many values at the price of one."""

    def observe_all(self, values: Sequence[float]) -> None:
        """What `observe` does, for each of the values."""
        self._sum.inc(sum(values))
        for index, number in collections.Counter(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[index].inc(number)


WRITTEN_AFTER = 0.05
"""Seconds until what is counted on an event loop is written, with all that was counted meanwhile: each writing costs several
microseconds in a supervisor's child, and a mail is counted in two dozen places."""

_NO_THREAD = 0


class Unwritten:
    """What was counted on the process's event loop and is not written yet. Away from a loop nothing waits."""

    def __init__(self) -> None:
        self._counted: list[Counter | Gauge] = []
        """Each as often as one was added to it, as nearly always."""
        self._added: list[tuple[Counter | Gauge, float]] = []
        self._observed: list[tuple[Distribution, float]] = []
        self._set: dict[Gauge, float] = {}
        self._writing = Lock()
        self._thread = _NO_THREAD
        """In which the writing is due, as long as its loop runs."""
        self._runs: Callable[[], bool] = bool

    def add(self, metric: Counter | Gauge, by: float = 1.0) -> None:
        """Adds to a counter or a gauge."""
        # `_waits`, without the call: a mail comes here a dozen times.
        if not (self._thread == get_ident() and self._runs()) and not self._is_due():
            metric.inc(by)
        elif by == 1.0:
            self._counted.append(metric)
        else:
            self._added.append((metric, by))

    def observe(self, metric: Distribution, value: float) -> None:
        """Counts a value in a histogram."""
        if self._waits():
            self._observed.append((metric, value))
        else:
            metric.observe(value)

    def set(self, metric: Gauge, value: float) -> None:
        """Sets a gauge, to which nothing is ever added."""
        if self._waits():
            self._set[metric] = value
        else:
            metric.set(value)

    def write(self) -> None:
        """Writes it now."""
        self._thread = _NO_THREAD
        with self._writing:
            for metric, times in collections.Counter(_taken_from(self._counted)).items():
                metric.inc(times)
            for (metric, by), times in collections.Counter(_taken_from(self._added)).items():
                metric.inc(by * times)
            observed: dict[Distribution, list[float]] = {}
            for histogram, value in _taken_from(self._observed):
                observed.setdefault(histogram, []).append(value)
            for histogram, values in observed.items():
                histogram.observe_all(values)
            while self._set:
                gauge, value = self._set.popitem()
                gauge.set(value)

    def _waits(self) -> bool:
        """Whether a writing is due for what is counted here and now."""
        # Asked dozens of times for each mail: until Python 3.12 `get_running_loop` makes a system call each time.
        return (self._thread == get_ident() and self._runs()) or self._is_due()

    def _is_due(self) -> bool:
        """Sees to it that one is, where there is a loop to do it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        self._runs, self._thread = loop.is_running, get_ident()
        loop.call_later(WRITTEN_AFTER, self.write)
        return True


def _taken_from(waiting: list[Waiting]) -> list[Waiting]:
    """All that waits there, once, whatever other threads add meanwhile."""
    taken = waiting[:]
    del waiting[: len(taken)]
    return taken
