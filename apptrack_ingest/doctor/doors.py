"""The doors mail and pages come in by: addresses that can be listened on, and the certificate shown there."""

import errno
import ssl
import time
from collections.abc import Iterator

from apptrack_ingest.doctor.finding import Check, Finding, Level, apart
from apptrack_ingest.receive.listener import listening_sockets
from apptrack_ingest.service import lock
from apptrack_ingest.service.intake import hostname_of, tls_of
from apptrack_ingest.settings import Settings, is_loopback

SOON = 21 * 86400.0
"""Seconds before its end at which a certificate should have been renewed (ACME clients do so a month before)."""


def checks(found: Settings) -> Iterator[Check]:
    """Every address, and the certificate."""
    for listener in found.smtp.all_listeners:
        yield _address(found, "intake", listener.host, listener.port)
    yield _address(found, "", found.web.host, found.web.port)
    yield Check("TLS certificate", lambda: apart(lambda: certificate(found)))


def _address(found: Settings, role: str, host: str, port: int) -> Check:
    name = f"address {host or '*'}:{port}"
    return Check(name, lambda: apart(lambda: listens(found, name, role, host, port)))


def listens(found: Settings, name: str, role: str, host: str, port: int) -> Finding:
    """Whether the address can be had, or is held by our own running service (`role`; empty: any)."""
    if port == 0:
        return Finding(name, Level.OK, "the system chooses a free port")
    try:
        for bound in listening_sockets(host, port):
            bound.close()
    except OSError as error:
        return _taken(found, name, role, port, error)
    return Finding(name, Level.OK, "can be listened on")


def _taken(found: Settings, name: str, role: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        return _in_use(found, name, role, port)
    if error.errno == errno.EACCES:
        advice = "a port below 1024 needs CAP_NET_BIND_SERVICE, or systemd's socket (docs/deployment.md)"
        return Finding(name, Level.FAIL, "we may not listen there", advice)
    advice = "set it to an address of this machine"
    return Finding(name, Level.FAIL, f"cannot be listened on: {error.strerror or error}", advice)


def _in_use(found: Settings, name: str, role: str, port: int) -> Finding:
    try:
        if any(lock.is_held(found.data_dir, each) for each in ([role] if role else ["intake", "worker"])):
            return Finding(name, Level.OK, "in use, and apptrack-ingest runs on this data directory")
    except PermissionError:
        advice = "run this as the user that `serve` runs as"
        return Finding(name, Level.WARN, f"in use; whether by us cannot be seen in {found.data_dir}", advice)
    advice = f"see who listens there (ss -ltnp 'sport = :{port}'); a socket of systemd's is in use until `serve` runs"
    return Finding(name, Level.FAIL, "in use, and no apptrack-ingest runs on this data directory", advice)


# --- the certificate -------------------------------------------------------------------------------------------------


def certificate(found: Settings) -> list[Finding]:
    """Whether the files fit together, and what a sender that looks would say of them."""
    name = "TLS certificate"
    try:
        ours = tls_of(found)
    except ValueError as error:
        advice = "set smtp.tls_certificate and smtp.tls_key to PEM files of one chain and its key, readable for us"
        return [Finding(name, Level.FAIL, str(error), advice)]
    if ours is None and all(is_loopback(one.host) for one in found.smtp.all_listeners):
        return [Finding(name, Level.OK, "there is none; mail comes from this machine only")]
    if ours is None:
        advice = "set smtp.tls_certificate and smtp.tls_key: without them applications cross the Internet in the clear"
        return [Finding(name, Level.WARN, "there is none, so no TLS is offered", advice)]
    left = ours.expires_at - time.time()
    if left <= 0:
        return [Finding(name, Level.FAIL, f"expired {_days(-left)} ago", "renew it; it is taken up without a restart")]
    if left < SOON:
        advice = "renew it, or see why its renewal does not work; it is taken up without a restart"
        return [Finding(name, Level.WARN, f"expires in {_days(left)}", advice)]
    hostname = hostname_of(found)
    wrong = list(_objections(ours.context, hostname))
    return wrong or [Finding(name, Level.OK, f"for {hostname}, whole chain, expires in {_days(left)}")]


def _objections(context: ssl.SSLContext, hostname: str) -> Iterator[Finding]:
    """What a client says that checks: first the chain, then the name."""
    name = "TLS certificate"
    if chain := objection(context, hostname, by_name=False):
        advice = (
            "put the authority's intermediate certificates behind ours in the file (a `fullchain.pem`); a certificate of an"
            " own authority is only believed by senders that know it"
        )
        yield Finding(name, Level.WARN, f"senders that check it would refuse it: {chain}", advice)
        return
    if wrong := objection(context, hostname, by_name=True):
        advice = "set smtp.hostname to a name in the certificate, or have one made for the name that the MX has"
        yield Finding(name, Level.WARN, f"it is not for our name: {wrong}", advice)


def objection(context: ssl.SSLContext, hostname: str, *, by_name: bool) -> str | None:
    """Why a client with this machine's authorities would not believe the certificate; None: it would. Told by a handshake in
    memory, so that it is OpenSSL that judges."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = by_name
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server, server_hostname=hostname)
    for _ in range(10):
        try:
            client.do_handshake()
            return None
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return str(error.verify_message)
        except ssl.SSLError as error:
            return error.reason or "the handshake failed"
        try:
            server.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return error.reason or "the handshake failed"
    return "the handshake came to no end"


def _days(seconds: float) -> str:
    days = int(seconds // 86400)
    return f"{days} day{'' if days == 1 else 's'}" if days else f"{max(1, int(seconds // 3600))} hours"
