"""Gives each of several intakes cores of its own, so that they do not crowd on one while another is idle.

Whoever sends a mail is woken on the core of whoever it waits for, and so are an intake's two threads: on few cores the
kernel lets two intakes share one for milliseconds at a time. Kept apart, two of them take a fifth more mails of 2 KB on two
cores (docs/performance.md). Among those cores the kernel places it as ever, and workers may run on all.
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
