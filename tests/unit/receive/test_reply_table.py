"""Every reply we give, on a real socket: what leads to it, its words, and what the connection is good for afterwards."""

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.receive.judging import TrustPolicy
from apptrack_ingest.receive.listener import Entry
from apptrack_ingest.receive.policy import REPLIES
from apptrack_ingest.receive.pressure import Floors
from apptrack_ingest.receive.rates import Caps, Doorkeeper, Limit
from apptrack_ingest.spool.contract import Load
from apptrack_ingest.trust import Rule

from .conftest import MAIL, BusyUsers, Clock, Disk, Judge

Line = str | bytes
"""What is said: a command's line (str), or bytes as they are."""

EHLO: tuple[Line, ...] = ("EHLO client.example",)
SENDER = (*EHLO, "MAIL FROM:<ann@example.org>")
RECIPIENT = (*SENDER, "RCPT TO:<jobs@north.example>")
DATA = (*RECIPIENT, "DATA")
WHOLE = (*DATA, MAIL + b".\r\n")
NO_LOAD = Load(0, 0, 0)
NO_ID = b"From: Ann <ann@example.org>\r\n\r\nHello.\r\n.\r\n"
LARGE = MAIL + b"x" * 998 + b"\r\n.\r\n"


def to(*recipients: str, mail: bytes = MAIL + b".\r\n", sender: str = "ann@example.org") -> tuple[Line, ...]:
    """A whole mail."""
    return (*EHLO, f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA", mail)


def b64(text: bytes) -> str:
    return b64encode(text).decode()


RIGHT, WRONG = (f"AUTH PLAIN {b64(words)}" for words in (b"\0ann\0pass word", b"\0ann\0guess"))


# --- what an intake is like, and a client that was greeted by it --------------------------------------------------


@dataclass
class World:
    """An intake and a client; `relieve` makes room where there was none."""

    intake: object
    client: object
    relieve: Callable[[], None] = field(default=lambda: None)


class Maker:
    """Makes worlds by their names."""

    def __init__(self, make_intake, fixture: Callable[[str], object]) -> None:
        self._make = make_intake
        self._fixture = fixture

    def _secured(self, **wishes) -> dict[str, object]:
        return {"tls": self._fixture("identity").tls(), "users": self._fixture("users"), **wishes}

    async def plain(self, **wishes) -> World:
        intake = await self._make(**wishes)
        return World(intake, await intake.connect())

    async def clear(self, tls: str = "starttls") -> World:
        """TLS may be had, but is not spoken."""
        return await self.plain(**self._secured(entry=Entry(tls=tls)))

    async def tls_demanded(self) -> World:
        return await self.clear("required")

    async def tls(self, **wishes) -> World:
        intake = await self._make(**self._secured(**wishes))
        return World(intake, await intake.connect_tls(self._fixture("client_tls")))

    async def auth_busy(self) -> World:
        return await self.tls(users=BusyUsers())

    async def auth_shut(self) -> World:
        return await self.tls(doorkeeper=Doorkeeper(Caps(wrong_logins_per_minute=0), lambda _: True, Clock()))

    async def auth_demanded(self) -> World:
        return await self.tls(entry=Entry(auth_required=True))

    async def draining(self) -> World:
        intake = await self._make()
        intake.listener.draining = True
        return World(intake, await intake.knock())

    async def balancer_elsewhere(self) -> World:
        intake = await self._make(entry=Entry(proxy_from=(ip_network("192.0.2.0/24"),)))
        return World(intake, await intake.knock())

    async def behind_balancer(self) -> World:
        intake = await self._make(entry=Entry(proxy_from=(ip_network("127.0.0.0/8"),)))
        return World(intake, await intake.knock())

    async def door(self, **caps) -> World:
        intake = await self._make(doorkeeper=Doorkeeper(Caps(**caps), lambda _: False, Clock()))
        return World(intake, await intake.knock())

    async def shut(self) -> World:
        return await self.door(connections=0)

    async def shut_to_networks(self) -> World:
        return await self.door(connections_per_network=0)

    async def shut_to_new(self) -> World:
        return await self.door(new_connections_per_minute=0)

    async def no_mails(self) -> World:
        return await self.plain(doorkeeper=Doorkeeper(Caps(messages_per_minute=0), lambda _: False, Clock()))

    async def no_untrusted(self) -> World:
        keeper = Doorkeeper(Caps(untrusted_per_minute=0), lambda _: False, Clock())
        return await self.plain(doorkeeper=keeper, judge=Judge({"*": Rule.NONE}))

    async def loaded(self, floors: Floors, *free_bytes: int, load: Load = NO_LOAD, **wishes) -> World:
        """A spool with so little room, or so much in it."""
        disk = Disk(floors, *free_bytes)
        disk.load = load
        await disk.pressure.refresh()
        world = await self.plain(pressure=disk.pressure, **wishes)
        world.relieve = lambda: disk.free(10**9)
        return world

    async def disk_full(self) -> World:
        return await self.loaded(Floors(free_bytes=1000), 999)

    async def disk_nearly_full(self) -> World:
        """Room for a small mail, not for 1,000 bytes."""
        return await self.loaded(Floors(free_bytes=1000), 1900)

    async def disk_fills(self) -> World:
        """There was room at the start and at MAIL."""
        return await self.loaded(Floors(free_bytes=1000), 10**9, 10**9, 0)

    async def no_inodes(self) -> World:
        return await self.loaded(Floors(free_inodes=10**7))

    async def backlog(self) -> World:
        return await self.loaded(Floors(backlog=5), load=Load(5, 0, 0))

    async def untrusted_cap(self) -> World:
        floors, load = Floors(untrusted_messages=1), Load(1, 1, 100)
        return await self.loaded(floors, load=load, judge=Judge({"*": Rule.NONE}))

    async def spool_down(self) -> World:
        world = await self.plain()
        world.intake.spool.error = SpoolUnavailable("no")
        return world

    async def undecided(self) -> World:
        return await self.plain(judge=Judge({"*": Rule.UNDECIDED}))

    async def one_undecided(self) -> World:
        return await self.plain(judge=Judge({"south": Rule.UNDECIDED}))

    async def strangers_held(self) -> World:
        return await self.plain(judge=Judge({"*": Rule.NONE}), trust=TrustPolicy(untrusted_size=1000))

    async def strangers_refused(self) -> World:
        trust = TrustPolicy(refusing=frozenset({"north", "south", None}))
        return await self.plain(judge=Judge({"*": Rule.NONE}), trust=trust)

    async def one_refuses(self) -> World:
        return await self.plain(judge=Judge({"*": Rule.NONE}), trust=TrustPolicy(refusing=frozenset({"north"})))

    async def one_believes(self) -> World:
        trust = TrustPolicy(refusing=frozenset({"north", "south"}))
        return await self.plain(judge=Judge({"north": Rule.NONE, "south": Rule.DKIM}), trust=trust)

    async def ids_demanded(self) -> World:
        return await self.plain(refuse_without_id=True)

    async def line_ends_demanded(self) -> World:
        return await self.plain(refuse_bare_line_ends=True)

    async def small(self) -> World:
        return await self.plain(message_size=1000)

    async def one_recipient(self) -> World:
        return await self.plain(recipients=1)

    async def tight(self) -> World:
        return await self.plain(header_block=100, received_headers=3)

    async def few_commands(self) -> World:
        return await self.plain(commands=2)

    async def hurried(self) -> World:
        return await self.plain(idle_timeout=0.05)

    async def hurried_in_data(self) -> World:
        return await self.plain(data_timeout=0.05)

    async def short(self) -> World:
        return await self.plain(session_time=0.05)


# --- what the connection is good for afterwards -------------------------------------------------------------------


async def new(world: World) -> None:
    """Nobody said EHLO."""
    assert await world.client.say("DATA") == "503 5.5.1 Say EHLO or HELO first"


async def ready(world: World) -> None:
    """No transaction is under way; one may begin."""
    assert await world.client.say("RCPT TO:<postmaster>") == "503 5.5.1 Give a sender first (MAIL)"
    assert await world.client.say("NOOP") == "250 2.0.0 OK"


async def sender(world: World) -> None:
    """A transaction without recipients, which goes on."""
    assert await world.client.say("DATA") == "503 5.5.1 Give an accepted recipient first (RCPT)"
    assert await world.client.say("RCPT TO:<postmaster>") == "250 2.1.5 Recipient OK"


async def recipient(world: World) -> None:
    """A transaction with recipients, which goes on to its end."""
    world.relieve()
    assert await world.client.say("MAIL FROM:<>") == "503 5.5.1 A sender was given already"
    assert await world.client.say("DATA") == "354 End data with <CR><LF>.<CR><LF>"
    world.client.send(MAIL + b".\r\n")
    assert (await world.client.reply()).startswith("250 2.6.0 Queued as ")


async def data(world: World) -> None:
    """The mail may come."""
    world.client.send(MAIL + b".\r\n")
    assert await world.client.reply() == "250 2.6.0 Queued as 1"


async def challenge(world: World) -> None:
    """AUTH goes on."""
    assert await world.client.say("*") == "501 5.7.0 Authentication cancelled"


async def closed(world: World) -> None:
    """Nothing more is said or heard, whatever comes."""
    world.client.send(b"NOOP\r\n")
    assert await world.client.ended()
    assert world.intake.spool.put_calls == 0


async def known(world: World) -> None:
    """The user is known."""
    assert await world.client.say(RIGHT) == "503 5.5.1 Authenticated already"


async def nothing_but_tls(world: World) -> None:
    """STARTTLS is still to be had, and nothing of a mail."""
    assert await world.client.say("RCPT TO:<postmaster>") == "530 5.7.0 Must issue a STARTTLS command first"
    assert await world.client.say("STARTTLS") == "220 2.0.0 Ready to start TLS"


async def handshake(world: World) -> None:
    """A TLS handshake is awaited: whatever else ends it, without a word in the clear."""
    world.client.send(b"NOOP\r\n")
    assert b"250" not in await world.client.reader.read()
    assert world.intake.replies[-1] == "220"


# --- the table ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """After the greeting `says` is said in a world, each line once the one before was answered; the last answer is the
    reply (where nothing is said: what comes by itself), and then the connection is in the state `after`."""

    reply: str
    says: tuple[Line, ...]
    after: Callable[[World], Awaitable[None]]
    world: str = "plain"
    limit: Limit | None = None
    """What was met, if it is one of the limits: it is told to whoever counts."""

    def __str__(self) -> str:
        last = self.says[-1] if self.says else "nothing"
        words = last if isinstance(last, str) else "mail"
        return f"{self.reply}-{self.world}-{words[:24]}-{self.after.__name__}"


CASES = [
    # The protocol's own.
    Case("HELLO", ("HELO client.example",), ready),
    Case("HELLO", EHLO, ready),
    Case("HELLO", (*RECIPIENT, "HELO again"), ready),
    Case("HELLO", (*RECIPIENT, "EHLO again"), ready),
    Case("BYE", ("QUIT",), closed),
    Case("BYE", (*RECIPIENT, "QUIT"), closed),
    Case("OK", ("NOOP",), new),
    Case("OK", (*RECIPIENT, "NOOP"), recipient),
    Case("OK", (*RECIPIENT, "RSET"), ready),
    Case("HELP", (*RECIPIENT, "HELP"), recipient),
    Case("CANNOT_VERIFY", (*RECIPIENT, "VRFY jobs@north.example"), recipient),
    Case("SENDER_OK", SENDER, sender),
    Case("RECIPIENT_OK", RECIPIENT, recipient),
    Case("START_DATA", DATA, data),
    Case("HELO_FIRST", ("MAIL FROM:<>",), new),
    Case("HELO_FIRST", ("RCPT TO:<postmaster>",), new),
    Case("HELO_FIRST", ("DATA",), new),
    Case("MAIL_TWICE", (*RECIPIENT, "MAIL FROM:<>"), recipient),
    Case("MAIL_FIRST", (*EHLO, "RCPT TO:<postmaster>"), ready),
    Case("RECIPIENT_FIRST", (*SENDER, "DATA"), sender),
    Case("RECIPIENT_FIRST", (*SENDER, "RCPT TO:<who@ever.example>", "DATA"), sender),
    Case("LINE_TOO_LONG", (*RECIPIENT, "NOOP " + "x" * 1000), recipient),
    Case("LINE_TOO_LONG", (*RECIPIENT, "x" * 100_000), recipient),
    Case("BAD_SYNTAX", (*RECIPIENT, ""), recipient),
    Case("BAD_SYNTAX", (*RECIPIENT, b"\xff\r\n"), recipient),
    Case("UNKNOWN_COMMAND", (*RECIPIENT, "BDAT 1 LAST"), recipient),
    Case("BAD_ARGUMENTS", (*RECIPIENT, "RCPT"), recipient),
    Case("BAD_ARGUMENTS", (*EHLO, "MAIL FROM:<a@b.example> SIZE=x"), ready),
    Case("BAD_ARGUMENTS", (*RECIPIENT, "DATA now"), recipient),
    Case("BAD_ADDRESS", (*EHLO, "MAIL FROM:<a b@c>"), ready),
    Case("BAD_ADDRESS", (*RECIPIENT, "RCPT TO:<>"), recipient),
    Case("UNKNOWN_PARAMETER", (*EHLO, "MAIL FROM:<a@b.example> RET=FULL"), ready),
    Case("UNKNOWN_PARAMETER", (*RECIPIENT, "RCPT TO:<postmaster> NOTIFY=NEVER"), recipient),
    Case("NOT_IMPLEMENTED", (*RECIPIENT, "EXPN list"), recipient),
    Case("NOT_IMPLEMENTED", (*EHLO, RIGHT), ready),
    # TLS and AUTH.
    Case("START_TLS", (*EHLO, "STARTTLS"), handshake, "clear"),
    Case("TLS_UNAVAILABLE", (*RECIPIENT, "STARTTLS"), recipient),
    Case("TLS_ACTIVE", (*RECIPIENT, "STARTTLS"), recipient, "tls"),
    Case("TLS_REQUIRED", (*EHLO, "MAIL FROM:<>"), nothing_but_tls, "tls_demanded"),
    Case("TLS_REQUIRED", (*EHLO, RIGHT), ready, "clear"),
    Case("AUTH_REQUIRED", (*EHLO, "MAIL FROM:<>"), ready, "auth_demanded"),
    Case("SENDER_OK", (*EHLO, RIGHT, "MAIL FROM:<>"), sender, "auth_demanded"),
    Case("AUTHENTICATED", (*EHLO, RIGHT), known, "tls"),
    Case("CHALLENGE", (*EHLO, "AUTH PLAIN"), challenge, "tls"),
    Case("CHALLENGE", (*EHLO, "AUTH LOGIN"), challenge, "tls"),
    Case("WRONG_CREDENTIALS", (*EHLO, WRONG), ready, "tls", Limit.CREDENTIALS),
    Case("TOO_MANY_LOGINS", (*EHLO, WRONG, WRONG, WRONG), closed, "tls", Limit.CREDENTIALS),
    Case("TOO_MANY_LOGINS", (*EHLO, RIGHT), closed, "auth_shut", Limit.CREDENTIALS),
    Case("AUTH_BUSY", (*EHLO, RIGHT), ready, "auth_busy", Limit.AUTH_QUEUE),
    Case("AUTH_LINE_TOO_LONG", (*EHLO, "AUTH PLAIN", "A" * 12_300), ready, "tls"),
    Case("BAD_ENCODING", (*EHLO, "AUTH PLAIN !"), ready, "tls"),
    Case("AUTH_CANCELLED", (*EHLO, "AUTH PLAIN", "*"), ready, "tls"),
    Case("EHLO_FIRST", ("HELO x", RIGHT), ready, "tls"),
    Case("AUTH_TWICE", (*EHLO, RIGHT, RIGHT), known, "tls"),
    Case("AUTH_IN_MAIL", (*RECIPIENT, RIGHT), recipient, "tls"),
    Case("UNKNOWN_MECHANISM", (*EHLO, "AUTH CRAM-MD5"), ready, "tls"),
    # Who connects, and how long.
    Case("PROXY_REQUIRED", (), closed, "balancer_elsewhere", Limit.PROXY),
    Case("PROXY_REQUIRED", (b"EHLO client.example\r\n",), closed, "behind_balancer", Limit.PROXY),
    Case("TOO_MANY_CONNECTIONS", (), closed, "shut", Limit.CONNECTIONS),
    Case("TOO_MANY_CONNECTIONS", (), closed, "shut_to_networks", Limit.CONNECTIONS_PER_NETWORK),
    Case("TOO_MANY_CONNECTIONS", (), closed, "shut_to_new", Limit.CONNECTION_RATE),
    Case("SHUTTING_DOWN", (), closed, "draining"),
    Case("TOO_MANY_ERRORS", ("GET / HTTP/1.1", "A: b", "C: d", "E: f", "G: h"), closed),
    Case("TOO_MANY_COMMANDS", (*SENDER, "RCPT TO:<postmaster>"), closed, "few_commands", Limit.COMMANDS),
    Case("IDLE", (), closed, "hurried", Limit.IDLE),
    Case("IDLE", (*DATA, b"A: b\r\n"), closed, "hurried_in_data", Limit.IDLE),
    Case("SESSION_TOO_LONG", (), closed, "short", Limit.SESSION_TIME),
    # About a mail: at MAIL, RCPT and DATA.
    Case("TOO_MANY_MAILS", (*EHLO, "MAIL FROM:<>"), closed, "no_mails", Limit.MESSAGE_RATE),
    Case("NO_ROOM", (*EHLO, "MAIL FROM:<>"), ready, "disk_full", Limit.DISK_BYTES),
    Case("NO_ROOM", (*EHLO, "MAIL FROM:<>"), ready, "no_inodes", Limit.DISK_INODES),
    Case("NO_ROOM", (*EHLO, "MAIL FROM:<>"), ready, "backlog", Limit.BACKLOG),
    Case("NO_ROOM", (*EHLO, "MAIL FROM:<> SIZE=1000"), ready, "disk_nearly_full", Limit.DISK_BYTES),
    Case(
        "SENDER_OK",
        (*EHLO, "MAIL FROM:<> SIZE=1000", "MAIL FROM:<> SIZE=800"),
        sender,
        "disk_nearly_full",
        Limit.DISK_BYTES,
    ),
    Case("NO_ROOM", (*RECIPIENT, "DATA"), recipient, "disk_fills", Limit.DISK_BYTES),
    Case("TOO_BIG", (*EHLO, "MAIL FROM:<> SIZE=1001"), ready, "small", Limit.MESSAGE_SIZE),
    Case("UNKNOWN_RECIPIENT", (*SENDER, "RCPT TO:<who@ever.example>"), sender),
    Case("UNKNOWN_RECIPIENT", (*RECIPIENT, "RCPT TO:<who@ever.example>"), recipient),
    Case(
        "TOO_MANY_RECIPIENTS", (*RECIPIENT, "RCPT TO:<a@south.example>"), recipient, "one_recipient", Limit.RECIPIENTS
    ),
    # About a mail: at its end.
    Case("QUEUED", WHOLE, ready),
    Case("QUEUED", to("jobs@north.example", "a@south.example"), ready),
    Case("QUEUED", to("jobs@north.example", mail=NO_ID), ready),
    Case("QUEUED", to("jobs@north.example", mail=NO_ID, sender=""), ready),
    Case("QUEUED", WHOLE, ready, "tls"),
    Case("TRY_LATER", WHOLE, ready, "spool_down"),
    Case("DNS_FAILED", WHOLE, ready, "undecided"),
    Case("DNS_FAILED", to("jobs@north.example", "a@south.example"), ready, "one_undecided"),
    Case("QUEUED", WHOLE, ready, "one_undecided"),
    Case("NO_ROOM", (*DATA, LARGE), ready, "disk_nearly_full", Limit.DISK_BYTES),
    Case("TOO_BIG", (*DATA, LARGE), ready, "small", Limit.MESSAGE_SIZE),
    Case("HEADERS_TOO_BIG", (*DATA, b"A: " + b"x" * 100 + b"\r\n\r\n.\r\n"), ready, "tight", Limit.HEADER_BLOCK),
    Case("LOOP", (*DATA, b"Received: x\r\n" * 4 + b"\r\n.\r\n"), ready, "tight", Limit.RECEIVED_COUNT),
    Case("QUEUED", (*DATA, b"A: b\r\n\r\none\ntwo\r\n.\r\n"), ready),
    Case("BARE_LINE_ENDS", (*DATA, b"A: b\r\n\r\none\ntwo\r\n.\r\n"), ready, "line_ends_demanded"),
    Case("BARE_LINE_ENDS", (*DATA, b"A: b\r\n\r\none\rtwo\r\n.\r\n"), ready, "line_ends_demanded"),
    Case("QUEUED", to("postmaster", mail=b"A: b\r\n\r\none\ntwo\r\n.\r\n"), ready, "line_ends_demanded"),
    Case("NO_APPLICANT_ID", to("jobs@north.example", mail=NO_ID), ready, "ids_demanded"),
    Case("NO_APPLICANT_ID", to("jobs@north.example", mail=NO_ID, sender=""), ready, "ids_demanded"),
    Case("QUEUED", to("postmaster", mail=NO_ID), ready, "ids_demanded"),
    Case("QUEUED", to("postmaster@south.example", "jobs@north.example", mail=NO_ID), ready, "ids_demanded"),
    Case("QUEUED", WHOLE, ready, "ids_demanded"),
    # About a mail that nobody vouches for.
    Case("QUEUED", WHOLE, ready, "strangers_held"),
    Case("TOO_BIG", (*DATA, LARGE), ready, "strangers_held", Limit.UNTRUSTED_SIZE),
    Case("UNTRUSTED", WHOLE, ready, "strangers_refused"),
    Case("UNTRUSTED", to("jobs@north.example", "a@south.example"), ready, "strangers_refused"),
    Case("UNTRUSTED", to("apply@shared.example"), ready, "strangers_refused"),
    Case("QUEUED", to("postmaster"), ready, "strangers_refused"),
    Case("QUEUED", to("jobs@north.example", "postmaster"), ready, "strangers_refused"),
    Case("UNTRUSTED", WHOLE, ready, "one_refuses"),
    Case("QUEUED", to("jobs@north.example", "a@south.example"), ready, "one_refuses"),
    Case("QUEUED", to("jobs@north.example", "a@south.example"), ready, "one_believes"),
    Case("UNTRUSTED", WHOLE, ready, "one_believes"),
    Case("TOO_MANY_MAILS", WHOLE, closed, "no_untrusted", Limit.UNTRUSTED_RATE),
    Case("NO_ROOM", WHOLE, ready, "untrusted_cap", Limit.UNTRUSTED_BACKLOG),
]


@pytest.fixture
def maker(make_intake, request) -> Maker:
    """Keys and certificates take a while: made only where a world asks for them."""
    return Maker(make_intake, request.getfixturevalue)


def pattern(name: str) -> str:
    """The reply's line, whatever its fields hold."""
    fields = {"hostname": "mx.test.example", "id": "1", "challenge": "\0"}
    return re.escape(REPLIES[name].filled(**fields).render()).replace("\0", "[A-Za-z0-9+/=]*")


async def said(client, line: Line) -> str:
    client.send(line.encode() + b"\r\n" if isinstance(line, str) else line)
    return await client.reply()


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_reply_and_what_the_connection_is_good_for_after_it(maker, case):
    world = await getattr(maker, case.world)()
    reply = ""
    for line in case.says:
        reply = await said(world.client, line)
    if not case.says:
        reply = await world.client.reply()
    # Of the answer to EHLO the first line alone is in the table; the others are what we can.
    assert re.fullmatch(pattern(case.reply), reply.replace("250-", "250 ", 1).splitlines()[0]), reply
    assert world.intake.limited[-1:] == ([case.limit] if case.limit else [])
    await case.after(world)


async def test_a_greeting_comes_by_itself(maker):
    world = await maker.plain()
    assert world.client.heard == [REPLIES["GREETING"].filled(hostname="mx.test.example").render()]
    await new(world)


def test_every_reply_there_is_was_given():
    assert {case.reply for case in CASES} | {"GREETING"} == set(REPLIES)


def test_every_limit_there_is_was_met():
    """Some need more than a conversation: they have tests of their own."""
    elsewhere = {Limit.BYTES_IN_FLIGHT, Limit.COMMIT_TIME, Limit.TLS_HANDSHAKE}
    assert {case.limit for case in CASES if case.limit} | elsewhere == set(Limit)


async def test_a_mail_refused_is_not_spooled(maker):
    for name in ("strangers_refused", "ids_demanded", "line_ends_demanded", "tight", "untrusted_cap", "undecided"):
        world = await getattr(maker, name)()
        mail = b"A: " + b"x" * 100 + b"\n\r\n\r\n"
        assert (await world.client.deliver(mail))[0] in "45"
        assert world.intake.spool.put_calls == 0


async def test_no_reply_but_those_of_the_table_is_counted(maker):
    world = await maker.strangers_refused()
    await world.client.deliver(MAIL)
    assert world.intake.replies == ["220", "250", "250", "250", "354", "550"]
