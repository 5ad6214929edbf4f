"""Thousands of sessions that nobody foresaw: random bytes, mangled transcripts, cut anyhow, broken off anywhere."""

import asyncio
import contextlib
import gc
import logging
import random
import re
import ssl
import sys
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.listener import Entry
from apptrack_ingest.receive.rates import Caps, Doorkeeper

from .conftest import MAIL, PATIENCE, Clock, Intake, new_intake

CASES = 400
"""Sessions by seed and address; 24 of them side by side."""
AT_ONCE = 24

# What is mangled: whole sessions, each of which would go well, but for the last.
AUTH = b"AUTH PLAIN AGFubgBwYXNzIHdvcmQ=\r\n"
ENVELOPE = b"MAIL FROM:<ann@example.org> SIZE=99\r\nRCPT TO:<jobs@north.example>\r\nRCPT TO:<a@south.example>\r\n"
SESSIONS = [
    b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n" + MAIL + b".\r\nQUIT\r\n",
    b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\n..\r\n.\r\nRSET\r\nVRFY x\r\nHELP\r\nEXPN x\r\nQUIT\r\n",
    b"EHLO x\r\n" + (ENVELOPE + b"DATA\r\n" + MAIL + b".\r\n") * 3,
    b"EHLO x\r\n"
    + AUTH
    + b"AUTH LOGIN\r\nYW5u\r\ncGFzcyB3b3Jk\r\nAUTH PLAIN\r\n*\r\n"
    + ENVELOPE
    + b"RSET\r\nQUIT\r\n",
    b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n" + b"Received: x\r\n" * 60 + b"\r\n\n.\n\r.\r\r\n.\r\n" + b"NOOP\r\n" * 40,
    b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n" + b"A: b\r\n\r\n" + b"0123456789" * 3000 + b"\r\n.\r\nNOOP\r\nQUIT\r\n",
    b"EHLO x\r\nSTARTTLS\r\nEHLO x\r\n" + ENVELOPE + b"GET / HTTP/1.1\r\n" * 6 + bytes(range(256)) * 20,
]
WORDS = [
    b"\r\n",
    b"\n",
    b"\r",
    b".",
    b"\r\n.\r\n",
    b" ",
    b"<",
    b">",
    b"@",
    b"\0",
    b"\xff",
    b"DATA\r\n",
    b"*\r\n",
    b"=",
    b"SIZE=",
]
WORDS += [
    b"EHLO x\r\n",
    b"RSET\r\n",
    b"x" * 1100,
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"\r\nQUIT\r\n",
    b"STARTTLS\r\n",
]
SWAPS = [(b"\r\n", b"\n"), (b"\r\n", b"\r"), (b".", b".."), (b" ", b"\t")]
PROXY = [b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", b"PROXY UNKNOWN\r\n"]
PROXY += [b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + b"\x9c\x40\x00\x19"]

OURS = {reply.render() for reply in policy.REPLIES.values()}
FILLED = re.compile(r"220 mx\.test\.example ESMTP apptrack-ingest|250 mx\.test\.example|250-[A-Z0-9a-z .]+|250 HELP"
                    r"|250 2\.6\.0 Queued as \d+|334 [A-Za-z0-9+/=]*")  # fmt: skip


class Mangler:
    """Makes bytes and ways to send them; all of it by the seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def wire(self) -> bytes:
        """What a session sends."""
        chance = self.chance
        if chance.random() < 0.1:
            return chance.randbytes(chance.randrange(600))
        if chance.random() < 0.15:
            return b"".join(chance.choices(WORDS, k=chance.randrange(30)))
        wire = chance.choice(SESSIONS)
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            wire = self._mangled(wire)
        return wire[:40_000]

    def _mangled(self, wire: bytes) -> bytes:
        chance = self.chance
        start, end = sorted(chance.randrange(len(wire) + 1) for _ in range(2))
        end = min(end, start + chance.choice((1, 10, 100, 10_000)))
        match chance.randrange(7):
            case 0:
                return wire[:start] + wire[end:]
            case 1:
                return wire[:end] + wire[start:end] * chance.randrange(1, 4) + wire[end:]
            case 2:
                return wire[:start] + chance.choice(WORDS) + wire[start:]
            case 3:
                return wire[:start] + chance.randbytes(end - start) + wire[end:]
            case 4:
                return wire[:start] + chance.choice(SESSIONS)[chance.randrange(200) :]
            case 5:
                return wire[:start] + wire[start:end].replace(*chance.choice(SWAPS)) + wire[end:]
        return wire[:start]

    def header(self) -> bytes:
        """A PROXY header, or nearly."""
        whole = self.chance.choice(PROXY)
        return self._mangled(whole) if self.chance.random() < 0.3 else whole

    def segments(self, wire: bytes) -> Iterator[bytes]:
        """Cut anyhow; broken off, perhaps."""
        size = self.chance.choice((1, 7, 100, 1000, 10**6))
        wire = wire if self.chance.random() < 0.7 else wire[: self.chance.randrange(len(wire) + 1)]
        for start in range(0, len(wire), size) if len(wire) < 300 * size else (0,):
            yield wire[start : start + size] if len(wire) < 300 * size else wire


class Fuzz:
    """One intake on several addresses, and sessions that come and go."""

    def __init__(self, intake: Intake, client_tls: ssl.SSLContext, seed: int) -> None:
        self.intake, self.client_tls, self.mangler = intake, client_tls, Mangler(seed)
        self.heard: list[str] = []
        self.sessions = 0

    async def sessions_at(self, number: int, entry: Entry) -> None:
        """Many sessions at one address, some side by side."""
        for _ in range(CASES // AT_ONCE):
            await asyncio.gather(*(self.session(number, entry) for _ in range(AT_ONCE)))
            self.intake.spool.error = SpoolUnavailable("no") if self.mangler.chance.random() < 0.2 else None
            self.intake.spool.kept.clear()

    async def session(self, number: int, entry: Entry) -> None:
        """One of them; the intake may close it, or reset it, whenever it likes."""
        chance = self.mangler.chance
        port = self.intake.listener.addresses[number][1]
        secured = {"ssl": self.client_tls} if entry.tls == "implicit" and chance.random() < 0.5 else {}
        wire = (self.mangler.header() if entry.proxy_from else b"") + self.mangler.wire()
        segments, end = list(self.mangler.segments(wire)), chance.choice(("half", "half", "close", "reset"))
        readable = entry.tls != "implicit" or bool(secured)
        self.sessions += 1
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, **secured)
            try:
                answer = await asyncio.wait_for(self._talk(reader, writer, segments, end), PATIENCE)
            finally:
                writer.close()
            self.heard += lines_of(answer) if readable else []

    async def _talk(self, reader, writer, segments, end: str) -> bytes:
        for segment in segments:
            if not writer.is_closing():
                writer.write(segment)
            await asyncio.sleep(0)
        if end == "reset":
            writer.transport.abort()
        if end != "half" or writer.is_closing():
            return b""
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.write(b"\r\n.\r\nQUIT\r\n" * 7)  # TLS has no half close: out of whatever it is in
        return await last_words(reader)


async def last_words(reader) -> bytes:
    """All that is said, up to the end or the 421 that announces it: under TLS the end itself takes a second to come."""
    heard = b""
    while (news := await reader.read(1 << 16)) and b"\r\n421 " not in (heard := heard + news):
        pass
    return heard


def lines_of(answer: bytes) -> list[str]:
    """The lines up to the TLS handshake that a session asked for in the clear."""
    clear = answer.partition(b"220 2.0.0 Ready to start TLS\r\n")[0]
    return clear.decode("ascii").splitlines()


@pytest.fixture
def troubles(monkeypatch, caplog):
    """Whatever a fault in us would leave: with the loop, with the collector of garbage, in the log."""
    found: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    caplog.set_level(logging.WARNING)
    yield found
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    # Our spool fails at times, which is told; nothing else may be.
    found += [record.getMessage() for record in errors if "SpoolUnavailable" not in record.getMessage()]
    assert found == []


ENTRIES = [
    Entry(),
    Entry(tls="required"),
    Entry(tls="implicit"),
    Entry(proxy_from=(ip_network("127.0.0.0/8"),)),
    Entry(tls="implicit", proxy_from=(ip_network("127.0.0.0/8"),)),
]


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_session_does_harm(identity, client_tls, users, troubles, seed):
    """Each reply is one of the table, and nothing is left over: no task, no session, no byte in flight, no place taken."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    before = asyncio.all_tasks()
    budget, door = Budget(60_000), Doorkeeper(Caps(connections=AT_ONCE), lambda _: False, Clock(step=10.0))
    intake = new_intake(
        tls=identity.tls(),
        users=users,
        budget=budget,
        doorkeeper=door,
        commands=60,
        message_size=20_000,
        bytes_wait=0.01,
    )
    for entry in ENTRIES:
        await intake.listener.start("127.0.0.1", 0, entry)
    fuzz = Fuzz(intake, client_tls, seed)
    for number, entry in enumerate(ENTRIES):
        await fuzz.sessions_at(number, entry)
    async with asyncio.timeout(PATIENCE):
        while intake.listener.open_sessions:
            await asyncio.sleep(0.01)
    assert await intake.listener.drain(PATIENCE) == 0
    assert {line for line in fuzz.heard if line not in OURS and not FILLED.fullmatch(line)} == set()
    assert len({line[:9] for line in fuzz.heard}) > 25, "and many of them were heard"
    assert (budget.in_use, door.connections, intake.opened - intake.closed) == (0, 0, 0)
    assert not budget._waiting and not door._open_by_network and not intake.listener._admitted
    gc.collect()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before
