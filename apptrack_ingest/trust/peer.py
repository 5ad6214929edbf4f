"""The peer's name, confirmed both ways: the address points to a name, and that name to the address."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from apptrack_ingest.trust.dns import Resolver, TemporaryDns
from apptrack_ingest.trust.names import Address, domain_name, ip, matches, plain

# RFC 7208, section 4.6.4: of the names an address points to, no more than ten are looked at.
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Peer:
    """The listed names the peer's address points to, each with whether it points back (None: DNS did not say).

    `unknown`: not even the address's own names could be had.
    """

    names: Mapping[str, bool | None] = field(default_factory=dict)
    unknown: bool = False
    evidence: tuple[str, ...] = ()

    def named(self, patterns: Collection[str]) -> str | None:
        """The confirmed name that is listed in `patterns`."""
        return next((name for name, sure in self.names.items() if sure and _listed(name, patterns)), None)

    def perhaps_named(self, patterns: Collection[str]) -> bool:
        """Whether the peer might be one of `patterns`, had DNS answered."""
        if self.unknown:
            return bool(patterns)
        return any(sure is None and _listed(name, patterns) for name, sure in self.names.items())


async def confirm(resolver: Resolver, address: Address | None, patterns: Collection[str]) -> Peer:
    """Look up the peer's names as far as they are listed in `patterns` (RFC 8601, section 2.7.3, "iprev")."""
    if address is None:
        return Peer()
    try:
        pointers = await resolver.pointers(str(address))
    except TemporaryDns:
        return Peer(unknown=True, evidence=(f"peer {address}: DNS did not answer for its name",))
    names = list(dict.fromkeys(name for text in pointers if (name := domain_name(text))))[:_MOST_NAMES]
    listed = [name for name in names if _listed(name, patterns)]
    answers = await asyncio.gather(*(_points_to(resolver, name, address) for name in listed))
    found = dict(zip(listed, answers, strict=True))
    return Peer(found, evidence=_evidence(address, names, found))


async def _points_to(resolver: Resolver, name: str, address: Address) -> bool | None:
    try:
        return address in [ip(text) for text in await resolver.addresses(name, address.version)]
    except TemporaryDns:
        return None


def _listed(name: str, patterns: Collection[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)


_WORDS = {True: "confirmed", False: "not confirmed: the name does not point back", None: "DNS did not answer"}


def _evidence(address: Address, names: list[str], found: Mapping[str, bool | None]) -> tuple[str, ...]:
    if not names:
        return (f"peer {address} has no name",)
    if not found:
        return (f"peer {address} calls itself {plain(names[0])}, which is not listed",)
    return tuple(f"peer {address} is {plain(name)} ({_WORDS[sure]})" for name, sure in found.items())
