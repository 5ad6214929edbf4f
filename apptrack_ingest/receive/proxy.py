"""Reads the PROXY protocol's header, versions 1 and 2, without doing any input or output itself.

The header ends where the peer's own bytes (a TLS handshake, perhaps) begin, so the reader tells how many bytes may be
read next and never asks for more than the header holds. After haproxy's proxy-protocol.txt, sections 2.1 and 2.2.
aiosmtpd's own reader is not used: it knows no bound on a header's size and cannot stand before TLS.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""How version 2 begins."""
LONGEST_V1: Final = 107
LONGEST_V2: Final = 4096
"""The specification allows 64 KB; what load balancers send, a client certificate's names included, is far below this."""

_PREAMBLE = len(SIGNATURE)
_FIXED = _PREAMBLE + 4
_FAMILIES: Final = {"TCP4": IPv4Address, "TCP6": IPv6Address}


class MalformedHeader(ValueError):
    """What came is no PROXY header; the connection is to be closed (section 2: the header must never be guessed)."""


class ProxyHeader:
    """One connection's header. `client` is whom it names; None where it names nobody: the balancer's own connection
    (LOCAL, its health check) or one it knows nothing of (UNKNOWN, UNSPEC), whose peer is who it is."""

    def __init__(self) -> None:
        self.client: str | None = None
        self.wanted = _PREAMBLE
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes, at most `wanted` (which is 0 once the header is whole); MalformedHeader ends it."""
        self._data += data
        self.wanted -= len(data)
        if self.wanted == 0:
            self._go_on()

    def _go_on(self) -> None:
        """Everything asked for is there: read it, or ask for more."""
        if self._data.startswith(SIGNATURE):
            self._go_on_v2()
        elif self._data.startswith(b"PROXY "):
            self._go_on_v1()
        else:
            raise MalformedHeader("no PROXY header")

    # --- version 1: a line of text --------------------------------------------------------------------------------

    def _go_on_v1(self) -> None:
        if self._data.endswith(b"\r\n"):
            self.client = _client_of_line(bytes(self._data))
            return
        if b"\n" in self._data:
            raise MalformedHeader("no CRLF at the end of the line")
        self.wanted = 1 if self._data.endswith(b"\r") else 2
        if len(self._data) + self.wanted > LONGEST_V1:
            raise MalformedHeader("line too long")

    # --- version 2: binary ----------------------------------------------------------------------------------------

    def _go_on_v2(self) -> None:
        size = _FIXED + int.from_bytes(self._data[14:16], "big")
        if len(self._data) < _FIXED:
            self.wanted = _FIXED - len(self._data)
        elif size > LONGEST_V2:
            raise MalformedHeader("header too long")
        elif len(self._data) < size:
            self.wanted = size - len(self._data)
        else:
            self.client = _client_of_block(bytes(self._data))


def _client_of_line(line: bytes) -> str | None:
    """Whom a line names. Whatever stands behind UNKNOWN is to be ignored (section 2.1)."""
    words = line[:-2].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    family = _FAMILIES.get(words[1])
    if family is None or len(words) != 6 or not all(_is_port(word) for word in words[4:]):
        raise MalformedHeader("malformed line")
    try:
        source, _ = family(words[2]), family(words[3])
    except ValueError:
        raise MalformedHeader("malformed address") from None
    if "%" in words[2]:
        raise MalformedHeader("malformed address")
    return str(source)


def _is_port(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= 65535


def _client_of_block(block: bytes) -> str | None:
    """Whom a version 2 header names; the extensions (TLV) behind the addresses are not read."""
    version, command = divmod(block[12], 16)
    if version != 2 or command > 1:
        raise MalformedHeader("unknown version or command")
    if command == 0:
        return None
    match block[13], len(block) - _FIXED:
        case 0x00, _:
            return None
        case 0x11, size if size >= 12:
            return str(IPv4Address(block[16:20]))
        case 0x21, size if size >= 36:
            return str(IPv6Address(block[16:32]))
    raise MalformedHeader("not a TCP connection over IPv4 or IPv6, or cut short")
