"""What one life of a worker does with one account: the product's own rules, and beside them what must hold of them.

The rules are `Restraint` (breaker, ramp and quotas) and `Calls` (whose turn it is). What must hold is told from claims, from
calls and their ends alone, in other words than the product's: after each of them, so that a broken rule shows at once.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

from apptrack_ingest.handoff import Again, Outcome
from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.worker.breaker import Caution, Key, Opened
from apptrack_ingest.worker.restraint import Restraint
from apptrack_ingest.worker.sharing import Calls, _Waiter


class _Turn:
    """Stands in for the future that a job waits for: whose turn has come is called as soon as the line is done."""

    __slots__ = ("_call", "_come")

    def __init__(self, call: Callable[[], None], come: list[Callable[[], None]]) -> None:
        self._call, self._come = call, come

    def done(self) -> bool:
        return False

    def set_result(self, result: None) -> None:
        self._come.append(self._call)


class Line:
    """Where the jobs of one life of a worker wait for their turns; `most` is how many each account may have."""

    def __init__(self, most: dict[str, int]) -> None:
        self._calls = Calls()
        self._calls.configure(most)
        self._come: list[Callable[[], None]] = []

    def wait(self, account: str, call: Callable[[], None]) -> _Waiter:
        """Calls as soon as it is its turn."""
        waiter = _Waiter(account, True, 1, admitted=_Turn(call, self._come))  # type: ignore[arg-type]
        self._calls._waiting.append(waiter)
        self._admit()
        return waiter

    def leave(self, waiter: _Waiter) -> None:
        self._calls._leave(waiter)
        if self._calls._waiting:
            self._admit()

    def _admit(self) -> None:
        self._calls._admit()
        while self._come:
            self._come.pop(0)()

    def is_waiting(self, waiter: _Waiter) -> bool:
        return waiter in self._calls._waiting

    def holds_up(self, account: str) -> bool:
        """Whether one of the account waits."""
        return any(waiter.owner == account for waiter in self._calls._waiting)


class Dealings:
    """One life of a worker with one account."""

    def __init__(self, name: str, most: int, rates: Sequence[Rate], caution: Caution, line: Line) -> None:
        self.name, self.most, self.rates, self.caution, self.line = name, most, rates, caution, line
        self.restraint = Restraint(most, rates, caution)
        self._claims: dict[Key, _Waiter | None] = {}
        self._busy = 0
        self.calls: list[float] = []
        """When it called, rising."""
        self.callers: list[int] = []
        """With which application."""
        self._verdicts, self._slowed = 0, False
        """Since it began or came back, and whether failures in a row have slowed it down since."""
        self._row: set[int] = set()
        self._probe: Key | None = None

    def claimed(self, key: Key, now: float) -> None:
        probes_at, under_way = self.restraint.breaker.probes_at(now), len(self._claims)
        if probes_at is not None:
            assert probes_at <= now and not under_way, "claimed while open, and no probe"
            self._probe = key
        ramp = 1 + self._verdicts
        assert under_way < (ramp if ramp < self.most else self.most + self.most // 4), "claimed too far ahead"
        self._claims[key] = None
        self.restraint.claimed(key)

    def turn(self, key: Key, call: Callable[[], None]) -> None:
        """Calls as soon as it is its turn."""
        self._claims[key] = self.line.wait(self.name, call)

    def calling(self, key: Key, now: float) -> None:
        self._busy += 1
        assert self._busy <= self.most, "more calls at a time than the account may have"
        self.restraint.calling(key, now)
        self.calls.append(now)
        self.callers.append(key[0])
        for rate in self.rates:
            within = len(self.calls) - bisect_right(self.calls, now - rate.seconds)
            assert within <= rate.count, f"{within} calls in {rate}"

    def ended(self, key: Key, outcome: Outcome | None, now: float, jitter: float) -> list[Key]:
        """Returns what is given back with it, because the breaker opened."""
        waiter = self._claims.pop(key)
        was_open, given_back = self.restraint.breaker.is_open, []
        if outcome is not None:
            if isinstance(self.restraint.answered(key, outcome, now, jitter), Opened):
                given_back = self._give_back()
            self._heard(key, outcome, now, was_open=was_open)
        self.restraint.ended(key)
        if waiter is not None:
            self._busy -= 1
            self.line.leave(waiter)
            assert self._busy == self.most or not self.line.holds_up(self.name), "one waits, and there is room"
        return given_back

    def _give_back(self) -> list[Key]:
        """Whoever waits for a turn, as `Calls.turn_away` has it."""
        waiting = [key for key, waiter in self._claims.items() if waiter is not None and self.line.is_waiting(waiter)]
        for key in waiting:
            self.line.leave(self._claims.pop(key))
            self.restraint.ended(key)
        return waiting

    # -- what must be heard of an answer

    def _heard(self, key: Key, outcome: Outcome, now: float, *, was_open: bool) -> None:
        breaker = self.restraint.breaker
        if not isinstance(outcome, Again) or outcome.about == "application":
            self._verdict(was_open=was_open, is_probe=key == self._probe)
        elif outcome.after is not None:
            rests = (breaker.probes_at(now) or 0.0) - now
            assert rests >= min(max(1.0, outcome.after), 3600.0), f"rests {rests}, not {outcome.after} seconds"
            self._begin_anew()
        elif not was_open:
            self._failed(key[0])
        elif key == self._probe:
            assert breaker.is_open == (self.caution.failures > 0), "a probe without a verdict"
            self._begin_anew()

    def _verdict(self, *, was_open: bool, is_probe: bool) -> None:
        breaker = self.restraint.breaker
        if was_open and not is_probe:
            assert breaker.is_open, "only the probe closes it"
            return
        assert not breaker.is_open, "a verdict, and it rests"
        self._row.clear()
        if was_open:
            self._begin_anew()
        self._verdicts += 1
        assert self._slowed or breaker.ramp == min(1 + self._verdicts, self.most), "one more with each verdict"

    def _failed(self, application: int) -> None:
        self._row.add(application)
        opens = 0 < self.caution.failures <= len(self._row)
        assert self.restraint.breaker.is_open == opens, f"{len(self._row)} applications in a row"
        if opens:
            self._begin_anew()
        elif len(self._row) > 1:
            self._slowed = True

    def _begin_anew(self) -> None:
        self._row.clear()
        self._verdicts, self._slowed = 0, False
