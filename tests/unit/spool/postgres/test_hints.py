"""Hints over NOTIFY: heard at once, never waited for, on again by themselves, and never what work depends on."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.spool.contract import Action
from apptrack_ingest.spool.postgres import Options, PostgresSpool, open_spool

Put = Callable[..., Awaitable[int]]
Beside = asyncpg.Connection

LISTENERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%LISTEN%' AND pid <> pg_backend_pid()"
)


class Heard:
    """Counts hints."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._event.set()

    async def more(self) -> None:
        async with asyncio.timeout(10):
            await self._event.wait()
        self._event.clear()


async def listening(spool: PostgresSpool) -> Heard:
    """Returns when hints are heard; the first call comes with the connection, for hints may have been missed before."""
    heard = Heard()
    spool.listen(heard)
    await heard.more()
    return heard


async def test_a_lost_connection_is_made_anew_and_counts_as_a_hint(
    spool: PostgresSpool, other: Beside, put: Put
) -> None:
    heard = await listening(spool)
    assert await other.fetchval(f"SELECT count(pg_terminate_backend(pid)) {LISTENERS}") == 1
    await heard.more()
    before = heard.count
    await other.execute("NOTIFY apptrack_ingest")
    await heard.more()
    assert heard.count > before


async def test_what_no_hint_told_of_is_found_by_looking(url: str, put: Put, spool: PostgresSpool) -> None:
    heard = await listening(spool)
    other = open_spool(url)
    other._hints.send = lambda: None  # type: ignore[method-assign] # lost
    application_id = await put(other)
    assert heard.count == 1
    assert (await spool.next_due(now=2000.0, accounts=[])).hand_off == 1000.0
    (claimed,) = await spool.claim(worker="w", now=2000.0, lease=60, limit=1)
    assert claimed.application_id == application_id
    await other.close()


async def test_a_hint_is_sent_before_the_spool_is_closed(url: str, spool: PostgresSpool, put: Put) -> None:
    heard = await listening(spool)
    other = open_spool(url)
    application_id = await put(other)
    await other.close()
    await heard.more()
    other = open_spool(url)
    await other.act(application_id, Action(Event.HOLD, "jo"), now=1000.0)
    await other.close()
    await heard.more()


async def test_a_burst_of_mails_is_few_hints(url: str, spool: PostgresSpool, put: Put) -> None:
    heard = await listening(spool)
    other = open_spool(url)
    await asyncio.gather(*(put(other, n) for n in range(50)))
    await other.close()
    await heard.more()
    assert heard.count < 50


async def test_hints_that_cannot_be_sent_keep_nobody_waiting(put: Put, impatient: Options, url: str) -> None:
    spool = open_spool(url, options=impatient)
    spool._hints._url = "postgresql://127.0.0.1:1/nowhere"
    for n in range(3):
        await put(spool, n)
    async with asyncio.timeout(5):
        await spool.close()


@pytest.mark.parametrize("ever", [True, False])
async def test_closing_leaves_no_connection(url: str, put: Put, other: Beside, ever: bool) -> None:
    spool = open_spool(url)
    if ever:
        await listening(spool)
        await put(spool)
    await spool.close()
    async with asyncio.timeout(10):
        while await other.fetchval(f"SELECT count(*) {LISTENERS}"):
            await asyncio.sleep(0.01)
