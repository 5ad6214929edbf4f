"""What a mail claims about who signed it: its header block read strictly, its DKIM signatures and its ARC chain.

Nothing is verified here. Everything is linear in the header block, which may be anybody's, and one reading serves both
the verification and the question what a signature covers, so that no header can look different to the two.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from apptrack_ingest.trust.covering import Present, exposed_content, present_in, uncovered_ids
from apptrack_ingest.trust.names import domain_name, plain
from apptrack_ingest.trust.tags import Tags, read_tags

Fields = tuple[tuple[bytes, bytes], ...]

# Far above any honest mail, and low enough that dkimpy's time stays in milliseconds.
MAX_SIGNATURES = 10
MAX_ARC_SETS = 10
_MAX_BLOCK = 256 * 1024
_MAX_FIELDS = 1000
_MAX_SIGNATURE = 8 * 1024
_MAX_LINES = 10_000
# Names in h=: dkimpy goes through the whole header block for each.
_MAX_SIGNED_NAMES = 100
# dkimpy's regular expressions take time in the square of such a run.
_LONG_RUN = re.compile(rb"\s{200}")

_FIELD = re.compile(rb"([!-9;-~]+):")
_ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256")
_CANONICAL = (b"simple", b"relaxed")
_INSTANCE = re.compile(rb"\s*i\s*=\s*([1-9][0-9]?)\s*;", re.IGNORECASE)
_ARC_NAMES = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")


@dataclass(frozen=True, slots=True)
class Head:
    """The header block's fields as (name, value with its folds, ending in CRLF), where the body starts, or what is wrong."""

    fields: Fields = ()
    body_at: int = 0
    problem: str = ""

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of a lower-case name, topmost first."""
        return [value for key, value in self.fields if key.lower() == name]


@dataclass(frozen=True, slots=True)
class Claim:
    """One signature over headers and body (DKIM-Signature, or ARC-Message-Signature) as it presents itself.

    `problem` says why it cannot count, whatever the key; `uncovered` names the X-iTrackID headers it does not cover,
    `exposed` those headers a mail is read by of which it leaves more open than it may (see `covering`);
    `body` is the form ("simple", "relaxed") in which the body has the digest `body_digest`.
    """

    index: int
    domain: str
    selector: str
    algorithm: str = ""
    body: str = "simple"
    body_digest: bytes = b""
    uncovered: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    problem: str = ""

    def gaps(self, unsigned_ids: bool) -> tuple[str, ...]:
        """The headers that it should cover and does not; with `unsigned_ids` the X-iTrackID headers need not be."""
        return self.exposed if unsigned_ids else (*self.uncovered, *self.exposed)

    @property
    def key_name(self) -> str:
        """Where DNS keeps the key (RFC 6376, section 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    def __str__(self) -> str:
        return f"d={plain(self.domain)} s={plain(self.selector)}"


@dataclass(frozen=True, slots=True)
class Chain:
    """The ARC sets of a mail: the newest seal's domain, the newest message signature, the newest results' value, the
    names of the keys needed for the newest set and for the older seals, or what is wrong with its structure."""

    sealer: str
    message: Claim
    results: bytes = b""
    key_names: tuple[str, ...] = ()
    older_key_names: tuple[str, ...] = ()
    problem: str = ""


def read_head(raw: bytes) -> Head:
    """Read the header block (RFC 5322, section 2.2); LF alone ends a line too, since everybody else reads it so."""
    end, body_at = _block_end(raw)
    if end < 0:
        return Head(problem="it is too long")
    if raw.count(b"\n", 0, end) > _MAX_LINES:
        return Head(problem="it has too many lines")
    fields: list[tuple[bytes, list[bytes]]] = []
    lines = [line.removesuffix(b"\r") for line in raw[:end].split(b"\n")] if end else []
    for number, line in enumerate(lines):
        problem = _take_line(fields, line, first=number == 0)
        if problem:
            return Head(problem=problem)
    if len(fields) > _MAX_FIELDS:
        return Head(problem="it has too many fields")
    return Head(tuple((name, b"\r\n".join(parts) + b"\r\n") for name, parts in fields), body_at)


def _block_end(raw: bytes) -> tuple[int, int]:
    """Where the header block ends (before its last line's end) and the body starts; (-1, 0) when it is too long."""
    for blank in (b"\n", b"\r\n"):
        if raw.startswith(blank):
            return 0, len(blank)
    ends = [(at, at + len(blank)) for blank in (b"\n\n", b"\n\r\n") if (at := raw.find(blank, 0, _MAX_BLOCK)) >= 0]
    if ends:
        return min(ends)
    if len(raw) > _MAX_BLOCK:
        return -1, 0
    return len(raw.removesuffix(b"\n")), len(raw)


def _take_line(fields: list[tuple[bytes, list[bytes]]], line: bytes, *, first: bool) -> str:
    """Add one line to the fields; the answer says what is wrong with it, if anything."""
    if b"\r" in line:  # some readers take it for a line's end, and so see other headers than were signed
        return "it has a bare CR"
    if line[:1] in (b" ", b"\t"):
        if not fields:
            return "it starts with a fold"
        fields[-1][1].append(line)
        return ""
    field = _FIELD.match(line)
    if field:
        fields.append((field[1], [line[field.end() :]]))
        return ""
    return "" if first and line.startswith(b"From ") else "it has a line that is no header"


def dkim_claims(head: Head, now: float) -> list[Claim]:
    """The mail's DKIM signatures, topmost first, no more than `MAX_SIGNATURES`; `now` in epoch seconds."""
    values = head.values(b"dkim-signature")[:MAX_SIGNATURES]
    present = present_in(head.fields)
    return [_claim(present, index, value, now, dkim=True) for index, value in enumerate(values)]


def has_unread(head: Head, claims: Collection[Claim]) -> bool:
    """Whether there are signatures beside the `claims`, or among them some of which we cannot say whose they are.

    A verifier elsewhere may have read, and passed, one of those.
    """
    more = len(head.values(b"dkim-signature")) > len(claims)
    return more or not all(claim.domain and claim.selector for claim in claims)


def _claim(present: Mapping[bytes, Present], index: int, value: bytes, now: float, *, dkim: bool) -> Claim:
    tags = None if _is_excessive(value) else read_tags(value)
    if tags is None:
        return Claim(index, "", "", problem="it cannot be read")
    domain, selector = _name(tags, b"d"), _name(tags, b"s")
    if not domain or not selector:
        return Claim(index, domain or "", selector or "", problem="its d= or s= is no name")
    signed = Counter(_signed_names(tags))
    return Claim(
        index,
        domain,
        selector,
        algorithm=tags.get(b"a", b"").decode("ascii", "replace"),
        body=body_form(tags, b"simple" if dkim else b"relaxed/relaxed"),
        body_digest=body_hash(tags),
        uncovered=uncovered_ids(present, signed),
        exposed=exposed_content(present, signed),
        problem=_problem(tags, signed, now, dkim=dkim),
    )


def _is_excessive(value: bytes) -> bool:
    return len(value) > _MAX_SIGNATURE or _LONG_RUN.search(value) is not None


def _name(tags: Tags, tag: bytes) -> str | None:
    return domain_name(tags.get(tag, b"").decode("utf-8", "replace"))


def body_form(tags: Tags, default: bytes = b"simple") -> str:
    """The body's half of c= (RFC 6376, section 3.5): simple when only the header's is given."""
    _, _, body = tags.get(b"c", default).partition(b"/")
    return (body or b"simple").decode("ascii", "replace")


def body_hash(tags: Tags) -> bytes:
    """The body's digest as bh= gives it; empty when that is no base64."""
    try:
        return base64.b64decode(b"".join(tags.get(b"bh", b"").split()), validate=True)
    except binascii.Error:
        return b""


def _signed_names(tags: Tags) -> list[bytes]:
    return [name.strip().lower() for name in tags.get(b"h", b"").split(b":")]


def _problem(tags: Tags, signed: Counter[bytes], now: float, *, dkim: bool) -> str:
    """Why a signature cannot count whatever its key says (RFC 6376, section 6.1.1; RFC 8301, section 3.1)."""
    if dkim and tags.get(b"v") != b"1":
        return "its version is unknown"
    if tags.get(b"a") not in (_ALGORITHMS if dkim else _ALGORITHMS[:1]):
        return "its algorithm proves nothing or is unknown"
    if b"l" in tags:
        return "it covers only a part of the body (l=)"
    if b"x" in tags and not now <= _seconds(tags[b"x"]):
        return "it has expired"
    if signed.total() > _MAX_SIGNED_NAMES:
        return f"it names more than {_MAX_SIGNED_NAMES} headers"
    if b"from" not in signed:
        return "it does not cover From"
    if _is_unknown_form(tags):
        return "its c= is unknown"
    return ""


def _is_unknown_form(tags: Tags) -> bool:
    return any(form not in _CANONICAL for form in tags.get(b"c", b"simple").split(b"/", 1))


def _seconds(text: bytes) -> float:
    """An x= tag, at most twelve digits (RFC 6376, section 3.5); anything else is past."""
    return float(text) if text.isdigit() and len(text) <= 12 else 0.0


def arc_chain(head: Head, now: float) -> Chain | None:
    """The mail's ARC chain (RFC 8617, section 4), or None when it has no ARC header at all."""
    values = {name: head.values(name) for name in _ARC_NAMES}
    if not any(values.values()):
        return None
    sets = {name: _by_instance(found) for name, found in values.items()}
    newest = len(values[b"arc-seal"])
    if newest > MAX_ARC_SETS or any(sorted(found) != list(range(1, newest + 1)) for found in sets.values()):
        return Chain("", Claim(0, "", ""), problem="its sets are incomplete, doubled, too many or not readable")
    return _chain(head, sets, newest, now)


def _by_instance(values: Iterable[bytes]) -> dict[int, bytes]:
    """The headers of one name by their i=, which must come first; 0 for one not readable or doubled."""
    found: dict[int, bytes] = {}
    for value in values:
        instance = None if _is_excessive(value) else _INSTANCE.match(value)
        number = int(instance[1]) if instance else 0
        found[0 if number in found else number] = value
    return found


def _chain(head: Head, sets: dict[bytes, dict[int, bytes]], newest: int, now: float) -> Chain:
    seals = {number: read_tags(value) or {} for number, value in sets[b"arc-seal"].items()}
    message = _claim(present_in(head.fields), newest, sets[b"arc-message-signature"][newest], now, dkim=False)
    keys = {number: f"{_name(tags, b's')}._domainkey.{_name(tags, b'd')}" for number, tags in seals.items()}
    return Chain(
        sealer=_name(seals[newest], b"d") or "",
        message=message,
        results=sets[b"arc-authentication-results"][newest],
        key_names=(*dict.fromkeys((keys[newest], message.key_name)),),
        older_key_names=(*dict.fromkeys(key for number, key in keys.items() if number != newest),),
        problem=message.problem,
    )


def originals_cover(claims: Collection[Claim], domain: str, *, unread: bool, unsigned_ids: bool = False) -> bool:
    """Whether the domain signed the mail and every signature of its covers what it must (`Claim.gaps`).

    Every one: a forwarder's "dkim=pass" does not tell which of them it means, and anybody can add one that fails. So
    no where some are `unread` (see `has_unread`): one of those may be the domain's own, which the forwarder means, and
    does not cover it. With `unsigned_ids` the domain's signature may be gone altogether.
    """
    own = [claim for claim in claims if claim.domain == domain]
    return not unread and (bool(own) or unsigned_ids) and not any(claim.gaps(unsigned_ids) for claim in own)
