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
from dataclasses import dataclass, field

import mails
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
    with running(port, size, many, rate=rate, reuse=reuse, sessions=sessions) as process:
        return result(process)


def running(
    port: int, size: int, many: int, *, rate: float = 0.0, reuse: bool = False, sessions: int = SESSIONS, first: int = 0
) -> "subprocess.Popen[str]":
    """The same, under way: a process whose `result` is to be read."""
    words = [port, size, many, "--rate", rate, "--sessions", sessions, "--first", first or next_first(many)]
    command = [sys.executable, __file__, *(str(word) for word in words), *(["--reuse"] if reuse else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves


_given = [40_000_000]


def next_first(many: int) -> int:
    """The first of so many applicant ids that no other load of this run has."""
    _given[0] += many
    return _given[0] - many


def result(process: "subprocess.Popen[str]") -> Sent:
    """Waits for it to end. Raises RuntimeError when a mail was not taken."""
    output, _ = process.communicate(timeout=1800)
    if process.returncode != 0:
        raise RuntimeError("the load could not be sent")
    return Sent(**json.loads(output))


# --- the process ------------------------------------------------------------------------------------------------------


class _Sender:
    """One session's worth of SMTP, as little of it as a server accepts."""

    def __init__(self, port: int, mail: bytes, reuse: bool) -> None:
        self._port, self._mail, self._reuse = port, mail, reuse
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, number: int) -> tuple[float, float]:
        """Seconds from the connection, and from DATA's first byte, to the 250."""
        began = time.perf_counter()
        reader, writer = self._streams or await self._connect()
        await self._say(reader, writer, f"MAIL FROM:<{SENDER}>", "250")
        await self._say(reader, writer, f"RCPT TO:<{RECIPIENT}>", "250")
        await self._say(reader, writer, "DATA", "354")
        data = time.perf_counter()
        writer.write(self._mail.replace(mails.ID, b"%d" % number))
        await self._heard(reader, "250")
        ended = time.perf_counter()
        if not self._reuse:
            await self.close()
        return ended - began, ended - data

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        await self._heard(self._streams[0], "220")
        await self._say(*self._streams, "EHLO client.bench.example", "250")
        return self._streams

    async def close(self) -> None:
        if self._streams is not None:
            reader, writer = self._streams
            self._streams = None
            writer.write(b"QUIT\r\n")
            await reader.read()
            writer.close()

    async def _say(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: str, wanted: str) -> None:
        writer.write(words.encode() + b"\r\n")
        await self._heard(reader, wanted)

    async def _heard(self, reader: asyncio.StreamReader, wanted: str) -> None:
        line = b"-" * 4
        while line[3:4] == b"-":
            line = await reader.readline()
        if not line.startswith(wanted.encode()):
            raise RuntimeError(f"expected {wanted}, got {line!r}")


async def _send_all(given: argparse.Namespace) -> Sent:
    mail = mails.on_the_wire(mails.template(given.size))
    numbers = iter(range(given.first, given.first + given.many))
    began = time.perf_counter()
    times: list[tuple[float, float]] = []

    async def session() -> None:
        sender = _Sender(given.port, mail, given.reuse)
        for number in numbers:
            if given.rate:
                await asyncio.sleep(began + (number - given.first) / given.rate - time.perf_counter())
            times.append(await sender.send(number))
        await sender.close()

    async with asyncio.TaskGroup() as sessions:
        for _ in range(given.sessions):
            sessions.create_task(session())
    whole, data = zip(*times, strict=True)
    return Sent(time.perf_counter() - began, len(times), list(whole), list(data))


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
        sent = asyncio.run(_send_all(options.parse_args()))
    except* (OSError, RuntimeError) as errors:
        sys.exit(f"load: {errors.exceptions[0]}")
    print(json.dumps({"seconds": sent.seconds, "taken": sent.taken, "whole": sent.whole, "data": sent.data}))


if __name__ == "__main__":
    main()
