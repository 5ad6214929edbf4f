"""Verifies signatures in a process of its own, killed at its deadline: no mail stops the intake."""

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

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Verifier:
    """One child process, started at the first mail with a signature that matters, and replaced when it overruns or dies.

    `deadline` is in seconds from when the child takes the work, which is a header block and a few digests: milliseconds
    for an honest mail. It should end before the whole judgement's time does, so that a mail made to be slow is
    answered for good. Use it from one event loop.
    """

    def __init__(self, *, deadline: float = 3.0) -> None:
        self._deadline = deadline
        self._pool: pebble.ProcessPool | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def started(self) -> bool:
        """Whether there is a child process now."""
        return self._pool is not None

    async def check(self, work: Work) -> Checked:
        """Verify one mail's signatures; one that takes too long or kills the child does not count, and says so.

        Raises `IngestError` when no child can be started or the verifier is closed, which says nothing of the mail.
        """
        async with self._turn:
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
        await self._discard()

    async def _check(self, work: Work) -> Checked:
        waiting = asyncio.wrap_future(self._schedule(work))  # cancelled with us: pebble then kills the child
        try:
            async with asyncio.timeout(self._deadline + _START_GRACE):
                return await waiting
        except TimeoutError:
            if waiting.cancelled():  # our own patience ended, not the child's deadline
                raise _NotStarted from None
            return await self._failed(work, "it takes too long to check")
        except pebble.ProcessExpired:
            return await self._failed(work, "checking it killed the process")
        except asyncio.CancelledError:
            await self._discard()
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise IngestError("the verifier was closed") from None
            raise

    async def _failed(self, work: Work, reason: str) -> Checked:
        await self._discard()
        return Checked({claim.index: reason for claim in work.claims}, reason if work.chain else None)

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
            return self._pool.schedule(verify, args=(work,), timeout=self._deadline)
        except RuntimeError as error:  # pebble noticed that its idle child died
            raise BrokenProcessPool from error

    async def _discard(self) -> None:
        """Throw the whole pool away: a process killed while it held a lock of the channel would hold up the next one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(_stop, pool)


class _NotStarted(Exception):
    """No child took the work in time."""


def _stop(pool: pebble.ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


# --- in the child -------------------------------------------------------------------------------------------------


def _start_child(parent: int) -> None:
    """Leave the ending to the parent (a terminal's Ctrl-C goes to every process), and end with it whatever ends it."""
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
