"""Keeps the bytes of all mails under way within one budget, so that many large mails at once cannot fill the memory."""

import asyncio


class Share:
    """One mail's part of the budget. Made by `Budget.share()`; `close()` gives all of it back, whatever happened."""

    def __init__(self, budget: "Budget") -> None:
        self._budget = budget
        self.held = 0
        self.place = 0
        """Among all that hold something, in the order they began to; of one that holds nothing, without meaning."""

    def take(self, count: int) -> bool:
        """Take so many bytes more, at once; False: they are not to be had now, so stop reading and `wait` for them.

        False also where others wait already: who comes later is served later. A mail that is alone takes all it wants.
        """
        return self._budget._take(self, count)

    async def wait(self, count: int, timeout: float) -> bool:
        """Take so many bytes as soon as it is this mail's turn; False: not within `timeout` seconds, nothing was taken.

        Cancelled, it leaves the queue and has taken nothing.
        """
        return self.take(count) or await self._budget._wait(self, count, timeout)

    def give_back(self, count: int) -> None:
        """Give back so many of the bytes taken; ValueError when that is more than are held."""
        self._budget._give_back(self, count)

    def close(self) -> None:
        """Give back all that is held; a `wait` still under way ends with False. May be called again."""
        self._budget._close(self)


class Budget:
    """The bytes in flight across all sessions: at most `limit` bytes, but for one mail.

    First come, first served. Where a mail is alone, and where every byte in use belongs to mails that wait themselves,
    nobody could ever go on: then the one that began first does, over the budget, until it is through. So what is in use
    stays below `limit` and one mail's size, no mail is too large for the budget, and no two mails can block each other.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_use = 0
        self._began = 0
        self._waiting: dict[asyncio.Future[None], tuple[Share, int]] = {}

    def configure(self, limit: int) -> None:
        """Use another limit from now on (a reload)."""
        self.limit = limit
        self._serve()

    def share(self) -> Share:
        """A part for one more mail, empty yet."""
        return Share(self)

    def _take(self, share: Share, count: int) -> bool:
        alone = self.in_use == share.held
        if not alone and (self._waiting or not self._fits(count)):
            return False
        self._grant(share, count)
        return True

    async def _wait(self, share: Share, count: int, timeout: float) -> bool:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (share, count)
        self._serve()
        try:
            await asyncio.wait({turn}, timeout=timeout)
        except asyncio.CancelledError:
            if turn.done():
                # Its turn had come; unless it was closed since, which gave that back too.
                self._give_back(share, min(count, share.held))
            raise
        finally:
            self._waiting.pop(turn, None)
            self._serve()
        return turn.done() and not turn.cancelled()

    def _close(self, share: Share) -> None:
        for turn in [turn for turn, (waiter, _) in self._waiting.items() if waiter is share]:
            del self._waiting[turn]
            turn.cancel()
        self._give_back(share, share.held)

    def _give_back(self, share: Share, count: int) -> None:
        if not 0 <= count <= share.held:
            raise ValueError("more given back than taken")
        share.held -= count
        self.in_use -= count
        self._serve()

    def _serve(self) -> None:
        """Let those who wait have what there is, in their order; the first who must wait on keeps those behind him."""
        while self._waiting:
            turn = next(iter(self._waiting))
            if not self._fits(self._waiting[turn][1]):
                break
            self._call(turn)
        if self._waiting and self._stuck():
            self._call(min(self._waiting, key=self._seniority))

    def _stuck(self) -> bool:
        """Whether nobody holds anything but those who wait."""
        return self.in_use == sum(share.held for share in {share for share, _ in self._waiting.values()})

    def _seniority(self, turn: "asyncio.Future[None]") -> tuple[bool, int]:
        """Who holds something goes first: one that holds nothing yet would come on top of what is over already."""
        share, _ = self._waiting[turn]
        return not share.held, share.place

    def _call(self, turn: "asyncio.Future[None]") -> None:
        share, count = self._waiting.pop(turn)
        self._grant(share, count)
        turn.set_result(None)

    def _fits(self, count: int) -> bool:
        return self.in_use + count <= self.limit

    def _grant(self, share: Share, count: int) -> None:
        if not share.held:
            self._began += 1
            share.place = self._began
        share.held += count
        self.in_use += count
