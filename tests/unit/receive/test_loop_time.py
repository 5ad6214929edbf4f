"""No peer keeps the loop of the intake busy for long at a time: floods, huge lines and strange tongues, on a real socket."""

import asyncio
import base64
import contextlib
import re
import select
import socket
import ssl
import time

import dkim
import loop_time
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from loop_time import LONGEST

from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.data import DataReader, joined
from apptrack_ingest.receive.judging import TrustPolicy
from apptrack_ingest.receive.pressure import Floors
from apptrack_ingest.receive.rates import Caps, Doorkeeper
from apptrack_ingest.trust import Authenticator, Rules, Verifier

from .conftest import Disk

LOOP = "asyncio"  # whose callbacks can be measured; what they do is the same on every loop
PATIENCE = 60.0
NO_LIMIT = 10**9
MANY_BYTES = 256 * 1024

OPENING = b"EHLO client.example\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<jobs@north.example>\r\n"
ID = b"X-iTrackID: 33139609\r\n"
END = b"\r\n.\r\nQUIT\r\n"
LARGE = 30 * 1024 * 1024


def converse(port: int, *parts: bytes, piece: int = 1 << 20) -> bytes:
    """Talk from a thread of its own, so that its CPU counts apart: after the greeting one part, after each 354 the next.

    Reads all the while and returns what was heard until the other side closed.
    """
    heard, unsent, later = bytearray(), memoryview(b""), list(parts)
    deadline = time.monotonic() + PATIENCE
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock, contextlib.suppress(ConnectionError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        while True:
            assert time.monotonic() < deadline, f"no end of it: {bytes(heard[-200:])!r}"
            if not unsent and later and _may_go_on(heard, len(parts) - len(later)):
                unsent = memoryview(later.pop(0))
            readable, writable, _ = select.select([sock], [sock] if unsent else [], [], 1)
            if readable:
                news = sock.recv(1 << 16)
                if not news:
                    break
                heard += news
            if writable:
                unsent = unsent[sock.send(unsent[:piece]) :]
    return bytes(heard)


def _may_go_on(heard: bytearray, parts_sent: int) -> bool:
    """Whether the greeting was heard, and a 354 for every part but the first."""
    return heard.startswith(b"220 ") and len(re.findall(rb"(?m)^354 ", heard)) >= parts_sent


def codes(heard: bytes) -> list[bytes]:
    return re.findall(rb"(?m)^(\d{3}) ", heard)


async def test_the_measure_sees_who_keeps_the_loop_busy():
    async def busy() -> None:
        started = time.thread_time()
        while time.thread_time() - started < 0.010:
            pass

    with loop_time.callbacks() as seen:
        await asyncio.create_task(busy())
    assert seen.slowest >= 0.010 and "busy" in seen.what
    await asyncio.sleep(0)  # the step that ended the context was still within it when it began
    before = seen.count
    await asyncio.sleep(0)
    assert seen.count == before, "and only within its context"


@pytest.fixture
def flood(make_intake):
    """Talks to an intake, returns the codes heard and fails where a callback took too long; then an honest mail passes.

    What is too slow is slow every time: once in three tries is enough, for the machine has moods of its own.
    """

    async def flood(*parts: bytes, piece: int = 1 << 20, **wishes) -> list[bytes]:
        intake = await make_intake(**wishes)
        for _ in range(3):
            with loop_time.callbacks() as seen:
                heard = await asyncio.to_thread(converse, intake.port, *parts, piece=piece)
            if seen.slowest < LONGEST:
                break
        assert seen.slowest < LONGEST, seen.what
        honest = await asyncio.to_thread(converse, intake.port, OPENING + b"DATA\r\n", ID + END)
        assert codes(honest)[-2:] == [b"250", b"221"]
        return codes(heard)

    return flood


@pytest.mark.parametrize(
    ("line", "count"),
    [
        (b"NOOP\r\n", 100_000),
        (b"RCPT TO:<jobs@north.example>\r\n", 20_000),
        (b"RCPT TO:<" + b"a+" * 400 + b"@north.example>\r\n", 2_000),
        (b"MAIL FROM:<a@b.example>\r\nRSET\r\n", 5_000),
        (b"EHLO x\r\n", 5_000),
        (b"VRFY " + b"\xff" * 900 + b"\r\n", 2_000),
        (b"\r\n", 20_000),
        (b"\n", 20_000),
        (b"X\r\n", 20_000),
    ],
    ids=["noop", "rcpt", "long rcpt", "mail", "ehlo", "vrfy", "empty", "bare lf", "unknown"],
)
async def test_a_flood_of_pipelined_commands(flood, line, count):
    heard = await flood(OPENING + line * count + b"QUIT\r\n", commands=NO_LIMIT)
    assert heard[0] == b"220" and heard[-1] in (b"221", b"421", b"502")


async def test_a_flood_against_the_limit_of_commands(flood):
    heard = await flood(OPENING + b"NOOP\r\n" * 100_000 + b"QUIT\r\n", commands=1000)
    assert heard[-1] in (b"221", b"421")


@pytest.mark.parametrize("unit", [b"x", b"\r", b"x\x00", b"RCPT "], ids=["x", "bare cr", "nul", "words"])
async def test_a_command_line_of_thirty_megabytes(flood, unit):
    heard = await flood(unit * (LARGE // len(unit)) + b"\r\nQUIT\r\n")
    assert heard[-1] in (b"221", b"421")


@pytest.mark.parametrize(
    "unit",
    [b"x", b"\r", b"\n", b"\r\n..", b"x" * 76 + b"\r\n"],
    ids=["one line", "bare cr", "bare lf", "dots", "lines"],
)
@pytest.mark.parametrize("size", [LARGE - 1000, LARGE + 1000], ids=["largest", "too large"])
async def test_thirty_megabytes_of_data(flood, unit, size):
    mail = ID + b"\r\n" + unit * (size // len(unit))
    heard = await flood(OPENING + b"DATA\r\n", mail + END, message_size=LARGE, data_timeout=PATIENCE)
    kept = len(mail.replace(b"\r\n..", b"\r\n.")) + 2 <= LARGE
    assert heard[-2:] == [b"250" if kept else b"552", b"221"]


@pytest.mark.parametrize(
    "unit",
    [b"a:\r\n", b"a\n", b"Received:\n", ID, b"X-iTrackID-ClientID:11\n", b"a: b\r\n c\r\n", b"\r"],
    ids=["short", "no header", "received", "id", "client id", "folds", "bare cr"],
)
@pytest.mark.parametrize("size", [1_000_000, 128 * 1024 - 4], ids=["a million", "as many as allowed"])
async def test_a_header_block_made_to_be_slow(flood, unit, size):
    heard = await flood(OPENING + b"DATA\r\n", unit * (size // len(unit)) + b"\r\n" + END)
    assert heard[-2] in ((b"552",) if size > 128 * 1024 else (b"250", b"554"))


async def test_a_mail_byte_by_byte(flood):
    mail = ID + b"\r\n" + b"..\r\n\r.\n" * 1000
    heard = await flood(OPENING + b"DATA\r\n", mail + END, piece=1)
    assert heard[-2:] == [b"250", b"221"]


async def test_many_small_mails_in_one_burst(flood):
    """All at once, the bytes of each mail behind its DATA: what is left over after one is not copied again and again."""
    one = b"MAIL FROM:<>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\n" + ID + b"\r\n.\r\n"
    heard = await flood(b"EHLO client.example\r\n" + one * 1000 + b"QUIT\r\n", commands=NO_LIMIT)
    assert heard.count(b"354") > 1 and heard[-1] in (b"221", b"421")


def client_hello() -> bytes:
    """The first bytes of a TLS client."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="mx.test.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/1.1\r\nHost: mx.test.example\r\nUser-Agent: x\r\n\r\n", client_hello()],
    ids=["HTTP", "TLS"],
)
async def test_another_protocol_on_the_plain_port(flood, words):
    heard = await flood(words * 2000 + b"\r\nQUIT\r\n")
    assert heard[0] == b"220" and heard[-1] in (b"221", b"421", b"502")


# --- with all parts: signatures, DNS, the limits and the budget -------------------------------------------------------

DOMAIN = "idibu.com"


class Keys:
    """A resolver that knows one key and nothing else."""

    def __init__(self, record: bytes) -> None:
        self.record = record
        self.asked: list[str] = []

    async def txt(self, name: str) -> list[bytes]:
        self.asked.append(name)
        return [self.record] if name == f"k1._domainkey.{DOMAIN}" else []

    async def addresses(self, name: str, version: int | None = None) -> list[str]:
        return []

    async def pointers(self, ip: str) -> list[str]:
        return []

    async def mx(self, name: str) -> list[tuple[int, str]]:
        return []


@pytest.fixture(scope="module")
def key() -> tuple[bytes, bytes]:
    """A private key as PEM, and its record in DNS."""
    made = rsa.generate_private_key(65537, 2048)
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = made.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@pytest.fixture
async def all_parts(key):
    """Everything a mail meets in service, but for the spool; a signature of DOMAIN alone is believed."""
    verifier = Verifier()
    yield {
        "judge": Authenticator(Keys(key[1]), verifier, clock=time.time, timeout=PATIENCE),
        "trust": TrustPolicy(common=Rules(dkim=frozenset({DOMAIN}), arc=frozenset({DOMAIN})), untrusted_size=NO_LIMIT),
        "doorkeeper": Doorkeeper(Caps(messages_per_minute=10**6), lambda _: False, time.monotonic),
        "pressure": Disk(Floors(free_bytes=1000, backlog=10**6)).pressure,
        "budget": Budget(LARGE),
        "message_size": LARGE,
        "data_timeout": PATIENCE,
    }
    await verifier.close()


def signed(pem: bytes, mail: bytes, form: bytes) -> bytes:
    names = [b"from", b"x-itrackid"]
    return dkim.sign(mail, b"k1", DOMAIN.encode(), pem, include_headers=names, canonicalize=(b"relaxed", form)) + mail


UNITS = {"lines": b"x" * 76 + b"\r\n", "blanks": b" \t", "empty lines": b"\r\n", "words": b"a b\t\tc \r\n"}


@pytest.mark.parametrize("form", [b"simple", b"relaxed"])
@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
async def test_thirty_megabytes_of_a_signed_mail(flood, all_parts, key, unit, form):
    small = signed(key[0], b"From: a@idibu.com\r\n" + ID + b"\r\nHello.\r\n", form)
    large = small.replace(b"Hello.", unit * ((LARGE - 2000) // len(unit)))
    heard = await flood(OPENING + b"DATA\r\n", large + END, **all_parts)
    assert heard[-2:] == [b"250", b"221"]


async def test_a_large_signature_that_is_valid_is_believed(make_intake, all_parts, key):
    """What is measured above is the whole way: a valid signature over 10 MB comes out as one."""
    mail = signed(key[0], b"From: a@idibu.com\r\n" + ID + b"\r\n" + UNITS["lines"] * 130_000, b"relaxed")
    intake = await make_intake(**all_parts)
    with loop_time.callbacks() as seen:
        heard = await asyncio.to_thread(converse, intake.port, OPENING + b"DATA\r\n", mail + b".\r\nQUIT\r\n")
    ((_, (arrival,)),) = intake.spool.kept
    assert arrival.trusted and arrival.applicant_id == 33139609, arrival.trust_note
    assert codes(heard)[-2:] == [b"250", b"221"] and seen.count > 100


CLAIM = b"DKIM-Signature: v=1; a=rsa-sha256; d=idibu.com; s=k%d; h=from; bh=AAAA; b=AAAA\r\n"
BOMBS = {
    "signatures": b"".join(CLAIM % number for number in range(1500)),
    "folds of a signature": CLAIM.removesuffix(b"\r\n") % 1 + b"\r\n " * 40_000 + b"\r\n",
    "names of a signature": (CLAIM % 1).replace(b"h=from", b"h=from" + b":x" * 60_000),
    "blanks of a signature": (CLAIM % 1).replace(b"AAAA", b"AAAA" + b" " * 60_000),
    "tags of a signature": (CLAIM % 1).replace(b"v=1", b"v=1" + b";z=1" * 30_000),
    "seals": b"".join(b"ARC-Seal: i=%d; a=rsa-sha256; cv=none; d=idibu.com; s=k1; b=AA\r\n" % n for n in range(1800)),
    "results": b"ARC-Authentication-Results: i=1; mx.idibu.com" + b"; dkim=pass header.d=a.b (c)" * 4000 + b"\r\n",
    "fields": b"a:\r\n" * 30_000,
    "ids": ID * 5000,
}


@pytest.mark.parametrize("block", BOMBS.values(), ids=BOMBS)
async def test_a_header_block_made_to_be_slow_to_judge(flood, all_parts, block):
    mail = block[: 127 * 1024].rpartition(b"\n")[0] + b"\n" + ID + b"\r\nHello.\r\n"
    heard = await flood(OPENING + b"DATA\r\n", mail + END, **all_parts)
    assert heard[-2:] == [b"250", b"221"]


@pytest.mark.parametrize("line", [b"RCPT TO:<jobs+%d@north.example>\r\n", b"MAIL FROM:<a%d@b.example>\r\nRSET\r\n"])
async def test_a_flood_of_commands_that_all_parts_look_at(flood, all_parts, line):
    wire = b"".join(line % number for number in range(20_000))
    heard = await flood(OPENING + wire + b"QUIT\r\n", **{**all_parts, "commands": NO_LIMIT})
    assert heard[-1] in (b"221", b"421")


async def test_a_large_mail_is_put_together_without_holding_up_the_loop():
    for _ in range(3):
        reader = DataReader(2**30)
        for _ in range(120):
            reader.feed(b"x" * MANY_BYTES)
        with loop_time.callbacks() as seen:
            raw = await joined(b"Received: us\r\n", await reader.whole())
        if seen.slowest < loop_time.LONGEST:
            break
    assert len(raw) == 120 * MANY_BYTES + 14
    assert seen.count > 200 and seen.slowest < loop_time.LONGEST, seen.what
