"""One mail on its way in: its bytes, its part of the bytes in flight, and the pause while there is no room for more."""

import asyncio
from collections.abc import Callable
from typing import Final

from apptrack_ingest.receive.budget import Share
from apptrack_ingest.receive.data import SLICE, DataReader

PACE: Final = 1024
"""Bytes of a mail that must come within each `data_timeout`: who sends byte by byte holds all that came before."""

LOOK_EVERY: Final = 10.0
"""Seconds between two looks at whether a mail makes use of what is reserved for it."""

PROGRESS: Final = 64 * 1024
"""Bytes that must come between two such looks: a line of 50 kbit/s."""


class Incoming:
    """Reads one mail of at most `limit` bytes within its `share` of the budget of all.

    `reserved` bytes of the share were taken before the first came (the SIZE that the sender declared): within them nothing
    has to be asked for. Where there is no room, `flow(False)` asks for no more bytes until there is, for at most `patience`
    seconds; after that the mail is read to its end and not kept (`no_room`). `flow(True)` lets the bytes come again.
    """

    def __init__(
        self, limit: int, share: Share, patience: float, flow: Callable[[bool], None], reserved: int = 0
    ) -> None:
        self.reader = DataReader(limit)
        self.no_room = False
        self._share = share
        self._size_then = 0
        self._patience = patience
        self._flow = flow
        self._waiting: asyncio.Task[None] | None = None
        self.reserved = reserved
        self._size_at_look = 0
        self._look: asyncio.TimerHandle | None = None
        if reserved:
            self._look = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look_at_progress)

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes; None while the mail goes on, else what came after its end."""
        rest = self.reader.feed(data)
        if rest is not None:
            self._stop_waiting()
            self._forget_reservation()
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
        more = self._missing
        if more < 0:
            self._share.give_back(-more)
        elif more and not (self._share.take(more) or await self._share.wait(more, self._patience)):
            self._give_up()
            return None
        if self.reader.held <= SLICE:
            found = self.reader.content
        else:
            async with self._share.copying:
                found = await self.reader.whole()
        self.reader.discard()  # what is handed over is not held here any longer
        return found

    def close(self) -> None:
        """The mail is cut off: its part of the budget is free. May be called again."""
        self._stop_waiting()
        self._forget_reservation()
        self._share.close()

    @property
    def _missing(self) -> int:
        """How much more of the budget it needs; less than nothing where it holds too much."""
        kept = 0 if self.reader.discarding else self.reserved
        return max(self.reader.held, kept) - self._share.held

    def _look_at_progress(self) -> None:
        """A reservation that is not made use of is taken back, or a few peers could keep all others out without sending
        anything; the mail may go on all the same, by what of it came."""
        if self.reader.size - self._size_at_look < PROGRESS:
            self._forget_reservation()
            if self._waiting is None and self._missing < 0:
                self._share.give_back(-self._missing)
            return
        self._size_at_look = self.reader.size
        self._look = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look_at_progress)

    def _forget_reservation(self) -> None:
        self.reserved = 0
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _account(self) -> None:
        more = self._missing
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
