"""The web server on real sockets: it starts, answers, stops, and takes nobody's signals."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from apptrack_ingest.errors import ConfigError
from apptrack_ingest.model import Backlog
from apptrack_ingest.web.app import Probe, create_app
from apptrack_ingest.web.server import WebServer


async def _no_failures() -> tuple[str, ...]:
    return ()


async def _nothing_waits() -> Backlog:
    return Backlog({}, {}, {}, {}, {}, {}, 0)


def new_server() -> WebServer:
    return WebServer(create_app(Probe(failed_checks=_no_failures, backlog=_nothing_waits)))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = new_server()
    yield await server.start("127.0.0.1", 0)
    await server.stop()


async def get(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://127.0.0.1:{port}{path}")


async def test_it_answers_on_a_free_port_without_saying_what_it_is(port: int) -> None:
    answer = await get(port, "/metrics")
    assert answer.status_code == 200
    assert "apptrack_build_info" in answer.text
    assert "server" not in answer.headers


async def test_signals_stay_with_the_service() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    server = new_server()
    await server.start("127.0.0.1", 0)
    during = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    await server.stop()
    assert before == during


async def test_it_logs_no_query_string(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await get(port, "/livez?asked=for")
    assert not [
        record for record in caplog.records if record.name.startswith("uvicorn") and "asked" in str(record.args)
    ]


async def test_after_stop_nothing_listens_and_it_can_be_stopped_again() -> None:
    server = new_server()
    port = await server.start("127.0.0.1", 0)
    await server.stop()
    await server.stop()
    with pytest.raises(httpx.ConnectError):
        await get(port, "/livez")


async def test_a_server_that_never_started_can_be_stopped() -> None:
    await new_server().stop()


async def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    server = new_server()
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    async with asyncio.timeout(10):
        await server.stop()
        await reader.read()
    writer.close()


async def test_a_taken_port_is_a_mistake_in_the_settings(port: int) -> None:
    with pytest.raises(ConfigError) as caught:
        await new_server().start("127.0.0.1", port)
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("web.port", str(port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 300])
async def test_a_host_that_is_not_ours_is_a_mistake_in_the_settings(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await new_server().start(host, 0)
    assert [problem.key for problem in caught.value.problems] == ["web.host"]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6_loopback_works_where_there_is_one() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback here")
    server = new_server()
    port = await server.start("::1", 0)
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://[::1]:{port}/livez")).status_code == 200
    finally:
        await server.stop()
