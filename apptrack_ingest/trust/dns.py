"""The door to DNS (dnspython): asynchronous, bounded in time and memory, and clear about "no" against "no answer"."""

import asyncio
from collections.abc import Sequence
from functools import cached_property
from ipaddress import ip_address
from typing import Any, Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver
import dns.reversename

from apptrack_ingest.errors import IngestError

# Answers kept until their own time to live runs out; a hostile one can be 64 KB, so 16 MB at most.
_CACHED_ANSWERS = 256
# Seconds for one try at one server; a lost datagram is asked again within the resolver's whole time.
_ONE_TRY = 2.0
# Questions under way at a time, each with a socket of its own.
_MOST_QUESTIONS = 64
_TYPES = {4: "A", 6: "AAAA"}


class TemporaryDns(IngestError):
    """No answer to be had now (time ran out, SERVFAIL, refused, unreachable): not "no", ask again later."""


class Resolver(Protocol):
    """What trust asks of DNS. An empty list means that there is no such record, for as long as DNS says so.

    All raise `TemporaryDns`, and nothing else, whatever the name: names come out of strangers' mail.
    """

    async def txt(self, name: str) -> list[bytes]:
        """The TXT records, each with its strings joined (RFC 7208, section 3.3)."""
        ...

    async def addresses(self, name: str, version: int | None = None) -> list[str]:
        """The IP addresses of a name: of version 4, 6, or both."""
        ...

    async def pointers(self, ip: str) -> list[str]:
        """The names an address points to, in lower case without the final dot."""
        ...

    async def mx(self, name: str) -> list[tuple[int, str]]:
        """The mail exchangers as (preference, name without the final dot)."""
        ...


class DnsResolver:
    """Asks recursive name servers: those given (`192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`), or the system's.

    `timeout` is in seconds for a question with all its tries, from when it is asked: no more than 64 are under way at a
    time, the others wait. Raises `ValueError` for a server that is no IP address.
    """

    def __init__(self, nameservers: Sequence[str] = (), timeout: float = 5.0) -> None:
        self._servers = [_server(text) for text in nameservers]
        self._timeout = timeout
        self._places = asyncio.Semaphore(_MOST_QUESTIONS)
        self._under_way = 0

    @property
    def busy(self) -> bool:
        """Whether half of the places are taken: what is only nice to know should not be asked now."""
        return self._under_way >= _MOST_QUESTIONS // 2

    async def txt(self, name: str) -> list[bytes]:
        """See `Resolver.txt`."""
        return [b"".join(record.strings) for record in await self._ask(name, "TXT")]

    async def addresses(self, name: str, version: int | None = None) -> list[str]:
        """See `Resolver.addresses`."""
        kinds = list(_TYPES.values()) if version is None else [_TYPES[version]]
        answers = await asyncio.gather(*(self._ask(name, kind) for kind in kinds))
        return [record.address for records in answers for record in records]

    async def pointers(self, ip: str) -> list[str]:
        """See `Resolver.pointers`."""
        try:
            name = dns.reversename.from_address(ip)
        except (dns.exception.DNSException, ValueError):
            return []
        return [_text(record.target) for record in await self._resolve(name, "PTR")]

    async def mx(self, name: str) -> list[tuple[int, str]]:
        """See `Resolver.mx`."""
        return [(record.preference, _text(record.exchange)) for record in await self._ask(name, "MX")]

    async def _ask(self, name: str, kind: str) -> list[Any]:
        try:
            asked = dns.name.from_text(name)
        except (dns.exception.DNSException, ValueError):  # UnicodeError is a ValueError
            return []
        return await self._resolve(asked, kind)

    async def _resolve(self, name: dns.name.Name, kind: str) -> list[Any]:
        async with self._places:
            self._under_way += 1
            try:
                return await self._answer(name, kind)
            finally:
                self._under_way -= 1

    async def _answer(self, name: dns.name.Name, kind: str) -> list[Any]:
        try:
            answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN):
            return []
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise TemporaryDns(f"no {kind} answer ({type(error).__name__})") from None
        return list(answer.rrset or ())

    @cached_property
    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Made at the first question: who needs no DNS needs no /etc/resolv.conf (its lack is a `DNSException`)."""
        resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = list(self._servers)
        resolver.lifetime = self._timeout
        resolver.timeout = min(_ONE_TRY, self._timeout)
        resolver.cache = dns.resolver.LRUCache(_CACHED_ANSWERS)
        return resolver


def is_busy(resolver: Resolver) -> bool:
    """See `DnsResolver.busy`; other resolvers never are."""
    return isinstance(resolver, DnsResolver) and resolver.busy


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    host, port = text, "53"
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        host = host if closed else text
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return dns.nameserver.Do53Nameserver(str(ip_address(host)), int(port))


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)).lower()
