"""Decides what is to become of a recipient and of a whole mail, without spooling anything."""

from collections.abc import Sequence
from typing import NamedTuple

from apptrack_ingest.model import Arrival, Envelope, HeldReason
from apptrack_ingest.parse.headers import Peek, header_block, peek
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.judging import Judge, TrustPolicy, is_loopback
from apptrack_ingest.receive.policy import Directory, Limits, Reply, Special, Way
from apptrack_ingest.receive.pressure import Pressure
from apptrack_ingest.receive.rates import Doorkeeper, Limit
from apptrack_ingest.trust import Connection, Judgement, Mail, Rule, Verdict


class Delivery(NamedTuple):
    """One mail at the end of its DATA: envelope, connection, the protocol it came by (RFC 3848), exact bytes, and what
    was odd. `no_room`: it was not kept, because too many bytes were in flight."""

    envelope: Envelope
    connection: Connection
    protocol: str
    content: bytes
    warnings: tuple[str, ...] = ()
    too_big: bool = False
    no_room: bool = False


class Decision(NamedTuple):
    """What is to become of a mail: the reply that refuses it (None: it is taken), the limit that it met if it was one,
    the applications it yields and what was found out about its sender."""

    refusal: Reply | None = None
    limit: Limit | None = None
    arrivals: tuple[Arrival, ...] = ()
    judgement: Judgement | None = None


class Decider:
    """Decides by the directory, the rules of `trust` (of which `judge` says whether one matches) and the limits.

    Without `pressure` and `doorkeeper` there is always room, and nobody comes too often.
    """

    def __init__(
        self,
        directory: Directory,
        judge: Judge,
        *,
        trust: TrustPolicy | None = None,
        limits: Limits | None = None,
        pressure: Pressure | None = None,
        doorkeeper: Doorkeeper | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.trust = trust or TrustPolicy()
        self.pressure = pressure
        self.doorkeeper = doorkeeper
        self._directory = directory
        self._judge = judge

    def configure(self, directory: Directory, trust: TrustPolicy, limits: Limits) -> None:
        """Use these from the next command on (a reload)."""
        self._directory, self.trust, self.limits = directory, trust, limits

    def recipient(self, address: str, peer: str, already: int) -> Reply:
        """The answer to a peer's RCPT for this address, with so many recipients accepted before it. We never relay."""
        if address == policy.NULL_SENDER:
            return policy.BAD_ADDRESS
        if self._directory.resolve(address, local=is_loopback(peer)) is Special.UNKNOWN:
            return policy.UNKNOWN_RECIPIENT
        if already >= self.limits.recipients:
            return policy.TOO_MANY_RECIPIENTS
        return policy.RECIPIENT_OK

    async def decide(self, delivery: Delivery) -> Decision:
        """What is to become of the mail, without spooling it. Raises whatever the judge's own faults raise."""
        if delivery.no_room:
            return Decision(policy.NO_ROOM, Limit.BYTES_IN_FLIGHT)
        if delivery.too_big:
            return Decision(policy.TOO_BIG, Limit.MESSAGE_SIZE)
        block = header_block(delivery.content, self.limits.header_block)
        if block is None:
            return Decision(policy.HEADERS_TOO_BIG, Limit.HEADER_BLOCK)
        seen = peek(block)
        if seen.received_count > self.limits.received_headers:
            return Decision(policy.LOOP, Limit.RECEIVED_COUNT)
        way = self._directory.way(delivery.envelope.recipients, seen.client_id)
        refusal = self._refusal_of_content(delivery, seen, way)
        if refusal is not None:
            return Decision(refusal)
        if self.pressure is not None and (short := self.pressure.shortage(len(delivery.content))) is not None:
            return Decision(policy.NO_ROOM, short)
        return await self._judged(delivery, seen, way)

    def _refusal_of_content(self, delivery: Delivery, seen: Peek, way: Way) -> Reply | None:
        """What the settings want refused; mail for postmaster is taken all the same (RFC 5321, 4.5.1)."""
        if way.for_postmaster:
            return None
        if self.limits.refuse_bare_line_ends and delivery.warnings:
            return policy.BARE_LINE_ENDS
        if self.limits.refuse_without_id and seen.id_problem is HeldReason.NO_APPLICANT_ID:
            return policy.NO_APPLICANT_ID
        return None

    async def _judged(self, delivery: Delivery, seen: Peek, way: Way) -> Decision:
        mail = Mail(delivery.connection, delivery.envelope.sender, way.words, delivery.content)
        judgement = await self._judge.judge(mail, self.trust.rules_of(way.accounts))
        verdicts = judgement.verdicts
        if Rule.UNDECIDED in [verdict.rule for verdict in verdicts.values()]:
            return Decision(policy.DNS_FAILED, judgement=judgement)
        arrivals = tuple([_arrival(account, verdicts[account], seen) for account in way.accounts])
        if any(arrival.trusted for arrival in arrivals):
            return Decision(None, None, arrivals, judgement)
        arrivals = self._kept(arrivals, way)
        refusal, limit = self._refusal_of_untrusted(delivery, arrivals, way)
        return Decision(refusal, limit, arrivals, judgement)

    def _kept(self, arrivals: tuple[Arrival, ...], way: Way) -> tuple[Arrival, ...]:
        """Mail that all its accounts refuse is kept for postmaster, where it is for postmaster too, and for no account."""
        if not way.for_postmaster or not self._all_refuse(arrivals):
            return arrivals
        return (Arrival(None, None, False, arrivals[0].trust_note),)

    def _all_refuse(self, arrivals: Sequence[Arrival]) -> bool:
        return all(not arrival.trusted and arrival.account in self.trust.refusing for arrival in arrivals)

    def _refusal_of_untrusted(
        self, delivery: Delivery, arrivals: Sequence[Arrival], way: Way
    ) -> tuple[Reply | None, Limit | None]:
        """Mail that no account believes is refused where all say so, and has tighter limits where it is held."""
        if self._all_refuse(arrivals) and not way.for_postmaster:
            return policy.UNTRUSTED, None
        size = len(delivery.content)
        if size > self.trust.untrusted_size:
            return policy.TOO_BIG, Limit.UNTRUSTED_SIZE
        if self.pressure is not None and (short := self.pressure.untrusted_shortage(size)) is not None:
            return policy.NO_ROOM, short
        if self.doorkeeper is not None and (met := self.doorkeeper.untrusted(delivery.connection.address)) is not None:
            return policy.TOO_MANY_MAILS, met
        return None, None


def _arrival(account: str | None, verdict: Verdict, seen: Peek) -> Arrival:
    """An untrusted mail's ClientID still says where it would go, for it is held; its applicant id is not even kept."""
    believed = seen.applicant_id if verdict.trusted and seen.id_problem is None else None
    return Arrival(account, believed, verdict.trusted, verdict.note)
