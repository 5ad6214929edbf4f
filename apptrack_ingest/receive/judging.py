"""Whom each account believes, as the receive stage needs it: the rules by account, and what becomes of all other mail."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol

from apptrack_ingest.trust import Judgement, Mail, Network, Rules, digest_of

LOOPBACK = Rules(networks=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))
"""Who is believed where nothing else is said."""


class Judge(Protocol):
    """What decides about a mail's sender; `trust.Authenticator` in service."""

    async def judge(self, mail: Mail, rules: Mapping[str | None, Sequence[Rules]]) -> Judgement:
        """A verdict for each account of `rules` (None: mail that belongs to no account)."""


@dataclass(frozen=True)
class TrustPolicy:
    """`common` holds for every account, and alone for mail that belongs to none; `by_account` adds to it.

    `balancers` are believed by nobody, but their own connections (health checks) are no strangers'.
    `refusing` are the accounts (None: mail of no account) whose untrusted mail is refused rather than held;
    `untrusted_size` is the largest untrusted mail in bytes.
    """

    common: Rules = LOOPBACK
    by_account: Mapping[str, Rules] = field(default_factory=dict)
    balancers: tuple[Network, ...] = ()
    refusing: frozenset[str | None] = frozenset()
    untrusted_size: int = 10_000_000

    def rules_for(self, account: str | None) -> tuple[Rules, ...]:
        """The rules of which one must match for the account to believe a mail."""
        own = self.by_account.get(account) if account is not None else None
        return (self.common,) if own is None else (own, self.common)

    def rules_of(self, accounts: tuple[str | None, ...]) -> Mapping[str | None, tuple[Rules, ...]]:
        """The same for each of these accounts."""
        return self._rules_of(accounts)

    @cached_property
    def _rules_of(self) -> Callable[[tuple[str | None, ...]], Mapping[str | None, tuple[Rules, ...]]]:
        """Asked for each mail; it remembers the newest few."""
        return lru_cache(256)(lambda accounts: {account: self.rules_for(account) for account in accounts})

    def lists(self, peer: str) -> bool:
        """Whether a peer's address stands in a network of anybody's rules, or of a load balancer: it is no stranger, and
        may be busy."""
        return self._looked_up(peer)

    @cached_property
    def _looked_up(self) -> Callable[[str], bool]:
        """Asked several times for each mail of a peer; it remembers the newest thousand."""
        return lru_cache(1024)(self._look_up)

    def _look_up(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped.version == network.version and mapped in network for network in self._networks)

    def is_token(self, word: str) -> bool:
        """Whether a subaddress is an unguessable one of ours, in force or not: it is then kept out of sight."""
        return digest_of(word) in self._digests

    @cached_property
    def _all(self) -> tuple[Rules, ...]:
        return (self.common, *self.by_account.values())

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        listed = {network for rules in self._all for network in (*rules.networks, *rules.relays)}
        return (*listed, *self.balancers)

    @cached_property
    def _digests(self) -> frozenset[str]:
        return frozenset(token.digest for rules in self._all for token in rules.tokens)


@lru_cache(1024)
def is_loopback(peer: str) -> bool:
    """Whether an IP address is this machine's own (127/8, ::1, and 127/8 as IPv4 mapped into IPv6)."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
