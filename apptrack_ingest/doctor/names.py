"""DNS: whether mail for our recipients' domains is led here, as far as that can be seen from here."""

import socket
from collections.abc import Iterator

from apptrack_ingest.doctor.finding import Check, Finding, Level
from apptrack_ingest.service.intake import hostname_of
from apptrack_ingest.settings import Settings
from apptrack_ingest.trust import DnsResolver
from apptrack_ingest.trust.dns import Resolver

ADVICE = "see that DNS can be asked from here (dns.nameservers, /etc/resolv.conf): trust needs it, too"
BEHIND = "right where a relay or a balancer stands before us; otherwise set the MX to our name"


def checks(found: Settings, account: str | None = None) -> Iterator[Check]:
    """Each domain of the recipients (of one account, or of all and the shared ones)."""
    for domain in domains(found, account):
        resolver = DnsResolver(found.dns.nameservers, timeout=found.dns.timeout)
        yield _check(domain, hostname_of(found), resolver)


def _check(domain: str, hostname: str, resolver: Resolver) -> Check:
    return Check(f"MX of {domain}", lambda: leads_here(domain, hostname, resolver), ADVICE, network=True)


def domains(found: Settings, account: str | None) -> list[str]:
    """The domains mail is taken for."""
    accounts = found.known_accounts
    chosen = [accounts[account]] if account is not None else list(accounts.values())
    recipients = [recipient for each in chosen for recipient in each.recipients]
    every = {one.rpartition("@")[2].lower() for one in (*recipients, *found.recipients)}
    return sorted(domain for domain in every if not domain.startswith("["))  # an address literal needs no DNS


async def leads_here(domain: str, hostname: str, resolver: Resolver) -> Finding:
    """Whether the domain's mail exchanger is this machine (RFC 5321, 5.1: without an MX, the domain's own address)."""
    name = f"MX of {domain}"
    exchangers = [host for _, host in sorted(await resolver.mx(domain))]
    if exchangers in ([""], ["."]):
        advice = "take the null MX (RFC 7505) out of DNS: it says that the domain takes no mail"
        return Finding(name, Level.FAIL, "the domain takes no mail", advice)
    hosts = exchangers or [domain]
    addresses = {host: await resolver.addresses(host) for host in hosts}
    if not any(addresses.values()):
        what = (
            f"{', '.join(exchangers)}, which has no address" if exchangers else "there is none, and no address either"
        )
        return Finding(name, Level.FAIL, what, f"make the MX in DNS: {domain}. IN MX 10 {hostname}.")
    here = [host for host in hosts if host == hostname.lower() or any(map(is_ours, addresses[host]))]
    if here:
        return Finding(name, Level.OK, f"{', '.join(hosts)} leads here")
    return Finding(name, Level.WARN, f"{', '.join(hosts)} is neither {hostname} nor an address of this machine", BEHIND)


def is_ours(address: str) -> bool:
    """Whether it is an address of this machine: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
