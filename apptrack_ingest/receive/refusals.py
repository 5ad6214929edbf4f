"""Names in the log who was refused and why, without letting a flood of refusals become a flood of lines."""

from collections.abc import Callable
from dataclasses import dataclass, field

from apptrack_ingest import logs
from apptrack_ingest.receive.policy import Reply

EVERY = 10.0
"""Seconds between two lines of one reply; what falls between is counted in the next."""

log = logs.get("receive")


@dataclass(slots=True)
class Refusals:
    """`clock` gives epoch seconds. No address is named: of a recipient its domain, of a peer its IP address."""

    clock: Callable[[], float]
    _last: dict[Reply, float] = field(default_factory=dict)
    _untold: dict[Reply, int] = field(default_factory=dict)

    def tell(self, reply: Reply, *, peer: str, domain: str = "", size: int = 0) -> None:
        """One refusal by this reply."""
        now = self.clock()
        if 0 <= now - self._last.get(reply, -EVERY) < EVERY:
            self._untold[reply] = self._untold.get(reply, 0) + 1
            return
        self._last[reply] = now
        before = self._untold.pop(reply, 0)
        log.warning(
            "refused", reply=reply.code, enhanced=reply.enhanced, peer=peer, domain=domain, bytes=size, untold=before
        )
