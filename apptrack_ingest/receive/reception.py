"""Takes one mail from the end of DATA to the spool and says what to answer: 250 only after the commit."""

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache, partial
from typing import NamedTuple

from apptrack_ingest import logs
from apptrack_ingest.deadlines import ends_within
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.data import SLICE, joined
from apptrack_ingest.receive.deciding import Decider, Decision, Delivery
from apptrack_ingest.receive.policy import Limits, Reply
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.refusals import Refusals
from apptrack_ingest.trust import Rule

log = logging.getLogger("apptrack_ingest.receive")

Put = Callable[[Message, Sequence[Arrival]], Awaitable[int]]
"""Puts a message with its applications into the spool; returns its id once COMMITTED, raises SpoolUnavailable."""


class Spooled(NamedTuple):
    """A mail that was committed: when it came (epoch seconds), its applications, its size in bytes, and the seconds that the
    commit took."""

    message_id: int
    received_at: float
    arrivals: Sequence[Arrival]
    size: int
    seconds: float


class Held:
    """What a mail holds until it is through: `release` gives it back, and is called once."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def let_go(self) -> None:
        """Give it back, unless that is somebody else's to do by now; may be called again."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def handed_on(self) -> "Held":
        """The same, for somebody who needs it for longer."""
        release, self._release = self._release, None
        return Held(release or _ignore)


class Answer(NamedTuple):
    """The reply to the end of DATA, and what is to be done once it is out (nothing that a sender has to wait for)."""

    reply: Reply
    afterwards: Callable[[], None]


NAMELESS = "not named by its balancer"
"""Who a peer is in the log, where its address is not known."""


def _ignore(*_: object) -> None:
    """The hook where nobody counts."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the receive stage tells to whoever counts.

    `reply` gets the code of every reply sent, `accept` the seconds that a commit took which was answered 250, `spooled`
    every mail that was committed, were it too late to be answered so, `judged` the account ("": none) and the rule that
    decided, `limited` the limit that was met, `session_opened` and `session_closed` each connection, `ungreeted` each whose
    peer was gone without a word before it was let in.
    """

    reply: Callable[[int], None] = _ignore
    accept: Callable[[float], None] = _ignore
    spooled: Callable[[Spooled], None] = _ignore
    judged: Callable[[str, Rule], None] = _ignore
    limited: Callable[[Limit], None] = _ignore
    session_opened: Callable[[], None] = _ignore
    session_closed: Callable[[], None] = _ignore
    ungreeted: Callable[[], None] = _ignore


class Reception:
    """Decides about recipients and mails for every session of a process.

    `clock` gives epoch seconds; `hostname` is ours, as in `Received:`. A put that passes `limits.put_timeout` is answered
    451 but goes on: what it commits all the same stays, and de-duplication catches the sender's retry.
    """

    def __init__(
        self,
        put: Put,
        decider: Decider,
        *,
        clock: Callable[[], float],
        hostname: str,
        hooks: Hooks | None = None,
    ) -> None:
        self.hostname = hostname
        self.hooks = hooks or Hooks()
        self.decider = decider
        self._put = put
        self._clock = clock
        self._late: set[asyncio.Future[int]] = set()
        self._refusals = Refusals(clock)
        self._copying = asyncio.Lock()

    @property
    def limits(self) -> Limits:
        """What one session and one mail may take, as it holds now."""
        return self.decider.limits

    def refused(self, reply: Reply, limit: Limit | None, peer: str) -> Reply:
        """Takes note that a peer (its address, "" where it is not known) was refused something by this reply, at this limit;
        returns the reply."""
        if limit is not None:
            self.hooks.limited(limit)
        self._refusals.tell(reply, peer=peer or NAMELESS)
        return reply

    def handshake_failed(self, error: BaseException, peer: str) -> None:
        """Takes note that a TLS handshake came to nothing."""
        self.hooks.limited(Limit.TLS_HANDSHAKE)
        self._refusals.handshake(type(error).__name__, peer=peer)

    def recipient(self, address: str, peer: str, already: int) -> Reply:
        """The answer to a peer's RCPT for this address, with so many recipients accepted before it."""
        reply = self.decider.recipient(address, peer, already)
        if reply is policy.TOO_MANY_RECIPIENTS:
            self.hooks.limited(Limit.RECIPIENTS)
        if reply is not policy.RECIPIENT_OK:
            self._refusals.tell(reply, peer=peer or NAMELESS, domain=_domain(address))
        return reply

    def refusal_of_mail(self, peer: str, size: int) -> Reply | None:
        """Whether a peer may begin one more mail now, of so many bytes as it says (0: it does not); None: it may."""
        doorkeeper = self.decider.doorkeeper
        if doorkeeper is not None and (met := doorkeeper.message(peer)) is not None:
            return self.refused(policy.TOO_MANY_MAILS, met, peer)
        return self._refusal_for_lack_of_room(peer, size)

    def refusal_of_data(self, peer: str) -> Reply | None:
        """Whether there is room still, now that the mail itself is to come; None: there is."""
        return self._refusal_for_lack_of_room(peer, 0)

    def _refusal_for_lack_of_room(self, peer: str, size: int) -> Reply | None:
        short = self.decider.pressure.shortage(size) if self.decider.pressure is not None else None
        return self.refused(policy.NO_ROOM, short, peer) if short is not None else None

    # --- the mail -------------------------------------------------------------------------------------------------

    async def receive(self, coming: Awaitable[Delivery], held: Held) -> Answer:
        """Spool the mail and give the answer to the end of DATA; any fault of ours is a temporary one, whose cause the
        peer is not told (the log gets its type and reason, never its text).

        `held` is what the mail holds until it is through: handed on to a put that goes on after the answer, and let go of
        when that ends.
        """
        try:
            delivery = await coming
            decision = await self.decider.decide(delivery)
            self._count(decision)
            if decision.refusal is None:
                message = await self._message(delivery, decision)
                del delivery  # or its bytes would be in memory twice until the commit
                return await self._spool(message, decision.arrivals, held)
        except Exception as error:  # noqa: BLE001 - unknown means temporary, whatever it is
            log.error("mail not accepted: %s", " ".join(logs.exception_fields(error).values()))
            return Answer(policy.TRY_LATER, _ignore)
        self._refusals.tell(decision.refusal, peer=delivery.envelope.peer, size=len(delivery.content))
        return Answer(decision.refusal, _ignore)

    def _count(self, decision: Decision) -> None:
        if decision.limit is not None:
            self.hooks.limited(decision.limit)
        if decision.judgement is not None:
            for account, verdict in decision.judgement.verdicts.items():
                self.hooks.judged(account or "", verdict.rule)

    # --- the spool ------------------------------------------------------------------------------------------------

    async def _spool(self, message: Message, arrivals: Sequence[Arrival], held: Held) -> Answer:
        loop, size, received_at = asyncio.get_running_loop(), len(message.raw), message.received_at
        started = loop.time()

        def tell(message_id: int) -> None:
            self.hooks.spooled(Spooled(message_id, received_at, arrivals, size, loop.time() - started))

        put = asyncio.ensure_future(self._put(message, arrivals))
        del message  # who puts it holds it for as long as it must be held
        if not await self._is_answered(put, held):
            put.add_done_callback(partial(_log_late, tell))
            return Answer(policy.TRY_LATER, _ignore)
        identity = put.result()

        def afterwards() -> None:
            tell(identity)
            self.hooks.accept(loop.time() - started)
            if self.decider.pressure is not None:
                self.decider.pressure.put(any(arrival.trusted for arrival in arrivals), size)

        return Answer(policy.QUEUED.filled(id=identity), afterwards)

    async def _message(self, delivery: Delivery, decision: Decision) -> Message:
        now = self._clock()
        envelope, is_token = delivery.envelope, self.decider.trust.is_token
        shown = tuple([policy.without_secret(address, is_token) for address in envelope.recipients])
        if shown != envelope.recipients:
            delivery = delivery._replace(envelope=replace(envelope, recipients=shown))
        trace, content = trace_header(delivery, self.hostname, now), delivery.content
        return Message(
            envelope=delivery.envelope,
            received_at=now,
            raw=trace + content if len(content) <= SLICE else await self._traced(trace, content),
            evidence=decision.judgement.evidence if decision.judgement else (),
            warnings=delivery.warnings,
        )

    async def _traced(self, trace: bytes, content: bytes) -> bytes:
        async with self._copying:
            return await joined(trace, content)

    async def _is_answered(self, put: asyncio.Future[int], held: Held) -> bool:
        """Whether the put came to its end in time; if not it goes on by itself.

        Waited for, not awaited: neither the deadline nor a session cut off here may cancel a commit under way.
        """
        try:
            await ends_within(put, self.limits.put_timeout)
        finally:
            if not put.done():
                kept = held.handed_on()
                self._late.add(put)
                put.add_done_callback(self._late.discard)
                put.add_done_callback(lambda _: kept.let_go())
        if put.done() and not put.cancelled():
            return True
        if not put.done():
            self.hooks.limited(Limit.COMMIT_TIME)
        log.error("mail not accepted: %s", "put cancelled" if put.done() else "put timed out")
        return False


def _domain(address: str) -> str:
    """What of an address may be logged; nothing where there is no domain (the whole would be a person's name)."""
    return address.rpartition("@")[2] if "@" in address else ""


def _log_late(tell: Callable[[int], None], put: asyncio.Future[int]) -> None:
    """Take note of what became of a put that was answered 451 (and keep asyncio from printing its exception)."""
    error = None if put.cancelled() else put.exception()
    log.warning("late put ended: %s", type(error).__name__ if error else "done")
    if error is None and not put.cancelled():
        tell(put.result())


# --- our own trace header -----------------------------------------------------------------------------------------

# Unique among all processes' and all restarts'; to ask the system for random bytes each time is a system call.
_IDS = itertools.count(secrets.randbits(63))
_NOT_IN_HELO = re.compile(r"[^A-Za-z0-9._:\[\]-]")


def trace_header(delivery: Delivery, hostname: str, now: float) -> bytes:
    """Our `Received:` header (RFC 5321, 4.4), folded. A recipient is named only where it is the only one (7.2)."""
    envelope = delivery.envelope
    return (
        f"Received: from {_as_atoms(envelope.helo)} ({_address_literal(envelope.peer)})\r\n"
        f" by {hostname} with {delivery.protocol} id {next(_IDS):016x}{_for_clause(envelope)};\r\n"
        f" {_date(int(now))}\r\n"
    ).encode()


@lru_cache(256)
def _as_atoms(helo: str) -> str:
    return _NOT_IN_HELO.sub("?", helo)[:255] or "unknown"


@lru_cache(2)
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


@lru_cache(256)
def _address_literal(peer: str) -> str:
    """The peer's address as RFC 5321, 4.1.3 writes it; a zone index (`%eth0`) is ours and stays out."""
    host = peer.partition("%")[0]
    return f"[IPv6:{host}]" if ":" in host else f"[{host or 'unknown'}]"


def _for_clause(envelope: Envelope) -> str:
    """The recipient, on a line of its own; none where there are several, or where only SMTPUTF8 could carry it."""
    if len(envelope.recipients) != 1:
        return ""
    only = envelope.recipients[0]
    if len(only) > 320 or not (only.isascii() or envelope.smtputf8):
        return ""
    return f"\r\n for <{only}>"
