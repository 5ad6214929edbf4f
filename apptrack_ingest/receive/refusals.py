"""Names in the log who was refused and why, without letting a flood of refusals become a flood of lines."""

from collections.abc import Callable
from dataclasses import dataclass, field

from apptrack_ingest import logs
from apptrack_ingest.receive.policy import Reply

HANDSHAKE_FAILED = "tls handshake failed"
EVERY = 10.0
"""Seconds between two lines of one reply, or about handshakes; what falls between is counted in the next."""

log = logs.get("receive")


@dataclass(slots=True)
class Refusals:
    """`clock` gives epoch seconds. No address is named: of a recipient its domain, of a peer its IP address."""

    clock: Callable[[], float]
    _last: dict[Reply | str, float] = field(default_factory=dict)
    _untold: dict[Reply | str, int] = field(default_factory=dict)

    def tell(self, reply: Reply, *, peer: str, domain: str = "", size: int = 0) -> None:
        """One refusal by this reply."""
        if (before := self._untold_before(reply)) is not None:
            log.warning(
                "refused",
                reply=reply.code,
                enhanced=reply.enhanced,
                peer=peer,
                domain=domain,
                bytes=size,
                untold=before,
            )

    def handshake(self, error: str, *, peer: str) -> None:
        """A TLS handshake that came to nothing, by the error's type. Nobody's fault of ours, and common: port scans, plain
        SMTP, clients that do not like the certificate."""
        if (before := self._untold_before(HANDSHAKE_FAILED)) is not None:
            log.info(HANDSHAKE_FAILED, peer=peer, error=error, untold=before)

    def _untold_before(self, what: Reply | str) -> int | None:
        """How many of these went untold since the last line, if it is time for another; None: it is not."""
        now = self.clock()
        if 0 <= now - self._last.get(what, -EVERY) < EVERY:
            self._untold[what] = self._untold.get(what, 0) + 1
            return None
        self._last[what] = now
        return self._untold.pop(what, 0)
