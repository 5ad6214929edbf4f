"""How long a peer may be silent, and a session last, with one timer that is hardly ever set anew."""

import asyncio
from typing import Any


class Patience:
    """The clock of one session: `_silent_until` and `_ends_at` are in the loop's seconds. To set a timer costs as much as a
    command, so the one there is goes off too early and looks again."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _timeout_handle: Any
    _timeout_duration: float
    _shortest_silence: float
    _silent_until: float
    _hung_up: bool
    _looks_at = _ends_at = float("inf")

    def _reset_timeout(self, duration: float | None = None) -> None:
        """The peer said something: from now on it may be silent for so many seconds (those between commands). The timer is
        not set anew each time; when it goes off too early, it looks again later."""
        now = self.loop.time()
        self._silent_until = now + (duration or self._timeout_duration)
        if self._silent_until < self._looks_at:
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            self._look_later(now)

    def _be_patient(self) -> None:
        """It is our turn: the peer may be silent for as long as that takes."""
        self._silent_until = float("inf")

    def _look_later(self, now: float) -> None:
        """At the latest when the shortest of all silences would be too long: a timer set for it need not be set anew."""
        self._looks_at = min(self._silent_until, now + self._shortest_silence, self._ends_at)
        self._timeout_handle = self.loop.call_at(self._looks_at, self._look_at_silence)

    def _look_at_silence(self) -> None:
        now = self.loop.time()
        if now >= self._ends_at:
            self._ends_at = float("inf")
            self._time_is_over()
            if self._hung_up or self.transport is None:
                return
            # One that closes may do so for ever, if the peer does not read its last replies: its silence is looked at still.
        if now < self._silent_until:
            self._look_later(now)
        else:
            self._timeout_cb()

    def _timeout_cb(self) -> None:
        """The peer was silent beyond `_silent_until` (the name is aiosmtpd's)."""
        raise NotImplementedError

    def _time_is_over(self) -> None:
        """The session lasted until `_ends_at`."""
        raise NotImplementedError
