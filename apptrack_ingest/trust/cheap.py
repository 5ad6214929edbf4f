"""The rules that need no answer from anybody: the peer's network, who logged in, its certificate, the recipient's token."""

import hmac
import re
from collections.abc import Iterable, Sequence

from apptrack_ingest.trust.names import Address, ip, plain
from apptrack_ingest.trust.rules import Certificate, Connection, Outcome, Rule, Rules, Token, network_of
from apptrack_ingest.trust.tokens import digest_of

RELAY_ALONE = "which alone does not count: it needs DKIM, ARC or a token recipient"

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def cheap_outcomes(rules: Rules, connection: Connection, words: Iterable[str], now: float) -> Sequence[Outcome]:
    """What the rules say of the connection and of the recipients' subaddress words, at `now` in epoch seconds; where the
    peer's network is trusted, that alone."""
    by_network = rules.by_network(connection.address)
    if by_network is not None:
        return (by_network,)
    found = (
        _by_relay(rules, ip(connection.address)),
        _by_user(rules, connection.user),
        _by_certificate(rules, connection.certificate),
        _by_token(rules.tokens, words, now),
    )
    return [outcome for outcome in found if outcome is not None]


def _by_relay(rules: Rules, address: Address | None) -> Outcome | None:
    network = network_of(address, rules.relays)
    if network is None:
        return None
    text = f"peer {address} is in the relay network {network}"
    if rules.relay_strips_headers:
        return Outcome(Rule.RELAY, f"{text}, which strips the ids of outside mail", trusted=True)
    return Outcome(Rule.RELAY, f"{text}, {RELAY_ALONE}")


def _by_user(rules: Rules, user: str | None) -> Outcome | None:
    if user is None or not rules.users:
        return None
    if user in rules.users:
        return Outcome(Rule.USER, f"logged in as the listed user {_masked(user)}", trusted=True)
    return Outcome(Rule.USER, "the user that logged in is not listed")


def _masked(user: str) -> str:
    """A user's name; of one that is an address, the domain only."""
    return f"…@{plain(user.rpartition('@')[2])}" if "@" in user else plain(user)


def _by_certificate(rules: Rules, certificate: Certificate | None) -> Outcome | None:
    if certificate is None or not rules.client_certificates:
        return None
    shown = plain(certificate.names[0]) if certificate.names else f"{certificate.fingerprint[:16]}…"
    if _is_listed(certificate, rules.client_certificates):
        return Outcome(Rule.CERTIFICATE, f"client certificate of {shown}", trusted=True)
    return Outcome(Rule.CERTIFICATE, f"the client certificate of {shown} is not listed")


def _is_listed(certificate: Certificate, listed: frozenset[str]) -> bool:
    """By fingerprint or by one of the names, upper and lower case alike; `*` lists every certificate.

    An entry that looks like a fingerprint is one: a name of a certificate's own choice must not pass for it.
    """
    entries = {entry.lower() for entry in listed}
    fingerprints = {entry for entry in entries if _FINGERPRINT.fullmatch(entry)}
    names = {name.lower() for name in certificate.names} - {"*"}
    return "*" in entries or certificate.fingerprint.lower() in fingerprints or bool(names & (entries - fingerprints))


def _by_token(tokens: Sequence[Token], words: Iterable[str], now: float) -> Outcome | None:
    if not tokens:
        return None
    found = _matching(tokens, words)
    if any(token.until is None or now < token.until for token in found):
        return Outcome(Rule.TOKEN, "the recipient carries a valid token", trusted=True)
    return Outcome(Rule.TOKEN, "the recipient's token has expired") if found else None


def _matching(tokens: Sequence[Token], words: Iterable[str]) -> list[Token]:
    """Every token is compared with every word in constant time, so that answering tells nobody how near a guess was."""
    digests = [digest_of(word).encode() for word in words]
    compared = [
        (token, [hmac.compare_digest(digest, token.digest.lower().encode()) for digest in digests]) for token in tokens
    ]
    return [token for token, hits in compared if any(hits)]
