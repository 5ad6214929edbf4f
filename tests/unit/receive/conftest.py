"""An intake on a real socket of loopback, a spool that remembers, and a raw SMTP client."""

import asyncio
import contextlib
import dataclasses
import socket
import struct
from collections.abc import Sequence

import pytest

from apptrack_ingest.model import Arrival, Message
from apptrack_ingest.receive.listener import Listener
from apptrack_ingest.receive.policy import Destination, Directory, Limits
from apptrack_ingest.receive.reception import Hooks, Reception
from apptrack_ingest.receive.session import Session

NOW = 1_700_000_000.0
PATIENCE = 10.0

DIRECTORY = Directory(
    accounts={
        "north": Destination(frozenset({"jobs@north.example"}), 11),
        "south": Destination(frozenset({"south.example"}), 22),
        "twin": Destination(frozenset({"both@shared.example"})),
        "other": Destination(frozenset({"both@shared.example"})),
    },
    shared=frozenset({"apply@shared.example"}),
)

MAIL = b"From: Ann <ann@example.org>\r\nX-iTrackID: 33139609\r\nSubject: CV\r\n\r\nHello.\r\n"


class Spool:
    """Remembers what was put; can be told to fail, or to wait for `gate` before it commits."""

    def __init__(self) -> None:
        self.put_calls = 0
        self.kept: list[tuple[Message, tuple[Arrival, ...]]] = []
        self.error: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.committed = asyncio.Event()

    async def put(self, message: Message, arrivals: Sequence[Arrival]) -> int:
        self.put_calls += 1
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.kept.append((message, tuple(arrivals)))
        self.committed.set()
        return len(self.kept)

    @property
    def message(self) -> Message:
        """The only message kept."""
        ((message, _),) = self.kept
        return message

    @property
    def body(self) -> bytes:
        """The only message's bytes below our own Received header."""
        head, _, rest = self.message.raw.partition(b"+0000\r\n")
        assert head.startswith(b"Received: ")
        return rest


class Client:
    """A raw SMTP client: bytes out, replies in, every wait bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[str] = []

    async def reply(self) -> str:
        """The next reply, its lines joined by newlines; "" at the end of the connection."""
        lines = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), PATIENCE)).decode()
            assert not line or line.endswith("\r\n")
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                break
        self.heard += [line for line in lines if line]
        return "\n".join(lines)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def say(self, line: str | bytes) -> str:
        self.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return await self.reply()

    async def envelope(self, *recipients: str, sender: str = "ann@example.org") -> None:
        """EHLO, MAIL, RCPT and DATA, up to the 354."""
        assert (await self.say("EHLO client.example")).startswith("250-")
        await self.transaction(*recipients, sender=sender)

    async def transaction(self, *recipients: str, sender: str = "ann@example.org") -> None:
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250 2.1.0")
        for recipient in recipients or ("jobs@north.example",):
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250 2.1.5")
        assert (await self.say("DATA")).startswith("354 ")

    async def deliver(self, mail: bytes = MAIL, *recipients: str) -> str:
        """One whole mail; its bytes must need no dot-stuffing."""
        await self.envelope(*recipients)
        self.send(mail + b".\r\n")
        return await self.reply()

    def reset(self) -> None:
        """Break the connection (RST), so that the other side notices at once."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def ended(self) -> bool:
        """Whether the server closes the connection (within our patience)."""
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(1), PATIENCE) == b""
        return True


class Intake:
    """A listener with all it needs, and what it told its hooks."""

    def __init__(self, limits: Limits, directory: Directory, tls_context) -> None:
        self.spool = Spool()
        self.replies: list[str] = []
        self.accepted: list[float] = []
        self.received: list[str] = []
        hooks = Hooks(reply=self.replies.append, accept=self.accepted.append, received=self.received.append)
        self.reception = Reception(
            lambda message, arrivals: self.spool.put(message, arrivals),
            directory,
            clock=lambda: NOW,
            hostname="mx.test.example",
            limits=limits,
            hooks=hooks,
        )
        self.listener = Listener(self.reception, tls_context=tls_context)
        self.clients: list[Client] = []

    @property
    def port(self) -> int:
        return self.listener.addresses[0][1]

    @property
    def session(self) -> Session:
        """The only session open."""
        (session,) = self.listener._sessions
        return session

    async def sessions_over(self) -> None:
        """Wait until no session is open."""
        async with asyncio.timeout(PATIENCE):
            while self.listener.open_sessions:
                await asyncio.sleep(0.001)

    async def connect(self) -> Client:
        """A client that was greeted."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        assert await client.reply() == "220 mx.test.example ESMTP apptrack-ingest"
        return client


@pytest.fixture
async def make_intake():
    """Makes intakes; limits by keyword."""
    made = []

    async def make(directory: Directory = DIRECTORY, tls_context=None, **limits) -> Intake:
        intake = Intake(dataclasses.replace(Limits(), **limits), directory, tls_context)
        await intake.listener.start("127.0.0.1", 0)
        made.append(intake)
        return intake

    yield make
    for intake in made:
        for client in intake.clients:
            client.writer.close()
        await intake.listener.drain(PATIENCE)


@pytest.fixture
async def intake(make_intake) -> Intake:
    return await make_intake()


@pytest.fixture
async def client(intake) -> Client:
    return await intake.connect()


@pytest.fixture
def mail() -> bytes:
    return MAIL


@pytest.fixture
def directory() -> Directory:
    return DIRECTORY


@pytest.fixture
def spool() -> Spool:
    return Spool()
