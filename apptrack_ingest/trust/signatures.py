"""The door to DKIM and ARC (dkimpy): verifies what a mail claims with keys fetched beforehand; asks nobody, logs nothing.

dkimpy 1.1.8 takes a stranger's mail at its word in places; what it leaves out is checked here or in `signed`: RFC 8301's
end of SHA-1, From in h=, l=, a key's own t=y, s=, h= and k=, the sizes that make it slow. It never sees the body: its digest
comes from `body`, because dkimpy's own way takes time in the square of a run of blanks.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dkim  # type: ignore[import-untyped]

from apptrack_ingest.trust.names import domain_name
from apptrack_ingest.trust.signed import Chain, Claim, Fields, body_form, body_hash
from apptrack_ingest.trust.tags import Tags, read_tags

# dkimpy quotes headers, and so candidates, in what it logs.
_SILENT = logging.Logger("dkimpy, unheard", logging.CRITICAL + 1)
# RFC 8301, section 3.2.
_FEWEST_BITS = 1024
# A stranger's key (an ARC hop's) must not keep us computing: bytes of its record, its bits, its public exponent.
_LONGEST_KEY = 2048
_MOST_BITS = 4096
_LARGEST_EXPONENT = 2**32

# The one algorithm of ARC's seals (RFC 8617, section 4.1.1, by RFC 8301).
_SEALED_BY = "rsa-sha256"

Keys = Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Work:
    """All that verifying needs, small enough to travel to another process: the fields, the claims to verify, the body's
    digest in each form asked for, and the key records by name (None: DNS says there is none). With `newest_only` the
    chain's older seals are left out."""

    fields: Fields = field(repr=False)
    claims: tuple[Claim, ...]
    chain: Chain | None
    bodies: Mapping[str, bytes]
    keys: Keys
    newest_only: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """By the claim's index why it does not verify ("": it does), and the same for the ARC chain (None: not asked).

    `unfinished` says why nobody can tell now: the checking ended by no fault of the mail's.
    """

    claims: Mapping[int, str]
    chain: str | None = None
    unfinished: str = ""


def verify(work: Work) -> Checked:
    """Verify every claim, and the chain if there is one; never raises over what a mail or a key record contains."""
    claims = {claim.index: _safely(_claim_problem, work, claim) for claim in work.claims}
    return Checked(claims, _safely(_chain_problem, work, work.chain) if work.chain else None)


def _safely(check: Any, work: Work, claim: Any) -> str:
    try:
        return str(check(work, claim))
    except Exception as error:  # noqa: BLE001 - dkimpy on a stranger's mail: what it trips over does not count
        return f"it cannot be checked ({type(error).__name__})"


def _claim_problem(work: Work, claim: Claim) -> str:
    problem = key_problem(work.keys.get(claim.key_name), claim.algorithm)
    if problem:
        return problem
    if work.bodies.get(claim.body) != claim.body_digest:
        return "the body was changed"
    try:
        valid = _prepared(_Dkim(logger=_SILENT, minkey=_FEWEST_BITS), work).verify(claim.index, _answers(work.keys))
    except dkim.DKIMException as error:
        return f"it cannot be checked ({type(error).__name__})"
    return "" if valid else "signed headers were changed, or another key signed it"


def _chain_problem(work: Work, chain: Chain) -> str:
    if work.bodies.get(chain.message.body) != chain.message.body_digest:
        return "the mail's body was changed after the newest seal"
    names = chain.key_names if work.newest_only else (*chain.key_names, *chain.older_key_names)
    problems = (key_problem(work.keys.get(name), _SEALED_BY) for name in names)
    return next(filter(None, problems), "") or _seals_problem(work, chain.message.index)


def _seals_problem(work: Work, newest: int) -> str:
    """The newest set first, which alone is a listed forwarder's: who has not its seal does not get at the others.

    RFC 8617, section 5.2; dkimpy's own `ARC.verify` goes through all of them whatever it finds.
    """
    signer = _prepared(_Arc(logger=_SILENT, minkey=_FEWEST_BITS), work)
    _, headers = signer.sorted_arc_headers()
    for instance in range(newest, 0, -1):
        signer.of_message = instance == newest
        found = signer.verify_instance(headers, instance, _answers(work.keys))
        if signer.of_message and not found["ams-valid"]:
            return "headers were changed after the newest seal"
        if not found["as-valid"] or found["cv"] != (dkim.CV_Pass if instance > 1 else dkim.CV_None):
            return "one of its seals does not verify"
        if work.newest_only:
            break
    return ""


def key_problem(record: bytes | None, algorithm: str) -> str:
    """Why a key record is no good for a signature of this algorithm (a=; RFC 6376, section 3.6.1); "" when it is."""
    if record is None:
        return "its key is not in DNS"
    tags = read_tags(record) if len(record) <= _LONGEST_KEY else None
    if tags is None or tags.get(b"v", b"DKIM1") != b"DKIM1":
        return "its key record cannot be read"
    if not tags.get(b"p"):
        return "its key was revoked"
    return _restriction(tags, algorithm) or _weakness(record)


def _restriction(tags: Tags, algorithm: str) -> str:
    if b"y" in _list(tags, b"t"):
        return "its key is for testing (t=y)"
    if not {b"*", b"email"} & _list(tags, b"s", b"*"):
        return "its key is not for mail (s=)"
    if b"sha256" not in _list(tags, b"h", b"sha256"):
        return "its key is not for SHA-256 (h=)"
    if not algorithm.startswith(tags.get(b"k", b"rsa").decode("ascii", "replace") + "-"):
        return "its key is of another kind (k=)"
    return ""


def _list(tags: Tags, name: bytes, default: bytes = b"") -> set[bytes]:
    return {item.strip() for item in tags.get(name, default).split(b":")}


def _weakness(record: bytes) -> str:
    try:
        key, bits, kind, _ = dkim.evaluate_pk(b"", record)
    except Exception:  # noqa: BLE001 - dkimpy raises many things over a key that is none
        return "its key cannot be read"
    if kind != b"rsa":
        return ""
    if bits < _FEWEST_BITS:
        return f"its key is too weak ({bits} bits)"
    if bits > _MOST_BITS or key["publicExponent"] > _LARGEST_EXPONENT:
        return "its key takes too long to compute with"
    return ""


def _answers(keys: Keys) -> Any:
    """A look-up for dkimpy, which asks with the dot and in the spelling of the mail, and trips over some restrictions."""

    def look_up(name: bytes, timeout: float = 0) -> bytes | None:
        record = keys.get(domain_name(name.decode("utf-8", "replace")) or "") or b""
        tags = read_tags(record) if len(record) <= _LONGEST_KEY else None
        return b"k=" + tags.get(b"k", b"rsa") + b"; p=" + tags.get(b"p", b"") if tags else None

    return look_up


def _prepared(signer: Any, work: Work) -> Any:
    """Give dkimpy our reading of the header block; its own reads some lines otherwise than the rest of the world."""
    signer.headers = [list(pair) for pair in work.fields]
    signer.bodies = work.bodies
    return signer


class _ByDigest:
    """Compares the body's digest taken beforehand, and leaves the headers to dkimpy."""

    bodies: Mapping[str, bytes]

    def verify_sig_process(self, sig: dict[bytes, bytes], *rest: Any) -> Any:
        """dkimpy's step after the key is known; without bh= it looks at the headers only."""
        if b"bh" in sig and not self._body_fits(sig):
            return False
        headers_only = {name: value for name, value in sig.items() if name not in (b"bh", b"l")}
        return super().verify_sig_process(headers_only, *rest)  # type: ignore[misc]

    def _body_fits(self, sig: dict[bytes, bytes]) -> bool:
        return b"l" not in sig and self.bodies.get(body_form(sig)) == body_hash(sig)


class _Dkim(_ByDigest, dkim.DKIM):  # type: ignore[misc]
    pass


class _Arc(_ByDigest, dkim.ARC):  # type: ignore[misc]
    """`of_message`: whether the message signature of the set is looked at, which counts in the newest set alone."""

    of_message = True

    def verify_sig(self, sig: dict[bytes, bytes], *rest: Any) -> Any:
        """dkimpy's step for each signature: a message signature has bh=, a seal has not."""
        return super().verify_sig(sig, *rest) if self.of_message or b"bh" not in sig else False
