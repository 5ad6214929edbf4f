"""One process that verifies signatures, killed at its limits of processor time and clock: no mail stops the intake."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool

import pebble

from apptrack_ingest.errors import IngestError
from apptrack_ingest.trust.signatures import Checked, Work, verify

# Seconds for a child to start, on top of its deadline, before we throw it away; no mail's fault.
_START_GRACE = 30.0
_TASKS_OF_A_CHILD = 5000
# The children ignore SIGTERM (see `_start_child`), so pebble need not wait long for it before it sends SIGKILL.
pebble.CONSTS.term_timeout = 0.2

# What the kernel sends a process whose ITIMER_PROF ran out; nobody else has a reason to.
_OVERRUN = signal.SIGPROF

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Child:
    """One child process, started at its first work, and replaced when it overruns or dies; for one work at a time.

    `deadline` is in seconds from when the child takes the work, `processor_time` in seconds of its CPU. The latter should
    be well below the former, so that a mail made to be slow meets it first and is answered for good.
    """

    def __init__(self, deadline: float, processor_time: float) -> None:
        self._deadline = deadline
        self._processor_time = processor_time
        self._pool: pebble.ProcessPool | None = None
        self._waiting: asyncio.Future[Checked] | None = None
        self._closed = False

    @property
    def started(self) -> bool:
        """Whether there is a child process now."""
        return self._pool is not None

    async def check(self, work: Work) -> Checked:
        """Verify one mail's signatures; those that take too much processor time do not count, and say so.

        Raises `IngestError` when no child can be started or this one is closed, which says nothing of the mail.
        """
        try:
            return await self._check(work)
        except (BrokenProcessPool, _NotStarted):  # a child that died between two mails is nobody's fault
            await self._discard()
        try:
            return await self._check(work)
        except (BrokenProcessPool, _NotStarted):
            await self._discard()
            raise IngestError("the process that verifies signatures cannot be started") from None

    async def close(self) -> None:
        """Stop the child and wait for it; a check under way ends with `IngestError`."""
        self._closed = True
        if self._waiting is not None:  # pebble, stopped, does not always say so to those who wait
            self._waiting.cancel()
        await self._discard()

    async def _check(self, work: Work) -> Checked:
        self._waiting = waiting = asyncio.wrap_future(
            self._schedule(work)
        )  # cancelled with us: pebble then kills the child
        try:
            async with asyncio.timeout(self._deadline + _START_GRACE):
                return await waiting
        except TimeoutError:
            if waiting.cancelled():  # our own patience ended, not the child's deadline
                raise _NotStarted from None
            await self._discard()
            return Checked({}, unfinished="checking it took too long here")
        except pebble.ProcessExpired as ended:
            await self._discard()
            return _slow(work) if ended.exitcode == -_OVERRUN else Checked({}, unfinished="checking it was broken off")
        except asyncio.CancelledError:
            await self._discard()
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise IngestError("the verifier was closed") from None
            raise

    def _schedule(self, work: Work) -> "pebble.ProcessFuture[Checked]":
        if self._closed:
            raise IngestError("the verifier was closed")
        if self._pool is None:
            self._pool = pebble.ProcessPool(
                max_workers=1,
                max_tasks=_TASKS_OF_A_CHILD,
                initializer=_start_child,
                initargs=(os.getpid(),),
                context=multiprocessing.get_context("spawn"),  # forking a process with threads can deadlock
            )
        try:
            return self._pool.schedule(_within, args=(self._processor_time, work), timeout=self._deadline)
        except RuntimeError as error:  # pebble noticed that its idle child died
            raise BrokenProcessPool from error

    async def _discard(self) -> None:
        """Throw the whole pool away: a process killed while it held a lock of the channel would hold up the next one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(_stop, pool)


class _NotStarted(Exception):
    """No child took the work in time."""


def _slow(work: Work) -> Checked:
    reason = "it takes too long to check"
    return Checked({claim.index: reason for claim in work.claims}, reason if work.chain else None)


def _stop(pool: pebble.ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


# --- in the child -------------------------------------------------------------------------------------------------


def _start_child(parent: int) -> None:
    """Leave the ending to the parent (a terminal's Ctrl-C goes to every process), and end with it whatever ends it."""
    signal.signal(_OVERRUN, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _killed_with_parent():
        threading.Thread(target=_watch_parent, daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _within(processor_time: float, work: Work) -> Checked:
    """Verify, or end by the signal of ITIMER_PROF (setitimer(2)), which no expression of Python's `re` can hold up."""
    signal.setitimer(signal.ITIMER_PROF, processor_time)
    try:
        return verify(work)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


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
