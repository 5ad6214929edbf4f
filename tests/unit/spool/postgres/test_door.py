"""The door to the database: few connections for many callers, time-outs, texts of any kind, errors without values."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.postgres import Options, PostgresSpool, open_spool
from apptrack_ingest.spool.postgres.door import Statements

Put = Callable[..., Awaitable[int]]
Beside = asyncpg.Connection


CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'apptrack-ingest'
"""


class Busy:
    """Operations that keep a connection until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.let_go = asyncio.Event()

    async def __call__(self, statements: Statements) -> str:
        self.begun += 1
        await self.let_go.wait()
        await statements.run("INSERT INTO marks VALUES (:key, 1)", key=f"busy-{self.begun}-{id(statements)}")
        return "done"


async def begun(busy: Busy, number: int) -> None:
    async with asyncio.timeout(10):
        while busy.begun < number:
            await asyncio.sleep(0.01)


async def test_when_all_connections_are_busy_one_waits_a_while(url: str, put: Put) -> None:
    spool, busy = open_spool(url, options=Options(connections=2, free_timeout=60)), Busy()
    holding = [asyncio.create_task(spool._door.change(busy)) for _ in range(2)]
    await begun(busy, 2)
    waiting = asyncio.create_task(put(spool))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    busy.let_go.set()
    assert await asyncio.gather(*holding) == ["done", "done"]
    assert await waiting == 1
    await spool.close()


async def test_and_no_longer(spool: PostgresSpool, put: Put) -> None:
    busy = Busy()
    holding = [asyncio.create_task(spool._door.change(busy)) for _ in range(2)]
    await begun(busy, 2)
    with pytest.raises(SpoolUnavailable, match="busy"):
        await put(spool)
    busy.let_go.set()
    assert await asyncio.gather(*holding) == ["done", "done"]
    assert await put(spool) == 1


async def test_many_callers_share_few_connections(url: str, other: Beside) -> None:
    spool, before = open_spool(url, options=Options(connections=2, free_timeout=60)), await other.fetchval(CONNECTIONS)
    mail = Message(Envelope("", (), "192.0.2.1"), 1000.0, b"hello")
    await asyncio.gather(*(spool.put(mail, [Arrival("acme", n, True)]) for n in range(200)))
    assert len(await spool.find(Filter(limit=1000))) == 200
    assert await other.fetchval(CONNECTIONS) <= before + 3  # two, and one for hints
    await spool.close()


async def test_a_caller_that_gives_up_withdraws_what_has_not_begun(spool: PostgresSpool, put: Put) -> None:
    busy = Busy()
    holding = [asyncio.create_task(spool._door.change(busy)) for _ in range(2)]
    await begun(busy, 2)
    waiting = asyncio.create_task(put(spool))
    await asyncio.sleep(0.05)
    waiting.cancel()
    busy.let_go.set()
    await asyncio.gather(*holding)
    await asyncio.gather(waiting, return_exceptions=True)
    await spool.close()
    again = open_spool(spool._door._url)
    assert await again.find(Filter()) == []
    await again.close()


async def test_what_is_under_way_is_committed_although_its_caller_gave_up(spool: PostgresSpool, other: Beside) -> None:
    busy = Busy()
    caller = asyncio.create_task(spool._door.change(busy))
    await begun(busy, 1)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    busy.let_go.set()
    await spool.close()
    assert await other.fetchval("SELECT count(*) FROM marks WHERE key LIKE 'busy-%'") == 1


async def test_a_statement_that_takes_too_long_is_ended_and_the_next_one_passes(spool: PostgresSpool) -> None:
    with pytest.raises(SpoolUnavailable, match="statement timeout"):
        await spool._door.ask(lambda s: s.run("SELECT pg_sleep(30)"))
    await spool.check_writable()


async def test_a_lock_that_is_held_too_long_is_not_waited_for(spool: PostgresSpool, other: Beside) -> None:
    async with other.transaction():
        await other.execute("LOCK TABLE marks")
        with pytest.raises(SpoolUnavailable, match="lock timeout"):
            await spool.check_writable()
    await spool.check_writable()


async def test_of_two_in_a_deadlock_both_succeed(spool: PostgresSpool, other: Beside) -> None:
    await other.execute("INSERT INTO marks VALUES ('a', 0), ('b', 0)")
    both_begun = asyncio.Barrier(2)

    def crosswise(first: str, second: str) -> Callable[[Statements], Awaitable[None]]:
        tries = 0

        async def operation(statements: Statements) -> None:
            nonlocal tries
            tries += 1
            await statements.run("UPDATE marks SET at = at + 1 WHERE key = :key", key=first)
            if tries == 1:
                await both_begun.wait()
            await statements.run("UPDATE marks SET at = at + 1 WHERE key = :key", key=second)

        return operation

    await asyncio.gather(spool._door.change(crosswise("a", "b")), spool._door.change(crosswise("b", "a")))
    assert [row["at"] for row in await other.fetch("SELECT at FROM marks ORDER BY key")] == [2, 2]


async def test_a_mail_that_gets_into_a_deadlock_is_taken_all_the_same(spool: PostgresSpool, other: Beside) -> None:
    """It stands in two applicants' lines; somebody else holds the second, and wants the first."""
    hold = "SELECT pg_advisory_xact_lock(1634758764, line_of($1, $2))"
    both = [Arrival("acme", 1, True), Arrival("blue", 2, True)]
    async with other.transaction():
        await other.execute("SET LOCAL deadlock_timeout = '60s'")  # so that it is the mail that is chosen
        await other.execute(hold, "blue", 2)
        coming = asyncio.create_task(spool.put(Message(Envelope("", (), "192.0.2.1"), 1000.0, b"hello"), both))
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await other.execute(hold, "acme", 1)
    assert await spool.raw(await coming) == b"hello"


async def test_a_nul_costs_no_more_than_itself(spool: PostgresSpool, put: Put) -> None:
    envelope = Envelope("j\0o@x.example", ("c\0v@acme.example",), "192.0.2.1", helo="\0")
    message_id = await spool.put(Message(envelope, 1000.0, b"a\0b"), [Arrival("acme", 7, True, "\0")])
    (summary,) = await spool.find(Filter(candidate=None))
    story = await spool.story(summary.application_id)
    assert (story.sender, story.helo, story.trust_note) == ("j\ufffdo@x.example", "\ufffd", "\ufffd")
    assert story.recipients == ("c\0v@acme.example",)
    assert await spool.raw(message_id) == b"a\0b"


async def test_a_mail_of_thirty_megabytes_is_kept_byte_by_byte(url: str) -> None:
    spool = open_spool(url)
    raw = bytes(range(256)) * (30 * 4096)
    tracemalloc.start()
    message_id = await spool.put(Message(Envelope("", (), "192.0.2.1"), 1000.0, raw), [Arrival("acme", 7, True)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert await spool.raw(message_id) == raw
    assert peak < 4 * len(raw)
    await spool.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ('Jane Doe' || :text)::integer",
        "INSERT INTO marks VALUES ('Jane Doe' || :text, 1), ('Jane Doe' || :text, 1)",
        "INSERT INTO marks VALUES (:text, :text)",
    ],
)
async def test_no_value_gets_into_an_error(spool: PostgresSpool, sql: str) -> None:
    with pytest.raises(SpoolUnavailable) as caught:
        await spool._door.ask(lambda s: s.run(sql, text="Jane Doe"))
    assert "Jane" not in str(caught.value)
    assert caught.value.__suppress_context__
