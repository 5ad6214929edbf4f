"""The load: Postfix's smtp-source where the same mail can be sent each time, else senders of our own, a process apart.

Run as a script it is that process: it sends mails with an applicant id each, over `sessions` at a time, as fast as they are
taken or at a steady rate, and prints one JSON line: seconds, mails answered 250, and each mail's latencies.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, cast

import mails
import uvloop
from peers import RECIPIENT, SENDER, program

SESSIONS = 20


@dataclass(slots=True)
class Sent:
    """What came of sending: wall-clock seconds and mails answered 250; of each the seconds from the connection to its 250,
    and those from the first byte of its DATA (own senders alone)."""

    seconds: float
    taken: int
    whole: list[float] = field(default_factory=list)
    data: list[float] = field(default_factory=list)


def smtp_source(port: int, size: int, many: int, *, reuse: bool = False, sessions: int = SESSIONS) -> Sent:
    """Sends the same mail `many` times with smtp-source. Raises RuntimeError when one is not taken."""
    with tempfile.NamedTemporaryFile(suffix=".eml") as file:
        file.write(mails.template(size))
        file.flush()
        command = [program("smtp-source", "postfix"), "-4", "-s", str(sessions), "-m", str(many), "-f", SENDER]
        command += ["-t", RECIPIENT, "-F", file.name, *(["-d"] if reuse else []), f"127.0.0.1:{port}"]
        started = time.perf_counter()
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)  # noqa: S603
        seconds = time.perf_counter() - started
    if run.returncode != 0 or run.stderr.strip():
        raise RuntimeError(f"smtp-source: {run.stderr.strip()}")
    return Sent(seconds, many)


def own(port: int, size: int, many: int, *, rate: float = 0.0, reuse: bool = False, sessions: int = SESSIONS) -> Sent:
    """Sends `many` different applications; `rate` in mails a second (0: as fast as they are taken)."""
    return running(port, size, many, rate=rate, reuse=reuse, sessions=sessions).result()


@dataclass(slots=True)
class Running:
    """A load under way. What it says goes to a file: a pipe is full after some thousand mails, and it would never end
    where nobody reads it meanwhile."""

    process: "subprocess.Popen[bytes]"
    said: IO[bytes]

    def is_over(self) -> bool:
        """Whether all is sent, or failed."""
        return self.process.poll() is not None

    def result(self) -> Sent:
        """Waits for it to end. Raises RuntimeError when a mail was not taken."""
        with self.process, self.said:
            if self.process.wait(timeout=1800) != 0:
                raise RuntimeError("the load could not be sent")
            self.said.seek(0)
            return Sent(**json.load(self.said))


def running(
    port: int, size: int, many: int, *, rate: float = 0.0, reuse: bool = False, sessions: int = SESSIONS, first: int = 0
) -> Running:
    """The same, under way."""
    words = [port, size, many, "--rate", rate, "--sessions", sessions, "--first", first or next_first(many)]
    command = [sys.executable, __file__, *(str(word) for word in words), *(["--reuse"] if reuse else [])]
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the result
    return Running(subprocess.Popen(command, stdout=said), said)  # noqa: S603 - ourselves


_given = [40_000_000]


def next_first(many: int) -> int:
    """The first of so many applicant ids that no other load of this run has."""
    _given[0] += many
    return _given[0] - many


# --- the process ------------------------------------------------------------------------------------------------------


class _Session(asyncio.Protocol):
    """One connection: says the next word at each reply. As little SMTP as a server accepts, and as little Python as can be:
    it shares the machine with what it measures."""

    def __init__(self, mail: bytes) -> None:
        self._mail = mail
        self._heard = b""
        self._wanted: bytes = b"220"
        self._replied: Iterator[bytes] = iter((b"",))
        self.sent: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._replied = self._hello()
        next(self._replied)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        last = self._heard[self._heard.rfind(b"\n", 0, -1) + 1 :]
        if last.endswith(b"\n") and last[3:4] == b" ":
            if not last.startswith(self._wanted):
                self._fail(f"expected {self._wanted!r}, got {last!r}")
                return
            self._heard = b""
            self._wanted = next(self._replied, b"221")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the connection was lost")
        self.closed.set_result(None)

    def _fail(self, words: str) -> None:
        for future in (self.greeted, self.sent):
            if not future.done():
                future.set_exception(RuntimeError(words))
                future.exception()  # it may be nobody who waits

    def _hello(self) -> Iterator[bytes]:
        yield b"220"
        self._transport.write(b"EHLO client.bench.example\r\n")
        yield b"250"
        self.greeted.set_result(None)

    def _envelope_and_mail(self, number: int) -> Iterator[bytes]:
        self._transport.write(f"MAIL FROM:<{SENDER}>\r\n".encode())
        yield b"250"
        self._transport.write(f"RCPT TO:<{RECIPIENT}>\r\n".encode())
        yield b"250"
        self._transport.write(b"DATA\r\n")
        yield b"354"
        began = time.perf_counter()
        self._transport.write(self._mail.replace(mails.ID, b"%d" % number))
        yield b"250"
        self.sent.set_result(time.perf_counter() - began)

    async def send(self, number: int) -> float:
        """Seconds from DATA's first byte to the 250."""
        await self.greeted
        self.sent = asyncio.get_running_loop().create_future()
        self._replied = self._envelope_and_mail(number)
        self._wanted = next(self._replied)
        return await self.sent

    async def close(self) -> None:
        self._transport.write(b"QUIT\r\n")
        await self.closed


async def _send_all(given: argparse.Namespace) -> Sent:
    mail = mails.on_the_wire(mails.template(given.size))
    numbers = iter(range(given.first, given.first + given.many))
    began = time.perf_counter()
    times: list[tuple[float, float]] = []

    async def one_after_another() -> None:
        session: _Session | None = None
        for number in numbers:
            if given.rate:
                await asyncio.sleep(began + (number - given.first) / given.rate - time.perf_counter())
            begun = time.perf_counter()
            session = session or await _connected(given.port, mail)
            data = await session.send(number)
            times.append((time.perf_counter() - begun, data))
            if not given.reuse:
                await session.close()
                session = None
        if session is not None:
            await session.close()

    async with asyncio.TaskGroup() as sessions:
        for _ in range(given.sessions):
            sessions.create_task(one_after_another())
    whole, data = zip(*times, strict=True)
    return Sent(time.perf_counter() - began, len(times), list(whole), list(data))


async def _connected(port: int, mail: bytes) -> _Session:
    loop = asyncio.get_running_loop()
    _, session = await loop.create_connection(lambda: _Session(mail), "127.0.0.1", port)
    return session


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("port", type=int)
    options.add_argument("size", type=int)
    options.add_argument("many", type=int)
    options.add_argument("--rate", type=float, default=0.0)
    options.add_argument("--sessions", type=int, default=SESSIONS)
    options.add_argument("--first", type=int, default=40_000_000)
    options.add_argument("--reuse", action="store_true")
    try:
        sent = uvloop.run(_send_all(options.parse_args()))
    except* (OSError, RuntimeError) as errors:
        sys.exit(f"load: {errors.exceptions[0]}")
    print(json.dumps({"seconds": sent.seconds, "taken": sent.taken, "whole": sent.whole, "data": sent.data}))


if __name__ == "__main__":
    main()
