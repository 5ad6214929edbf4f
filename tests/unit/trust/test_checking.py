"""Signatures are verified in a process that starts when needed, can be killed, and leaves the event loop alone."""

import asyncio
import hashlib
import multiprocessing
import os
import signal
import time

import pytest
from names import Trouble

from apptrack_ingest.errors import IngestError
from apptrack_ingest.trust import Rule, Rules, Verifier
from apptrack_ingest.trust.signatures import Checked, Work
from apptrack_ingest.trust.signed import Claim

IDIBU = Rules(dkim=frozenset({"idibu.com"}))


@pytest.fixture
def slow(signer):
    """Work that keeps dkimpy busy for minutes; reading such a header block refuses it long before."""
    value = b" v=1; a=rsa-sha256; d=idibu.com; s=k1; h=from; bh=AAAA; b=AAAA" + b"\r\n " * 40_000 + b"!\r\n"
    claim = Claim(0, "idibu.com", "k1", "rsa-sha256", "simple", b"\0\0\0")
    return Work(((b"DKIM-Signature", value),), (claim,), None, {"simple": b"\0\0\0"}, {claim.key_name: signer.key()})


@pytest.fixture
async def verifier():
    verifier = Verifier(deadline=0.5)
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


async def test_past_the_deadline_the_child_is_killed_and_replaced(verifier, slow, bench, signer):
    started = time.monotonic()
    assert await verifier.check(slow) == Checked({0: "it takes too long to check"})
    assert time.monotonic() - started < 30
    assert await _good(verifier, bench, signer)


async def test_a_child_that_dies_takes_the_signature_with_it(slow, bench, signer):
    verifier = Verifier(deadline=60)
    try:
        checking = asyncio.create_task(verifier.check(slow))
        os.kill(await _busy_child(), signal.SIGKILL)
        assert await checking == Checked({0: "checking it killed the process"})
        assert await _good(verifier, bench, signer)
    finally:
        await verifier.close()


async def test_one_given_up_does_not_stay_in_the_way(slow, bench, signer):
    verifier = Verifier(deadline=60)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await verifier.check(slow)
        assert await _good(verifier, bench, signer)
    finally:
        await verifier.close()


async def test_closed(slow):
    verifier = Verifier(deadline=60)
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
    used, before = time.thread_time(), time.process_time()
    assert (await real_bench.judge(raw, IDIBU)).trusted
    here = time.thread_time() - used
    assert here < 0.05  # in the loop's thread, for all of it
    assert here < (time.process_time() - before) / 3  # most was done elsewhere
