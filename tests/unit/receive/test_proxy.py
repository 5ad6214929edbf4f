"""The PROXY protocol: its header, read as it comes, and what becomes of connections with and without one."""

import asyncio
import struct
from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apptrack_ingest.receive import admission
from apptrack_ingest.receive.judging import TrustPolicy
from apptrack_ingest.receive.listener import Entry
from apptrack_ingest.receive.policy import Directory
from apptrack_ingest.receive.proxy import LONGEST_V2, SIGNATURE, MalformedHeader, ProxyHeader
from apptrack_ingest.receive.rates import Caps, Doorkeeper, Limit
from apptrack_ingest.trust import Authenticator, DnsResolver, Rules, Verifier

from .conftest import DIRECTORY, PATIENCE, Clock

BALANCER = (ip_network("127.0.0.1/32"),)
REFUSED = "421 4.7.0 Only by way of the load balancer, with a PROXY header"

FOUR = bytes([192, 0, 2, 7]) + bytes([198, 51, 100, 1]) + struct.pack("!HH", 40000, 25)
SIX = bytes.fromhex("20010db8000000000000000000000007") + bytes(16) + struct.pack("!HH", 40000, 25)
EXTENSION = b"\x03\x00\x04abcd"


def v2(rest: bytes = FOUR, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(rest)) + rest


NAMED = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", "192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", None),
    (v2(), "192.0.2.7"),
    (v2(FOUR + EXTENSION), "192.0.2.7"),
    (v2(SIX, 0x21), "2001:db8::7"),
    (v2(SIX + EXTENSION * 100, 0x21), "2001:db8::7"),
    (v2(b"", 0x00, 0x20), None),
    (v2(FOUR + EXTENSION, 0x11, 0x20), None),
    (v2(EXTENSION, 0x00), None),
]

MALFORMED = [
    b"EHLO client.example\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(8),
    b"PROXYTCP4 192.0.2.7 198.51.100.1 40000 25\r\n",
    b"PROXY \r\n" + bytes(8),
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25 6\r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 40000 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 65536\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4_0 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 \xb2 25\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 40000 25\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 40000 25\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 40000 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::1 40000 25\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\n" + bytes(8),
    b"PROXY UNKNOWN " + b"x" * 107,
    v2(command=0x11),
    v2(command=0x22),
    v2(family=0x12),
    v2(family=0x31),
    v2(family=0xFF),
    v2(FOUR[:-1]),
    v2(SIX[:-1], 0x21),
    v2(bytes(LONGEST_V2), 0x11),
    v2(bytes(65535), 0x00, 0x20),
]


def read(*chunks: bytes) -> tuple[ProxyHeader, bytes]:
    """Read as from a socket, never more than is wanted; the header and what was left unread."""
    header = ProxyHeader()
    for number, chunk in enumerate(chunks):
        while chunk and header.wanted:
            piece, chunk = chunk[: header.wanted], chunk[header.wanted :]
            header.feed(piece)
        if not header.wanted:
            return header, chunk + b"".join(chunks[number + 1 :])
    return header, b""


@pytest.mark.parametrize(("wire", "client"), NAMED)
def test_a_header_split_at_every_offset_is_read_to_its_end_and_no_further(wire, client):
    for place in range(len(wire) + 1):
        header, rest = read(wire[:place], wire[place:] + b"\x16\x03\x01")
        assert (header.client, header.wanted, rest) == (client, 0, b"\x16\x03\x01")


@pytest.mark.parametrize("wire", MALFORMED)
def test_what_is_no_header_is_refused(wire):
    with pytest.raises(MalformedHeader):
        read(wire)


@pytest.mark.parametrize("wire", [wire for wire, _ in NAMED])
def test_a_header_cut_short_is_waited_for(wire):
    for place in range(len(wire)):
        header, _ = read(wire[:place])
        assert header.wanted > 0
        assert header.client is None


@given(st.one_of(st.binary(), st.binary().map(b"PROXY ".__add__), st.binary().map(SIGNATURE.__add__)))
@example(SIGNATURE + b"\x21\x11\x00\x00")
def test_any_bytes_are_a_header_or_none_and_memory_is_bounded(wire):
    header = ProxyHeader()
    while wire and header.wanted:
        assert header.wanted <= LONGEST_V2
        try:
            header.feed(wire[: header.wanted])
        except MalformedHeader:
            return
        wire = wire[len(header._data) :] if not header.wanted else wire[1:]
    assert len(header._data) <= LONGEST_V2


# --- connections --------------------------------------------------------------------------------------------------


@pytest.fixture
def behind():
    return Entry(proxy_from=BALANCER)


@pytest.mark.parametrize(
    ("header", "peer", "literal"),
    [
        (NAMED[0][0], "192.0.2.7", b"([192.0.2.7])"),
        (NAMED[1][0], "2001:db8::7", b"([IPv6:2001:db8::7])"),
        (v2(), "192.0.2.7", b"([192.0.2.7])"),
        (v2(SIX + EXTENSION, 0x21), "2001:db8::7", b"([IPv6:2001:db8::7])"),
        (v2(bytes(10) + b"\xff\xff" + FOUR[:4] + SIX[16:], 0x21), "192.0.2.7", b"([192.0.2.7])"),
    ],
)
async def test_the_peer_is_whom_the_balancer_names(make_intake, behind, mail, header, peer, literal):
    intake = await make_intake(entry=behind)
    client = await intake.connect(header)
    assert await client.deliver(mail) == "250 2.6.0 Queued as 1"
    assert intake.judge.connection.address == peer
    assert intake.spool.message.envelope.peer == peer
    assert literal in intake.spool.message.raw.partition(b"\r\n")[0]


NAMELESS = [wire for wire, client in NAMED if client is None]


@pytest.mark.parametrize("header", NAMELESS)
async def test_whom_the_balancer_does_not_name_is_not_believed_as_the_balancer(make_intake, behind, mail, header):
    """Though its own address is listed, may be busy, and is this machine's."""
    trust, verifier = TrustPolicy(common=Rules(networks=BALANCER)), Verifier()
    judge = Authenticator(DnsResolver(), verifier, clock=lambda: 0.0, spf=False)
    keeper = Doorkeeper(Caps(connections_per_network=1), trust.lists, Clock())
    intake = await make_intake(
        Directory(DIRECTORY.accounts, any_recipient="north"), judge=judge, entry=behind, trust=trust, doorkeeper=keeper
    )
    client = await intake.connect(header)
    assert await client.deliver(mail) == "250 2.6.0 Queued as 1"
    ((message, (arrival,)),) = intake.spool.kept
    assert (arrival.trusted, arrival.applicant_id) == (False, None)
    assert message.envelope.peer == "127.0.0.1" and b"([127.0.0.1])" in message.raw.partition(b"\r\n")[0]
    await client.say("MAIL FROM:<>")
    assert await client.say("RCPT TO:<who@ever.example>") == "550 5.1.1 No such recipient here"
    second = await intake.knock(header)
    assert await second.reply() == "421 4.7.0 Too many connections, try again later"
    await judge.close()


async def test_everything_at_once_behind_the_header(make_intake, behind, mail):
    intake = await make_intake(entry=behind)
    start = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\n"
    client = await intake.connect(v2() + start + mail + b".\r\nQUIT\r\n")
    assert [(await client.reply())[:3] for _ in range(6)] == ["250", "250", "250", "354", "250", "221"]
    assert intake.spool.body == mail


@pytest.mark.parametrize("wire", [NAMED[0][0], v2(FOUR + EXTENSION)])
async def test_a_header_that_comes_in_pieces(make_intake, behind, wire):
    intake = await make_intake(entry=behind)
    for place in range(1, len(wire)):
        client = await intake.knock(wire[:place])
        await client.writer.drain()
        await asyncio.sleep(0)
        client.send(wire[place:] + b"QUIT\r\n")
        assert (await client.reply()).startswith("220 ")
        assert await client.reply() == "221 2.0.0 Bye"


async def test_the_peer_stays_the_same_after_starttls(make_intake, behind, identity, client_tls, mail):
    intake = await make_intake(entry=behind, tls=identity.tls())
    client = await intake.connect(v2())
    await client.say("EHLO x")
    assert (await client.say("STARTTLS")).startswith("220")
    await client.writer.start_tls(client_tls, server_hostname="127.0.0.1")
    assert (await client.deliver(mail)).startswith("250")
    assert intake.judge.connection.address == "192.0.2.7"


@pytest.mark.parametrize("together", [True, False])
async def test_before_implicit_tls(make_intake, identity, client_tls, mail, together):
    intake = await make_intake(entry=Entry(tls="implicit", proxy_from=BALANCER), tls=identity.tls())
    client = await intake.knock(v2(FOUR + EXTENSION))
    if not together:
        await client.writer.drain()
        await asyncio.sleep(0.01)
    await client.writer.start_tls(client_tls, server_hostname="127.0.0.1")
    assert (await client.reply()).startswith("220 ")
    assert (await client.deliver(mail)).startswith("250")
    assert intake.judge.connection.address == "192.0.2.7"
    assert b" with ESMTPS id " in intake.spool.message.raw


@pytest.mark.parametrize("wire", [MALFORMED[0], MALFORMED[1], v2(command=0x22), b"PROXY TCP4 x\r\n" + bytes(100_000)])
async def test_garbage_is_answered_and_closed(make_intake, behind, wire):
    intake = await make_intake(entry=behind)
    client = await intake.knock(wire)
    assert await client.reply() == REFUSED
    assert await client.ended()
    client.writer.close()
    await intake.sessions_over()
    assert intake.replies == ["421"]


@pytest.mark.parametrize("first", [b"", b"PROXY TCP4 192.0.2.7", SIGNATURE])
async def test_a_header_that_does_not_come_in_time(make_intake, first):
    intake = await make_intake(entry=Entry(proxy_from=BALANCER, proxy_timeout=0.05))
    client = await intake.knock(first)
    assert await client.reply() == REFUSED
    assert await client.ended()


async def test_who_goes_in_the_middle_of_the_header_was_not_greeted(make_intake, behind):
    intake = await make_intake(entry=behind)
    client = await intake.knock(SIGNATURE)
    await client.writer.drain()
    client.reset()
    await intake.sessions_over()
    assert (intake.ungreeted, intake.replies) == (1, [])


async def test_who_was_greeted_or_refused_is_not_counted_as_ungreeted(make_intake, behind):
    intake = await make_intake(entry=behind)
    for first, reply in ((v2(), "220 "), (MALFORMED[0], "421 ")):
        client = await intake.knock(first)
        assert (await client.reply()).startswith(reply)
        client.reset()
    waiting = await intake.knock()
    await intake.listener.drain(10)
    assert (await waiting.reply()).startswith("421 ")
    await intake.sessions_over()
    assert intake.ungreeted == 0


async def test_a_header_that_never_ends(make_intake, behind):
    intake = await make_intake(entry=behind)
    client = await intake.knock(SIGNATURE[:-1])
    client.writer.write_eof()
    assert await client.reply() == REFUSED
    assert await client.ended()
    await intake.sessions_over()


async def test_a_refused_peer_that_stays_is_cut_off(make_intake, behind):
    intake = await make_intake(entry=behind)
    client = await intake.knock(MALFORMED[0])
    assert await client.reply() == REFUSED
    await intake.sessions_over()
    assert await client.ended()


async def test_a_peer_that_is_not_listed_is_refused_whatever_it_says(make_intake, behind):
    intake = await make_intake(entry=behind)
    client = await intake.knock(local_addr=("127.0.0.2", 0))
    assert await client.reply() == REFUSED
    await intake.knock(v2(), local_addr=("127.0.0.2", 0))
    await intake.sessions_over(2)
    assert intake.replies == ["421"] * 2


async def test_peers_that_are_not_listed_are_counted_and_not_waited_for(make_intake, behind, monkeypatch):
    monkeypatch.setattr(admission, "LINGER", 10 * PATIENCE)
    keeper = Doorkeeper(Caps(new_connections_per_minute=2), lambda _: False, Clock())
    intake = await make_intake(entry=behind, doorkeeper=keeper)
    replies = []
    for _ in range(4):
        replies.append(await (await intake.knock(local_addr=("127.0.0.2", 0))).reply())
    assert replies == [REFUSED] * 2 + ["421 4.7.0 Too many connections, try again later"] * 2
    await intake.sessions_over(4)
    assert intake.limited == [Limit.PROXY] * 2 + [Limit.CONNECTION_RATE] * 2
    assert keeper.connections == 0 and not keeper._open_by_network


async def test_before_implicit_tls_a_refusal_is_silent(make_intake, identity):
    intake = await make_intake(entry=Entry(tls="implicit", proxy_from=BALANCER), tls=identity.tls())
    client = await intake.knock(MALFORMED[0])
    assert await client.ended()
    assert intake.replies == []


async def test_refusals_are_logged_without_a_flood(make_intake, behind, caplog):
    intake = await make_intake(entry=behind)
    for _ in range(5):
        client = await intake.knock(MALFORMED[0])
        assert await client.reply() == REFUSED
    assert len([record for record in caplog.records if "refused" in record.getMessage()]) == 1


async def test_drain_ends_one_whose_header_is_awaited(make_intake, behind):
    intake = await make_intake(entry=behind)
    client = await intake.knock(SIGNATURE)
    await intake.sessions_open()
    assert await intake.listener.drain(10) == 0
    assert await client.reply() == "421 4.3.2 Shutting down, try again later"
    assert await client.ended()


async def test_an_address_without_balancers_takes_no_header(client):
    assert await client.say(NAMED[0][0].rstrip()) == "500 5.5.1 Command not recognised"
