"""Keeps an intake under siege and shows that honest mail goes on: `make soak`, or `python benchmarks/soak.py SECONDS`.

An intake of its own (`serve --only intake`, data directory and certificate of its own) is sent mail by 20 honest clients,
ten from a listed network, ten strangers from a network each, which keep to a stranger's rate. After a sixth of the time
200 slow connections come on top and stay to the end: strangers who send a command byte by byte, stop in the middle of a
mail of a megabyte, never finish a TLS handshake, or send without ever reading. They come from three networks, so that the
limits of a network bite; who is refused tries again a second later.

Every figure that matters is a ratio within the run: of the time that a listed client's mail takes while under siege to that
before. Exits with 1 when honest mail stops flowing, a mail that was answered 250 is not in the spool as it was sent, or
memory grows by more than MEMORY.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median

import trustme
from processes import free_port

from apptrack_ingest.spool.contract import Filter, Spool
from apptrack_ingest.spool.sqlite import open_spool

HONEST, SLOW = 20, 200
LISTED = "127.0.9.{}"
"""Addresses of senders that the configuration lists."""
STRANGER = "127.0.{}.1"
"""Those of honest strangers, one in a network."""
BESIEGER = "127.1.{}.{}"
"""Those of the slow ones: three networks."""

PAUSE = 0.05
"""Seconds between two mails of a listed client."""
STRANGERS_PAUSE = 2.5
"""The same of a stranger: 24 a minute, of the 30 that are taken from a network nobody vouches for."""

MEMORY = 150_000_000
"""Bytes by which the intake may grow under siege: 50 mails of a megabyte begun (they count as bytes in flight), twice as
much again for copies on their way to the spool, and 150 sessions, of which each keeps up to 64 KB that its peer does not
read."""
STALL = 5.0
"""Seconds within which some honest mail must have been taken, or mail does not flow."""
SLOWEST = 10.0
"""Seconds that no more than one in a hundred mails of listed clients may take."""
PATIENCE = 60.0


# --- the intake ---------------------------------------------------------------------------------------------------


@dataclass
class Intake:
    """The service under test: a process, its port, its directory."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def memory(self) -> int:
        """Bytes that are resident now."""
        return self._status("VmRSS")

    @property
    def memory_peak(self) -> int:
        """The most there ever were."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{name}:"))


def configuration(directory: Path, port: int) -> str:
    return f"""
data_dir = {json.dumps(str(directory / "data"))}
[smtp]
port = {port}
hostname = "mx.test.example"
tls_certificate = {json.dumps(str(directory / "cert.pem"))}
tls_key = {json.dumps(str(directory / "key.pem"))}
[web]
port = {free_port()}
[log]
level = "error"
[trust]
networks = ["127.0.9.0/24"]
[accounts.acme]
recipients = ["jobs@acme.example"]
reporting = false
handler = "folder"
[accounts.acme.handler_settings]
path = {json.dumps(str(directory / "candidates"))}
"""


@contextlib.contextmanager
def intake() -> Iterator[Intake]:
    """An intake that takes mail; stopped, and its directory removed, at the end."""
    directory, port = Path(tempfile.mkdtemp(prefix="soak-")), free_port()
    issued = trustme.CA().issue_cert("mx.test.example")
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    config = directory / "apptrack-ingest.toml"
    config.write_text(configuration(directory, port))
    command = [sys.executable, "-m", "apptrack_ingest", "serve", "--only", "intake", "--config", str(config)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - ourselves
    try:
        wait_for_greeting(port, process)
        yield Intake(directory, port, process)
    finally:
        stop(process)
        shutil.rmtree(directory, ignore_errors=True)


def wait_for_greeting(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as peer:
            if peer.recv(3) == b"220":
                return
        time.sleep(0.1)
    raise SystemExit("the intake does not greet")


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- a client -----------------------------------------------------------------------------------------------------


class Gone(Exception):
    """The intake closed, or refused by this code."""


@dataclass
class Client:
    """A raw SMTP client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    replies: Counter[str]

    async def reply(self) -> str:
        """The next reply's last line; raises Gone for a 421 and at the end."""
        while True:
            async with asyncio.timeout(PATIENCE):
                line = (await self.reader.readline()).decode("ascii", "replace")
            if line[3:4] == " ":
                self.replies[line[:9].strip()] += 1
            if not line or line.startswith("421"):
                raise Gone(line.strip() or "closed without a word")
            if line[3:4] == " ":
                return line.strip()

    async def say(self, line: str) -> str:
        self.writer.write(line.encode() + b"\r\n")
        return await self.reply()

    async def to_data(self) -> None:
        for line in ("MAIL FROM:<ann@example.org>", "RCPT TO:<jobs@acme.example>", "DATA"):
            if (await self.say(line))[0] not in "23":
                raise Gone("refused")


@contextlib.asynccontextmanager
async def connected(port: int, source: str, replies: Counter[str]) -> AsyncIterator[Client]:
    """A client that was greeted and said EHLO."""
    async with asyncio.timeout(PATIENCE):
        client = Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)), replies)
    try:
        await client.reply()
        await client.say("EHLO client.example")
        yield client
    finally:
        client.writer.transport.abort()


# --- the honest ---------------------------------------------------------------------------------------------------


@dataclass
class Honest:
    """What honest clients sent and saw: of each mail taken its digest by its number, and when and how long it took."""

    taken: dict[int, bytes] = field(default_factory=dict)
    times: list[tuple[float, float]] = field(default_factory=list)
    strangers_times: list[tuple[float, float]] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def send(self, port: int, source: str, pause: float, times: list[tuple[float, float]]) -> None:
        """Mail after mail, ten in a connection, until cancelled."""
        while True:
            try:
                async with connected(port, source, self.replies) as client:
                    for _ in range(10):
                        await self._one(client, times)
                        await asyncio.sleep(pause)
            except (Gone, OSError) as error:
                self.broken[str(error) if isinstance(error, Gone) else type(error).__name__] += 1
                await asyncio.sleep(1)

    async def _one(self, client: Client, times: list[tuple[float, float]]) -> None:
        number = next(self.numbers)
        size = (2_000, 60_000, 400_000)[(number % 20 == 0) + (number % 3 == 0)]
        mail = f"From: Ann <ann@example.org>\r\nX-iTrackID: {number}\r\nSubject: CV\r\n\r\n".encode()
        mail += (b"0123456789" * 7 + b"\r\n") * (size // 72)
        started = time.monotonic()
        await client.to_data()
        client.writer.write(mail + b".\r\n")
        answer = await client.reply()
        if answer.startswith("250 2.6.0 Queued as "):
            times.append((started, time.monotonic() - started))
            self.taken[int(answer.rpartition(" ")[2])] = sha256(mail).digest()


# --- the slow -----------------------------------------------------------------------------------------------------


async def slow_command(client: Client) -> None:
    """A command that never ends."""
    await trickle(client, itertools.repeat(b"x"))


async def slow_data(client: Client) -> None:
    """A megabyte of a mail, and then a byte at a time."""
    await client.to_data()
    client.writer.write(b"X-iTrackID: 1\r\n\r\n" + b"x" * 1_000_000)
    await trickle(client, itertools.repeat(b"x"))


def client_hello() -> bytes:
    """The first words of a TLS client."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="mx.test.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


HELLO = client_hello()


async def slow_handshake(client: Client) -> None:
    """STARTTLS, and a greeting whose last byte never comes."""
    await client.say("STARTTLS")
    await trickle(client, (HELLO[place : place + 1] for place in range(len(HELLO) - 1)))


async def never_reading(client: Client) -> None:
    """As much as goes into the line, and nothing is taken out of it."""
    client.writer.transport.pause_reading()
    while True:
        client.writer.write(b"HELP\r\n" * 10)
        await client.writer.drain()
        await asyncio.sleep(0.5)


KINDS = (slow_command, slow_data, slow_handshake, never_reading)


async def trickle(client: Client, pieces: Iterator[bytes]) -> None:
    """A piece every half second, until the intake has enough of it."""
    heard = asyncio.create_task(until_the_end(client))
    try:
        while not heard.done():
            client.writer.write(next(pieces, b""))
            await asyncio.wait({heard}, timeout=0.5)
    finally:
        heard.cancel()
        await asyncio.gather(heard, return_exceptions=True)


async def until_the_end(client: Client) -> None:
    while news := await client.reader.read(1 << 16):
        client.replies.update(code.decode() for code in re.findall(rb"(?m)^(421 \S+)", news))


@dataclass
class Slow:
    """What the slow connections were told, and how many of which kind are open and were let in."""

    replies: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)

    async def besiege(self, port: int, number: int) -> None:
        """One slow connection after the other, until cancelled."""
        source, kind = BESIEGER.format(number % 3, 1 + number // 3), KINDS[number % len(KINDS)]
        while True:
            with contextlib.suppress(Gone, OSError):
                async with connected(port, source, self.replies) as client:
                    await self._hold(client, kind)
            await asyncio.sleep(1)

    async def _hold(self, client: Client, kind: Callable[[Client], Awaitable[None]]) -> None:
        self.open[kind.__name__] += 1
        try:
            await kind(client)
        finally:
            self.open[kind.__name__] -= 1


# --- a run --------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What is printed, and what of it is a failure."""

    problems: list[str] = field(default_factory=list)

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.problems.append(problem)

    def latency(self, name: str, times: list[tuple[float, float]], siege: float) -> None:
        before, during = ([took for at, took in times if (at >= siege) == under] for under in (False, True))
        for what, found in (("before", before), ("under siege", during)):
            if found:
                print(f"  {name}, {what:12} {len(found):6} mails   {percentiles(found)}")
        self.expect(bool(before and during), f"{name}: no mail was taken before or under siege")
        if before and during:
            print(f"  {name}, ratio of the medians {median(during) / median(before):.2f}")
            self.expect(percentile(during, 99) <= SLOWEST, f"{name}: a mail takes {percentile(during, 99):.1f} s")

    def flow(self, times: list[tuple[float, float]], ends: tuple[float, float], siege: float) -> None:
        for what, start, end in (("before", ends[0], siege), ("under siege", siege, ends[1])):
            count = sum(start <= at < end for at, _ in times)
            print(f"  honest mails a second, {what}: {count / (end - start):.1f}")
        done = sorted([ends[0], *(at + took for at, took in times), ends[1]])
        gap = max(later - earlier for earlier, later in itertools.pairwise(done))
        print(f"  the longest time without an honest mail taken: {gap:.2f} s")
        self.expect(gap <= STALL, f"honest mail stood still for {gap:.1f} s")


def percentile(values: list[float], part: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * part // 100)]


def percentiles(values: list[float]) -> str:
    return "   ".join(f"p{part} {percentile(values, part) * 1000:7.1f} ms" for part in (50, 90, 99))


async def lost(directory: Path, taken: dict[int, bytes]) -> list[int]:
    """The numbers of mails that were answered 250 and are not in the spool as they were sent."""
    spool = open_spool(directory / "data" / "spool.sqlite3")
    try:
        known = {row.message_id for row in await spool.find(Filter(limit=1_000_000))}
        return [
            number for number, digest in taken.items() if number not in known or not await same(spool, number, digest)
        ]
    finally:
        await spool.close()


async def same(spool: Spool, number: int, digest: bytes) -> bool:
    """Whether the mail stands there below our own Received header."""
    raw = await spool.raw(number)
    return sha256(raw.partition(b"+0000\r\n")[2]).digest() == digest


async def siege(found: Intake, seconds: float, honest: Honest, report: Report) -> None:
    """Honest mail alone, then with the slow connections."""
    senders = [
        asyncio.create_task(honest.send(found.port, LISTED.format(number), PAUSE, honest.times))
        if number % 2
        else asyncio.create_task(
            honest.send(found.port, STRANGER.format(20 + number), STRANGERS_PAUSE, honest.strangers_times)
        )
        for number in range(1, HONEST + 1)
    ]
    started = time.monotonic()
    await asyncio.sleep(seconds / 6)
    begin, began, slow = found.memory, time.monotonic(), Slow()
    besiegers = [asyncio.create_task(slow.besiege(found.port, number)) for number in range(SLOW)]
    await asyncio.sleep(seconds * 5 / 12)
    middle = found.memory
    await asyncio.sleep(seconds * 5 / 12)
    ends = (started, time.monotonic())
    end, peak, held = found.memory, found.memory_peak, Counter(slow.open)
    for task in (*senders, *besiegers):
        task.cancel()
    await asyncio.gather(*senders, *besiegers, return_exceptions=True)

    print(f"{HONEST} honest clients for {seconds:.0f} s, {SLOW} slow connections from {began - started:.0f} s on")
    report.flow([*honest.times, *honest.strangers_times], ends, began)
    report.latency("listed", honest.times, began)
    report.latency("strangers", honest.strangers_times, began)
    print(f"  replies to the honest: {shown(honest.replies)}; broken off: {dict(honest.broken) or 'none'}")
    print(f"  slow connections open at the end: {dict(held)}; replies to them: {shown(slow.replies)}")
    print(
        f"  memory of the intake: {mb(begin)} when the siege began, {mb(middle)} in the middle, {mb(end)} at the end;"
        f" at most {mb(peak)} (bound: {mb(begin + MEMORY)})"
    )
    report.expect(peak <= begin + MEMORY, "memory grew beyond its bound")
    report.expect(slow.replies["421 4.7.0"] > 0, "no limit was ever met: this was no siege")
    report.expect(
        held.total() >= SLOW // 2 and len(+held) == len(KINDS), f"only {dict(held)} were open: this was no siege"
    )


def shown(replies: Counter[str]) -> str:
    return ", ".join(
        f"{code} {count}" for code, count in sorted(replies.items()) if code[0] in "45" or code == "250 2.6.0"
    )


def mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("seconds", type=float, nargs="?", default=120.0)
    seconds = options.parse_args().seconds
    honest, report = Honest(), Report()
    with intake() as found:
        asyncio.run(siege(found, seconds, honest, report))
        report.expect(found.process.poll() is None, "the intake ended by itself")
        stop(found.process)
        report.expect(found.process.returncode == 0, f"the intake ended with {found.process.returncode}")
        missing = asyncio.run(lost(found.directory, honest.taken))
    print(f"  mails answered 250: {len(honest.taken)}, of which not in the spool as they were sent: {len(missing)}")
    report.expect(not missing, f"mails were lost: {missing[:10]}")
    for problem in report.problems:
        print(f"FAILED: {problem}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the intake is not left behind
        sys.exit(main())
