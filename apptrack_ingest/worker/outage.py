"""The times in which the spool cannot be used, as one worker sees them: told to the log without filling it."""

from typing import Any

from apptrack_ingest import logs
from apptrack_ingest.worker.desk import Clock

log = logs.get("worker")

SELDOM = 300.0
"""Seconds between two lines about the same outage."""


class Outage:
    """One line when it begins, one every five minutes, one when it is over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        self._told = 0.0
        self._ended: float | None = None

    def failed(self, error: Exception) -> None:
        """The spool could not be used just now."""
        now = self._clock.now()
        said: dict[str, Any] = logs.exception_fields(error)
        if self._since is None:
            self._since = self._told = now
            log.error("the spool cannot be used; it is tried again every second", **said)
        elif not 0 <= now - self._told < SELDOM:
            self._told = now
            log.error("the spool cannot be used yet", seconds=round(now - self._since), **said)

    def over(self) -> None:
        """The spool could be used."""
        if self._since is not None:
            now = self._clock.now()
            log.info("the spool can be used again", seconds=round(now - self._since))
            self._since, self._ended = None, now

    def lately(self, seconds: float) -> bool:
        """Whether there is one now, or was less than so many seconds ago."""
        if self._since is not None:
            return True
        return self._ended is not None and 0 <= self._clock.now() - self._ended < seconds
