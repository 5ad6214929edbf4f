"""From settings to the intake's parts: whom it takes mail for, whom it believes, what it can bear, and where it listens."""

import errno
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

from apptrack_ingest import logs
from apptrack_ingest.errors import CannotListen, ConfigError, Problem
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.entry import Entry
from apptrack_ingest.receive.judging import TrustPolicy
from apptrack_ingest.receive.listener import listening_sockets
from apptrack_ingest.receive.pressure import Floors, Room, room_of
from apptrack_ingest.receive.rates import Caps
from apptrack_ingest.receive.tls import Tls
from apptrack_ingest.receive.users import Users
from apptrack_ingest.service.activated import Activated, by_listener, numbered
from apptrack_ingest.settings import Listener, Settings, token_parts
from apptrack_ingest.settings import Rules as RuleSettings
from apptrack_ingest.trust import Authenticator, DnsResolver, Rules, Token, Verifier

log = logs.get("service")

WRONG_LOGINS = Caps().wrong_logins_per_minute
"""A minute, from one network; no setting."""

DESCRIPTORS_BESIDE = 200
"""File descriptors that an intake needs beside those of its connections."""


def hostname_of(found: Settings) -> str:
    """Our name in the greeting; never looked up in DNS."""
    return found.smtp.hostname or socket.gethostname() or "localhost"


def directory_of(found: Settings) -> policy.Directory:
    """Whom we take mail for."""
    return policy.Directory(
        accounts={
            name: policy.Destination(frozenset(account.recipients), account.client_id)
            for name, account in found.known_accounts.items()
        },
        shared=frozenset(found.recipients),
        any_recipient=found.any_recipient,
    )


def limits_of(found: Settings) -> policy.Limits:
    """What one session and one mail may take."""
    return policy.Limits(
        message_size=int(found.smtp.max_size),
        header_block=int(found.limits.header_block),
        recipients=found.smtp.max_recipients,
        received_headers=found.limits.received_headers,
        idle_timeout=found.smtp.idle_timeout,
        data_timeout=found.smtp.data_timeout,
        put_timeout=found.smtp.commit_timeout,
        commands=found.limits.commands,
        session_time=found.limits.session_time,
        bytes_wait=found.limits.bytes_wait,
        refuse_without_id=found.smtp.no_applicant_id == "refuse",
        refuse_bare_line_ends=found.smtp.bare_line_ends == "refuse",
    )


def caps_of(found: Settings, of: int = 1) -> Caps:
    """How many connections and mails there may be, in all and from one network, in one of `of` intake processes: each has
    its part of every number, so that all together keep to it."""
    limits = found.limits
    return Caps(
        connections=max(1, limits.connections // of),
        connections_per_network=max(1, limits.connections_per_network // of),
        new_connections_per_minute=max(1, limits.new_connections_per_minute // of),
        messages_per_minute=max(1, limits.messages_per_minute // of),
        untrusted_per_minute=max(1, found.untrusted.per_minute // of),
        wrong_logins_per_minute=max(1, WRONG_LOGINS // of),
        strangers_share=limits.strangers_share,
        ipv4_width=limits.network_bits_v4,
        ipv6_width=limits.network_bits_v6,
    )


def floors_of(found: Settings) -> Floors:
    """What must stay free, and how much may wait, before mail is turned away for a while."""
    return Floors(
        free_bytes=int(found.limits.free_space),
        free_inodes=found.limits.free_inodes,
        backlog=found.limits.backlog,
        untrusted_messages=found.untrusted.messages,
        untrusted_bytes=int(found.untrusted.size),
    )


def room_on_disk(found: Settings) -> Callable[[], Room] | None:
    """Asks for the free room on the spool's disk; None where it is on no disk of ours: a database's disk is its own
    server's matter, which refuses a write in time."""
    return (lambda: room_of(found.data_dir)) if found.spool_url is None else None


def budget_of(found: Settings) -> tuple[int, float, float]:
    """How many bytes of mails there may be on their way in, in each intake process, and the parts that strangers and one
    network of them may hold, as `Budget` takes them. Not divided among several: it bounds what a process takes of memory,
    and with half of it two intakes are slower than one where mails are large."""
    limits = found.limits
    return int(limits.bytes_in_flight), limits.strangers_share, limits.network_share


# --- trust -----------------------------------------------------------------------------------------------------------


def trust_of(found: Settings) -> TrustPolicy:
    """Whom each account believes."""
    accounts = found.known_accounts
    refusing = {name for name, account in accounts.items() if (account.untrusted or found.untrusted.answer) == "refuse"}
    of_nobody = {None} if found.untrusted.answer == "refuse" else set()
    return TrustPolicy(
        common=rules_of(found.trust),
        by_account={name: rules_of(account.trust) for name, account in accounts.items()},
        balancers=tuple(network for one in found.smtp.all_listeners for network in one.proxy_from),
        refusing=frozenset(refusing | of_nobody),
        untrusted_size=int(found.untrusted.max_size),
    )


def rules_of(written: RuleSettings) -> Rules:
    """The rules as they are applied."""
    return Rules(
        networks=written.networks,
        names=written.names,
        relays=written.relays,
        relay_names=written.relay_names,
        relay_strips_headers=written.relay_strips_headers,
        users=frozenset(written.users),
        client_certificates=frozenset(written.client_certificates),
        tokens=tuple(Token(*token_parts(token)) for token in written.tokens),
        dkim=frozenset(written.dkim),
        arc=frozenset(written.arc),
        unsigned_ids=written.unsigned_ids,
    )


def judge_of(found: Settings, *, spf: bool = True) -> Authenticator:
    """What decides about senders; to be closed by `close`. Without `spf` no SPF result is looked up."""
    resolver = DnsResolver(found.dns.nameservers, timeout=found.dns.timeout)
    return Authenticator(resolver, Verifier(), clock=time.time, spf=spf and found.dns.spf)


# --- the listeners ----------------------------------------------------------------------------------------------------


def users_of(found: Settings) -> Users:
    """Who may AUTH. ValueError where a hash is none."""
    return Users({name: hashed.get_secret_value() for name, hashed in found.smtp.users.items()})


def tls_of(found: Settings, client_ca: Path | None = None) -> Tls | None:
    """Our certificate for one listener; None: no TLS. ValueError, in words, where it cannot be used."""
    certificate, key = found.smtp.tls_certificate, found.smtp.tls_key
    if certificate is None or key is None:
        return None

    def tell(problem: str) -> None:
        log.error("renewed TLS certificate cannot be used", problem=problem)

    return Tls(certificate, key, client_ca=client_ca, clock=time.time, on_problem=tell)


def entry_of(found: Settings, listener: Listener) -> Entry:
    """How one listening address takes its connections."""
    return Entry(
        tls=listener.tls,
        auth_required=listener.auth_required,
        proxy_from=listener.proxy_from,
        identity=tls_of(found, listener.client_ca) if listener.client_ca else None,
    )


def room_for_connections(found: Settings) -> None:
    """Lets the process open as many descriptors as there may be connections; where it may not, that is logged."""
    wanted = found.limits.connections + DESCRIPTORS_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("fewer connections than limits.connections are possible", descriptors=allowed, wanted=wanted)


def shared_sockets(found: Settings, given: Activated) -> Activated:
    """The sockets of every listener, those from systemd (`given`) and, where there are none, opened here: for several
    intakes to listen on. Raises ConfigError for an address that cannot be had."""
    return numbered([sockets or _opened(found, one) for one, sockets in by_listener(found, given)])


def _opened(found: Settings, one: Listener) -> list[socket.socket]:
    try:
        return listening_sockets(one.host, one.port)
    except OSError as error:
        raise cannot_listen(found, one, error) from None


def cannot_listen(found: Settings, one: Listener, error: OSError) -> ConfigError:
    """What to say where an address cannot be listened on."""
    key = "smtp.listeners" if found.smtp.listeners else "smtp.host, smtp.port"
    where = f"{one.host}:{one.port}"
    advice = f"cannot be listened on: {error.strerror or error}; is another server there, or is the port below 1024?"
    kind = CannotListen if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) else ConfigError
    return kind([Problem(key, where, advice)])


def problems_of(found: Settings) -> list[Problem]:
    """What is wrong with files and hashes that the intake needs."""
    problems = []
    asked: dict[str, Path | None] = {"smtp.tls_certificate": None}
    for number, listener in enumerate(found.smtp.listeners):
        if listener.client_ca:
            asked[f"smtp.listeners.{number}.client_ca"] = listener.client_ca
    for key, client_ca in asked.items():
        try:
            tls_of(found, client_ca)
        except ValueError as error:
            problems.append(
                Problem(key, repr(str(client_ca or found.smtp.tls_certificate)), f"cannot be used: {error}")
            )
            break
    try:
        users_of(found)
    except ValueError as error:
        problems.append(Problem("smtp.users", "", f"{error}; `apptrack-ingest user new NAME` makes one"))
    return problems
