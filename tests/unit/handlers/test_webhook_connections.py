"""The connections of the webhook handler: kept while they are of use, and none left behind."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from apptrack_handlers import clients
from apptrack_handlers.webhook import Webhook

from apptrack_ingest import Accepted, RetryLater
from apptrack_ingest.testing import FakeAts, an_application

APPLICATION = an_application()


def a_webhook(url: str) -> Webhook:
    return Webhook(Webhook.Settings.model_validate({"url": url}))


async def there(ats: FakeAts) -> None:
    """Until a request is."""
    while not ats.requests:
        await asyncio.sleep(0.01)


@pytest.fixture
def ats() -> Iterator[FakeAts]:
    with FakeAts() as ats:
        yield ats


class Server:
    """Answers 204 to every POST and counts the connections that were opened to it."""

    def __init__(self) -> None:
        self.opened = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                found = re.search(rb"content-length: (\d+)", await reader.readuntil(b"\r\n\r\n"), re.IGNORECASE)
                await reader.readexactly(int(found[1]) if found else 0)
                await asyncio.sleep(0.01)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.open.discard(writer)
        writer.close()

    async def has(self, connections: int) -> bool:
        """Whether it has so many in the end."""
        for _ in range(100):
            if len(self.open) == connections:
                return True
            await asyncio.sleep(0.02)
        return False


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    yield server
    for writer in server.open:
        writer.close()
    listening.close()


async def test_a_connection_is_kept_for_the_next_request(server: Server) -> None:
    handler = a_webhook(server.url)
    for _ in range(3):
        assert await handler.handle(APPLICATION) == Accepted(None)
    assert server.opened == 1
    await asyncio.gather(*(handler.handle(APPLICATION) for _ in range(5)))
    await asyncio.gather(*(handler.handle(APPLICATION) for _ in range(5)))
    assert server.opened == 5
    await handler.close()
    assert await server.has(0)


async def test_a_connection_that_the_server_closed_meanwhile_costs_nothing(server: Server) -> None:
    handler = a_webhook(server.url)
    await handler.handle(APPLICATION)
    for writer in server.open:
        writer.close()
    assert await server.has(0)
    assert await handler.handle(APPLICATION) == Accepted(None)
    assert server.opened == 2
    await handler.close()


async def test_connections_without_anything_to_do_are_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = a_webhook(server.url)
    await asyncio.gather(*(handler.handle(APPLICATION) for _ in range(5)))
    monkeypatch.setattr(clients, "KEPT", 2)
    await handler.handle(APPLICATION)
    assert await server.has(2)
    await asyncio.sleep(0.01)
    monkeypatch.setattr(clients, "KEPT_FOR", 0.001)
    await handler.handle(APPLICATION)
    assert await server.has(1)
    assert server.opened == 6
    await handler.close()


async def test_a_request_that_was_cancelled_leaves_no_connection(ats: FakeAts) -> None:
    handler = a_webhook(ats.url)
    ats.answers.append("stall")
    request = asyncio.ensure_future(handler.handle(APPLICATION))
    await there(ats)
    request.cancel()
    await asyncio.wait({request})
    assert request.cancelled()
    assert not handler._clients._busy and not handler._clients._idle
    assert await handler.handle(APPLICATION) == Accepted("ats-40809163")
    await handler.close()


async def test_closing_ends_what_is_under_way_and_nothing_is_sent_afterwards(ats: FakeAts) -> None:
    handler = a_webhook(ats.url)
    ats.answers.append("stall")
    request = asyncio.ensure_future(handler.handle(APPLICATION))
    await there(ats)
    await handler.close()
    with pytest.raises(RetryLater, match="was not reached"):
        await request
    with pytest.raises(RuntimeError, match="closed"):
        await handler.handle(APPLICATION)
    assert len(ats.requests) == 1


async def test_a_proxy_that_the_environment_names_is_used(ats: FakeAts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", ats.url.removesuffix("/applications"))
    handler = a_webhook("http://ats.invalid/in")
    assert await handler.handle(APPLICATION) == Accepted("ats-40809163")
    assert ats.requests[0].path == "http://ats.invalid/in"
    await handler.close()


async def test_unless_the_environment_says_that_the_ats_is_reached_directly(
    ats: FakeAts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", ats.url.removesuffix("/applications"))
    monkeypatch.setenv("no_proxy", "ats.invalid")
    with pytest.raises(RetryLater, match="was not reached: ConnectError"):
        await a_webhook("http://ats.invalid/in").handle(APPLICATION)
    assert not ats.requests
