"""One deployment that listens in every way at once: what real clients knock at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from end_to_end.certificates import Certificates, Identity
from ports import free_ports

from apptrack_ingest.receive.users import make_hash

USER, PASSWORD = "relay", "correct horse: battery"


@dataclass(frozen=True)
class Doors:
    """`ports` by the way to come in; `server`, `fingerprinted`, `named` and `unlisted` are certificates of one authority,
    the second and third of which are listed in the rules of trust."""

    deployment: Any
    ports: Mapping[str, int]
    server: Identity
    fingerprinted: Identity
    named: Identity
    unlisted: Identity


def open_doors(deploy: Callable[..., Any], certificates: Certificates) -> Doors:
    """Starts it. The account acme believes users and certificates; other.example's believes loopback."""
    server = certificates.issue("localhost", "127.0.0.1")
    fingerprinted, named, unlisted = (certificates.issue(f"{name}.acme.example") for name in ("mx1", "mx2", "mx3"))
    ways: dict[str, dict[str, object]] = {
        "starttls": {},
        "required": {"tls": "required"},
        "implicit": {"tls": "implicit"},
        "users": {"auth_required": True},
        "certificates": {"client_ca": str(certificates.file)},
        "implicit-certificates": {"tls": "implicit", "client_ca": str(certificates.file)},
        "balancer": {"proxy_from": ["127.0.0.1/32"]},
        "implicit-balancer": {"tls": "implicit", "proxy_from": ["127.0.0.1/32"]},
        "other-balancer": {"proxy_from": ["198.51.100.0/24"]},
        "off": {"tls": "off"},
    }
    numbered = dict(zip(ways, free_ports(len(ways)), strict=True))
    deployment = deploy(
        port=numbered["starttls"],
        smtp=server.settings + 'max_size = "2MB"',
        listeners=[{"port": numbered[way], **settings} for way, settings in ways.items()],
        extra=f'[smtp.users]\n{USER} = "{make_hash(PASSWORD)}"\nguest = "{make_hash(PASSWORD)}"\n'
        "[trust]\nnetworks = []\n"
        '[accounts.other.trust]\nnetworks = ["127.0.0.0/8"]\n'
        f'[accounts.acme.trust]\nusers = ["{USER}"]\n'
        f'client_certificates = ["{fingerprinted.fingerprint}", "mx2.acme.example"]\n',
    )
    deployment.account("other", recipients=["other.example"])
    deployment.up(deployment.start())
    return Doors(deployment, numbered, server, fingerprinted, named, unlisted)
