"""Judges a mail for every account among its recipients: what costs nothing first, DNS and signatures only where needed."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from apptrack_ingest.trust import spf
from apptrack_ingest.trust.cheap import cheap_outcomes
from apptrack_ingest.trust.checking import Verifier
from apptrack_ingest.trust.deciding import Findings, found_outcomes, verdict
from apptrack_ingest.trust.dns import Resolver
from apptrack_ingest.trust.names import Address, domain_names, ip, neighbourhood, plain
from apptrack_ingest.trust.peer import Peer, confirm
from apptrack_ingest.trust.proofs import Proofs, Prover, Wanted
from apptrack_ingest.trust.rules import Judgement, Mail, Outcome, Rules, network_of

AccountRules = Mapping[str | None, Sequence[Rules]]


class Authenticator:
    """Says for each account whether the X-iTrackID headers of a mail may be believed.

    `clock` gives epoch seconds; `spf` records the peer's SPF result as evidence, which decides nothing; `timeout` is in
    seconds for DNS and signatures together: an account that needed what did not come in time is undecided.
    """

    def __init__(
        self,
        resolver: Resolver,
        verifier: Verifier,
        *,
        clock: Callable[[], float],
        spf: bool = True,
        timeout: float = 8.0,
    ) -> None:
        self._resolver = resolver
        self._verifier = verifier
        self._prover = Prover(resolver, verifier)
        self._clock = clock
        self._spf = spf
        self._timeout = timeout

    async def close(self) -> None:
        """Ends the processes that verify."""
        await self._verifier.close()

    async def judge(self, mail: Mail, rules: AccountRules) -> Judgement:
        """The verdict for each account in `rules` (`None`: recipients that belong to no one account), and the evidence.

        No mail, peer or DNS answer makes it raise; a fault of ours does, and is for the caller to answer as temporary.
        """
        now = self._clock()
        outcomes: dict[str | None, list[Outcome]] = {}
        open_: dict[str | None, Sequence[Rules]] = {}
        for account, own in rules.items():
            outcomes[account] = those = _cheap(account, own, mail, now)
            if not those or not those[-1].trusted:
                open_[account] = own
        if not open_:
            return Judgement({account: verdict(those, "") for account, those in outcomes.items()})
        needs = _needs(own for account in open_.values() for own in account)
        evidence: tuple[str, ...] = ()
        if needs.any or (open_ and self._spf):
            relays = [network for own in rules.values() for each in own for network in each.relays]
            found, evidence = await self._find(
                mail, needs, now, network_of(ip(mail.connection.address), relays) is None
            )
            for account, own in open_.items():
                outcomes[account] += [outcome for each in own for outcome in found_outcomes(each, found)]
        peer = plain(mail.connection.address)
        return Judgement({account: verdict(those, peer) for account, those in outcomes.items()}, evidence)

    async def _find(self, mail: Mail, needs: "_Needs", now: float, outside: bool) -> tuple[Findings, tuple[str, ...]]:
        """Look up all that is needed at once; what is late is marked so, and costs the others nothing."""
        address = ip(mail.connection.address)
        async with asyncio.TaskGroup() as group:
            peer = group.create_task(self._peer(address, needs))
            proofs = group.create_task(self._proofs(mail, needs, now))
            policy = group.create_task(self._policy(mail, address if outside else None))
        found = Findings(address, peer.result(), proofs.result())
        return found, (*found.peer.evidence, *found.proofs.evidence, *policy.result())

    async def _peer(self, address: Address | None, needs: "_Needs") -> Peer:
        if not needs.names:
            return Peer()
        try:
            async with asyncio.timeout(self._timeout):
                return await confirm(self._resolver, address, needs.names)
        except TimeoutError:
            return Peer(unknown=True, evidence=(f"peer {address}: DNS took too long over its name",))

    async def _proofs(self, mail: Mail, needs: "_Needs", now: float) -> Proofs:
        if not needs.signatures.domains:
            return Proofs()
        network = neighbourhood(mail.connection.address)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._prover.prove(mail.raw, needs.signatures, now, network)
        except TimeoutError:
            return Proofs(late=True, evidence=("the signatures took too long to look at",))

    async def _policy(self, mail: Mail, address: Address | None) -> tuple[str, ...]:
        """SPF says something of a peer out there, nothing of this machine, this network or a relay of ours."""
        if not self._spf or address is None or address.is_private or address.is_loopback or address.is_link_local:
            return ()
        try:
            async with asyncio.timeout(self._timeout):
                result = await spf.check(self._resolver, address, mail.sender, mail.connection.helo)
        except TimeoutError:
            return ()
        return (str(result),) if result else ()


@dataclass(frozen=True, slots=True)
class _Needs:
    """What the rules still open ask for: confirmed names, signatures of domains and seals of forwarders."""

    names: frozenset[str]
    signatures: Wanted

    @property
    def any(self) -> bool:
        return bool(self.names or self.signatures.domains)


def _needs(rules: Iterable[Rules]) -> _Needs:
    """An ARC seal says something only of a domain listed under `dkim`; a relay's name only with stripping or ARC."""
    rules = list(rules)
    relays = [each for each in rules if each.relay_strips_headers or (each.arc and each.dkim)]
    return _Needs(
        names=frozenset(name for each in rules for name in each.names)
        | frozenset(name for each in relays for name in each.relay_names),
        signatures=Wanted(
            domains=domain_names({domain for each in rules for domain in each.dkim}),
            forwarders=domain_names({domain for each in rules if each.dkim for domain in each.arc}),
            unsigned_ids=any(each.unsigned_ids for each in rules if each.dkim),
        ),
    )


def _cheap(account: str | None, rules: Sequence[Rules], mail: Mail, now: float) -> list[Outcome]:
    """One that trusts suffices, and is the last."""
    words = mail.tokens.get(account, frozenset())
    outcomes = []
    for each in rules:
        for outcome in cheap_outcomes(each, mail.connection, words, now):
            outcomes.append(outcome)
            if outcome.trusted:
                return outcomes
    return outcomes
