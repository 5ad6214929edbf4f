"""HTTP clients for many requests at a time to one server."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

KEPT = 100
"""Clients that are kept without anything to do, each with its connection."""
KEPT_FOR = 5.0
"""Seconds until such a client is closed; httpx itself takes no connection again that had nothing to do for so long."""


class Clients:
    """A client of its own for each request that is under way, and so for each connection.

    The connections of one client are looked through for each request and each answer, all of them and for each idle one all
    of them again, and the kernel is asked about every idle one: at 50 requests at a time that took three quarters of what
    a hand-off cost. Whatever else a client does (proxies, certificates, credentials in the URL), each does for itself.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._idle: deque[tuple[float, httpx.AsyncClient]] = deque()  # the longest idle first
        self._busy: set[httpx.AsyncClient] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client for one exchange, kept for the next unless that fails. The last used is taken first, so that there are no
        more than needed."""
        await self._close_the_oldest()  # before the request, not after the answer, which a cancellation here would lose
        if self._closed:
            raise RuntimeError("the clients are closed")
        client = self._idle.pop()[1] if self._idle else self._make()
        self._busy.add(client)
        try:
            yield client
        except BaseException:
            await client.aclose()
            raise
        else:
            if not client.is_closed:
                self._idle.append((time.monotonic(), client))
                self._close_beside()
        finally:
            self._busy.discard(client)

    def _close_beside(self) -> None:
        """Closes what is too much, without anybody waiting for it: a cancellation there would lose the answer."""
        while len(self._idle) > KEPT:
            closing = asyncio.create_task(self._idle.popleft()[1].aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes all; an exchange under way ends with an error."""
        self._closed = True
        for client in (*self._busy, *(client for _, client in self._idle)):
            await client.aclose()
        self._idle.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _close_the_oldest(self) -> None:
        long_ago = time.monotonic() - KEPT_FOR
        while self._idle and self._idle[0][0] < long_ago:
            await self._idle.popleft()[1].aclose()
