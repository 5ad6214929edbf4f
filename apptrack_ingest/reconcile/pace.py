"""How fast idibu is asked: one step after the other, never more in a time than the rate says."""

from typing import Protocol

from apptrack_ingest.lifecycle import Rate

USUAL_PACE = Rate(10, 1.0)
"""Requests to idibu, and reports made due: enough for 100,000 statuses in two minutes, and no burden to anybody."""


class Clock(Protocol):
    """Time as it passes here; tests give one that they move themselves."""

    def now(self) -> float:
        """Epoch seconds."""

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""


class Pace:
    """Keeps to a rate by waiting before each step."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._gap = rate.seconds / rate.count
        self._clock = clock
        self._next = clock.now()

    async def wait(self) -> None:
        """Returns when the next step may begin."""
        # A clock that was set back must not make anybody wait for hours.
        early = min(self._next - self._clock.now(), self._gap)
        if early > 0:
            await self._clock.sleep(early)
        self._next = self._clock.now() + self._gap
