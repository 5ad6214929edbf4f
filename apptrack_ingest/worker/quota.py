"""How many hand-offs an ATS's quotas still allow: exact over every span of time, pure, without a clock of its own."""

from bisect import bisect_right
from collections.abc import Sequence

from apptrack_ingest.lifecycle import Rate


class Quota:
    """Counts calls against rates. A call is reserved when its application is claimed and stamped when it is made, for the
    ATS counts it only then; what was reserved and needed no call is given back. So there are never more than `count` calls
    in any span of `seconds`, wherever it begins (a token bucket would let twice as many through around a refill)."""

    def __init__(self, rates: Sequence[Rate]) -> None:
        self._reserved = 0
        self._calls: list[float] = []
        """When calls were made, rising; those older than the longest span are dropped now and then."""
        self.configure(rates)

    def configure(self, rates: Sequence[Rate]) -> None:
        """Counts against other rates from now on; what was called still counts."""
        self._rates = tuple(rates)
        self._longest = max([rate.seconds for rate in self._rates], default=0.0)

    def left(self, now: float) -> int | None:
        """How many more may be reserved; None: any number."""
        if not self._rates:
            return None
        self._heed(now)
        return min([rate.count - self._within(rate, now) for rate in self._rates]) - self._reserved

    def free_at(self, now: float) -> float | None:
        """When a call made earlier stops counting and leaves room; None where there is room, or where only what is
        reserved is in the way (its end is known when it comes)."""
        if not self._calls:
            return None
        self._heed(now)
        full = [self._calls[-rate.count] + rate.seconds for rate in self._rates if self._is_full(rate, now)]
        return max(full, default=None)

    def reserve(self) -> None:
        """A call will perhaps be made."""
        self._reserved += 1

    def give_back(self) -> None:
        """The reserved call was not needed."""
        self._reserved -= 1

    def use(self, now: float) -> None:
        """The reserved call is made now."""
        self._reserved -= 1
        if self._rates:
            self._heed(now)
            self._calls.append(now)
            self._forget(now)

    def _within(self, rate: Rate, now: float) -> int:
        return len(self._calls) - bisect_right(self._calls, now - rate.seconds)

    def _is_full(self, rate: Rate, now: float) -> bool:
        """Whether its last `count` calls are all within its span: told from the first of them alone."""
        return len(self._calls) >= rate.count and self._calls[-rate.count] > now - rate.seconds

    def _heed(self, now: float) -> None:
        """Where the clock was set back: nothing was called in the future."""
        if self._calls and self._calls[-1] > now:
            self._calls = [min(at, now) for at in self._calls]

    def _forget(self, now: float) -> None:
        over = bisect_right(self._calls, now - self._longest)
        if 2 * over > len(self._calls):
            del self._calls[:over]
