"""The rules that need no answer from anybody: the peer's network, who logged in, its certificate, the recipient's token."""

import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from apptrack_ingest.trust.names import Address, ip, plain
from apptrack_ingest.trust.rules import Certificate, Connection, Network, Rule, Rules, Token
from apptrack_ingest.trust.tokens import digest_of

RELAY_ALONE = "which alone does not count: it needs DKIM, ARC or a token recipient"

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule came to: `trusted`, or `temporary` (nobody can tell now), or no; `text` says it in plain words."""

    rule: Rule
    text: str
    trusted: bool = False
    temporary: bool = False


def cheap_outcomes(rules: Rules, connection: Connection, words: Iterable[str], now: float) -> Iterator[Outcome]:
    """What the rules say of the connection and of the recipients' subaddress words, at `now` in epoch seconds."""
    address = ip(connection.address)
    yield from _by_network(rules, address)
    yield from _by_relay(rules, address)
    yield from _by_user(rules, connection.user)
    yield from _by_certificate(rules, connection.certificate)
    yield from _by_token(rules.tokens, words, now)


def network_of(address: Address | None, networks: Sequence[Network]) -> Network | None:
    """The first listed network that holds the address."""
    return next((network for network in networks if address is not None and address in network), None)


def _by_network(rules: Rules, address: Address | None) -> Iterator[Outcome]:
    network = network_of(address, rules.networks)
    if network is not None:
        yield _in_network(address, network)


@lru_cache(1024)
def _in_network(address: Address | None, network: Network) -> Outcome:
    """Nearly all mail ends here, and to write an address and a network takes longer than to compare them."""
    return Outcome(Rule.NETWORK, f"peer {address} is in the network {network}", trusted=True)


def _by_relay(rules: Rules, address: Address | None) -> Iterator[Outcome]:
    network = network_of(address, rules.relays)
    if network is None:
        return
    text = f"peer {address} is in the relay network {network}"
    if rules.relay_strips_headers:
        yield Outcome(Rule.RELAY, f"{text}, which strips the ids of outside mail", trusted=True)
    else:
        yield Outcome(Rule.RELAY, f"{text}, {RELAY_ALONE}")


def _by_user(rules: Rules, user: str | None) -> Iterator[Outcome]:
    if user is None or not rules.users:
        return
    if user in rules.users:
        yield Outcome(Rule.USER, f"logged in as the listed user {_masked(user)}", trusted=True)
    else:
        yield Outcome(Rule.USER, "the user that logged in is not listed")


def _masked(user: str) -> str:
    """A user's name; of one that is an address, the domain only."""
    return f"…@{plain(user.rpartition('@')[2])}" if "@" in user else plain(user)


def _by_certificate(rules: Rules, certificate: Certificate | None) -> Iterator[Outcome]:
    if certificate is None or not rules.client_certificates:
        return
    shown = plain(certificate.names[0]) if certificate.names else f"{certificate.fingerprint[:16]}…"
    if _is_listed(certificate, rules.client_certificates):
        yield Outcome(Rule.CERTIFICATE, f"client certificate of {shown}", trusted=True)
    else:
        yield Outcome(Rule.CERTIFICATE, f"the client certificate of {shown} is not listed")


def _is_listed(certificate: Certificate, listed: frozenset[str]) -> bool:
    """By fingerprint or by one of the names, upper and lower case alike; `*` lists every certificate.

    An entry that looks like a fingerprint is one: a name of a certificate's own choice must not pass for it.
    """
    entries = {entry.lower() for entry in listed}
    fingerprints = {entry for entry in entries if _FINGERPRINT.fullmatch(entry)}
    names = {name.lower() for name in certificate.names} - {"*"}
    return "*" in entries or certificate.fingerprint.lower() in fingerprints or bool(names & (entries - fingerprints))


def _by_token(tokens: Sequence[Token], words: Iterable[str], now: float) -> Iterator[Outcome]:
    if not tokens:
        return
    found = _matching(tokens, words)
    if any(token.until is None or now < token.until for token in found):
        yield Outcome(Rule.TOKEN, "the recipient carries a valid token", trusted=True)
    elif found:
        yield Outcome(Rule.TOKEN, "the recipient's token has expired")


def _matching(tokens: Sequence[Token], words: Iterable[str]) -> list[Token]:
    """Every token is compared with every word in constant time, so that answering tells nobody how near a guess was."""
    digests = [digest_of(word).encode() for word in words]
    compared = [
        (token, [hmac.compare_digest(digest, token.digest.lower().encode()) for digest in digests]) for token in tokens
    ]
    return [token for token, hits in compared if any(hits)]
