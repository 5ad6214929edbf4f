"""Says how one listening address takes its connections: TLS, AUTH, and load balancers in front of it."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from apptrack_ingest.receive.tls import Tls


@dataclass(frozen=True, slots=True)
class Entry:
    """One listening address.

    `tls`: "off"; "starttls", offered where there is a certificate; "required", nothing but a greeting before STARTTLS
    (530 5.7.0); "implicit", TLS from the first byte (RFC 8314). `identity` is this address's certificate and client CA,
    instead of the listener's. `auth_required`: no mail without AUTH (530 5.7.0). `proxy_from`: where it names networks,
    every connection must come from them and begin with a PROXY header within `proxy_timeout` seconds (421 4.7.0).
    """

    tls: Literal["off", "starttls", "required", "implicit"] = "starttls"
    auth_required: bool = False
    proxy_from: tuple[IPv4Network | IPv6Network, ...] = ()
    proxy_timeout: float = 5.0
    identity: Tls | None = None
