"""Who may deliver: what the X-iTrackID of a mail is worth, by where it came from and by who signed it."""

from apptrack_ingest.trust.authenticator import Authenticator
from apptrack_ingest.trust.checking import Verifier
from apptrack_ingest.trust.dns import DnsResolver, Resolver, TemporaryDns
from apptrack_ingest.trust.rules import (
    Certificate,
    Connection,
    Judgement,
    Mail,
    Network,
    Rule,
    Rules,
    Token,
    Verdict,
)
from apptrack_ingest.trust.tokens import digest_of, new_token

__all__ = [
    "Authenticator",
    "Certificate",
    "Connection",
    "DnsResolver",
    "Judgement",
    "Mail",
    "Network",
    "Resolver",
    "Rule",
    "Rules",
    "TemporaryDns",
    "Token",
    "Verdict",
    "Verifier",
    "digest_of",
    "new_token",
]
