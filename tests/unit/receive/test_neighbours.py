"""Intakes on the same sockets: who passes a connection on to whom, and that nothing of it is lost on the way."""

import asyncio
import os
import resource
import socket
import struct
from contextlib import closing
from ipaddress import ip_network

import pytest

from apptrack_ingest.receive.listener import Entry
from apptrack_ingest.receive.neighbours import STALE
from apptrack_ingest.service import neighbourhood

from .conftest import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def members(clock):
    """Makes the neighbours of so many intakes, each as its own process would."""
    made, open_ = [], []

    def make(of):
        there = neighbourhood.opened(of)
        assert there is not None
        open_.append(there)
        numbers = range(1, of + 1)
        words = [f"{number}:{','.join(str(os.dup(one)) for one in there.descriptors)}" for number in numbers]
        made.extend(found := [neighbourhood.from_words(word, clock) for word in words])
        return found

    yield make
    for one in made:
        if one.inbox.fileno() >= 0:
            one.close()
    for there in open_:
        there.close()


@pytest.fixture
def connection():
    """A descriptor to pass on."""
    one, other = socket.socketpair()
    with closing(one), closing(other):
        yield one.fileno


@pytest.fixture
async def pair(members, make_intake):
    """Makes two intakes, each on a port of its own, so that what comes to the first can only be with the second if it was
    passed on."""

    async def make(entry=None):
        first, second = members(2)
        intakes = [await make_intake(entry=entry, neighbours=one, shared=True) for one in (first, second)]
        for intake in intakes:
            intake.listener.meet_neighbours()
        return intakes

    return make


@pytest.mark.parametrize(
    ("own", "theirs", "passed"),
    [(0, 0, False), (2, 0, False), (3, 0, True), (4, 1, True), (3, 1, False), (7, 2, False), (8, 2, True), (39, 10, False),
     (40, 10, True), (10, 40, False)],
)  # fmt: skip
def test_a_connection_is_passed_on_to_whom_has_far_fewer(members, connection, own, theirs, passed):
    us, them = members(2)
    them.alive(theirs)
    assert us.pass_on(connection, 7, own) is passed
    assert [place for place, sock in them.arrivals() if sock.close() is None] == [7] * passed


def test_what_is_on_its_way_counts_until_they_say_what_they_have(members, connection):
    us, them = members(2)
    them.alive(0)
    assert [us.pass_on(connection, 0, 3) for _ in range(3)] == [True, False, False]
    them.count(0)
    assert us.pass_on(connection, 0, 3)


def test_of_several_neighbours_each_gets_its_own(members, connection):
    us, *others = members(3)
    for one in others:
        one.alive(0)
    assert [us.pass_on(connection, 0, 3) for _ in range(3)] == [True, True, False]
    assert [len([sock.close() for _, sock in one.arrivals()]) for one in others] == [1, 1]


def test_nothing_is_passed_to_an_intake_that_gives_no_sign_of_life(members, connection, clock):
    us, them = members(2)
    clock.now += 1000
    assert not us.pass_on(connection, 0, 100), "it never was there"
    them.alive(0)
    assert us.pass_on(connection, 0, 100)
    clock.now += STALE
    assert not us.pass_on(connection, 0, 100), "it hangs"
    them.alive(0)
    assert us.pass_on(connection, 0, 100)
    them.away()
    assert not us.pass_on(connection, 0, 100), "it is being stopped"


def test_what_their_inbox_has_no_room_for_stays_here(members, connection):
    us, them = members(2)
    passed = 0
    them.alive(0)
    while us.pass_on(connection, 0, 1_000_000):
        passed += 1
        assert passed < 100_000
    assert passed == len([sock.close() for _, sock in them.arrivals()]) > 0


def test_what_was_passed_waits_for_the_next_process_in_its_place(clock, connection):
    there = neighbourhood.opened(2)

    def member(number):
        return neighbourhood.from_words(f"{number}:{','.join(str(os.dup(one)) for one in there.descriptors)}", clock)

    us, them = member(1), member(2)
    them.alive(0)
    assert us.pass_on(connection, 5, 3)
    them.close()
    again = member(2)
    ((place, sock),) = again.arrivals()
    assert place == 5
    for one in (sock, us, again, there):
        one.close()


def test_without_memory_to_share_each_keeps_its_own(monkeypatch):
    monkeypatch.setattr(os, "memfd_create", lambda name: os.open("/does/not/exist", os.O_RDONLY))
    assert neighbourhood.opened(2) is None
    monkeypatch.delattr(os, "memfd_create")
    assert neighbourhood.opened(2) is None
    assert neighbourhood.from_words("", lambda: 0.0) is None


async def test_connections_are_shared_and_counted_where_they_are(pair):
    first, second = await pair()
    clients = [await first.connect() for _ in range(8)]
    assert (first.opened, second.opened) == (6, 2)
    for number, client in enumerate(clients):
        await client.say(f"EHLO x{number}")
        assert await client.say("QUIT") == "221 2.0.0 Bye"
    await first.sessions_over(6)
    await second.sessions_over(2)
    assert first.ungreeted == second.ungreeted == 0


async def test_not_a_byte_is_lost_of_who_speaks_first(pair):
    first, second = await pair(Entry(proxy_from=(ip_network("127.0.0.1/32"),)))
    for number in range(40):
        early = socket.create_connection(("127.0.0.1", first.port))  # all is said before the connection is seen
        early.sendall(f"PROXY TCP4 192.0.2.{number} 198.51.100.1 40000 25\r\nEHLO me\r\n".encode())
        await first.connect(sock=early)
    assert second.opened > 5
    found = {session._address for intake in (first, second) for session in intake.listener._open}
    assert found == {f"192.0.2.{number}" for number in range(40)}
    for client in first.clients:
        assert (await client.reply()).startswith("250-mx.test.example")


async def test_implicit_tls_begins_where_the_connection_is(members, make_intake, identity, client_tls):
    first, second = [
        await make_intake(entry=Entry(tls="implicit"), tls=identity.tls(), neighbours=neighbours, shared=True)
        for neighbours in members(2)
    ]
    for intake in (first, second):
        intake.listener.meet_neighbours()
    for _ in range(12):
        await first.connect(ssl=client_tls, server_hostname="127.0.0.1")
    assert first.opened + second.opened == 12 and second.opened >= 2


async def test_an_intake_that_is_being_stopped_is_passed_nothing(pair):
    first, second = await pair()
    assert await second.listener.drain(1) == 0
    for _ in range(6):
        await first.connect()
    assert (first.opened, second.opened) == (6, 0)


async def test_who_is_gone_on_the_way_harms_nobody(members, make_intake):
    here, there = members(2)
    first, second = [await make_intake(neighbours=one, shared=True) for one in (here, there)]
    there.alive(0)
    for _ in range(3):
        await first.connect()
    with socket.create_connection(("127.0.0.1", first.port)) as gone:
        async with asyncio.timeout(10):
            while there._words[there._mine] != 1:
                await asyncio.sleep(0.001)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    second.listener.meet_neighbours()
    await second.sessions_over(1)
    assert (first.opened, second.ungreeted) == (3, 1)


async def test_what_was_passed_to_one_that_hangs_is_taken_by_another(members, make_intake, clock):
    here, there = members(2)
    first = await make_intake(neighbours=here, shared=True)
    there.alive(0)
    for _ in range(3):
        await first.connect()
    waiting = await first.knock()
    async with asyncio.timeout(10):
        while there._words[there._mine] != 1:
            await asyncio.sleep(0.001)
    first.listener.meet_neighbours()
    assert first.opened == 3, "not while the other gives signs of life"
    clock.now += STALE
    assert (await waiting.reply()).startswith("220 ")
    assert first.opened == 4 and not list(there.arrivals())


async def test_who_comes_by_a_listener_that_is_not_here_is_told_so_in_the_log(members, make_intake, connection, caplog):
    here, there = members(2)
    intake = await make_intake(neighbours=here, shared=True)
    intake.listener.meet_neighbours()
    assert there.pass_on(connection, 1, 3)
    async with asyncio.timeout(10):
        while "does not have" not in caplog.text:
            await asyncio.sleep(0.001)
    assert intake.opened == 0
    await intake.connect()


async def test_a_listener_of_its_own_passes_nothing_on(members, make_intake):
    here, there = members(2)
    intake = await make_intake(neighbours=here)
    there.alive(0)
    for _ in range(6):
        await intake.connect()
    assert intake.opened == 6 and not list(there.arrivals())


async def test_what_comes_as_an_intake_goes_is_told_so(members, make_intake):
    here, there = members(2)
    first, second = [await make_intake(neighbours=one, shared=True) for one in (here, there)]
    there.alive(0)
    for _ in range(3):
        await first.connect()
    last = await first.knock()
    async with asyncio.timeout(10):
        while there._words[there._mine] != 1:
            await asyncio.sleep(0.001)
    await second.listener.drain(1)
    assert (await last.reply()).startswith("421 4.3.2")


def test_an_intake_without_a_descriptor_left_is_passed_nothing_more(members, connection):
    us, them = members(2)
    them.alive(0)
    assert us.pass_on(connection, 0, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert list(them.arrivals()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not us.pass_on(connection, 0, 100)
    them.alive(0)
    assert us.pass_on(connection, 0, 100)
