"""The parser in a process of its own, killed at its deadline and held to its memory: no mail stops the worker."""

import asyncio
import ctypes
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pebble

from apptrack_ingest.errors import IngestError, Unreadable
from apptrack_ingest.model import Parsed
from apptrack_ingest.parse.mime import DEFAULT_LIMITS, Limits, parse

# Seconds for a child to start and for pebble to kill it before we throw the whole pool away; no mail's fault.
START_GRACE = 30.0
# The children ignore SIGTERM (see `_start_child`), so pebble need not wait long for it before it sends SIGKILL.
pebble.CONSTS.term_timeout = 0.2

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An `Unreadable` on its way out of the child: the exception itself would not survive pickling."""

    code: str
    detail: str


class ParserPool:
    """Parses mails in child processes, each for one mail at a time, started at the first mail.

    `deadline` is in seconds from when the child takes the mail; `memory_bytes` is the address space a parse may take on
    top of an idle child (RLIMIT_AS); a child is replaced after `max_tasks` mails. Use it from one event loop, best in
    the main thread: on Linux a child is killed when the thread that started it ends.
    """

    def __init__(
        self,
        *,
        deadline: float,
        memory_bytes: int,
        processes: int = 1,
        max_tasks: int = 500,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._children = [_Child(deadline, memory_bytes, max_tasks, limits) for _ in range(processes)]
        self._free: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()  # last in, first out: the warm child first
        for child in self._children:
            self._free.put_nowait(child)

    async def parse(self, raw: bytes) -> Parsed:
        """Parse one mail without blocking the event loop; waits while all children are busy.

        Raises `Unreadable`: what `parse` raises, and deadline, memory or parser-died; the child is then replaced.
        Raises `IngestError` when no child can be started or the pool is closed, which says nothing of the mail.
        """
        child = await self._free.get()
        try:
            return await child.parse(raw)
        finally:
            self._free.put_nowait(child)

    async def close(self) -> None:
        """Stop all children and wait for them; parses under way end with `IngestError`."""
        await asyncio.gather(*(child.close() for child in self._children))


class _Child:
    """A pebble pool of one process, thrown away whole when its process is not to be trusted any more: a process killed
    while it held a lock of the pool's channel would leave the others waiting for it."""

    def __init__(self, deadline: float, memory_bytes: int, max_tasks: int, limits: Limits) -> None:
        self._deadline = deadline
        self._memory_bytes = memory_bytes
        self._max_tasks = max_tasks
        self._limits = limits
        self._pool: pebble.ProcessPool | None = None
        self._running: asyncio.Future[Parsed | _Refusal] | None = None
        self._closed = False

    async def parse(self, raw: bytes) -> Parsed:
        try:
            outcome = await self._outcome(raw)
        except (BrokenProcessPool, _NotStarted):
            await self._discard()
            outcome = await self._again(raw)
        if isinstance(outcome, Parsed):
            return outcome
        if outcome.code == "memory":
            await self._discard()
        raise Unreadable(outcome.code, outcome.detail)

    async def close(self) -> None:
        self._closed = True
        if self._running is not None:
            self._running.cancel()
        await self._discard()

    async def _again(self, raw: bytes) -> Parsed | _Refusal:
        """A child that died between two mails is nobody's fault: try a new one, once."""
        try:
            return await self._outcome(raw)
        except (BrokenProcessPool, _NotStarted):
            await self._discard()
            raise IngestError("the parser's process cannot be started") from None

    async def _outcome(self, raw: bytes) -> Parsed | _Refusal:
        future = self._schedule(raw)
        self._running = waiting = asyncio.wrap_future(future)  # cancelled with us: pebble then kills the child
        try:
            async with asyncio.timeout(self._deadline + START_GRACE):
                return await waiting
        except TimeoutError:
            return await self._overrun(waiting)
        except pebble.ProcessExpired:
            await self._discard()
            return _Refusal("parser-died", "")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise IngestError("the parser was closed") from None
            raise
        finally:
            self._running = None

    async def _overrun(self, waiting: "asyncio.Future[Parsed | _Refusal]") -> _Refusal:
        """Pebble killed and replaced the child at its deadline; or else we gave up on a child that never took the mail."""
        if not waiting.cancelled():
            return _Refusal("deadline", "")
        raise _NotStarted

    def _schedule(self, raw: bytes) -> "pebble.ProcessFuture[Parsed | _Refusal]":
        if self._closed:
            raise IngestError("the parser was closed")
        if self._pool is None:
            self._pool = pebble.ProcessPool(
                max_workers=1,
                max_tasks=self._max_tasks,
                initializer=_start_child,
                initargs=(os.getpid(),),
                context=multiprocessing.get_context("spawn"),  # forking a process with threads can deadlock
            )
        try:
            return self._pool.schedule(_work, args=(raw, self._limits, self._memory_bytes), timeout=self._deadline)
        except RuntimeError as error:  # pebble noticed that its idle child died
            raise BrokenProcessPool from error

    async def _discard(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(_stop, pool)


class _NotStarted(Exception):
    """No child took the mail in time."""


def _stop(pool: pebble.ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


# --- in the child -------------------------------------------------------------------------------------------------


def _work(raw: bytes, limits: Limits, memory_bytes: int) -> Parsed | _Refusal:
    try:
        with _memory_limit(memory_bytes):
            return parse(raw, limits)
    except Unreadable as error:
        return _Refusal(error.code, error.detail)


@contextmanager
def _memory_limit(memory_bytes: int) -> Iterator[None]:
    """Hold the address space while parsing only: moving mails in and results out costs what they are long, no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _address_space() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Bytes of address space in use (proc(5), statm); 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _start_child(parent: int) -> None:
    """Leave the ending to the parent: a terminal's Ctrl-C and a service manager's SIGTERM go to every process of the
    service, and a child that obeyed would make the mail being drained look unreadable."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _killed_with_parent():
        threading.Thread(target=_watch_parent, daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _killed_with_parent() -> bool:
    """Ask the kernel for SIGKILL when the parent ends (prctl(2)); False where there is no such call."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    except (AttributeError, OSError):
        return False


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
