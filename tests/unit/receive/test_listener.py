"""Listening sockets, and how an intake stops."""

import asyncio
import contextlib
import socket
import struct
from ipaddress import ip_network

import pytest

from apptrack_ingest.receive.listener import Entry, listening_sockets

from .conftest import PATIENCE


async def test_nagles_algorithm_is_off(intake):
    (sock,) = listening_sockets("127.0.0.1", 0)
    with sock:
        assert sock.proto == socket.IPPROTO_TCP
    await intake.connect()
    accepted = intake.session.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_several_addresses_at_once(intake):
    await intake.listener.start("127.0.0.2", 0)
    assert [host for host, _ in intake.listener.addresses] == ["127.0.0.1", "127.0.0.2"]
    _, writer = await asyncio.open_connection(*intake.listener.addresses[1])
    writer.close()


async def test_a_peer_of_ipv4_is_one_on_a_socket_for_both_kinds_too(intake, mail):
    """As systemd makes them."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::ffff:127.0.0.1", 0))
    await intake.listener.serve(sock)
    client = await intake.connect(port=sock.getsockname()[1])
    assert (await client.deliver(mail)).startswith("250 ")
    assert intake.spool.message.envelope.peer == intake.judge.connection.address == "127.0.0.1"


async def test_an_address_in_use_is_an_error_at_once(intake):
    with pytest.raises(OSError, match="in use"):
        listening_sockets("127.0.0.1", intake.port)[0].listen()


async def test_who_is_gone_before_we_looked_is_not_refused(make_intake, caplog):
    """As HAProxy's health check goes: it resets what it has connected."""
    intake = await make_intake(entry=Entry(proxy_from=(ip_network("127.0.0.1/32"),)))
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", intake.port)) as check:
            check.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await intake.knock(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")  # the next in the queue
    async with asyncio.timeout(PATIENCE):
        while intake.closed < 5:
            await asyncio.sleep(0.01)
    assert intake.listener.open_sessions == 1
    assert intake.ungreeted == 5
    assert not caplog.records


async def test_drain_tells_idle_sessions_and_refuses_new_ones(intake):
    client, port = await intake.connect(), intake.port
    assert intake.listener.open_sessions == 1
    draining = asyncio.create_task(intake.listener.drain(10))
    assert await client.reply() == "421 4.3.2 Shutting down, try again later"
    assert await client.ended()
    assert await draining == 0
    assert intake.listener.open_sessions == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_connection_made_in_the_moment_of_the_drain_is_refused(intake):
    intake.listener.draining = True
    client = await intake.knock()
    assert await client.reply() == "421 4.3.2 Shutting down, try again later"
    assert await client.ended()


async def test_while_it_drains_who_comes_is_told_so_and_prolongs_nothing(intake, mail):
    client, port = await intake.connect(), intake.port
    await client.envelope()
    client.send(mail[:20])
    draining = asyncio.create_task(intake.listener.drain(10))
    for _ in range(3):
        late = await intake.knock(port=port)
        assert await late.reply() == "421 4.3.2 Shutting down, try again later"
        assert await late.ended()
    assert not draining.done()
    client.send(mail[20:] + b".\r\n")
    assert await client.reply() == "250 2.6.0 Queued as 1"
    assert await client.reply() == "421 4.3.2 Shutting down, try again later"
    client.writer.close()
    async with asyncio.timeout(10):
        while not draining.done():
            with contextlib.suppress(ConnectionError):
                await intake.knock(port=port)
    assert await draining == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_who_comes_too_late_is_not_waited_for(intake):
    """It is still there when all who were there before are gone; it is closed then, by no count of those cut off."""

    class Late:
        drained = False

        def drain(self) -> None:
            self.drained = True

    late, listener = Late(), intake.listener
    listener.draining = True
    listener.joined(late)
    assert await asyncio.wait_for(listener.drain(60), 10) == 0
    assert late.drained
    listener.left(late)


async def test_one_that_has_to_bring_a_header_is_told_at_once_while_it_drains(make_intake):
    intake = await make_intake(entry=Entry(proxy_from=(ip_network("127.0.0.0/8"),)))
    intake.listener.draining = True
    client = await intake.knock()
    assert await client.reply() == "421 4.3.2 Shutting down, try again later"
    assert await client.ended()


async def test_drain_finishes_the_mail_under_way_and_takes_no_new_command(intake, mail):
    client = await intake.connect()
    await client.envelope()
    client.send(mail[:20])
    draining = asyncio.create_task(intake.listener.drain(10))
    await asyncio.sleep(0)
    assert intake.listener.draining
    client.send(mail[20:] + b".\r\nMAIL FROM:<>\r\n")
    assert await client.reply() == "250 2.6.0 Queued as 1"
    assert await client.reply() == "421 4.3.2 Shutting down, try again later"
    assert await client.ended()
    assert await draining == 0
    assert intake.spool.body == mail


async def test_drain_waits_for_a_commit_whose_client_is_gone(intake, mail):
    intake.spool.gate = asyncio.Event()
    client = await intake.connect()
    await client.envelope()
    client.send(mail + b".\r\n")
    await asyncio.wait_for(intake.spool.asked.wait(), 10)
    client.reset()
    draining = asyncio.create_task(intake.listener.drain(10))
    await intake.sessions_over()
    assert not draining.done()
    intake.spool.gate.set()
    assert await draining == 0
    assert len(intake.spool.kept) == 1


async def test_drain_is_bounded(intake, mail):
    client = await intake.connect()
    await client.envelope()
    client.send(mail)
    assert await intake.listener.drain(0.05) == 1
    assert await client.ended()
    assert intake.spool.put_calls == 0


async def test_drain_without_sessions_is_at_once(intake):
    assert await asyncio.wait_for(intake.listener.drain(60), 10) == 0
