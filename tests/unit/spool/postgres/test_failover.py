"""The server stops hard, becomes read-only, has no room, falls silent: SpoolUnavailable meanwhile, recovery by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
from postgres import Server, own
from unit.spool.postgres.proxy import between

from apptrack_ingest.errors import LeaseLost, SpoolUnavailable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Report, ReportState, ReportStatus, State
from apptrack_ingest.spool.contract import Filter, ReportSettlement, Settlement
from apptrack_ingest.spool.postgres import Options, PostgresSpool, open_spool

T = 1000.0
DELIVERED = Settlement(Event.DELIVER, "delivered")
WORK = {"worker": "w", "now": T, "lease": 60.0, "limit": 10}
Put = Callable[..., Awaitable[int]]
Beside = asyncpg.Connection


@pytest.fixture(scope="module")
def stoppable() -> Iterator[Server]:
    """A server that only these tests use."""
    server = own()
    yield server
    server.remove()


@pytest.fixture
async def stopped_spool(stoppable: Server, impatient: Options) -> AsyncIterator[PostgresSpool]:
    """A spool on the server that may be stopped."""
    with stoppable.lent() as url:
        spool = open_spool(url, options=impatient)
        yield spool
        await spool.close()


async def soon(succeeds: Callable[[], Awaitable[object]]) -> None:
    """Returns when it succeeds for the first time; it has ten seconds."""
    async with asyncio.timeout(10):
        while True:
            try:
                await succeeds()
            except SpoolUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_server_stopped_hard_costs_a_temporary_error_and_nothing_else(
    stopped_spool: PostgresSpool, stoppable: Server, put: Put
) -> None:
    spool, woken = stopped_spool, asyncio.Event()
    before = await put(spool, 1)
    spool.listen(woken.set)
    (claimed,) = await spool.claim(**WORK)
    stoppable.stop(immediate=True)
    try:
        for _ in range(3):
            with pytest.raises(SpoolUnavailable, match="PostgreSQL"):
                await put(spool, 2)
            with pytest.raises(SpoolUnavailable):
                await spool.claim(**WORK)
    finally:
        stoppable.start()
    await soon(spool.check_writable)
    after = await put(spool, 3)
    assert [s.application_id for s in await spool.find(Filter())] == [after, before]
    await spool.settle(claimed, DELIVERED, now=T)
    with pytest.raises(LeaseLost):
        await spool.settle(claimed, DELIVERED, now=T)
    assert (await spool.story(before)).summary.state is State.DELIVERED
    woken.clear()
    async with asyncio.timeout(10):
        while not woken.is_set():  # hints come again by themselves, once both ends are connected again
            await put(spool)
            await asyncio.sleep(0.1)


async def test_a_lease_taken_over_after_a_restart_is_lost_to_its_first_holder(
    stopped_spool: PostgresSpool, stoppable: Server, put: Put
) -> None:
    application_id = await put(stopped_spool)
    (lost,) = await stopped_spool.claim(**WORK)
    stoppable.stop(immediate=True)
    stoppable.start()
    await soon(lambda: stopped_spool.reap(now=T + 60, reports_for=()))
    (held,) = await stopped_spool.claim(**{**WORK, "now": T + 60, "solo": True})
    assert held.token > lost.token
    with pytest.raises(LeaseLost):
        await stopped_spool.settle(lost, DELIVERED, now=T + 60)
    await stopped_spool.settle(held, DELIVERED, now=T + 60)
    assert (await stopped_spool.story(application_id)).summary.attempts == 2


async def test_puts_under_way_while_the_server_dies_are_kept_or_refused_and_none_is_lost(
    stopped_spool: PostgresSpool, stoppable: Server, put: Put
) -> None:
    kept, refused, stop = [], 0, asyncio.Event()

    async def sender(number: int) -> None:
        nonlocal refused
        while not stop.is_set():
            try:
                kept.append(await put(stopped_spool, number))
            except SpoolUnavailable:
                refused += 1
                await asyncio.sleep(0.01)

    senders = [asyncio.create_task(sender(n)) for n in range(4)]
    await soon_true(lambda: len(kept) > 20)
    stoppable.stop(immediate=True)
    await soon_true(lambda: refused > 4)
    stoppable.start()
    so_far = len(kept)
    await soon_true(lambda: len(kept) > so_far + 20)
    stop.set()
    await asyncio.gather(*senders)
    found = {summary.application_id for summary in await stopped_spool.find(Filter(limit=100000))}
    assert set(kept) <= found
    assert len(kept) == len(set(kept))


async def soon_true(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0.01)


# --- a commit whose answer is lost --------------------------------------------------------------------------------------


async def given(claims: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
    """What may be claimed once the server has undone what a connection left behind, which it may not have noticed yet."""
    async with asyncio.timeout(20):
        while not (found := await claims()):
            await asyncio.sleep(0.01)
    return found


async def test_a_claim_whose_answer_was_lost_is_given_back_and_is_no_crash(
    url: str, put: Put, impatient: Options
) -> None:
    async with between(url) as proxy:
        spool = open_spool(proxy.url, options=impatient)
        application_id = await put(spool)
        proxy.cut_behind = b"COMMIT;"
        with pytest.raises(SpoolUnavailable):
            await spool.claim(**WORK)
        assert (await spool.story(application_id)).summary.in_work, "committed, but nobody knows"
        (claimed,) = await spool.claim(**WORK)
        assert (claimed.application_id, claimed.attempt, claimed.crashes) == (application_id, 1, 0)
        assert [a.code for a in (await spool.story(application_id)).attempts] == ["interrupted", None]
        report = Report(7, ReportStatus.SUCCESS, T)
        await spool.settle(claimed, Settlement(Event.DELIVER, "delivered", report=report), now=T)
        proxy.cut_behind = b"COMMIT;"
        with pytest.raises(SpoolUnavailable):
            await spool.claim_reports(**WORK, accounts=["acme"])
        (sending,) = await spool.claim_reports(**WORK, accounts=["acme"])
        assert sending.attempt == 1
        confirmed = ReportSettlement(ReportState.CONFIRMED, "confirmed")
        assert await spool.settle_report(sending, confirmed, now=T) is ReportState.CONFIRMED
        await spool.close()


async def test_a_claim_that_was_not_committed_is_not_taken_for_the_next_ones(
    url: str, put: Put, impatient: Options
) -> None:
    """The row gives its next claimer the same token, for nothing of the first claim was kept."""
    async with between(url) as proxy:
        unlucky, next_one = open_spool(proxy.url, options=impatient), open_spool(url, options=impatient)
        application_id = await put(unlucky)
        proxy.cut_before = b"COMMIT;"
        with pytest.raises(SpoolUnavailable):
            await unlucky.claim(**{**WORK, "worker": "unlucky"})
        (held,) = await given(lambda: next_one.claim(**WORK))
        assert await unlucky.claim(**{**WORK, "worker": "unlucky"}) == []
        report = Report(7, ReportStatus.SUCCESS, T)
        await next_one.settle(held, Settlement(Event.DELIVER, "delivered", report=report), now=T)
        proxy.cut_before = b"COMMIT;"
        with pytest.raises(SpoolUnavailable):
            await unlucky.claim_reports(**{**WORK, "worker": "unlucky"}, accounts=["acme"])
        (sending,) = await given(lambda: next_one.claim_reports(**WORK, accounts=["acme"]))
        assert await unlucky.claim_reports(**{**WORK, "worker": "unlucky"}, accounts=["acme"]) == []
        await next_one.settle_report(sending, ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=T)
        assert [a.code for a in (await next_one.story(application_id)).attempts] == ["delivered", "confirmed"]
        await asyncio.gather(unlucky.close(), next_one.close())


async def test_a_settlement_whose_answer_was_lost_counts_once(url: str, put: Put, impatient: Options) -> None:
    async with between(url) as proxy:
        spool = open_spool(proxy.url, options=impatient)
        application_id = await put(spool)
        (claimed,) = await spool.claim(**WORK)
        proxy.cut_behind = b"COMMIT;"
        with pytest.raises(SpoolUnavailable):
            await spool.settle(claimed, DELIVERED, now=T)
        with pytest.raises(LeaseLost):
            await spool.settle(claimed, DELIVERED, now=T)
        assert (await spool.story(application_id)).summary.state is State.DELIVERED
        await spool.close()


async def test_a_silent_network_costs_a_time_out_and_the_lease_decides(url: str, put: Put, impatient: Options) -> None:
    async with between(url) as proxy:
        cut_off = open_spool(proxy.url, options=Options(statement_timeout=2.0, connect_timeout=2.0))
        there = open_spool(url, options=impatient)
        application_id = await put(there)
        (lost,) = await cut_off.claim(**WORK)
        proxy.silent = True
        settling = asyncio.create_task(cut_off.settle(lost, DELIVERED, now=T))
        await there.reap(now=T + 60, reports_for=())
        (held,) = await there.claim(**{**WORK, "now": T + 60, "solo": True})
        with pytest.raises(SpoolUnavailable, match="no answer in time"):
            await settling
        proxy.silent = False
        with pytest.raises(LeaseLost):
            await soon(lambda: cut_off.settle(lost, DELIVERED, now=T))
        await there.settle(held, DELIVERED, now=T + 60)
        assert (await there.story(application_id)).summary.attempts == 2
        await asyncio.gather(cut_off.close(), there.close())


# --- a server that refuses ----------------------------------------------------------------------------------------------


async def test_a_server_that_became_read_only_is_left_for_the_next(
    spool: PostgresSpool, other: Beside, postgres_server: Server, put: Put, url: str
) -> None:
    name = await other.fetchval("SELECT current_database()")
    await put(spool)
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    postgres_server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        await other.execute(terminate, name)  # as a standby that takes over does not, but a demoted primary
        with pytest.raises(SpoolUnavailable):
            await soon_refused(lambda: put(spool))
    finally:
        postgres_server.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await soon(lambda: put(spool))


async def soon_refused(fails: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while True:
            await fails()


async def test_a_connection_that_became_read_only_is_made_anew(spool: PostgresSpool, put: Put) -> None:
    await put(spool)

    demote = "SELECT set_config('default_transaction_read_only', 'on', false)"
    await spool._door.ask(lambda statements: statements.one(demote))
    with pytest.raises(SpoolUnavailable, match="read-only"):
        await put(spool)
    await put(spool)


async def test_too_many_connections_is_a_temporary_error(
    other: Beside, postgres_server: Server, url: str, impatient: Options
) -> None:
    name = await other.fetchval("SELECT current_database()")
    await other.execute("DROP ROLE IF EXISTS guest")
    await other.execute("CREATE ROLE guest LOGIN")
    await other.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")
    spool = open_spool(postgres_server.url(name, user="guest"), options=impatient)
    await other.execute("ALTER ROLE guest CONNECTION LIMIT 0")
    try:
        with pytest.raises(SpoolUnavailable, match="too many connections"):
            await spool.check_writable()
        await other.execute("ALTER ROLE guest CONNECTION LIMIT -1")
        await spool.check_writable()
    finally:
        await spool.close()
        await other.execute("DROP OWNED BY guest; DROP ROLE guest")
