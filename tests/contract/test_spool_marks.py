"""Remembered times: of many who want to be the one, one is, whatever the database and however many processes ask."""

import asyncio
from collections.abc import Awaitable, Callable

from apptrack_ingest.spool.contract import Spool

Opener = Callable[[], Awaitable[Spool]]


async def test_a_mark_is_remembered(spool: Spool, another: Opener) -> None:
    await spool.prepare()
    assert await spool.mark("digest") is None
    await spool.set_mark("digest", 5.25)
    assert await (await another()).mark("digest") == 5.25


async def test_a_mark_is_taken_once(spool: Spool) -> None:
    assert await spool.take_mark("digest", 100.0, after=90.0)
    assert not await spool.take_mark("digest", 100.0, after=90.0)
    assert await spool.mark("digest") == 100.0
    assert await spool.take_mark("digest", 200.0, after=100.0)
    assert await spool.mark("digest") == 200.0


async def test_of_many_at_once_one_takes_it(another: Opener) -> None:
    spools = [await another() for _ in range(3)]
    for round_ in range(1, 6):
        at = round_ * 100.0
        taken = await asyncio.gather(*(one.take_mark("digest", at, after=at - 10) for one in spools * 3))
        assert sorted(taken) == [*[False] * 8, True]
