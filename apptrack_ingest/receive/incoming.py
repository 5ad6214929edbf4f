"""One mail on its way in: its bytes, its part of the bytes in flight, and the pause while there is no room for more."""

import asyncio
from collections.abc import Callable
from typing import Final

from apptrack_ingest.receive.budget import Share
from apptrack_ingest.receive.data import DataReader

PACE: Final = 1024
"""Bytes of a mail that must come within each `data_timeout`: who sends byte by byte holds all that came before."""


class Incoming:
    """Reads one mail of at most `limit` bytes within its `share` of the budget of all.

    Where there is no room, `flow(False)` asks for no more bytes until there is, for at most `patience` seconds; after
    that the mail is read to its end and not kept (`no_room`). `flow(True)` lets the bytes come again.
    """

    def __init__(self, limit: int, share: Share, patience: float, flow: Callable[[bool], None]) -> None:
        self.reader = DataReader(limit)
        self.no_room = False
        self._share = share
        self._size_then = 0
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

    def went_on(self) -> bool:
        """Whether the peer sent PACE bytes since this last was so: then it is not idle. A few that may yet be the end are
        none; nor does it count while the mail waits for room."""
        if self._waiting is not None or self.reader.size - self._size_then < PACE:
            return False
        self._size_then = self.reader.size
        return True

    @property
    def release(self) -> Callable[[], None]:
        """What gives its part of the budget back once the mail is committed or refused; holds on to none of its bytes."""
        return self._share.close

    async def whole(self) -> bytes | None:
        """All of a mail that came to its end, as soon as there is room for what of it was not accounted for yet (all of a
        small one); None: there was none within `patience`."""
        more = self.reader.held - self._share.held
        if more < 0:
            self._share.give_back(-more)
        elif more and not await self._share.wait(more, self._patience):
            self._give_up()
            return None
        return await self.reader.whole()

    def close(self) -> None:
        """The mail is cut off: its part of the budget is free. May be called again."""
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
            self._give_up()
        self._flow(True)

    def _give_up(self) -> None:
        self.no_room = True
        self.reader.discard()
        self._share.close()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            self._flow(True)
