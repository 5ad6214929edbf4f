"""Who waits in an event loop for what a thread does, and how all those that are done are told with one wake-up."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Waiting:
    """A caller, and what the thread has for him."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


def tell(waiting: Sequence[Waiting]) -> None:
    """Tells everybody, with one wake-up for each loop however many wait in it. May be called in any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = defaultdict(list)
    for each in waiting:
        by_loop[each.loop].append(each)
    for loop, theirs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # a loop that was closed has nobody left who waits
            loop.call_soon_threadsafe(_resolve, theirs)


def _resolve(waiting: Sequence[Waiting]) -> None:
    for each in waiting:
        if each.future.done():
            continue
        if each.error is not None:
            each.future.set_exception(each.error)
        else:
            each.future.set_result(each.result)
