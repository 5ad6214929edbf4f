"""One thing waited for is told to be done or not in time, and is never touched by who waits for it."""

import asyncio

import pytest

from apptrack_ingest.deadlines import ends_within


@pytest.mark.parametrize("already", [True, False])
async def test_what_ends_in_time_is_told_at_once(already: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    if already:
        future.set_result(None)
    else:
        loop.call_soon(future.set_result, None)
    assert await asyncio.wait_for(ends_within(future, 1000), 10)


async def test_what_does_not_is_left_as_it_is() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert not await ends_within(future, 0)
    assert not future.done()


async def test_who_waits_may_be_cancelled_alone() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(ends_within(future, 1000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not future.done()
