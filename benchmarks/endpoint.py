"""What the systems report to: an HTTP server that says idibu's `success` to every POST, as cheaply as Python can.

Run `python benchmarks/endpoint.py PORT [--after SECONDS]`. It answers after so many seconds and counts what it was told:
`GET /count` says how many POSTs it answered.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import processes
import uvloop

BODY = b'<?xml version="1.0" encoding="utf-8"?><idibu><response>ok</response><status>success</status></idibu>'


class _Connection(asyncio.Protocol):
    """One kept-alive connection; whole requests with a Content-Length are all it understands."""

    answered = 0
    after = 0.0

    def __init__(self) -> None:
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (request := self._next()) is not None:
            if request.startswith(b"GET"):
                self._answer(b"%d" % _Connection.answered)
            else:
                asyncio.get_running_loop().call_later(_Connection.after, self._told)

    def _next(self) -> bytes | None:
        head, end, rest = self._waiting.partition(b"\r\n\r\n")
        if not end:
            return None
        _, named, value = head.lower().partition(b"content-length:")
        length = int(value.split(b"\r\n")[0]) if named else 0
        if len(rest) < length:
            return None
        self._waiting = rest[length:]
        return head

    def _told(self) -> None:
        _Connection.answered += 1
        self._answer(BODY)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)  # type: ignore[attr-defined]


class Endpoint:
    """The server in a process of its own, as others see it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def told(self) -> int:
        """How many POSTs it answered so far."""
        with urllib.request.urlopen(f"{self.url}/count", timeout=10) as answer:  # noqa: S310 - loopback
            return int(answer.read())


@contextlib.contextmanager
def serving(after: float = 0.0) -> Iterator[Endpoint]:
    """Starts one, and stops it at the end."""
    port = processes.free_port()
    process = subprocess.Popen([sys.executable, __file__, str(port), "--after", str(after)])  # noqa: S603
    try:
        processes.wait_for_port(port, process)
        yield Endpoint(port)
    finally:
        processes.stop(process)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("port", type=int)
    options.add_argument("--after", type=float, default=0.0)
    given = options.parse_args()
    _Connection.after = given.after
    uvloop.run(_serve(given.port))
