"""Keeps the bytes of all mails under way within one budget, so that neither many mails nor one network can fill it."""

import asyncio
from collections import defaultdict
from contextlib import AbstractAsyncContextManager
from typing import Final

# What the bytes of a mail count for, beside its network's own (a key of bytes).
_ALL: Final = "all"
_STRANGERS: Final = "strangers"
_Part = str | bytes


class Share:
    """One mail's part of the budget. Made by `Budget.share()`; `close()` gives all of it back, whatever happened."""

    def __init__(self, budget: "Budget", parts: tuple[_Part, ...]) -> None:
        self._budget = budget
        self.parts = parts
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

    @property
    def copying(self) -> AbstractAsyncContextManager[object]:
        """Held while a large mail is in memory twice: one at a time, so that the budget is the truth but for one of them."""
        return self._budget.copying

    def close(self) -> None:
        """Give back all that is held; a `wait` still under way ends with False. May be called again."""
        self._budget._close(self)


_Turn = asyncio.Future[None]


class Budget:
    """The bytes in flight across all sessions: at most `limit` bytes, but for one mail. Of these all strangers together
    hold at most `strangers_share` (0 to 1), and the strangers of one network `network_share`, but for one mail each.

    A stranger's bytes count for its network, for all strangers, and for all; a listed peer's for all alone. First come,
    first served; but whom only its own network's part keeps waiting lets other networks pass, and strangers never keep
    a listed peer waiting in the queue.

    Where a mail is alone, and where every byte in use belongs to mails that wait themselves, nobody could ever go on:
    then the one that began first does, over the budget, until it is through. So what is in use stays below `limit` and
    one mail's size, no mail is too large for the budget, and no two mails can block each other. (Where every holder of a
    part waits, so does every holder of the parts within it: who is first in the one is first in the others.)
    """

    def __init__(self, limit: int, strangers_share: float = 1.0, network_share: float = 1.0) -> None:
        self.limit = limit
        self.copying = asyncio.Lock()
        self._shares = {_ALL: 1.0, _STRANGERS: strangers_share}
        self._network_share = network_share
        self._used: defaultdict[_Part, int] = defaultdict(int)
        self._began = 0
        self._waiting: dict[_Turn, tuple[Share, int]] = {}
        # Parts in which somebody waits whom nobody may overtake.
        self._queued: set[_Part] = set()

    @property
    def in_use(self) -> int:
        """Bytes held by all mails."""
        return self._used.get(_ALL, 0)

    def configure(self, limit: int, strangers_share: float = 1.0, network_share: float = 1.0) -> None:
        """Use other bounds from now on (a reload)."""
        self.limit = limit
        self._shares[_STRANGERS], self._network_share = strangers_share, network_share
        self._serve()

    def share(self, network: bytes | None = None) -> Share:
        """A part for one more mail, empty yet; `network` is a stranger's, None is a listed peer's."""
        return Share(self, (_ALL,) if network is None else (network, _STRANGERS, _ALL))

    def _take(self, share: Share, count: int) -> bool:
        for part in share.parts:
            alone = self._used.get(part, 0) == share.held
            if not alone and (part in self._queued or not self._fits(part, count)):
                return False
        self._grant(share, count)
        return True

    async def _wait(self, share: Share, count: int, timeout: float) -> bool:
        turn: _Turn = asyncio.get_running_loop().create_future()
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
        if self._waiting:
            for turn in [turn for turn, (waiter, _) in self._waiting.items() if waiter is share]:
                del self._waiting[turn]
                turn.cancel()
        self._give_back(share, share.held)

    def _give_back(self, share: Share, count: int) -> None:
        if not 0 <= count <= share.held:
            raise ValueError("more given back than taken")
        self._hold(share, -count)
        self._serve()

    # --- the queue ------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Let those who wait have what there is, in their order."""
        self._queued.clear()
        if not self._waiting:
            return
        for turn in self._order():
            share, count = self._waiting[turn]
            full = next((part for part in share.parts if part in self._queued or not self._fits(part, count)), None)
            if full is None:
                self._call(turn)
            else:
                # For a stranger all that is in use is no reason to keep listed peers waiting behind it.
                self._queued.add(_STRANGERS if full is _ALL and len(share.parts) > 1 else full)
        while self._waiting and (blocked := self._blocked()) is not None:
            self._call(blocked)

    def _order(self) -> list[_Turn]:
        """Listed peers first, each kind in the order in which they came."""
        return sorted(self._waiting, key=lambda turn: len(self._waiting[turn][0].parts))

    def _blocked(self) -> _Turn | None:
        """The first of those who wait for nobody but each other, if there are such."""
        waits: defaultdict[_Part, int] = defaultdict(int)
        for share in {share for share, _ in self._waiting.values()}:
            for part in share.parts:
                waits[part] += share.held
        tried: set[_Part] = set()
        for turn in sorted(self._waiting, key=self._seniority):
            share, count = self._waiting[turn]
            stuck = {part for part in share.parts if part not in tried and self._used.get(part, 0) == waits[part]}
            if all(part in stuck or (part not in self._queued and self._fits(part, count)) for part in share.parts):
                return turn
            tried.update(share.parts)
        return None

    def _seniority(self, turn: _Turn) -> tuple[bool, int]:
        """Who holds something goes first: one that holds nothing yet would come on top of what is over already."""
        share, _ = self._waiting[turn]
        return not share.held, share.place if share.held else 0

    def _call(self, turn: _Turn) -> None:
        share, count = self._waiting.pop(turn)
        self._grant(share, count)
        turn.set_result(None)

    # --- the books ------------------------------------------------------------------------------------------------

    def _fits(self, part: _Part, count: int) -> bool:
        share = self._network_share if isinstance(part, bytes) else self._shares[part]
        return self._used.get(part, 0) + count <= int(self.limit * share)

    def _grant(self, share: Share, count: int) -> None:
        if not share.held:
            self._began += 1
            share.place = self._began
        self._hold(share, count)

    def _hold(self, share: Share, count: int) -> None:
        share.held += count
        for part in share.parts:
            self._used[part] += count
            if not self._used[part]:
                del self._used[part]
