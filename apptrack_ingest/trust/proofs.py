"""From a mail to what its signatures prove: which keys are needed, DNS asked for them, the body digested, all verified."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from apptrack_ingest.trust.body import body_digest
from apptrack_ingest.trust.checking import Verifier
from apptrack_ingest.trust.dns import Resolver, TemporaryDns
from apptrack_ingest.trust.names import plain
from apptrack_ingest.trust.results import Results, read_results
from apptrack_ingest.trust.signatures import Checked, Keys, Work
from apptrack_ingest.trust.signed import Chain, Claim, Head, arc_chain, dkim_claims, read_head

NO_KEY_YET = "DNS did not answer for its key"


@dataclass(frozen=True, slots=True)
class Proof:
    """One DKIM signature looked at: `problem` says why it does not count, `temporary` that nobody can tell now."""

    claim: Claim
    problem: str = ""
    temporary: bool = False

    def __str__(self) -> str:
        note = f", but does not cover {ids(self.claim)}" if self.claim.uncovered else ""
        return f"DKIM {self.claim}: {_result(self.problem, self.temporary)}{'' if self.problem else note}"


@dataclass(frozen=True, slots=True)
class Sealed:
    """The ARC chain looked at, and what its newest forwarder says of the mail as it came in (None: nothing clear)."""

    chain: Chain
    results: Results | None = None
    problem: str = ""
    temporary: bool = False

    def __str__(self) -> str:
        by = f" sealed by {plain(self.chain.sealer)}" if self.chain.sealer else ""
        return f"ARC{by}: {_result(self.problem, self.temporary)}"


@dataclass(frozen=True, slots=True)
class Proofs:
    """All that was found: DKIM signatures of listed domains (and all `claims`, listed or not), the ARC chain if sealed by
    a listed forwarder; `problem`: why no signature could be looked at; `late`: time ran out."""

    dkim: tuple[Proof, ...] = ()
    arc: Sealed | None = None
    claims: tuple[Claim, ...] = ()
    problem: str = ""
    late: bool = False
    evidence: tuple[str, ...] = ()


def _result(problem: str, temporary: bool) -> str:
    return f"{'cannot be told' if temporary else 'fails'} ({problem})" if problem else "passes"


def ids(claim: Claim) -> str:
    """The X-iTrackID headers that a signature does not cover, the first three of them by name."""
    more = len(claim.uncovered) - 3
    return ", ".join(claim.uncovered[:3]) + (f" and {more} more" if more > 0 else "")


class Prover:
    """Looks at the signatures of mails."""

    def __init__(self, resolver: Resolver, verifier: Verifier) -> None:
        self._resolver = resolver
        self._verifier = verifier

    async def prove(self, raw: bytes, domains: frozenset[str], forwarders: frozenset[str], now: float) -> Proofs:
        """Verify DKIM signatures of the domains, and the ARC chain if one of the forwarders sealed it."""
        head = read_head(raw)
        if head.problem:
            text = f"the header block is odd ({head.problem}), so that no signature counts"
            return Proofs(problem=text, evidence=(text,))
        claims = dkim_claims(head, now)
        chain = arc_chain(head, now) if forwarders else None
        open_claims = [claim for claim in claims if claim.domain in domains and not claim.problem]
        open_chain = chain if chain and not chain.problem and chain.sealer in forwarders else None
        keys = await self._keys(open_claims, open_chain)
        checked = await self._check(raw, head, open_claims, open_chain, keys)
        proofs = tuple(_proof(claim, checked) for claim in claims if claim.domain in domains)
        sealed = _sealed(chain, forwarders, checked) if chain else None
        return Proofs(proofs, sealed, tuple(claims), evidence=_evidence(claims, proofs, sealed))

    async def _keys(self, claims: Iterable[Claim], chain: Chain | None) -> Keys:
        """The key records by name, None where DNS says that there is none; those that DNS did not answer are left out."""
        names = list(dict.fromkeys([claim.key_name for claim in claims] + list(chain.key_names if chain else ())))
        found = await asyncio.gather(*(self._key(name) for name in names))
        return {name: record for name, record in zip(names, found, strict=True) if not isinstance(record, TemporaryDns)}

    async def _key(self, name: str) -> bytes | TemporaryDns | None:
        """RFC 6376, section 3.6.2.2, leaves open which of several records counts: ours is the same one every time."""
        try:
            records = await self._resolver.txt(name)
        except TemporaryDns as error:
            return error
        return min((record for record in records if b"p=" in record), default=None)

    async def _check(self, raw: bytes, head: Head, claims: Sequence[Claim], chain: Chain | None, keys: Keys) -> Checked:
        """Verify those whose keys are at hand; without any, no process is troubled."""
        ready = tuple(claim for claim in claims if claim.key_name in keys)
        ready_chain = chain if chain and all(name in keys for name in chain.key_names) else None
        if not ready and not ready_chain:
            return Checked({})
        forms = {claim.body for claim in ready} | ({ready_chain.message.body} if ready_chain else set())
        bodies = {form: await asyncio.to_thread(body_digest, raw, head.body_at, form) for form in sorted(forms)}
        return await self._verifier.check(Work(head.fields, ready, ready_chain, bodies, keys))


def _proof(claim: Claim, checked: Checked) -> Proof:
    if claim.problem:
        return Proof(claim, claim.problem)
    problem = checked.claims.get(claim.index)
    return Proof(claim, NO_KEY_YET if problem is None else problem, temporary=problem is None)


def _sealed(chain: Chain, forwarders: frozenset[str], checked: Checked) -> Sealed:
    results = read_results(chain.results)
    if chain.problem:
        return Sealed(chain, results, chain.problem)
    if chain.sealer not in forwarders:
        return Sealed(chain, results, "this forwarder is not listed")
    late = checked.chain is None
    return Sealed(chain, results, NO_KEY_YET if checked.chain is None else checked.chain, temporary=late)


def _evidence(claims: Sequence[Claim], proofs: Sequence[Proof], sealed: Sealed | None) -> tuple[str, ...]:
    looked_at = {proof.claim.index: str(proof) for proof in proofs}
    lines = [looked_at.get(claim.index, f"DKIM {claim}: not looked at (not listed)") for claim in claims]
    return (*lines, *([str(sealed)] if sealed else []))
