"""The parser in a process of its own, killed at its deadline and held to its memory: no mail stops the worker."""

import asyncio
import multiprocessing
import os
import pickle
import socket
import weakref

from apptrack_ingest.errors import IngestError, Unreadable
from apptrack_ingest.model import Parsed
from apptrack_ingest.parse.child import HEAD, READY, Refusal, serve
from apptrack_ingest.parse.limits import DEFAULT_LIMITS, Limits
from apptrack_ingest.parse.parcel import LARGE, Packed, Parcel, unpack

# Seconds for a child to start, no mail's fault.
START_GRACE = 30.0


class ParserPool:
    """Parses mails in child processes, each for one mail at a time, started at the first mail.

    `deadline` is in seconds from when a running child is given the mail; `memory_bytes` is the address space a parse may
    take on top of an idle child (RLIMIT_AS); a child is replaced after `max_tasks` mails. Use it from one event loop, best
    in the main thread: on Linux a child is killed when the thread that started it ends.
    """

    def __init__(
        self,
        *,
        deadline: float,
        memory_bytes: int,
        processes: int = 1,
        max_tasks: int = 5000,
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


class _NotTaken(Exception):
    """No child took the mail: none could be started, or it died before it had the mail."""


class _Child:
    """A place for one process, which is replaced when it overran, died, or has read its number of mails."""

    def __init__(self, deadline: float, memory_bytes: int, max_tasks: int, limits: Limits) -> None:
        self._deadline = deadline
        self._memory_bytes = memory_bytes
        self._max_tasks = max_tasks
        self._limits = limits
        self._process: _Process | None = None
        self._closed = False

    async def parse(self, raw: bytes) -> Parsed:
        try:
            outcome = await self._outcome(raw)
        except _NotTaken:
            outcome = await self._again(raw)
        if isinstance(outcome, Refusal):
            raise Unreadable(outcome.code, outcome.detail)
        return outcome

    async def close(self) -> None:
        self._closed = True
        await self._discard()

    async def _again(self, raw: bytes) -> Parsed | Refusal:
        """A child that died between two mails is nobody's fault: try a new one, once."""
        try:
            return await self._outcome(raw)
        except _NotTaken:
            raise IngestError("the parser's process cannot be started") from None

    async def _outcome(self, raw: bytes) -> Parsed | Refusal:
        """What came of a mail; unless that was an answer, or it asked for too much memory, the process is gone after."""
        kept = False
        try:
            process = await self._running()
            outcome = await process.read(raw, self._deadline)
            kept = process.mails < self._max_tasks and not (isinstance(outcome, Refusal) and outcome.code == "memory")
            return outcome
        except TimeoutError:
            return Refusal("deadline", "")
        except (_NotTaken, EOFError) as error:
            self._refuse_when_closed()
            if isinstance(error, _NotTaken):
                raise
            return Refusal("parser-died", "")
        finally:
            if not kept:
                await self._discard()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise IngestError("the parser was closed") from None

    async def _running(self) -> "_Process":
        self._refuse_when_closed()
        if self._process is None:
            self._process = _Process(self._limits, self._memory_bytes)
            await self._process.ready()
        return self._process

    async def _discard(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.end()


class _Process:
    """A child process, and our ends of the channel and of the parcel to it."""

    def __init__(self, limits: Limits, memory_bytes: int) -> None:
        self.mails = 0
        self._parcel, self._taken = Parcel(), Parcel()
        ours, theirs = socket.socketpair()
        self._channel = _Channel(ours)
        self._silent = asyncio.Event()  # nobody listens on the channel
        spawning = multiprocessing.get_context("spawn")  # forking a process with threads can deadlock
        arguments = (theirs, self._parcel, self._taken, os.getpid(), limits, memory_bytes)
        self._process = spawning.Process(target=serve, args=arguments, daemon=True)
        with theirs:
            self._process.start()
        # It ignores the SIGTERM that the interpreter sends and waits for, should nobody have closed the pool.
        self._kill = weakref.finalize(self, self._process.kill)

    async def ready(self) -> None:
        """Returns once it waits for mails. Raises _NotTaken when it does not come to that."""
        try:
            async with asyncio.timeout(START_GRACE):
                await self._channel.open()
                if await self._channel.read(len(READY)) != READY:
                    raise EOFError
        except (TimeoutError, OSError, EOFError):
            raise _NotTaken from None
        finally:
            self._silent.set()

    async def read(self, raw: bytes, deadline: float) -> Parsed | Refusal:
        """What a mail says. Raises _NotTaken, TimeoutError, and EOFError where the child died of it."""
        self.mails += 1
        self._silent.clear()
        try:
            async with asyncio.timeout(deadline):
                self._send(raw)
                return await self._answer()
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError) or self._taken.size() >= self.mails:
                raise
            raise _NotTaken from None
        finally:
            self._silent.set()

    async def end(self) -> None:
        """Kills it and waits until it is gone; whoever listens to it hears its end."""
        self._kill()
        try:
            await asyncio.shield(asyncio.to_thread(self._process.join))
            await self._silent.wait()
        finally:
            self._channel.close()
            self._parcel.close()
            self._taken.close()

    # -- on the channel

    def _send(self, raw: bytes) -> None:
        large = len(raw) >= LARGE
        if large:
            self._parcel.put(raw)
        head = HEAD.pack(large, len(raw))
        self._channel.write(head if large else head + raw)

    async def _answer(self) -> Parsed | Refusal:
        _, size = HEAD.unpack(await self._channel.read(HEAD.size))
        answer: Packed | Refusal = pickle.loads(await self._channel.read(size))  # noqa: S301 - of our own child
        if isinstance(answer, Refusal):
            return answer
        if not answer.contents and answer.inner is None:
            return answer.parsed
        parsed = unpack(answer, self._parcel)
        self._parcel.empty()
        return parsed


class _Channel(asyncio.Protocol):
    """Our end of the socket to a child. The loop listens to it all the time: to begin and to end that for each piece of each
    answer costs more than the answer."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._transport: asyncio.Transport | None = None
        self._found = bytearray()
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """To be awaited before anything else."""
        self._transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._ours)

    def data_received(self, data: bytes) -> None:
        self._found += data
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def write(self, data: bytes) -> None:
        """Sends it, by and by; where nobody is there any more, the end is what is read next."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)

    async def read(self, size: int) -> bytearray:
        """So many bytes. Raises EOFError where they do not come."""
        while len(self._found) < size:
            if self._ended:
                raise EOFError
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        read, self._found = self._found, self._found[size:]
        del read[size:]
        return read

    def close(self) -> None:
        """Lets go of it at once."""
        if self._transport is None:
            self._ours.close()
        else:
            self._transport.abort()
