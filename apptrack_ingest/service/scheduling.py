"""Tells the kernel how to run a process of ours: each of several intakes on cores of its own, and all without haste.

Whoever sends a mail is woken on the core of whoever it waits for, and so are an intake's two threads: on few cores the
kernel lets two intakes share one for milliseconds at a time. Kept apart, two of them take a fifth more mails of 2 KB on two
cores (docs/performance.md). Among those cores the kernel places it as ever, and workers may run on all.

And whoever is woken usually takes the core from whoever runs. The threads of a process of ours wake one another some times
for each mail, for the interpreter's lock or with a result: to be broken off each time costs an intake a sixth of its CPU.
"""

import os
from collections.abc import Collection
from contextlib import suppress


def share(cores: Collection[int], number: int, of: int) -> frozenset[int]:
    """The cores of process `number` (from 1 on) of `of`, some for each and none for two; all of them where there are fewer
    cores than processes."""
    return frozenset(sorted(cores)[number - 1 :: of]) if 1 < of <= len(cores) else frozenset(cores)


def keep_to_share(number: int, of: int) -> None:
    """Keeps the calling thread, and what it starts from now on, to its share of the cores that the process may use
    (sched_setaffinity(2)); where the system cannot or will not do that, all stays as it is."""
    if of > 1 and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, share(os.sched_getaffinity(0), number, of))


def without_haste() -> None:
    """Lets the calling thread, and what it starts from now on, wait for its turn when it is woken, instead of breaking off
    whoever runs (SCHED_BATCH, sched(7)). Its share of the CPU stays the same. Where somebody chose another policy than the
    usual one, or the system cannot or will not do that, all stays as it is."""
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
