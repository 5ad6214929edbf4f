"""The circuit breaker of one account's handler: rests while the ATS is away, asks with one, comes back gently; pure."""

from dataclasses import dataclass
from typing import Literal

from apptrack_ingest.lifecycle import DEFAULT_PROBES, Schedule, parse_schedule

Key = tuple[int, int]
"""One claim: the application's id and the fencing token."""

Code = Literal["failures", "retry-after", "probe-failed"]

LONGEST_REST = 3600.0
"""Seconds that a Retry-After keeps a whole account at rest at most; after that one application asks again."""


PROBES = parse_schedule(DEFAULT_PROBES)


@dataclass(frozen=True, slots=True)
class Caution:
    """After how many different applications in a row without a verdict the breaker opens (0: never), and how long it waits
    before each probe."""

    failures: int = 5
    wait: Schedule = PROBES


USUAL_CAUTION = Caution()


@dataclass(frozen=True, slots=True)
class Opened:
    """The breaker opened, or stays open for longer: for so many seconds from now, and why."""

    code: Code
    seconds: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The probe got a verdict: hand-offs go on, a few at a time at first."""


Change = Opened | Closed


class Breaker:
    """Says how many hand-offs may be under way at a time: `most` at most, none while open.

    *Closed*, it begins with one (a restart is no reason for a stampede) and allows one more with each verdict: 1, 2, 4, 8
    by rounds. *Open*, it allows none until its wait is over, and then a single one, the probe. A verdict of the probe
    closes it, with the ramp from one; a probe that failed opens it for the next longer wait. The waits begin anew once the
    ramp has reached `most`, so that an ATS which only flickers is asked less and less.

    What counts is a row of *different* applications without any verdict between them: one candidate alone that fails again
    and again says nothing of the ATS. Of what was under way while it opened only the probe is heard.
    """

    def __init__(self, caution: Caution, most: int, allowed: int = 1) -> None:
        self._caution = caution
        self._most = most
        self._allowed = allowed
        self._row: set[int] = set()
        self._opened: float | None = None
        self._rest = 0.0
        self._probe: Key | None = None
        self._openings = 0

    @property
    def is_open(self) -> bool:
        """Whether it is open; its probe may be under way."""
        return self._opened is not None

    @property
    def ramp(self) -> int:
        """How far the ramp has come; one while open."""
        return 1 if self.is_open else min(self._allowed, self._most)

    def allows(self, now: float) -> int:
        """How many hand-offs may be under way."""
        until = self.probes_at(now)
        if until is None:
            return min(self._allowed, self._most)
        return min(1, self._most) if now >= until else 0

    def probes_at(self, now: float) -> float | None:
        """When the next probe may go; None while closed."""
        if self._opened is None:
            return None
        self._opened = min(self._opened, now)  # the clock was set back: the rest lasts no longer for it
        return self._opened + self._rest

    def begun(self, key: Key) -> None:
        """An application was claimed; while open it is the probe, even if the one before ended without a call."""
        if self.is_open:
            self._probe = key

    def answered(self, key: Key) -> Change | None:
        """The handler gave a verdict, or said that only this application has to wait: the ATS is there."""
        if self.is_open:
            if key != self._probe:
                return None
            self._close()
            self._grow()
            return Closed()
        self._row.clear()
        self._grow()
        return None

    def failed(self, key: Key, now: float, jitter: float) -> Change | None:
        """No verdict, for whatever reason but the application's own. `jitter` is 0 to 1."""
        if self.is_open:
            return self._probe_failed(now, jitter) if key == self._probe else None
        self._row.add(key[0])
        if 0 < self._caution.failures <= len(self._row):
            return self._open("failures", now, jitter)
        if len(self._row) > 1:
            self._allowed = max(1, self._allowed // 2)
        return None

    def _probe_failed(self, now: float, jitter: float) -> Change:
        if self._caution.failures:
            return self._open("probe-failed", now, jitter)
        self._close()  # it rested only because the ATS had asked for it
        return Closed()

    def told_to_wait(self, key: Key, seconds: float, now: float, jitter: float) -> Change | None:
        """The ATS named a time before which it wants nothing of anybody (429 or 503 with Retry-After)."""
        seconds = min(max(1.0, seconds), LONGEST_REST) * (1 + 0.1 * jitter)
        until = self.probes_at(now)
        if until is not None and until >= now + seconds:
            return None
        self._opened, self._rest = now, seconds
        self._row.clear()
        return Opened("retry-after", seconds)

    def _open(self, code: Code, now: float, jitter: float) -> Opened:
        self._openings += 1
        self._opened, self._rest = now, self._caution.wait.wait_after(self._openings, jitter)
        self._probe = None
        self._row.clear()
        return Opened(code, self._rest)

    def _close(self) -> None:
        self._opened, self._probe, self._allowed = None, None, 1

    def _grow(self) -> None:
        self._allowed = min(self._allowed + 1, self._most)
        if self._allowed == self._most:
            self._openings = 0
