"""Signatures are verified in processes that start when needed, can be killed, and leave the event loop alone."""

import asyncio
import hashlib
import multiprocessing
import os
import signal
import time
from typing import ClassVar

import pytest
from names import Trouble

from apptrack_ingest.errors import IngestError
from apptrack_ingest.trust import Connection, Mail, Rule, Rules, Verifier
from apptrack_ingest.trust.names import neighbourhood
from apptrack_ingest.trust.signatures import Checked, Work, verify
from apptrack_ingest.trust.signed import Claim

IDIBU = Rules(dkim=frozenset({"idibu.com"}))


@pytest.fixture
def slow(signer):
    """Work that keeps dkimpy busy for minutes; reading such a header block refuses it long before."""
    value = b" v=1; a=rsa-sha256; d=idibu.com; s=k1; h=from; bh=AAAA; b=AAAA" + b"\r\n " * 40_000 + b"!\r\n"
    claim = Claim(0, "idibu.com", "k1", "rsa-sha256", "simple", b"\0\0\0")
    return Work(((b"DKIM-Signature", value),), (claim,), None, {"simple": b"\0\0\0"}, {claim.key_name: signer.key()})


@pytest.fixture
def moderate(signer):
    """Work that takes about as much as any that a mail can make."""
    value = b" v=1; a=rsa-sha256; d=idibu.com; s=k1; bh=AAAA; b=AQEB; c=relaxed; h=" + b":".join(
        [b"n"] * 99 + [b"from"]
    )
    fields = ((b"DKIM-Signature", value + b"\r\n"),) * 10 + ((b"Zz", b" y\r\n"),) * 980
    claims = tuple(Claim(index, "idibu.com", "k1", "rsa-sha256", "simple", b"\0\0\0") for index in range(10))
    return Work(fields, claims, None, {"simple": b"\0\0\0"}, {claims[0].key_name: signer.key()})


@pytest.fixture
async def verifier():
    verifier = Verifier(deadline=2.0, processor_time=60)
    yield verifier
    await verifier.close()


async def _good(verifier, bench, signer):
    bench.verifier = verifier
    return (await bench.judge(signer.sign(), IDIBU)).trusted


async def _busy_child() -> int:
    """The pid of the child once it has worked for a while."""
    for _ in range(500):
        await asyncio.sleep(0.02)
        for child in multiprocessing.active_children():
            if child.pid and _cpu(child.pid) > 0.8:
                return child.pid
    raise AssertionError("no child works")


def _cpu(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_no_process_without_a_signature_that_matters(verifier, bench, signer):
    bench.verifier = verifier
    await bench.judge(signer.mail, IDIBU)
    await bench.judge(signer.sign(domain=b"other.example"), IDIBU)
    await bench.judge(signer.sign(length=True), IDIBU)
    bench.nameserver.zone["k1._domainkey.idibu.com"] = Trouble.SERVFAIL
    await bench.judge(signer.sign(), IDIBU)
    assert not verifier.started


async def test_a_good_signature(real_bench, signer):
    assert (await real_bench.judge(signer.sign(), IDIBU)).trusted
    assert real_bench.verifier.started
    assert (await real_bench.judge(signer.sign().replace(b"CV", b"VC"), IDIBU)).rule is Rule.NONE


async def test_a_mail_that_takes_too_much_processor_time_does_not_count(slow, bench, signer):
    verifier = Verifier(deadline=60, processor_time=0.3)
    try:
        assert await verifier.check(slow) == Checked({0: "it takes too long to check"})
        assert await _good(verifier, bench, signer)
    finally:
        await verifier.close()


async def test_each_mail_has_processor_time_of_its_own(moderate):
    verify(moderate)
    started = time.process_time()
    expected = verify(moderate)
    verifier = Verifier(deadline=60, processor_time=6 * (time.process_time() - started) + 0.05)
    try:
        for _ in range(20):
            assert await verifier.check(moderate) == expected
    finally:
        await verifier.close()


async def test_past_the_deadline_the_child_is_killed_and_replaced_and_nobody_can_tell(verifier, slow, bench, signer):
    started = time.monotonic()
    assert await verifier.check(slow) == Checked({}, unfinished="checking it took too long here")
    assert time.monotonic() - started < 30
    assert await _good(verifier, bench, signer)


async def test_a_child_that_is_killed_says_nothing_of_the_signature(slow, bench, signer):
    verifier = Verifier(deadline=60, processor_time=60)
    try:
        checking = asyncio.create_task(verifier.check(slow))
        os.kill(await _busy_child(), signal.SIGKILL)
        assert await checking == Checked({}, unfinished="checking it was broken off")
        assert await _good(verifier, bench, signer)
    finally:
        await verifier.close()


async def test_the_mails_of_one_network_wait_for_each_other_and_nobody_waits_for_them(slow, bench, signer):
    verifier = Verifier(deadline=60, processor_time=60)
    stranger = Mail(Connection("198.51.100.1"), "", {}, b""), Mail(Connection("198.51.100.200"), "", {}, b"")
    networks = {neighbourhood(mail.connection.address) for mail in stranger}
    assert networks == {"198.51.100.0/24"}
    checks = [asyncio.create_task(verifier.check(slow, *networks)) for _ in range(4)]
    try:
        await _busy_child()
        async with asyncio.timeout(30):
            assert await _good(verifier, bench, signer)
        assert not any(check.done() for check in checks)
    finally:
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        await verifier.close()


async def test_the_peer_s_network_is_told(bench, signer):
    class Remembers:
        networks: ClassVar[list[str]] = []

        async def check(self, work, network=""):
            self.networks.append(network)
            return Checked({})

    bench.verifier = Remembers()
    for address in ("198.51.100.7", "::ffff:198.51.100.9", "2001:db8::1:2:3", "no address"):
        await bench.judge(signer.sign(), IDIBU, address=address)
    assert Remembers.networks == ["198.51.100.0/24", "198.51.100.0/24", "2001:db8::/64", ""]


@pytest.mark.parametrize("mail", [
    b"".join(b"%s: i=%d; %s\r\n" % (name, number, b";".join(b"t%d=" % tag for tag in range(1400)))
             for number in range(1, 11) for name in (b"ARC-Seal", b"DKIM-Signature", b"ARC-Message-Signature",
                                                     b"ARC-Authentication-Results")),
    b"DKIM-Signature: v=1; a=rsa-sha256; d=idibu.com; s=k1; bh=AAAA; b=AAAA; h=" + b":".join([b"from"] * 1500) + b"\r\n",
    b"From: x\r\n" + b" x\r\n" * 9900,
    b"".join(b"X-iTrackID-%d:\r\n" % number for number in range(950)),
])  # fmt: skip
async def test_a_header_block_made_to_be_slow_leaves_the_loop_alone(bench, mail):
    rules = Rules(dkim=frozenset({"idibu.com"}), arc=frozenset({"forwarder.example"}))
    used = []
    for _ in range(3):
        before = time.thread_time()
        assert not (await bench.judge(mail + b"From: a@b.c\r\n\r\nx", rules)).trusted
        used.append(time.thread_time() - before)
    assert min(used) < 0.02  # in the loop's thread, for all of it


async def test_one_given_up_does_not_stay_in_the_way(slow, bench, signer):
    verifier = Verifier(deadline=60, processor_time=60)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await verifier.check(slow)
        assert await _good(verifier, bench, signer)
    finally:
        await verifier.close()


async def test_closed(slow):
    verifier = Verifier(deadline=60, processor_time=60)
    checking = asyncio.create_task(verifier.check(slow))
    await _busy_child()
    await verifier.close()
    with pytest.raises(IngestError):
        await checking
    with pytest.raises(IngestError):
        await verifier.check(slow)


async def test_a_mail_of_30_mb_leaves_the_loop_alone(real_bench, signer):
    line = b"QUJDREVGR0hJSktMTU5P" * 3 + b"QUJD  \t\r\n"
    lines = 30 * 1024 * 1024 // len(line)
    mail = signer.mail[: signer.mail.index(b"\r\n\r\n") + 4] + line * lines
    digest = hashlib.sha256((line.rstrip() + b"\r\n") * lines).digest()
    raw = signer.sign_by_hand(mail, digest=digest)
    assert (await real_bench.judge(signer.sign(), IDIBU)).trusted  # the child is there
    for _ in range(3):  # what is too slow is so every time
        used, before = time.thread_time(), time.process_time()
        assert (await real_bench.judge(raw, IDIBU)).trusted
        here, everywhere = time.thread_time() - used, time.process_time() - before
        if here < 0.05 and here < everywhere / 3:
            break
    assert here < 0.05  # in the loop's thread, for all of it
    assert here < everywhere / 3  # most was done elsewhere
