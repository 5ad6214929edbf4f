"""How much of one account's work a worker may take now: its places, the ATS's quotas and the breaker in one; pure."""

from collections.abc import Sequence

from apptrack_ingest.handoff import Done, Outcome
from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.worker.breaker import USUAL_CAUTION, Breaker, Caution, Change, Key
from apptrack_ingest.worker.quota import Quota

AHEAD = 4
"""One application in so many is claimed ahead: loaded and read while the handler is busy with others, so that the ATS need
not wait for us between two of them."""


class Restraint:
    """Follows an account's claims from `claimed` over `calling`, where the handler is called, and `answered` to `ended`."""

    def __init__(self, most: int, rates: Sequence[Rate] = (), caution: Caution = USUAL_CAUTION) -> None:
        self.breaker = Breaker(caution, most)
        self._most = most
        self._quota = Quota(rates)
        self._under_way: dict[Key, bool] = {}
        """Claims, and whether their handler was called."""

    def configure(self, most: int, rates: Sequence[Rate], caution: Caution) -> None:
        """Takes up other settings or another handler. What is under way and was called still counts; the breaker begins
        anew, closed: whoever changed the settings has probably put right what was wrong. Its ramp stays where it was, and
        leaves room for one beside what is under way: what hangs at the old handler does not keep the new one waiting."""
        self._quota.configure(rates)
        self._most = most
        self.breaker = Breaker(caution, most, allowed=max(self.breaker.ramp, self.under_way + 1))

    @property
    def under_way(self) -> int:
        """How many of its applications are being worked on."""
        return len(self._under_way)

    def room(self, now: float) -> int:
        """How many more may be claimed: as many as the handler may be called for, and once the ramp is over some ahead."""
        free = self.breaker.allows(now) - len(self._under_way)
        if self.breaker.ramp >= self._most:
            free += self._most // AHEAD
        if free <= 0:
            return 0
        left = self._quota.left(now)
        return free if left is None else max(0, min(free, left))

    def is_rationed(self, now: float) -> bool:
        """Whether the ATS's quota alone stands in the way."""
        left = self._quota.left(now)
        return left is not None and left <= 0 < self.breaker.allows(now) - self.under_way

    def opens_at(self, now: float) -> float | None:
        """When there is room again by time alone; None where there is room now, or the end of something is awaited."""
        probe, free = self.breaker.probes_at(now), self._quota.free_at(now)
        if (probe is None and free is None) or not self._most or self.room(now):
            return None
        return max([t for t in (probe, free) if t is not None and t > now], default=None)

    def claimed(self, key: Key) -> None:
        """An application was claimed."""
        self._under_way[key] = False
        self._quota.reserve()
        self.breaker.begun(key)

    def calling(self, key: Key, now: float) -> None:
        """Its handler is called now."""
        if self._under_way.get(key) is False:
            self._under_way[key] = True
            self._quota.use(now)

    def answered(self, key: Key, outcome: Outcome, now: float, jitter: float) -> Change | None:
        """What came of the call; not told where it was cut off. Returns what the breaker made of it."""
        if not self._under_way.get(key):
            return None
        if isinstance(outcome, Done) or outcome.about == "application":
            return self.breaker.answered(key)
        if outcome.about == "ats" and outcome.after is not None:
            return self.breaker.told_to_wait(key, outcome.after, now, jitter)
        return self.breaker.failed(key, now, jitter)

    def ended(self, key: Key) -> None:
        """It is no longer worked on."""
        if self._under_way.pop(key, None) is False:
            self._quota.give_back()
