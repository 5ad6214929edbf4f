"""Takes one mail from the end of DATA to the spool and says what to answer: 250 only after the commit."""

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from apptrack_ingest import logs
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.parse.headers import Peek, header_block, peek
from apptrack_ingest.receive import policy, trust
from apptrack_ingest.receive.policy import Directory, Limits, Reply
from apptrack_ingest.receive.refusals import Refusals

log = logging.getLogger("apptrack_ingest.receive")

Put = Callable[[Message, Sequence[Arrival]], Awaitable[int]]
"""Puts a message with its applications into the spool; returns its id once COMMITTED, raises SpoolUnavailable."""


def _ignore(*_: object) -> None:
    """The hook where nobody counts."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the receive stage tells to whoever counts.

    `reply` gets the code of every reply sent, `accept` the seconds from the end of DATA to the commit, `received` the
    account of every application received ("" when unrouted), `session_opened` and `session_closed` each connection.
    """

    reply: Callable[[str], None] = _ignore
    accept: Callable[[float], None] = _ignore
    received: Callable[[str], None] = _ignore
    session_opened: Callable[[], None] = _ignore
    session_closed: Callable[[], None] = _ignore


@dataclass(frozen=True, slots=True)
class Delivery:
    """One mail at the end of its DATA: envelope, the protocol it came by (RFC 3848), exact bytes, and what was odd."""

    envelope: Envelope
    protocol: str
    content: bytes
    warnings: tuple[str, ...] = ()
    too_big: bool = False


class Reception:
    """Decides about recipients and mails for every session of a process.

    `clock` gives epoch seconds; `hostname` is ours, as in `Received:`. A put that passes `limits.put_timeout` is
    answered 451 but goes on: what it commits all the same stays, and de-duplication catches the sender's retry.
    """

    def __init__(
        self,
        put: Put,
        directory: Directory,
        *,
        clock: Callable[[], float],
        hostname: str,
        limits: Limits | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.hostname = hostname
        self.limits = limits or Limits()
        self.hooks = hooks or Hooks()
        self._put = put
        self._clock = clock
        self._directory = directory
        self._late: set[asyncio.Future[int]] = set()
        self._refusals = Refusals(clock)

    def configure(self, directory: Directory) -> None:
        """Use another directory from the next recipient on (a reload); open sessions stay."""
        self._directory = directory

    def recipient(self, address: str, peer: str, already: int) -> Reply:
        """The answer to RCPT for this address, with so many recipients accepted before it. We never relay."""
        reply = self._recipient(address, peer, already)
        if reply is not policy.RECIPIENT_OK:
            self._refusals.tell(reply, peer=peer, domain=address.rpartition("@")[2])
        return reply

    def _recipient(self, address: str, peer: str, already: int) -> Reply:
        if address == policy.NULL_SENDER:
            return policy.BAD_ADDRESS
        if self._directory.resolve(address, local=trust.is_loopback(peer)) is policy.Special.UNKNOWN:
            return policy.UNKNOWN_RECIPIENT
        if already >= self.limits.recipients:
            return policy.TOO_MANY_RECIPIENTS
        return policy.RECIPIENT_OK

    async def receive(self, delivery: Delivery) -> Reply:
        """Spool the mail and give the answer to the end of DATA; any fault of ours is a temporary one, whose cause the
        peer is not told (the log gets its type and reason, never its text)."""
        try:
            reply = await self._receive(delivery)
        except Exception as error:  # noqa: BLE001 - unknown means temporary, whatever it is
            log.error("mail not accepted: %s", " ".join(logs.exception_fields(error).values()))
            return policy.TRY_LATER
        if reply.code >= 500:
            self._refusals.tell(reply, peer=delivery.envelope.peer, size=len(delivery.content))
        return reply

    async def _receive(self, delivery: Delivery) -> Reply:
        if delivery.too_big:
            return policy.TOO_BIG
        block = header_block(delivery.content, self.limits.header_block)
        if block is None:
            return policy.HEADERS_TOO_BIG
        seen = peek(block)
        if seen.received_count > self.limits.received_headers:
            return policy.LOOP
        return await self._spool(self._message(delivery), seen)

    async def _spool(self, message: Message, seen: Peek) -> Reply:
        started = asyncio.get_running_loop().time()
        arrivals = self._arrivals(message, seen)
        identity = await self._committed(message, arrivals)
        if identity is None:
            return policy.TRY_LATER
        self.hooks.accept(asyncio.get_running_loop().time() - started)
        for arrival in arrivals:
            self.hooks.received(arrival.account or "")
        return policy.QUEUED.filled(id=identity)

    def _message(self, delivery: Delivery) -> Message:
        now = self._clock()
        verdict = trust.judge(delivery.envelope.peer)
        return Message(
            envelope=delivery.envelope,
            received_at=now,
            trusted=verdict.trusted,
            trust_note=verdict.note,
            raw=trace_header(delivery, self.hostname, now) + delivery.content,
            warnings=delivery.warnings,
        )

    def _arrivals(self, message: Message, seen: Peek) -> tuple[Arrival, ...]:
        """One application per account. An untrusted mail's ClientID still says where it would go: it is held anyway."""
        believed = seen.applicant_id if message.trusted and seen.id_problem is None else None
        accounts = policy.route(message.envelope.recipients, seen.client_id, self._directory)
        return tuple(Arrival(account, believed) for account in accounts)

    async def _committed(self, message: Message, arrivals: Sequence[Arrival]) -> int | None:
        """The message's id once committed; None when the deadline passed first, the put then goes on by itself.

        Waited for, not awaited: neither the deadline nor a session cut off here may cancel a commit under way.
        """
        put = asyncio.ensure_future(self._put(message, arrivals))
        self._late.add(put)
        put.add_done_callback(self._late.discard)
        done, _ = await asyncio.wait({put}, timeout=self.limits.put_timeout)
        if done and not put.cancelled():
            return put.result()
        log.error("mail not accepted: %s", "put cancelled" if done else "put timed out")
        put.add_done_callback(_log_late)
        return None


def _log_late(put: asyncio.Future[int]) -> None:
    """Take note of what became of a put that was answered 451 (and keep asyncio from printing its exception)."""
    error = None if put.cancelled() else put.exception()
    log.warning("late put ended: %s", type(error).__name__ if error else "done")


# --- our own trace header -----------------------------------------------------------------------------------------

_NOT_IN_HELO = re.compile(r"[^A-Za-z0-9._:\[\]-]")


def trace_header(delivery: Delivery, hostname: str, now: float) -> bytes:
    """Our `Received:` header (RFC 5321, 4.4), folded. A recipient is named only where it is the only one (7.2)."""
    envelope = delivery.envelope
    helo = _NOT_IN_HELO.sub("?", envelope.helo)[:255] or "unknown"
    lines = [
        f"Received: from {helo} ({_address_literal(envelope.peer)})",
        f" by {hostname} with {delivery.protocol} id {secrets.token_hex(8)}{_for_clause(envelope)};",
        f" {format_datetime(datetime.fromtimestamp(now, UTC))}",
    ]
    return "".join(line + "\r\n" for line in lines).encode()


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
