"""Decides whether a peer's X-iTrackID may be believed."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the mail's metadata may be believed, and `note`: why or why not, in words a person reads."""

    trusted: bool
    note: str


def is_loopback(peer: str) -> bool:
    """Whether an IP address is this machine's own (127/8, ::1, and 127/8 as IPv4 mapped into IPv6)."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def judge(peer: str) -> Verdict:
    """The verdict on a mail from this peer address: loopback is trusted, all else is not."""
    if is_loopback(peer):
        return Verdict(True, "peer on loopback")
    return Verdict(False, "peer not on loopback")
