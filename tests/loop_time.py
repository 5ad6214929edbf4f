"""Measures how long the callbacks of an event loop keep its thread busy: none may hold up everybody else."""

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 0.050
"""Seconds of CPU that one callback of the intake's loop may take, whatever a peer sends."""


@dataclass
class Callbacks:
    """What ran on the loop: how many callbacks, and the slowest of them in seconds of its thread's CPU time."""

    count: int = 0
    slowest: float = 0.0
    what: str = ""

    def took(self, seconds: float, handle: asyncio.Handle) -> None:
        self.count += 1
        if seconds > self.slowest:
            self.slowest, self.what = seconds, _name(handle)


@contextlib.contextmanager
def callbacks() -> Iterator[Callbacks]:
    """Measures every callback of every loop until the context ends.

    CPU time of the thread, not time on the wall: a busy machine takes nothing from us. The collector of garbage rests
    meanwhile, for its rounds fall upon whoever allocates next.
    """
    seen, run = Callbacks(), asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        started = time.thread_time()
        try:
            run(handle)
        finally:
            seen.took(time.thread_time() - started, handle)

    with _no_collection():
        asyncio.events.Handle._run = timed
        try:
            yield seen
        finally:
            asyncio.events.Handle._run = run


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _name(handle: asyncio.Handle) -> str:
    """The coroutine of a task's step, else the callback as it shows itself."""
    task = getattr(handle._callback, "__self__", None)
    return repr(task.get_coro() if isinstance(task, asyncio.Task) else handle)
