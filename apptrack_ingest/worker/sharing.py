"""What the jobs of a worker share and wait for in turn: bytes of memory, and the processes that read mails."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apptrack_ingest import metrics

KEPT_FOR_SMALL = 16
"""The part of the memory, one in so many, that only small mails get."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """A job that wants its part; `owner` is its account, None for all whose sender is not trusted together."""

    owner: str | None
    believed: bool
    amount: int
    beside: bool = False
    """Whether its part is of what is kept for small mails."""
    admitted: asyncio.Future[None] | None = None
    """What it waits for, if it has to wait."""


class _Admission:
    """What a job holds its part within: `async with` waits for it and gives it back (`asynccontextmanager` does that at four
    times the price, and every application goes through three lines)."""

    __slots__ = ("_line", "_waiter")

    def __init__(self, line: "_Line", waiter: _Waiter) -> None:
        self._line, self._waiter = line, waiter

    def __aenter__(self) -> Coroutine[Any, Any, None]:
        return self._line._enter(self._waiter)

    async def __aexit__(self, *_: object) -> None:
        self._line._end(self._waiter)


class _Line:
    """Waiters in the order in which they came; who is admitted next, the subclasses say."""

    def __init__(self) -> None:
        self._waiting: list[_Waiter] = []
        self._held: Counter[str | None] = Counter()

    async def _enter(self, waiter: _Waiter) -> None:
        self._waiting.append(waiter)
        self._admit()
        if waiter in self._waiting:
            waiter.admitted = asyncio.get_running_loop().create_future()
            try:
                await waiter.admitted
            except BaseException:
                self._end(waiter)
                raise

    def _end(self, waiter: _Waiter) -> None:
        self._leave(waiter)
        self._admit()

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        else:
            self._hold(waiter, -waiter.amount)

    def _admit(self) -> None:
        while self._waiting and (waiter := self._next()) is not None:
            self._waiting.remove(waiter)
            self._hold(waiter, waiter.amount)
            # It may have been cancelled a moment ago, and leaves then.
            if waiter.admitted is not None and not waiter.admitted.done():
                waiter.admitted.set_result(None)

    def _hold(self, waiter: _Waiter, amount: int) -> None:
        self._held[waiter.owner] += amount

    def _next(self) -> _Waiter | None:
        raise NotImplementedError


class Memory(_Line):
    """The budget of bytes for mails under way, each with what is made of it.

    First come, first served, so that a large mail is not overtaken for ever; but one account (and all mail that is not
    trusted together) holds at most half, and those behind it go on meanwhile. A mail that is larger than its share goes
    when its account holds nothing else, one larger than the whole when nobody holds anything.

    A sixteenth is kept for small mails, of which one account has at most half: no candidate with a CV of usual size waits
    until some large mail's slow handler is done, and none that waits behind it.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total = total
        self._beside: Counter[str | None] = Counter()

    def held(self, account: str | None, amount: int, *, believed: bool) -> _Admission:
        """Waits until there is room for so many bytes, and holds them."""
        return _Admission(self, _Waiter(account if believed else None, believed, amount))

    async def _enter(self, waiter: _Waiter) -> None:
        await super()._enter(waiter)
        metrics.bytes_in_work(self._in_all())

    def _end(self, waiter: _Waiter) -> None:
        super()._end(waiter)
        metrics.bytes_in_work(self._in_all())

    def _in_all(self) -> int:
        return sum(self._held.values()) + sum(self._beside.values())

    def _hold(self, waiter: _Waiter, amount: int) -> None:
        (self._beside if waiter.beside else self._held)[waiter.owner] += amount

    def _next(self) -> _Waiter | None:
        for waiter in self._waiting:
            if self._fits_beside(waiter):
                waiter.beside = True
                return waiter
        return self._next_in_line()

    def _fits_beside(self, waiter: _Waiter) -> bool:
        kept = self._total // KEPT_FOR_SMALL
        fits = sum(self._beside.values()) + waiter.amount <= kept
        return fits and self._beside[waiter.owner] + waiter.amount <= kept // 2

    def _next_in_line(self) -> _Waiter | None:
        room = self._total - self._total // KEPT_FOR_SMALL
        in_line = sum(self._held.values())
        for waiter in self._waiting:
            own = self._held[waiter.owner]
            if own and own + waiter.amount > self._total // 2:
                continue
            return waiter if not in_line or in_line + waiter.amount <= room else None
        return None


class Turns(_Line):
    """Turns at the processes that read mails: trusted mail first, then the account with the fewest turns at the moment,
    then who came first. Mail that is not trusted never takes the last process, if there are two."""

    def __init__(self, processes: int) -> None:
        super().__init__()
        self._processes = processes

    def turn(self, account: str | None, *, believed: bool) -> _Admission:
        """Waits for a process, and takes it."""
        return _Admission(self, _Waiter(account or "" if believed else None, believed, 1))

    def _next(self) -> _Waiter | None:
        free = self._processes - sum(self._held.values())
        for_strangers = free - (1 if self._processes > 1 else 0)
        able = [w for w in self._waiting if (free if w.believed else for_strangers) > 0]
        return min(able, key=lambda w: (not w.believed, self._held[w.owner]), default=None)


class TurnedAway(Exception):
    """It need not be handed over now, and waits no longer for that."""


class Calls(_Line):
    """Calls of handlers, as many of each account as it may have at a time. What is claimed ahead waits here, read, until one
    of its account ends."""

    def __init__(self) -> None:
        super().__init__()
        self._most: Mapping[str, int] = {}
        self._ending = False

    def configure(self, most: Mapping[str, int]) -> None:
        """How many each account may have; of one that is not named (any more), one at a time."""
        self._most = most
        self._admit()

    def end(self) -> None:
        """No call begins any more that has to wait."""
        self._ending = True
        self._turn_away(self._waiting)

    def turn_away(self, account: str) -> None:
        """Who waits for a call of this account is to wait no longer."""
        self._turn_away([waiter for waiter in self._waiting if waiter.owner == account])

    def _turn_away(self, waiters: Sequence[_Waiter]) -> None:
        for waiter in waiters:
            if waiter.admitted is not None and not waiter.admitted.done():
                waiter.admitted.set_exception(TurnedAway())

    def turn(self, account: str) -> _Admission:
        """Waits until the handler may be called, and counts as a call. Raises TurnedAway where it is entered."""
        return _Admission(self, _Waiter(account, True, 1))

    async def _enter(self, waiter: _Waiter) -> None:
        if self._ending and not self._has_room(waiter.owner):
            raise TurnedAway
        await super()._enter(waiter)

    def _next(self) -> _Waiter | None:
        return next((waiter for waiter in self._waiting if self._has_room(waiter.owner)), None)

    def _has_room(self, owner: str | None) -> bool:
        return self._held[owner] < max(1, self._most.get(owner or "", 1))
