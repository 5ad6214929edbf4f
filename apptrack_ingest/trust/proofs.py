"""From a mail to what its signatures prove: which keys are needed, DNS asked for them, the body digested, all verified."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from apptrack_ingest.trust.body import body_digest
from apptrack_ingest.trust.checking import Verifier
from apptrack_ingest.trust.dns import Resolver, TemporaryDns
from apptrack_ingest.trust.names import plain
from apptrack_ingest.trust.results import Results, read_results
from apptrack_ingest.trust.signatures import Checked, Work
from apptrack_ingest.trust.signed import (
    Chain,
    Claim,
    Head,
    arc_chain,
    dkim_claims,
    has_unread,
    originals_cover,
    read_head,
)

NO_KEY_YET = "DNS did not answer for its key"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the rules of the accounts believe, taken together: signatures of these domains, seals of these forwarders,
    signatures that leave X-iTrackID headers out. What counts for none of them is not looked at."""

    domains: frozenset[str]
    forwarders: frozenset[str] = frozenset()
    unsigned_ids: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """One DKIM signature looked at: `problem` says why it does not count, `temporary` that nobody can tell now."""

    claim: Claim
    problem: str = ""
    temporary: bool = False

    def __str__(self) -> str:
        note = f", but does not cover {listed(self.claim.uncovered)}" if self.claim.uncovered else ""
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
    """All that was found: DKIM signatures of listed domains (and all `claims`, listed or not), the ARC chain; `unread`:
    the claims are not all of the mail's signatures, or some do not say whose they are; `problem`: why no signature could
    be looked at; `late`: time ran out."""

    dkim: tuple[Proof, ...] = ()
    arc: Sealed | None = None
    claims: tuple[Claim, ...] = ()
    unread: bool = False
    problem: str = ""
    late: bool = False
    evidence: tuple[str, ...] = ()


def _result(problem: str, temporary: bool) -> str:
    return f"{'cannot be told' if temporary else 'fails'} ({problem})" if problem else "passes"


def listed(names: Sequence[str]) -> str:
    """Headers' names out of a mail, the first three of them, for a line people read."""
    more = len(names) - 3
    return ", ".join(map(plain, names[:3])) + (f" and {more} more" if more > 0 else "")


class Prover:
    """Looks at the signatures of mails."""

    def __init__(self, resolver: Resolver, verifier: Verifier) -> None:
        self._resolver = resolver
        self._verifier = verifier

    async def prove(self, raw: bytes, wanted: Wanted, now: float, network: str = "") -> Proofs:
        """Verify the DKIM signatures that count if they verify, and the ARC chain if it does.

        `network` is the peer's: mails of one network are verified one after the other.
        """
        found = await asyncio.to_thread(_read, raw, wanted, now)
        if found.head.problem:
            text = f"the header block is odd ({found.head.problem}), so that no signature counts"
            return Proofs(problem=text, evidence=(text,))
        checked = await _Look(self._resolver, self._verifier, raw, found, network).check()
        proofs = tuple(_proof(claim, wanted, checked) for claim in found.claims if claim.domain in wanted.domains)
        sealed = _sealed(found, wanted, checked)
        evidence = _evidence(found, proofs, sealed)
        return Proofs(proofs, sealed, found.claims, found.unread, evidence=evidence)


@dataclass(frozen=True, slots=True)
class _Found:
    """A mail's header block as read, the claims worth verifying and the chain if it is."""

    head: Head
    claims: tuple[Claim, ...] = ()
    unread: bool = False
    chain: Chain | None = None
    results: Results | None = None
    open_claims: tuple[Claim, ...] = ()
    open_chain: Chain | None = None


def _read(raw: bytes, wanted: Wanted, now: float) -> _Found:
    """Meant for a thread: a header block made for it takes its time."""
    head = read_head(raw)
    if head.problem:
        return _Found(head)
    claims = tuple(dkim_claims(head, now))
    chain = arc_chain(head, now) if wanted.forwarders else None
    found = _Found(head, claims, has_unread(head, claims), chain, read_results(chain.results) if chain else None)
    return replace(
        found,
        open_claims=tuple(claim for claim in claims if claim.domain in wanted.domains and not _lack(claim, wanted)),
        open_chain=chain if chain and not _chain_lack(found, chain, wanted) else None,
    )


def _lack(claim: Claim, wanted: Wanted) -> str:
    """Why a signature cannot count even if it verifies."""
    gaps = claim.gaps(wanted.unsigned_ids)
    return claim.problem or (f"the signature does not cover {listed(gaps)}" if gaps else "")


def _chain_lack(found: _Found, chain: Chain, wanted: Wanted) -> str:
    """Why a chain cannot count even if it verifies."""
    if chain.problem:
        return chain.problem
    if chain.sealer not in wanted.forwarders:
        return "this forwarder is not listed"
    return "" if _could_vouch(found, chain, wanted) else "what it says cannot count"


def _could_vouch(found: _Found, chain: Chain, wanted: Wanted) -> bool:
    """Whether some account could take the forwarder's word; which, and by what rule, is decided later."""
    if found.results is None:
        return False
    if found.results.spf in wanted.domains:
        return True
    originals = (
        originals_cover(found.claims, domain, unread=found.unread, unsigned_ids=wanted.unsigned_ids)
        for domain in found.results.dkim & wanted.domains
    )
    return not chain.message.gaps(wanted.unsigned_ids) and any(originals)


class _Look:
    """One mail's keys and body, fetched and digested as far as they are needed."""

    def __init__(self, resolver: Resolver, verifier: Verifier, raw: bytes, found: _Found, network: str) -> None:
        self._resolver = resolver
        self._verifier = verifier
        self._raw = raw
        self._found = found
        self._network = network
        self._keys: dict[str, bytes | None] = {}

    async def check(self) -> Checked:
        """Verify the claims and the chain's newest set; its older seals, which name servers anywhere, only after that."""
        chain = self._found.open_chain
        await self._ask([claim.key_name for claim in self._found.open_claims])
        await self._ask(chain.key_names if chain else ())
        claims = tuple(claim for claim in self._found.open_claims if claim.key_name in self._keys)
        if chain and not self._all_known(chain.key_names):
            chain = None
        checked = await self._verify(claims, chain, newest_only=bool(chain and chain.older_key_names))
        if not chain or not chain.older_key_names or checked.chain != "":
            return checked
        return replace(checked, chain=None) if checked.unfinished else await self._older(chain, checked)

    async def _older(self, chain: Chain, checked: Checked) -> Checked:
        await self._ask(chain.older_key_names)
        if not self._all_known(chain.older_key_names):
            return replace(checked, chain=None)
        whole = await self._verify((), chain)
        return replace(checked, chain=whole.chain, unfinished=whole.unfinished)

    def _all_known(self, names: Iterable[str]) -> bool:
        return all(name in self._keys for name in names)

    async def _ask(self, names: Iterable[str]) -> None:
        """Take up the key records, None where DNS says that there is none; those that DNS did not answer are left out."""
        new = [name for name in dict.fromkeys(names) if name not in self._keys]
        found = await asyncio.gather(*(self._key(name) for name in new))
        self._keys |= {
            name: record for name, record in zip(new, found, strict=True) if not isinstance(record, TemporaryDns)
        }

    async def _key(self, name: str) -> bytes | TemporaryDns | None:
        """RFC 6376, section 3.6.2.2, leaves open which of several records counts: ours is the same one every time."""
        try:
            records = await self._resolver.txt(name)
        except TemporaryDns as error:
            return error
        return min((record for record in records if b"p=" in record), default=None)

    async def _verify(self, claims: tuple[Claim, ...], chain: Chain | None, *, newest_only: bool = False) -> Checked:
        """Without anything to verify no process is troubled."""
        if not claims and not chain:
            return Checked({})
        forms = {claim.body for claim in claims} | ({chain.message.body} if chain else set())
        start = self._found.head.body_at
        bodies = {form: await asyncio.to_thread(body_digest, self._raw, start, form) for form in sorted(forms)}
        work = Work(self._found.head.fields, claims, chain, bodies, dict(self._keys), newest_only)
        return await self._verifier.check(work, self._network)


def _proof(claim: Claim, wanted: Wanted, checked: Checked) -> Proof:
    lack = _lack(claim, wanted)
    if lack:
        return Proof(claim, lack)
    problem = checked.claims.get(claim.index)
    return Proof(claim, _unknown(checked) if problem is None else problem, temporary=problem is None)


def _sealed(found: _Found, wanted: Wanted, checked: Checked) -> Sealed | None:
    if found.chain is None:
        return None
    lack = _chain_lack(found, found.chain, wanted)
    if lack:
        return Sealed(found.chain, found.results, lack)
    problem = checked.chain
    return Sealed(found.chain, found.results, _unknown(checked) if problem is None else problem, problem is None)


def _unknown(checked: Checked) -> str:
    return checked.unfinished or NO_KEY_YET


def _evidence(found: _Found, proofs: Sequence[Proof], sealed: Sealed | None) -> tuple[str, ...]:
    looked_at = {proof.claim.index: str(proof) for proof in proofs}
    lines = [looked_at.get(claim.index, f"DKIM {claim}: not looked at (not listed)") for claim in found.claims]
    return (*lines, *([str(sealed)] if sealed else []))
