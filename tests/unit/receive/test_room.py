"""A mail whose SIZE was declared begins when there is room for all of it: nobody is put off who could have waited."""

import asyncio

import pytest

from apptrack_ingest.receive import incoming
from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.incoming import Incoming
from apptrack_ingest.receive.rates import Caps, Doorkeeper, Limit

PATIENCE = 10.0
BODY = b"X-iTrackID: 5\r\n\r\n" + b"x" * 76 + b"\r\n"
NO_ROOM = "452 4.3.1 No room at the moment, try again later"
START = "354 End data with <CR><LF>.<CR><LF>"


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def budget() -> Budget:
    return Budget(100_000)


async def announced(intake, size: int, **opening):
    """A client that declared so many bytes, and said DATA."""
    client = await intake.connect(**opening)
    assert (await client.say("EHLO client.example")).startswith("250-")
    assert (await client.say(f"MAIL FROM:<ann@example.org> SIZE={size}")).startswith("250 ")
    assert (await client.say("RCPT TO:<jobs@north.example>")).startswith("250 ")
    client.send(b"DATA\r\n")
    return client


async def begun(intake, size: int, **opening):
    client = await announced(intake, size, **opening)
    assert await client.reply() == START
    return client


async def end(client, body: bytes = BODY) -> str:
    client.send(body + b".\r\n")
    return await client.reply()


async def test_what_was_declared_is_reserved_before_the_mail_begins_and_given_back(make_intake, budget):
    intake = await make_intake(budget=budget)
    client = await begun(intake, 60_000)
    assert budget.in_use == 60_000
    intake.spool.gate = asyncio.Event()
    client.send(BODY + b".\r\n")
    await asyncio.wait_for(intake.spool.asked.wait(), PATIENCE)
    assert budget.in_use == len(BODY), "what it turned out to be"
    intake.spool.gate.set()
    assert await client.reply() == "250 2.6.0 Queued as 1"
    await until(lambda: budget.in_use == 0)


async def test_it_waits_for_room_before_it_begins_and_all_come_through(make_intake, budget):
    intake = await make_intake(budget=budget)
    clients = [await announced(intake, 40_000) for _ in range(20)]
    body = BODY * 400

    async def whole(client) -> str:
        assert await client.reply() == START
        return await end(client, body)

    await until(lambda: len(budget._waiting) == 18)
    assert budget.in_use == 80_000
    said = await asyncio.gather(*(whole(client) for client in clients))
    assert sorted(said, key=lambda one: int(one.split()[-1])) == [f"250 2.6.0 Queued as {n}" for n in range(1, 21)]
    await until(lambda: budget.in_use == 0)
    assert intake.limited == []


async def test_who_waits_in_vain_is_told_so_and_may_try_again(make_intake, budget):
    intake = await make_intake(budget=budget, bytes_wait=0.01)
    first, second = await begun(intake, 60_000), await announced(intake, 60_000)
    assert await second.reply() == NO_ROOM
    assert intake.limited == [Limit.BYTES_IN_FLIGHT]
    assert await end(first) == "250 2.6.0 Queued as 1"
    assert await second.say("DATA") == START
    assert await end(second) == "250 2.6.0 Queued as 2"


async def test_idleness_is_not_counted_against_who_waits_for_us(make_intake, budget):
    intake = await make_intake(budget=budget, idle_timeout=0.5, bytes_wait=1.0, data_timeout=PATIENCE)
    await begun(intake, 60_000)
    second = await announced(intake, 60_000)
    assert await second.reply() == NO_ROOM
    assert await second.reply() == "421 4.4.2 Idle too long, closing"


async def test_who_declares_nothing_waits_as_it_grows(make_intake, budget):
    intake = await make_intake(budget=budget)
    first = await begun(intake, 90_000)
    second = await intake.connect()
    await second.envelope()
    second.send(BODY * 400)
    await until(lambda: budget._waiting)
    assert await end(first) == "250 2.6.0 Queued as 1"
    assert await end(second, b"") == "250 2.6.0 Queued as 2"


async def test_more_than_was_declared_is_taken_as_it_comes(make_intake, budget):
    """SIZE is an estimate (RFC 1870, section 3)."""
    intake = await make_intake(budget=budget)
    client = await begun(intake, 100)
    assert await end(client, BODY * 400) == "250 2.6.0 Queued as 1"
    assert len(intake.spool.message.raw) > 30_000
    await until(lambda: budget.in_use == 0)


async def test_one_mail_alone_is_never_too_large(make_intake, budget):
    intake = await make_intake(budget=budget)
    client = await begun(intake, 20_000_000)
    assert await end(client) == "250 2.6.0 Queued as 1"


@pytest.mark.parametrize("how", ["reset", "half-close"])
async def test_who_leaves_while_it_waits_leaves_nothing_behind(make_intake, budget, how):
    intake = await make_intake(budget=budget)
    first, second = await begun(intake, 60_000), await announced(intake, 60_000)
    await until(lambda: budget._waiting)
    if how == "reset":
        second.reset()
        await until(lambda: not budget._waiting)
    else:
        second.writer.write_eof()
    assert await end(first) == "250 2.6.0 Queued as 1"
    first.writer.close()
    await intake.sessions_over(2)
    assert budget.in_use == 0 and not budget._waiting and intake.spool.put_calls == 1


async def test_a_drain_does_not_wait_for_room(make_intake, budget):
    intake = await make_intake(budget=budget)
    first, second = await begun(intake, 60_000), await announced(intake, 60_000)
    await until(lambda: budget._waiting)
    draining = asyncio.create_task(intake.listener.drain(PATIENCE))
    assert await second.reply() == "421 4.3.2 Shutting down, try again later"
    assert await end(first) == "250 2.6.0 Queued as 1"
    second.writer.close()
    first.writer.close()
    assert await draining == 0 and budget.in_use == 0


async def test_a_session_that_lasted_too_long_does_not_wait_for_room(make_intake, budget):
    intake = await make_intake(budget=budget, session_time=0.3)
    assert budget.share().take(60_000)
    client = await announced(intake, 60_000)
    assert await client.reply() == "421 4.4.2 Session lasted too long, closing"
    assert not budget._waiting


async def test_strangers_reserve_within_their_own_part(make_intake):
    budget = Budget(100_000, 0.5, 0.3)
    keeper = Doorkeeper(Caps(), lambda peer: peer == "127.0.0.1", lambda: 0.0)
    intake = await make_intake(budget=budget, doorkeeper=keeper)
    stranger = {"local_addr": ("127.9.9.9", 0)}
    first = await begun(intake, 25_000, **stranger)
    second = await announced(intake, 25_000, **stranger)
    await until(lambda: budget._waiting)
    listed = await begun(intake, 25_000)
    assert await end(listed) == "250 2.6.0 Queued as 1"
    assert await end(first) == "250 2.6.0 Queued as 2"
    assert await second.reply() == START


# --- what is reserved and not made use of -------------------------------------------------------------------------------


class Timer:
    """What `call_later` gives."""

    def __init__(self, callback) -> None:
        self.callback, self._cancelled = callback, False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled


class Timers:
    """The loop's timers, let off by hand."""

    def __init__(self, monkeypatch) -> None:
        self.due = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self._call_later)

    def _call_later(self, delay, callback):
        assert delay == incoming.LOOK_EVERY
        handle = Timer(callback)
        self.due.append(handle)
        return handle

    def look(self) -> None:
        (handle,) = [one for one in self.due if not one.cancelled()]
        self.due.remove(handle)
        handle.callback()


async def test_a_reservation_is_lost_by_who_does_not_send(monkeypatch, budget):
    timers = Timers(monkeypatch)
    share = budget.share()
    assert share.take(60_000)
    mail = Incoming(10**6, share, PATIENCE, lambda _: None, 60_000)
    mail.feed(b"x" * 20)
    timers.look()
    assert budget.in_use == 20
    mail.feed(b"x" * 30)
    assert budget.in_use == 50, "and goes on as one that declared nothing"
    assert mail.feed(b"\r\n.\r\n") == b"" and await mail.whole() == b"x" * 50 + b"\r\n"
    assert not timers.due


async def test_a_reservation_is_kept_by_who_sends(monkeypatch):
    timers, budget = Timers(monkeypatch), Budget(10**6)
    share = budget.share()
    assert share.take(900_000)
    mail = Incoming(10**6, share, PATIENCE, lambda _: None, 900_000)
    for _ in range(5):
        mail.feed(b"x" * incoming.PROGRESS)
        timers.look()
        assert budget.in_use == 900_000
    mail.close()
    assert budget.in_use == 0 and all(one.cancelled() for one in timers.due)
