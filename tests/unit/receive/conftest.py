"""An intake on a real socket of loopback, a spool that remembers, and a raw SMTP client."""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence

import pytest
import trustme

from apptrack_ingest.model import Arrival, Message
from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.deciding import Decider
from apptrack_ingest.receive.judging import is_loopback
from apptrack_ingest.receive.listener import Listener, listening_sockets
from apptrack_ingest.receive.neighbours import Neighbours
from apptrack_ingest.receive.policy import Destination, Directory, Limits
from apptrack_ingest.receive.pressure import Floors, Pressure, Room
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.reception import Hooks, Reception
from apptrack_ingest.receive.session import Session
from apptrack_ingest.receive.tls import Tls
from apptrack_ingest.receive.users import TooBusy, Users, make_hash
from apptrack_ingest.spool.contract import Load
from apptrack_ingest.trust import Connection, Judgement, Mail, Rule, Rules, Verdict

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


class Judge:
    """Remembers whom it was asked about. Believes loopback alone, but for the accounts that `rules` names (all of them
    under "*"): which rule decided there."""

    def __init__(self, rules: Mapping[str | None, Rule] | None = None) -> None:
        self.rules = rules or {}
        self.mails: list[Mail] = []

    async def judge(self, mail: Mail, rules: Mapping[str | None, Sequence[Rules]]) -> Judgement:
        self.mails.append(mail)
        local = Rule.NETWORK if is_loopback(mail.connection.address) else Rule.NONE
        return Judgement({account: self._verdict(account, local) for account in rules})

    def _verdict(self, account: str | None, local: Rule) -> Verdict:
        rule = self.rules.get(account, self.rules.get("*", local))
        return Verdict(rule not in (Rule.NONE, Rule.UNDECIDED), rule, "as the test has it")

    @property
    def connection(self) -> Connection:
        """Where the last mail came from."""
        return self.mails[-1].connection


class BusyUsers(Users):
    """ann, whose password waits behind too many others while `busy`."""

    def __init__(self) -> None:
        super().__init__({"ann": make_hash("pass word", n=4096, p=1)})
        self.busy = True

    async def check(self, user: str, password: str) -> bool:
        if self.busy:
            raise TooBusy
        return await super().check(user, password)


class Clock:
    """Seconds that pass when a test says so, or by themselves: `step` at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 1000.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Disk:
    """The spool's disk and load as a test has them, with the pressure that they make: asked anew every time. Of several
    numbers of free bytes each is seen once, the last from then on."""

    def __init__(self, floors: Floors, *free_bytes: int) -> None:
        self.free(*(free_bytes or (10**9,)))
        self.load = Load(0, 0, 0)
        self.pressure = Pressure(floors, self._load, self._room, clock=Clock(step=1.0))

    def free(self, *free_bytes: int) -> None:
        self._rooms = [Room(count, 10**6) for count in free_bytes]

    def _room(self) -> Room:
        return self._rooms.pop(0) if len(self._rooms) > 1 else self._rooms[0]

    async def _load(self) -> Load:
        return self.load


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
    """A listener with all it needs, and what it told its hooks; `parts` are the decider's own (trust, limits, pressure,
    doorkeeper)."""

    def __init__(
        self,
        directory: Directory,
        judge: Judge | None = None,
        *,
        tls: Tls | None = None,
        users: Users | None = None,
        budget: Budget | None = None,
        neighbours: Neighbours | None = None,
        **parts,
    ) -> None:
        self.spool = Spool()
        self.judge = judge or Judge()
        self.replies: list[str] = []
        self.accepted: list[float] = []
        self.received: list[str] = []
        self.limited: list[Limit] = []
        self.opened = self.closed = self.ungreeted = 0
        hooks = Hooks(
            reply=lambda code: self.replies.append(str(code)),
            accept=self.accepted.append,
            spooled=lambda mail: self.received.extend(arrival.account or "" for arrival in mail.arrivals),
            limited=self.limited.append,
            session_opened=self._opened,
            session_closed=self._closed,
            ungreeted=self._ungreeted,
        )
        self.reception = Reception(
            lambda message, arrivals: self.spool.put(message, arrivals),
            Decider(directory, self.judge, **parts),
            clock=lambda: NOW,
            hostname="mx.test.example",
            hooks=hooks,
        )
        self.listener = Listener(self.reception, tls=tls, users=users, budget=budget, neighbours=neighbours)
        self.clients: list[Client] = []

    @property
    def port(self) -> int:
        return self.listener.addresses[0][1]

    @property
    def session(self) -> Session:
        """The only session open."""
        (session,) = self.listener._open
        assert isinstance(session, Session)
        return session

    async def sessions_open(self, opened: int = 1) -> None:
        """Wait until so many connections were made."""
        async with asyncio.timeout(PATIENCE):
            while self.opened < opened:
                await asyncio.sleep(0.001)

    async def sessions_over(self, opened: int = 1) -> None:
        """Wait until so many connections were made, and none is open."""
        await self.sessions_open(opened)
        async with asyncio.timeout(PATIENCE):
            while self.listener.open_sessions:
                await asyncio.sleep(0.001)
        assert self.opened == self.closed

    def _opened(self) -> None:
        self.opened += 1

    def _closed(self) -> None:
        self.closed += 1

    def _ungreeted(self) -> None:
        self.ungreeted += 1

    async def knock(self, first: bytes = b"", **opening) -> Client:
        """A client that was not greeted yet; `first` is what it says before anything else."""
        if "sock" not in opening:
            opening = {"host": "127.0.0.1", "port": self.port, **opening}
        client = Client(*await asyncio.open_connection(**opening))
        self.clients.append(client)
        client.send(first)
        return client

    async def connect(self, first: bytes = b"", **opening) -> Client:
        """A client that was greeted."""
        client = await self.knock(first, **opening)
        assert await client.reply() == "220 mx.test.example ESMTP apptrack-ingest"
        return client

    async def connect_tls(self, context: ssl.SSLContext) -> Client:
        """A client that was greeted and spoke STARTTLS, and has to say EHLO again."""
        client = await self.connect()
        assert "250-STARTTLS" in (await client.say("EHLO x")).splitlines()
        assert await client.say("STARTTLS") == "220 2.0.0 Ready to start TLS"
        await client.writer.start_tls(context, server_hostname="127.0.0.1")
        return client


LIMITS = {field.name for field in dataclasses.fields(Limits)}


def new_intake(directory: Directory = DIRECTORY, **wishes) -> Intake:
    """An intake that listens nowhere yet; single limits by keyword, and whatever else `Intake` takes."""
    limits = Limits(**{name: wishes.pop(name) for name in LIMITS & wishes.keys()})
    return Intake(directory, limits=limits, **wishes)


@pytest.fixture(name="new_intake")
def _new_intake():
    return new_intake


@pytest.fixture
async def make_intake():
    """Makes intakes, as `new_intake` does, that listen. Nothing may reach the loop's own handler of exceptions."""
    made, problems = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    async def make(directory: Directory = DIRECTORY, *, entry=None, shared=False, **wishes) -> Intake:
        intake = new_intake(directory, **wishes)
        for sock in listening_sockets("127.0.0.1", 0):
            await intake.listener.serve(sock, entry, shared=shared)
        made.append(intake)
        return intake

    yield make
    for intake in made:
        for client in intake.clients:
            client.writer.close()
        await intake.listener.drain(PATIENCE)
    assert problems == []


class Identity:
    """Our certificate in files, a clock of its own, and what was told about it."""

    def __init__(self, directory, authority: trustme.CA) -> None:
        self.certificate, self.key = directory / "cert.pem", directory / "key.pem"
        self.authority = authority
        self.now = NOW
        self.problems: list[str] = []

    def renew(self, *, certificate: bool = True, key: bool = True, **wishes) -> None:
        """A new pair, of which one half alone may be written."""
        made = self.authority.issue_cert("127.0.0.1", **wishes)
        if certificate:
            made.cert_chain_pems[0].write_to_path(self.certificate)
        if key:
            made.private_key_pem.write_to_path(self.key)

    def tls(self, **wishes) -> Tls:
        return Tls(self.certificate, self.key, clock=lambda: self.now, on_problem=self.problems.append, **wishes)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def identity(tmp_path, authority) -> Identity:
    made = Identity(tmp_path, authority)
    made.renew()
    return made


@pytest.fixture
def client_tls(authority) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def users() -> Users:
    """ann with an easy password, and a hash that is cheap."""
    return Users({"ann": make_hash("pass word", n=4096, p=1)})


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
