"""The settings of the intake: where it listens, whom it believes, and how much it takes."""

from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self

from pydantic import ByteSize, Field, SecretStr, model_validator

from apptrack_ingest.settings.kinds import (
    Certificates,
    Domains,
    Duration,
    HostName,
    NameServers,
    Networks,
    ServerNames,
    Share,
    Tokens,
    Words,
)
from apptrack_ingest.settings.section import Section

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

TlsMode = Literal["off", "starttls", "required", "implicit"]
Untrusted = Literal["hold", "refuse"]


class Rules(Section):
    """Who may deliver for an account: any one of these lets a mail's X-iTrackID be believed."""

    networks: Networks = Field((), description="servers whose mail is their own: X-iTrackID of theirs is believed")
    names: ServerNames = Field((), description="the same by DNS name, confirmed both ways; .example.com: all below")
    relays: Networks = Field((), description="servers that pass on other people's mail")
    relay_names: ServerNames = Field((), description="the same by DNS name, confirmed both ways")
    relay_strips_headers: bool = Field(False, description="the relays remove X-iTrackID from mail from outside")
    users: Words = Field((), description="names of smtp.users that authenticated themselves")
    client_certificates: Certificates = Field((), description="SHA-256 fingerprints, names, or * for any of the CA")
    tokens: Tokens = Field((), description="digests of unguessable recipients (`apptrack-ingest address new`)")
    dkim: Domains = Field((), description="domains (d=) whose valid DKIM signature makes a mail theirs")
    arc: Domains = Field((), description="forwarders whose ARC seal vouches for a signature or SPF of `dkim`'s domains")
    unsigned_ids: bool = Field(False, description="believe X-iTrackID headers that the signature does not cover")

    @model_validator(mode="after")
    def _arc_needs_dkim(self) -> Self:
        if self.arc and not self.dkim:
            raise ValueError(
                "arc needs dkim: a forwarder seals whatever it forwards; list the domains whose mail it must have seen"
            )
        if self.relay_strips_headers and not (self.relays or self.relay_names):
            raise ValueError("relay_strips_headers needs relays or relay_names: the servers that do so")
        return self


class Trust(Rules):
    """Who may deliver for every account; an account's own rules add to these."""

    networks: Networks = Field(
        LOOPBACK, description="servers whose mail is their own: X-iTrackID of theirs is believed"
    )


class Listener(Section):
    """One address to listen on."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(2525, ge=0, le=65535, description="the port; 0 takes a free one")
    socket: str | None = Field(None, description="instead: a socket that systemd opened, by its FileDescriptorName")
    tls: TlsMode = Field("starttls", description="off, starttls (offered), required (before any mail), implicit")
    client_ca: Path | None = Field(None, description="PEM file of those who vouch for clients' certificates")
    auth_required: bool = Field(False, description="no mail without SMTP AUTH")
    proxy_from: Networks = Field((), description="load balancers that speak the PROXY protocol; others get 421")


class Smtp(Section):
    """The listeners that idibu's mail reaches."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(2525, ge=0, le=65535, description="the port to listen on; 0 takes a free one")
    listeners: tuple[Listener, ...] = Field(
        (), description="several addresses, each its own way; instead of host, port"
    )
    hostname: HostName | None = Field(
        None, description="our name in the greeting and in Received; the machine's by default"
    )
    max_size: ByteSize = Field(ByteSize(30_000_000), gt=0, description="the largest mail, announced as SIZE")
    max_recipients: int = Field(100, ge=1, le=10_000, description="recipients of one mail")
    idle_timeout: Duration = Field(300.0, description="how long a peer may be silent (RFC 5321, 4.5.3.2: five minutes)")
    data_timeout: Duration = Field(180.0, description="how long a peer may be silent inside DATA (RFC 5321, 4.5.3.2)")
    commit_timeout: Duration = Field(25.0, description="past this a mail is answered 451, never a late 250")
    drain_timeout: Duration = Field(25.0, description="how long open transactions may take to finish at the end")
    tls: TlsMode = Field("starttls", description="for host and port: off, starttls, required, implicit")
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate chain, read anew when it changes"
    )
    tls_key: Path | None = Field(None, description="PEM file of its key")
    users: dict[str, SecretStr] = Field({}, repr=False, description='who may AUTH: name = "hash"')
    no_applicant_id: Untrusted = Field("hold", description="a mail without X-iTrackID: hold it, or refuse it by 554")
    bare_line_ends: Literal["accept", "refuse"] = Field("accept", description="bare CR or LF in a mail: or 554")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set both tls_certificate and tls_key, or neither")
        return self

    @property
    def all_listeners(self) -> tuple[Listener, ...]:
        """Every address to listen on."""
        return self.listeners or (Listener(host=self.host, port=self.port, tls=self.tls),)


class Limits(Section):
    """How much the intake takes, from one network and in all; what bites is told by apptrack_smtp_limited_total."""

    connections: int = Field(1000, ge=1, le=50_000, description="open at a time, in all")
    strangers_share: Share = Field(0.8, description="the part of them that peers not listed in trust may hold together")
    connections_per_network: int = Field(50, ge=1, description="open at a time from one network")
    new_connections_per_minute: int = Field(120, ge=1, description="from one network")
    messages_per_minute: int = Field(300, ge=1, description="from one network")
    network_bits_v4: int = Field(24, ge=8, le=32, description="what counts as one network of IPv4")
    network_bits_v6: int = Field(64, ge=16, le=128, description="what counts as one network of IPv6")
    commands: int = Field(1000, ge=10, description="commands in a session without an accepted mail")
    session_time: Duration = Field(3600.0, ge=60, description="a whole session")
    header_block: ByteSize = Field(ByteSize(131_072), ge=1024, le=131_072, description="the header block of a mail")
    received_headers: int = Field(50, ge=5, le=1000, description="Received headers; more is a loop")
    bytes_in_flight: ByteSize = Field(
        ByteSize(32_000_000), ge=1_000_000, description="mails being received, in each intake process"
    )
    network_share: Share = Field(0.2, description="the part of them that one network not listed in trust may hold")
    bytes_wait: Duration = Field(
        90.0,
        le=110,
        description="how long a mail waits for its part of them; then 452 (RFC 5321: DATA waits 2 minutes)",
    )
    free_space: ByteSize = Field(ByteSize(100_000_000), description="kept free on the spool's disk; 0: no floor")
    free_inodes: int = Field(1000, ge=0, description="kept free on the spool's disk; 0: no floor")
    backlog: int = Field(200_000, ge=1, description="applications that wait for their outcome")


class UntrustedMail(Section):
    """Mail that no rule of trust matches: what becomes of it, and its own, tighter, limits."""

    answer: Untrusted = Field("hold", description="hold: 250, and a person decides; refuse: 550 5.7.1")
    max_size: ByteSize = Field(ByteSize(10_000_000), gt=0, description="the largest such mail")
    per_minute: int = Field(30, ge=1, description="such mails from one network")
    messages: int = Field(10_000, ge=1, description="kept at a time; more is answered 452")
    size: ByteSize = Field(ByteSize(1_000_000_000), ge=1_000_000, description="kept at a time, in bytes")
    retention: Duration = Field(14 * 86400.0, description="held longer, it is discarded and erased")


class Dns(Section):
    """Where the answers come from that trust needs (DKIM keys, names of peers, SPF)."""

    nameservers: NameServers = Field(
        (), description="instead of the system's (/etc/resolv.conf); address or address:port"
    )
    timeout: Duration = Field(5.0, le=30, description="one look-up")
    spf: bool = Field(True, description="note the SPF result of peers that no listed network or user vouches for")
