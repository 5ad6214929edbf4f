"""Wake-up hints by NOTIFY, on a connection of their own; losing one is fine, and so is losing the connection."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg

from apptrack_ingest.spool.postgres.door import FAULTS, Options, Statements, connect

CHANNEL = "apptrack_ingest"

LOOK_AFTER = 15.0
"""Seconds after which a silent connection is asked whether it is still there."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts to connect: the pause doubles up to the longest."""

LAST_WORD = 1.0
"""Seconds that closing waits for a hint that was not sent yet."""


async def tell(statements: Statements) -> None:
    """Sends the hint with the transaction's commit; for what is rare, since commits that notify wait for each other
    (PostgreSQL's documentation, NOTIFY: its queue keeps the order of commits)."""
    await statements.all("SELECT pg_notify(:channel, '')", channel=CHANNEL)


class Hints:
    """Sends hints to all who listen on the same database, and hears theirs."""

    def __init__(self, url: str, options: Options) -> None:
        self._url = url
        self._options = options
        self._wake: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._wanted = self._sent = 0
        self._closing = False

    @property
    def _unsent(self) -> bool:
        return self._sent < self._wanted

    def listen(self, wake: Callable[[], None]) -> None:
        """Calls `wake` in the running loop whenever a hint comes in, or may have been missed."""
        self._wake = wake
        self._start()

    def send(self) -> None:
        """Tells everybody, without waiting; one hint stands for all that could not be sent yet."""
        self._wanted += 1
        self._start()

    async def close(self) -> None:
        """Sends what is unsent, if it can be done soon, and lets go of the connection."""
        self._closing = True
        self._changed.set()
        task, self._task = self._task, None
        if task is not None:
            if not self._unsent:
                task.cancel()
            await asyncio.wait([task], timeout=LAST_WORD)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _start(self) -> None:
        self._changed.set()
        if self._task is None and not self._closing:
            self._task = asyncio.create_task(self._keep_connected())

    async def _keep_connected(self) -> None:
        pause = FIRST_PAUSE
        while not self._closing or self._unsent:
            # Whatever a connection dies of, hints must go on when it is over; asyncpg tells some of it as a ValueError.
            with contextlib.suppress(*FAULTS, ValueError, LookupError):
                connection = await connect(self._url, self._options)
                try:
                    pause = FIRST_PAUSE
                    await self._talk(connection)
                finally:
                    await _hang_up(connection)
            if not self._closing:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _talk(self, connection: "asyncpg.Connection[Any]") -> None:
        connection.add_termination_listener(lambda *_: self._changed.set())
        listening = False
        while not self._closing or self._unsent:
            self._changed.clear()
            if self._wake is not None and not listening:
                await connection.add_listener(CHANNEL, self._heard)
                listening = True
                self._wake()
            if self._unsent:
                wanted = self._wanted
                await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
                self._sent = wanted
            elif not await self._something_changed():
                await connection.execute("SELECT 1")
            if connection.is_closed():
                return

    async def _something_changed(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AFTER):
                return await self._changed.wait()
        return False

    def _heard(self, *_: object) -> None:
        if self._wake is not None and not self._closing:
            self._wake()


async def _hang_up(connection: "asyncpg.Connection[Any]") -> None:
    try:
        await connection.close(timeout=LAST_WORD)
    except FAULTS:
        connection.terminate()
