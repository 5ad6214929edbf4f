"""From what was found to a verdict for each account: pure, so that every rule can be tried in a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from apptrack_ingest.trust.cheap import RELAY_ALONE
from apptrack_ingest.trust.names import Address, domain_names
from apptrack_ingest.trust.peer import Peer
from apptrack_ingest.trust.proofs import Proof, Proofs, Sealed, listed
from apptrack_ingest.trust.results import Results
from apptrack_ingest.trust.rules import Outcome, Rule, Rules, Verdict, network_of
from apptrack_ingest.trust.signed import originals_cover

_LATE = "looking at the signatures took too long"
_LONGEST_NOTE = 1000


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was looked up about a mail: its peer's names and its signatures."""

    address: Address | None
    peer: Peer = field(default_factory=Peer)
    proofs: Proofs = field(default_factory=Proofs)


def found_outcomes(rules: Rules, found: Findings) -> Iterator[Outcome]:
    """What the rules that need DNS or signatures come to."""
    yield from _by_name(rules, found)
    yield from _by_relay_name(rules, found)
    if (rules.dkim or rules.arc) and found.proofs.problem:
        yield Outcome(Rule.DKIM, found.proofs.problem)
    yield from _by_dkim(rules, found.proofs)
    if rules.arc and rules.dkim:
        yield from _by_arc(rules, found)


def verdict(outcomes: Sequence[Outcome], peer: str) -> Verdict:
    """Any rule that trusts suffices; else any that cannot tell now leaves it open; else no, with all that was tried."""
    for outcome in outcomes:
        if outcome.trusted:
            return Verdict(True, outcome.rule, outcome.text)
    rule = Rule.UNDECIDED if any(outcome.temporary for outcome in outcomes) else Rule.NONE
    note = "; ".join(dict.fromkeys(outcome.text for outcome in outcomes))
    return Verdict(False, rule, note[:_LONGEST_NOTE] or f"no rule matches peer {peer}")


def _by_name(rules: Rules, found: Findings) -> Iterator[Outcome]:
    name = found.peer.named(rules.names)
    if name:
        yield Outcome(Rule.NAME, f"peer {found.address} is {name} (confirmed)", trusted=True)
    elif found.peer.perhaps_named(rules.names):
        yield Outcome(Rule.NAME, f"DNS did not answer for the name of peer {found.address}", temporary=True)
    elif rules.names:
        yield Outcome(Rule.NAME, f"peer {found.address} has no listed name that points back to it")


def _by_relay_name(rules: Rules, found: Findings) -> Iterator[Outcome]:
    name = found.peer.named(rules.relay_names)
    if name and rules.relay_strips_headers:
        text = f"peer {found.address} is the relay {name} (confirmed), which strips the ids of outside mail"
        yield Outcome(Rule.RELAY, text, trusted=True)
    elif name:
        yield Outcome(Rule.RELAY, f"peer {found.address} is the relay {name}, {RELAY_ALONE}")
    elif rules.relay_strips_headers and found.peer.perhaps_named(rules.relay_names):
        yield Outcome(Rule.RELAY, f"DNS did not answer for the name of peer {found.address}", temporary=True)


def _by_dkim(rules: Rules, proofs: Proofs) -> Iterator[Outcome]:
    """Any signature of a listed domain that verifies and covers the ids (RFC 6376, sections 6.1 and 8.15)."""
    domains = domain_names(rules.dkim)
    own = [proof for proof in proofs.dkim if proof.claim.domain in domains]
    yield from (_signed(rules, proof) for proof in own)
    if rules.dkim and proofs.late:
        yield Outcome(Rule.DKIM, _LATE, temporary=True)
    elif rules.dkim and not own and not proofs.problem:
        yield Outcome(Rule.DKIM, "no DKIM signature of a listed domain")


def _signed(rules: Rules, proof: Proof) -> Outcome:
    gaps = proof.claim.gaps(rules.unsigned_ids)
    if gaps and (not proof.problem or proof.temporary):
        return Outcome(Rule.DKIM, f"DKIM {proof.claim}: the signature does not cover {listed(gaps)}")
    if proof.problem:
        return Outcome(Rule.DKIM, str(proof), temporary=proof.temporary)
    how = "though it does not cover the ids (unsigned_ids)" if proof.claim.uncovered else "and covers the ids"
    return Outcome(Rule.DKIM, f"DKIM {proof.claim} passes {how}", trusted=True)


def _by_arc(rules: Rules, found: Findings) -> Iterator[Outcome]:
    """A forwarder's word on the mail as it came in (RFC 8617, section 7.2.1); its seal alone says nothing of the origin."""
    sealed = found.proofs.arc
    if found.proofs.late:
        yield Outcome(Rule.ARC, _LATE, temporary=True)
    elif sealed and sealed.chain.sealer and sealed.chain.sealer not in domain_names(rules.arc):
        yield Outcome(Rule.ARC, f"ARC sealed by {sealed.chain.sealer}, which is not listed")
    elif sealed and sealed.chain.problem:
        yield Outcome(Rule.ARC, str(sealed))
    elif sealed:
        yield _forwarded(rules, found, sealed)


def _forwarded(rules: Rules, found: Findings, sealed: Sealed) -> Outcome:
    by = f"ARC sealed by {sealed.chain.sealer}"
    results = sealed.results
    if results is None:
        return Outcome(Rule.ARC, f"{by}: its results cannot be read")
    domains = domain_names(rules.dkim)
    if not results.dkim & domains and results.spf not in domains:
        return Outcome(Rule.ARC, f"{by} does not say that a listed domain passed DKIM or SPF")
    relay = _from_relay(rules, found) if results.spf in domains else False
    domain = _vouched(rules, found.proofs, sealed, results, relay is not False)
    if domain is None:
        return Outcome(Rule.ARC, f"{by}: {_uncovered_words(rules, sealed)}")
    if sealed.problem:
        return Outcome(Rule.ARC, str(sealed), temporary=sealed.temporary)
    if relay is None and _vouched(rules, found.proofs, sealed, results, False) is None:
        return Outcome(Rule.ARC, f"{by}: DNS did not answer for the name of the relay", temporary=True)
    return Outcome(Rule.ARC, f"{by} passes, and says that {domain} did", trusted=True)


def _vouched(rules: Rules, proofs: Proofs, sealed: Sealed, results: Results, relay: bool) -> str | None:
    """The listed domain that the forwarder vouches for, with headers that nobody can have added on the way.

    They are the sender's own if the domain's signatures covered them when "dkim=pass" was found, or if the domain's own
    server brought the mail ("spf=pass"); they are so still if the forwarder's signature covers them, or if it came
    straight from a relay of ours.
    """
    domains = domain_names(rules.dkim)
    covered = not sealed.chain.message.gaps(rules.unsigned_ids)
    if results.spf in domains and (covered or relay):
        return results.spf
    for domain in sorted(results.dkim & domains):
        original = originals_cover(proofs.claims, domain, unread=proofs.unread, unsigned_ids=rules.unsigned_ids)
        if covered and original:
            return domain
    return None


def _uncovered_words(rules: Rules, sealed: Sealed) -> str:
    gaps = sealed.chain.message.gaps(rules.unsigned_ids)
    if gaps:
        return f"its signature does not cover {listed(gaps)}"
    return (
        "the sender's own signature does not cover the ids and what the mail is read by, or cannot be told from others"
    )


def _from_relay(rules: Rules, found: Findings) -> bool | None:
    """Whether the peer is a relay; None when DNS did not say."""
    if network_of(found.address, rules.relays) or found.peer.named(rules.relay_names):
        return True
    return None if found.peer.perhaps_named(rules.relay_names) else False
