"""A small real DNS server on loopback (UDP and TCP) that answers from a dict, can fail in each way, and remembers."""

import asyncio
from collections.abc import Mapping
from enum import Enum
from types import TracebackType

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.reversename
import dns.rrset
from ports import free_port


class Trouble(Enum):
    """What a name can be made to answer instead of records."""

    SERVFAIL = "servfail"
    SILENT = "silent"
    REFUSED = "refused"
    NONSENSE = "nonsense"


# By name: records by type ({"A": ["193.0.2.7"], "TXT": [b"v=spf1 -all"]}), or trouble with all its types.
Zone = dict[str, Mapping[str, list[str] | list[bytes] | Trouble] | Trouble]


def pointer(address: str) -> str:
    """The name under which an address's PTR records are kept in a zone."""
    return dns.reversename.from_address(address).to_text(omit_final_dot=True)


class NameServer:
    """`async with NameServer(zone) as server:` answers at `server.address`; names not in the zone get NXDOMAIN.

    The zone may be changed while it runs. `queries` holds every (name, type) asked, `over_tcp` those that came by TCP.
    """

    def __init__(self, zone: Zone | None = None) -> None:
        self.zone: Zone = zone or {}
        self.queries: list[tuple[str, str]] = []
        self.over_tcp: list[tuple[str, str]] = []
        self.address = ""

    async def __aenter__(self) -> "NameServer":
        loop = asyncio.get_running_loop()
        port = free_port()  # for TCP and UDP alike
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", port)
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), local_addr=("127.0.0.1", port))
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        """The answer to a question as bytes; None stays silent."""
        question = dns.message.from_wire(wire)
        name = question.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.question[0].rdtype)
        self.queries.append((name, kind))
        if tcp:
            self.over_tcp.append((name, kind))
        response = dns.message.make_response(question, recursion_available=True)
        records = self._records(name, kind)
        if isinstance(records, Trouble):
            return _in_trouble(records, response)
        if records is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            response.answer.append(_rrset(question, kind, records))
        return _wire(response, tcp=tcp)

    def _records(self, name: str, kind: str) -> list[str] | list[bytes] | Trouble | None:
        entry = self.zone.get(name)
        return entry.get(kind, []) if isinstance(entry, Mapping) else entry

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            length = int.from_bytes(await reader.readexactly(2))
            answer = self.answer(await reader.readexactly(length), tcp=True)
            if answer is not None:
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, tcp=False)
        if answer is not None:
            self._transport.sendto(answer, addr)


def _in_trouble(trouble: Trouble, response: dns.message.Message) -> bytes | None:
    if trouble is Trouble.SILENT:
        return None
    if trouble is Trouble.NONSENSE:
        return response.to_wire()[:13] + b"\xff" * 40
    response.set_rcode(dns.rcode.SERVFAIL if trouble is Trouble.SERVFAIL else dns.rcode.REFUSED)
    return response.to_wire()


def _rrset(question: dns.message.Message, kind: str, records: list[str] | list[bytes]) -> dns.rrset.RRset:
    datas = [_data(kind, record) for record in records]
    return dns.rrset.from_rdata_list(question.question[0].name, 300, datas)


def _data(kind: str, record: str | bytes) -> dns.rdata.Rdata:
    if isinstance(record, bytes):  # a TXT record, in strings of 255 octets
        strings = [record[start : start + 255] for start in range(0, len(record), 255)] or [b""]
        return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), record)


def _wire(response: dns.message.Message, *, tcp: bool) -> bytes:
    try:
        return response.to_wire(max_size=65535 if tcp else 1232)
    except dns.exception.TooBig:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire()
