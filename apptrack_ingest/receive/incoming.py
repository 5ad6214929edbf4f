"""One mail on its way in: its bytes, its part of the bytes in flight, and the pause while there is no room for more."""

import asyncio
from collections.abc import Callable

from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.data import DataReader


class Incoming:
    """Reads one mail of at most `limit` bytes within the `budget` of all.

    Where there is no room, `flow(False)` asks for no more bytes until there is, for at most `patience` seconds; after
    that the mail is read to its end and not kept (`no_room`). `flow(True)` lets the bytes come again.
    """

    def __init__(self, limit: int, budget: Budget, patience: float, flow: Callable[[bool], None]) -> None:
        self.reader = DataReader(limit)
        self.no_room = False
        self._share = budget.share()
        self._patience = patience
        self._flow = flow
        self._waiting: asyncio.Task[None] | None = None

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes; None while the mail goes on, else what came after its end."""
        rest = self.reader.feed(data)
        if rest is not None:
            self._stop_waiting()
        elif not self.no_room and self._waiting is None:
            self._account()
        return rest

    def close(self) -> None:
        """The mail is committed, refused or cut off: its part of the budget is free. May be called again."""
        self._stop_waiting()
        self._share.close()

    def _account(self) -> None:
        more = self.reader.held - self._share.held
        if more < 0:
            self._share.give_back(-more)
        elif more and not self._share.take(more):
            self._flow(False)
            self._waiting = asyncio.get_running_loop().create_task(self._wait(more))

    async def _wait(self, more: int) -> None:
        found = await self._share.wait(more, self._patience)
        self._waiting = None
        if not found:
            self.no_room = True
            self.reader.discard()
            self._share.close()
        self._flow(True)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            self._flow(True)
