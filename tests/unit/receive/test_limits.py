"""Each limit of the intake on real sockets: met, told to the peer and to whoever counts, and recovered from."""

import asyncio

import pytest

from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.judging import TrustPolicy
from apptrack_ingest.receive.pressure import Floors
from apptrack_ingest.receive.rates import Caps, Doorkeeper, Limit
from apptrack_ingest.spool.contract import Load
from apptrack_ingest.trust import Rule

from .conftest import MAIL, PATIENCE, Clock, Disk, Judge

CONNECTIONS = "421 4.7.0 Too many connections, try again later"
MAILS = "421 4.7.0 Too many mails from your network, try again later"
NO_ROOM = "452 4.3.1 No room at the moment, try again later"
LISTED = "127.0.9.1"
ONE, SAME_NETWORK, OTHER, THIRD = "127.0.1.1", "127.0.1.200", "127.0.2.1", "127.0.3.1"


async def until(what) -> None:
    """Wait for what other tasks of the loop will bring about; within our patience."""
    async with asyncio.timeout(PATIENCE):
        while not what():
            await asyncio.sleep(0.001)


class Door:
    """An intake with a doorkeeper, for whom LISTED alone is no stranger."""

    def __init__(self, intake, clock: Clock) -> None:
        self.intake, self.clock = intake, clock

    async def come(self, address: str):
        """A client from this address that was let in."""
        return await self.intake.connect(local_addr=(address, 0))

    async def refused(self, address: str) -> None:
        """The peer can read why, though it spoke before it was greeted, and is gone."""
        client = await self.intake.knock(local_addr=(address, 0))
        assert await client.reply() == CONNECTIONS
        assert await client.ended()

    async def go(self, client) -> None:
        """The client leaves, and the intake knows."""
        before = self.intake.listener.open_sessions
        client.writer.close()
        await until(lambda: self.intake.listener.open_sessions < before)


@pytest.fixture
def door(make_intake):
    async def make(judge=None, **caps) -> Door:
        clock = Clock()
        keeper = Doorkeeper(Caps(**caps), lambda peer: peer == LISTED, clock)
        return Door(await make_intake(doorkeeper=keeper, judge=judge), clock)

    return make


# --- connections --------------------------------------------------------------------------------------------------


async def test_connections_in_all(door):
    found = await door(connections=2)
    first = await found.come(LISTED)
    await found.come(LISTED)
    await found.refused(LISTED)
    assert found.intake.limited == [Limit.CONNECTIONS]
    await found.go(first)
    assert (await (await found.come(LISTED)).deliver())[:3] == "250"


async def test_connections_of_a_network(door):
    found = await door(connections_per_network=2)
    first, second = await found.come(ONE), await found.come(SAME_NETWORK)
    await found.refused(ONE)
    await found.come(OTHER)
    for _ in range(3):
        await found.come(LISTED)
    assert found.intake.limited == [Limit.CONNECTIONS_PER_NETWORK]
    await found.go(first)
    await found.come(SAME_NETWORK)
    await found.refused(ONE)
    assert (await second.deliver())[:3] == "250"


async def test_strangers_together_keep_room_for_listed_peers(door):
    found = await door(connections=5, strangers_share=0.6)
    strangers = [await found.come(address) for address in (ONE, OTHER, THIRD)]
    await found.refused("127.0.4.1")
    listed = [await found.come(LISTED) for _ in range(2)]
    await found.refused(LISTED)
    assert found.intake.limited == [Limit.CONNECTIONS] * 2
    assert (await listed[1].deliver())[:3] == "250"
    await found.go(strangers[0])
    await found.come("127.0.4.1")


async def test_new_connections_by_the_minute(door):
    found = await door(new_connections_per_minute=2)
    for address in (ONE, SAME_NETWORK):
        await found.go(await found.come(address))
    await found.refused(ONE)
    await found.come(OTHER)
    assert found.intake.limited == [Limit.CONNECTION_RATE]
    found.clock.now += 30
    await found.come(ONE)
    await found.refused(SAME_NETWORK)
    assert found.intake.reception.decider.doorkeeper.connections == 2


async def test_who_is_refused_takes_no_place(door):
    found = await door(connections=1)
    first = await found.come(LISTED)
    for _ in range(20):
        await found.refused(LISTED)
    await until(lambda: found.intake.listener.open_sessions == 1)
    assert found.intake.reception.decider.doorkeeper.connections == 1
    await found.go(first)
    assert found.intake.opened == found.intake.closed == 21


# --- mails by the minute ------------------------------------------------------------------------------------------


async def test_mails_by_the_minute(door):
    found = await door(messages_per_minute=2)
    client = await found.come(ONE)
    for _ in range(2):
        assert (await client.deliver())[:3] == "250"
    assert await client.say("MAIL FROM:<>") == MAILS
    assert await client.ended()
    again = await found.come(SAME_NETWORK)
    await again.say("EHLO x")
    assert await again.say("MAIL FROM:<>") == MAILS
    assert (await (await found.come(OTHER)).deliver())[:3] == "250"
    assert found.intake.limited == [Limit.MESSAGE_RATE] * 2
    found.clock.now += 30
    assert (await (await found.come(ONE)).deliver())[:3] == "250"


async def test_untrusted_mails_by_the_minute(door):
    found = await door(judge=Judge({"north": Rule.NONE}), untrusted_per_minute=1)
    client = await found.come(ONE)
    assert (await client.deliver())[:3] == "250"
    assert (await client.deliver(MAIL, "a@south.example"))[:3] == "250", "vouched for"
    assert await client.deliver() == MAILS
    assert await client.ended()
    for _ in range(3):
        assert (await (await found.come(LISTED)).deliver())[:3] == "250"
    assert found.intake.limited == [Limit.UNTRUSTED_RATE]
    found.clock.now += 60
    assert (await (await found.come(ONE)).deliver())[:3] == "250"
    assert found.intake.spool.put_calls == 6


# --- a session ----------------------------------------------------------------------------------------------------


async def test_every_line_counts_be_it_a_command_or_none(make_intake):
    intake = await make_intake(commands=3)
    client = await intake.connect()
    replies = [await client.say(line) for line in ("", b"\xff", "x" * 3000, "")]
    assert [reply[:9] for reply in replies] == ["500 5.5.2"] * 3 + ["421 4.7.0"]
    assert await client.ended()
    assert intake.limited == [Limit.COMMANDS]


async def test_commands_count_from_the_last_accepted_mail_on(make_intake):
    intake = await make_intake(commands=6)
    client = await intake.connect()
    for _ in range(5):
        assert (await client.deliver())[:3] == "250"
    for _ in range(6):
        assert await client.say("NOOP") == "250 2.0.0 OK"
    assert await client.say("NOOP") == "421 4.7.0 Too many commands without a mail, closing"
    assert await client.ended()
    assert intake.limited == [Limit.COMMANDS]


@pytest.mark.parametrize("command", ["NOOP", "RCPT TO:<who@ever.example>", "X", "", "x" * 3000])
@pytest.mark.parametrize("secured", [False, True], ids=["clear", "TLS"])
async def test_who_pipelines_on_can_read_why_it_was_hung_up_on(make_intake, request, command, secured):
    """Closed with bytes of the peer unread, the connection would be reset, and the last words with it."""
    tls = request.getfixturevalue("identity").tls() if secured else None
    intake = await make_intake(commands=100, tls=tls)
    client = await (intake.connect_tls(request.getfixturevalue("client_tls")) if secured else intake.connect())
    client.send(b"EHLO x\r\n" + (command.encode() + b"\r\n") * (50_000 if len(command) < 100 else 5_000))
    last = reply = await client.reply()
    while reply:
        last, reply = reply, await client.reply()
    assert last.startswith("421 4.7.0 Too many ")
    client.writer.close()
    await intake.sessions_over()


async def test_a_peer_that_never_goes_is_cut_off_in_the_end(make_intake):
    """It neither reads its last words nor closes."""
    intake = await make_intake(commands=1)
    client = await intake.connect()
    client.writer.transport.pause_reading()
    client.send(b"NOOP\r\n" * 3)
    await intake.sessions_over()
    assert intake.replies[-1] == "421"


def its_time_passes(session):
    """As if `session_time` were over, and its timer had just gone off."""
    session._timeout_handle.cancel()
    session._ends_at = 0.0
    session._look_at_silence()


async def test_the_time_of_a_session_within_data(make_intake):
    budget = Budget(10**6)
    intake = await make_intake(budget=budget)
    client = await intake.connect()
    await client.envelope()
    client.send(MAIL)
    await until(lambda: budget.in_use)
    its_time_passes(intake.session)
    assert await client.reply() == "421 4.4.2 Session lasted too long, closing"
    assert budget.in_use == 0, "at once, though the peer is still there"
    client.send(b".\r\n")
    assert await client.ended()
    assert intake.limited == [Limit.SESSION_TIME] and intake.spool.put_calls == 0
    assert (await (await intake.connect()).say("NOOP"))[:3] == "250"


async def test_the_time_of_a_session_while_the_mail_is_committed(make_intake):
    """The answer to the mail comes first."""
    intake = await make_intake()
    intake.spool.gate = asyncio.Event()
    client = await intake.connect()
    await client.envelope()
    client.send(MAIL + b".\r\nNOOP\r\n")
    await asyncio.wait_for(intake.spool.asked.wait(), 10)
    its_time_passes(intake.session)
    intake.spool.gate.set()
    assert await client.reply() == "250 2.6.0 Queued as 1"
    assert await client.reply() == "421 4.4.2 Session lasted too long, closing"
    assert await client.ended()
    assert intake.limited == [Limit.SESSION_TIME]


async def test_a_peer_that_does_not_read_its_farewell_is_cut_off_though_its_session_time_passes_meanwhile(make_intake):
    """The connection closes already, with bytes left that nobody takes."""
    intake = await make_intake()
    client = await intake.connect()
    session, transport = intake.session, intake.session.transport
    transport.set_write_buffer_limits(high=2**30)
    client.writer.transport.pause_reading()
    transport.write(b"x" * 2**25)
    transport.set_write_buffer_limits(high=transport.get_write_buffer_size())
    client.send(b"QUIT\r\n")
    await until(lambda: transport.is_closing())
    assert transport.get_write_buffer_size()
    its_time_passes(session)
    assert session._timeout_handle.when() <= session._silent_until < float("inf")
    session._silent_until = 0.0
    session._look_at_silence()
    await intake.sessions_over()


async def test_the_time_of_a_session_within_a_tls_handshake(make_intake, identity):
    intake = await make_intake(session_time=0.5, idle_timeout=1.0, tls=identity.tls())
    client = await intake.connect()
    await client.say("EHLO x")
    assert (await client.say("STARTTLS"))[:3] == "220"
    await intake.sessions_over()
    assert Limit.SESSION_TIME in intake.limited
    assert intake.replies.count("421") <= 1


async def test_what_is_pipelined_behind_starttls_holds_up_nothing(make_intake, identity):
    """So much of it that the session reads no more; the handshake fails at once, instead of waiting for its time to end."""
    intake = await make_intake(tls=identity.tls())
    client = await intake.connect()
    await client.say("EHLO x")
    client.send(b"STARTTLS\r\n" + b"NOOP\r\n" * 20_000)
    assert (await client.reply())[:3] == "220"
    client.writer.write_eof()
    await intake.sessions_over()


# --- bytes in flight ----------------------------------------------------------------------------------------------

HALF = b"A: b\r\n\r\n" + b"x" * 60_000 + b"\r\n"
"""More than half of the budget below."""


class Flight:
    """Mails on their way in, of which there is room for one."""

    def __init__(self, intake, budget: Budget, client_tls) -> None:
        self.intake, self.budget, self._client_tls = intake, budget, client_tls

    async def begin(self):
        """A client in its DATA that has sent much, all of which was read."""
        intake = self.intake
        client = await (intake.connect_tls(self._client_tls) if self._client_tls else intake.connect())
        await client.envelope()
        before = self.budget.in_use + len(self.budget._waiting)
        client.send(HALF)
        await until(lambda: self.budget.in_use + len(self.budget._waiting) > before)
        await until(lambda: self.budget._waiting or self.budget.in_use % 60_000 < 20)
        return client

    async def waits(self, count: int = 1) -> None:
        await until(lambda: len(self.budget._waiting) == count)

    async def end(self, client) -> str:
        client.send(b".\r\n")
        return await client.reply()


@pytest.fixture(params=["clear", "TLS"])
def flight(make_intake, request):
    async def make(**wishes) -> Flight:
        budget, client_tls = Budget(100_000), None
        if request.param == "TLS":
            wishes["tls"] = request.getfixturevalue("identity").tls()
            client_tls = request.getfixturevalue("client_tls")
        return Flight(await make_intake(budget=budget, **wishes), budget, client_tls)

    return make


async def test_a_mail_waits_for_its_part_and_then_goes_on(flight):
    found = await flight()
    first, second = await found.begin(), await found.begin()
    await found.waits()
    second.send(b".\r\n")
    assert await found.end(first) == "250 2.6.0 Queued as 1"
    assert await second.reply() == "250 2.6.0 Queued as 2"
    await until(lambda: found.budget.in_use == 0)
    assert found.intake.limited == []
    assert {len(message.raw) > 60_000 for message, _ in found.intake.spool.kept} == {True}


async def test_a_mail_that_waits_in_vain_is_put_off_and_the_session_goes_on(flight):
    found = await flight(bytes_wait=0.01)
    first, second = await found.begin(), await found.begin()
    await found.waits(0)
    assert await found.end(second) == NO_ROOM
    assert found.intake.limited == [Limit.BYTES_IN_FLIGHT]
    assert await found.end(first) == "250 2.6.0 Queued as 1"
    await second.transaction()
    second.send(HALF + b".\r\n")
    assert await second.reply() == "250 2.6.0 Queued as 2"
    await until(lambda: found.budget.in_use == 0)


@pytest.mark.parametrize("who", ["holder", "waiter"])
async def test_a_connection_lost_gives_all_back(flight, who):
    found = await flight(bytes_wait=0.5)
    first, second = await found.begin(), await found.begin()
    await found.waits()
    gone, left = (first, second) if who == "holder" else (second, first)
    gone.reset()
    assert await found.end(left) == "250 2.6.0 Queued as 1"
    left.writer.close()
    await found.intake.sessions_over(2)
    await until(lambda: found.budget.in_use == 0)
    assert not found.budget._waiting and found.intake.spool.put_calls == 1


async def test_cut_off_while_it_waits_gives_all_back(flight):
    found = await flight()
    await found.begin()
    await found.begin()
    await found.waits()
    assert await found.intake.listener.drain(0.01) == 2
    await found.intake.sessions_over(2)
    await until(lambda: found.budget.in_use == 0 and not found.budget._waiting)


async def test_idle_while_it_holds_gives_all_back(flight):
    found = await flight(data_timeout=0.5)
    first = await found.begin()
    assert await first.reply() == "421 4.4.2 Idle too long, closing"
    assert found.budget.in_use == 0 and found.intake.limited == [Limit.IDLE]


async def test_no_time_of_idleness_runs_while_it_waits_for_us(flight):
    """Only when it went on, and then was silent."""
    found = await flight(data_timeout=0.5, bytes_wait=1.0)
    first = await found.begin()
    holder = found.intake.session
    holder._timeout_handle.cancel()
    second = await found.begin()
    await found.waits()
    await until(lambda: not found.budget._waiting)
    assert found.intake.limited == []
    assert await second.reply() == "421 4.4.2 Idle too long, closing"
    assert await found.end(first) == "250 2.6.0 Queued as 1"


async def test_bytes_are_in_flight_until_they_are_committed(flight):
    found = await flight()
    found.intake.spool.gate = asyncio.Event()
    first = await found.begin()
    first.send(b".\r\n")
    await found.intake.spool.asked.wait()
    assert found.budget.in_use >= 60_000
    found.intake.spool.gate.set()
    assert (await first.reply())[:3] == "250"
    await until(lambda: found.budget.in_use == 0)


async def test_a_put_that_goes_on_after_its_451_holds_its_bytes_until_it_ends(flight):
    """Or a spool that stalls would fill the memory, one round of mails after the other."""
    found = await flight(put_timeout=0.01, bytes_wait=0.01)
    found.intake.spool.gate = asyncio.Event()
    first = await found.begin()
    assert await found.end(first) == "451 4.3.0 Temporary failure here, try again later"
    assert found.budget.in_use >= 60_000
    await first.transaction()
    first.send(HALF + b".\r\n")
    assert await first.reply() == NO_ROOM
    assert found.intake.limited == [Limit.COMMIT_TIME, Limit.BYTES_IN_FLIGHT]
    found.intake.spool.gate.set()
    await until(lambda: found.budget.in_use == 0)
    assert len(found.intake.spool.kept) == 1


async def test_a_delivery_that_fails_before_its_put_gives_all_back(flight, monkeypatch):
    found = await flight()
    first = await found.begin()
    monkeypatch.setattr(found.intake.reception.decider, "decide", None)
    assert (await found.end(first))[:3] == "451"
    await until(lambda: found.budget.in_use == 0)


async def test_one_network_of_strangers_leaves_room_for_all_others(make_intake):
    budget = Budget(1_000_000, 0.8, 0.1)
    keeper = Doorkeeper(Caps(), lambda peer: peer == LISTED, Clock())
    intake = await make_intake(budget=budget, doorkeeper=keeper, bytes_wait=PATIENCE)
    slow = []
    for _ in range(4):
        client = await intake.connect(local_addr=(ONE, 0))
        await client.envelope()
        client.send(HALF)
        slow.append(client)
    await until(lambda: len(budget._waiting) == 3)
    assert budget.in_use < 100_000
    for address in (LISTED, OTHER):
        client = await intake.connect(local_addr=(address, 0))
        assert await client.deliver(HALF * 2) == f"250 2.6.0 Queued as {len(intake.spool.kept)}"
    for client in slow:
        client.reset()
    await until(lambda: budget.in_use == 0)
    assert intake.limited == []


async def test_bytes_dribbled_in_put_no_end_off(make_intake):
    """What may yet be the end of the mail is nothing; a peer must come forward."""
    intake = await make_intake()
    client = await intake.connect()
    await client.envelope()
    session = intake.session
    until_then = session._silent_until
    client.send(b"x" * 500)
    for byte in (b"\r", b"\n", b".", b"x"):
        size = session._mail.reader.size, session._mail.reader._tail
        client.send(byte)
        await until(lambda before=size: (session._mail.reader.size, session._mail.reader._tail) != before)
        assert session._silent_until == until_then
    client.send(b"x" * 1000)
    await until(lambda: session._silent_until > until_then)


# --- room ---------------------------------------------------------------------------------------------------------


async def test_room_lost_and_found_again(make_intake):
    disk = Disk(Floors(free_bytes=1000))
    intake = await make_intake(pressure=disk.pressure)
    client = await intake.connect()
    await client.say("EHLO x")
    assert await client.say("MAIL FROM:<> SIZE=100") == "250 2.1.0 Sender OK"
    await client.say("RCPT TO:<jobs@north.example>")
    disk.free(0)
    assert await client.say("DATA") == NO_ROOM
    disk.free(10**9)
    assert (await client.say("DATA"))[:3] == "354"
    disk.free(0)
    client.send(MAIL + b".\r\n")
    assert await client.reply() == NO_ROOM
    assert await client.say("MAIL FROM:<>") == NO_ROOM
    disk.free(10**9)
    assert (await client.deliver())[:3] == "250"
    assert intake.limited == [Limit.DISK_BYTES] * 3 and len(intake.spool.kept) == 1


async def test_a_backlog_that_grows_by_what_is_put_and_shrinks_by_itself(make_intake):
    disk = Disk(Floors(backlog=2))
    intake = await make_intake(pressure=disk.pressure)
    client = await intake.connect()
    for _ in range(2):
        assert (await client.deliver())[:3] == "250"
    assert await client.say("MAIL FROM:<>") == NO_ROOM
    await disk.pressure.refresh()
    assert (await client.deliver())[:3] == "250"
    assert intake.limited == [Limit.BACKLOG]


@pytest.mark.parametrize("floors", [Floors(untrusted_messages=2), Floors(untrusted_bytes=500)])
async def test_the_caps_on_untrusted_mail_keep_nobody_elses_mail_out(make_intake, floors):
    disk = Disk(floors)
    intake = await make_intake(pressure=disk.pressure, judge=Judge({"north": Rule.NONE}))
    client = await intake.connect()
    for _ in range(2):
        assert (await client.deliver())[:3] == "250"
    assert await client.deliver() == NO_ROOM
    assert (await client.deliver(MAIL, "a@south.example"))[:3] == "250"
    assert (await client.deliver(MAIL, "jobs@north.example", "a@south.example"))[:3] == "250", "one vouches for it"
    assert intake.limited == [Limit.UNTRUSTED_BACKLOG]
    disk.load = Load(1, 0, 0)
    await disk.pressure.refresh()
    assert (await client.deliver())[:3] == "250"


async def test_strangers_cannot_fill_the_disk_for_all_others(make_intake):
    disk = Disk(Floors(free_bytes=1000), 2000)
    intake = await make_intake(pressure=disk.pressure, judge=Judge({"north": Rule.NONE}))
    client = await intake.connect()
    assert await client.deliver() == NO_ROOM
    assert (await client.deliver(MAIL, "a@south.example"))[:3] == "250"
    assert intake.limited == [Limit.DISK_BYTES]
    disk.free(3000)
    assert (await client.deliver())[:3] == "250"


# --- mail for postmaster too --------------------------------------------------------------------------------------


async def test_postmaster_beside_an_account_that_refuses_does_not_let_the_account_in(make_intake):
    trust = TrustPolicy(refusing=frozenset({"north"}))
    intake = await make_intake(judge=Judge({"*": Rule.NONE}), trust=trust)
    client = await intake.connect()
    assert (await client.deliver(MAIL, "jobs@north.example", "postmaster"))[:3] == "250"
    assert (await client.deliver(MAIL, "a@south.example", "postmaster"))[:3] == "250"
    kept = [[(one.account, one.applicant_id, one.trusted) for one in arrivals] for _, arrivals in intake.spool.kept]
    assert kept == [[(None, None, False)], [("south", None, False)]]
