"""One spelling for domains and addresses from settings, from DNS and from strangers, so that they can be compared."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Letters, digits, hyphen, and the underscore of _domainkey; RFC 1035, section 2.3.4: 63 octets a label, 253 in all.
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_LONGEST = 253


def domain_name(text: str) -> str | None:
    """A domain in lower-case ASCII (RFC 5890 A-labels) without the final dot, or None when it is no domain name."""
    text = text.strip().removesuffix(".")
    if not 0 < len(text) <= _LONGEST:
        return None
    try:
        name = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    name = name.lower()
    if len(name) > _LONGEST or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return None
    return name


def domain_names(texts: "frozenset[str] | set[str]") -> frozenset[str]:
    """The domains among the texts, each in its one spelling."""
    return frozenset(name for text in texts if (name := domain_name(text)))


def matches(name: str, pattern: str) -> bool:
    """Whether a name (as of `domain_name`) is the listed one, or below it when listed as `.x` or `*.x`."""
    bare = pattern.strip().removeprefix("*")
    below = bare.startswith(".")
    listed = domain_name(bare.removeprefix("."))
    if listed is None:
        return False
    return name.endswith(f".{listed}") if below else name == listed


@lru_cache(1024)
def ip(text: str) -> Address | None:
    """An IP address without its zone index, IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2) as IPv4; else None."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def neighbourhood(text: str) -> str:
    """The network that an address's holder commands at least: IPv4 /24, IPv6 /64; "" for what is no address."""
    address = ip(text)
    if address is None:
        return ""
    return str(ip_network((address, 24 if address.version == 4 else 64), strict=False))


def plain(text: str, longest: int = 100) -> str:
    """Text of a stranger's for a line people read: printable, without what follows `longest` characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:longest])
    return shown if len(text) <= longest else f"{shown}…"
