"""The nouns of trust, without I/O: who an account believes, what a connection and its mail brought, and the verdict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from apptrack_ingest.trust.names import Address, ip

Network = IPv4Network | IPv6Network


class Rule(StrEnum):
    """Which kind of rule decided; `NONE`: no rule matched; `UNDECIDED`: a DNS answer or the time it needs did not come."""

    NETWORK = "network"
    NAME = "name"
    RELAY = "relay"
    USER = "user"
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 - the kind's name
    DKIM = "dkim"
    ARC = "arc"
    NONE = "none"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Token:
    """An unguessable subaddress (RFC 5233) known by its `digest` alone, good `until` epoch seconds (None: for ever).

    `digest` is what `tokens.digest_of` gives: SHA-256 of the lower-case token, in hex.
    """

    digest: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that the listener's CA has vouched for: SHA-256 of its DER in hex, its common and DNS names."""

    fingerprint: str
    names: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What one rule came to: `trusted`, or `temporary` (nobody can tell now), or no; `text` says it in plain words."""

    rule: Rule
    text: str
    trusted: bool = False
    temporary: bool = False


@dataclass(frozen=True)
class Rules:
    """One account's rules, or the rules for all accounts; any match suffices.

    `networks`, `names`: servers whose mail is their own (idibu's): X-iTrackID of theirs is believed.
    `relays`, `relay_names`: servers that pass on other people's mail; where they are is trust in nothing but their
    spam filter, unless `relay_strips_headers` says that they remove X-iTrackID from mail that comes from outside.
    Names are confirmed both ways (RFC 8601, section 2.7.3); `.example.com` and `*.example.com` mean every name below.
    `users`: names of SMTP AUTH; `client_certificates`: a fingerprint in hex, a name, or `*` for all the CA vouches for.
    `dkim`: domains (d=) whose signature makes a mail theirs; `arc`: domains of forwarders whose word on it is taken.
    `unsigned_ids`: believe X-iTrackID headers that such a signature does not cover.
    """

    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    relays: tuple[Network, ...] = ()
    relay_names: tuple[str, ...] = ()
    relay_strips_headers: bool = False
    users: frozenset[str] = frozenset()
    client_certificates: frozenset[str] = frozenset()
    tokens: tuple[Token, ...] = ()
    dkim: frozenset[str] = frozenset()
    arc: frozenset[str] = frozenset()
    unsigned_ids: bool = False

    def by_network(self, peer: str) -> Outcome | None:
        """What `networks` alone say of a peer's IP address: it is trusted, or (None) in none of them."""
        return self._by_network(peer) if self.networks else None

    @cached_property
    def _by_network(self) -> Callable[[str], Outcome | None]:
        """Nearly all mail ends here, and comes from few peers: the newest of them are remembered."""
        return lru_cache(256)(self._look_up)

    def _look_up(self, peer: str) -> Outcome | None:
        address = ip(peer)
        network = network_of(address, self.networks)
        if network is None:
            return None
        return Outcome(Rule.NETWORK, f"peer {address} is in the network {network}", trusted=True)


def network_of(address: Address | None, networks: Sequence[Network]) -> Network | None:
    """The first listed network that holds the address."""
    return next((network for network in networks if address is not None and address in network), None)


class Connection(NamedTuple):
    """Who is on the other end: its IP address, the name it gave itself (HELO), the user and certificate it proved."""

    address: str
    helo: str = ""
    user: str | None = None
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as judged: `sender` is the reverse path ("" for the null sender), `tokens` holds for each account the
    subaddress words of its recipients (`None`: recipients that belong to no one account), `raw` is the mail itself."""

    connection: Connection
    sender: str = field(repr=False)
    tokens: Mapping[str | None, frozenset[str]] = field(repr=False)
    raw: bytes = field(repr=False)


class Verdict(NamedTuple):
    """Whether an account may believe the mail's X-iTrackID headers, by which rule, and `note`: what matched or what was
    tried and failed, one line in plain words, with domains and addresses of servers but never a person's address."""

    trusted: bool
    rule: Rule
    note: str


class Judgement(NamedTuple):
    """A verdict for each account asked about, and `evidence`: one plain line for each thing found on the way."""

    verdicts: Mapping[str | None, Verdict]
    evidence: tuple[str, ...] = ()
