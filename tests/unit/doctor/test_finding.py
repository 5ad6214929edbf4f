"""A look that breaks, hangs or says too much costs no other look anything."""

import asyncio
import threading

import pytest

from apptrack_ingest.doctor.finding import Check, Finding, Level, apart
from apptrack_ingest.errors import SpoolUnavailable


def raising(error):
    async def look():
        raise error

    return look


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (SpoolUnavailable("disk full;\ncall somebody"), "disk full; call somebody"),
        (ValueError("https://user:s3cret@host/"), "the look itself broke (ValueError)"),
        (KeyError("s3cret"), "the look itself broke (KeyError)"),
        (RecursionError(), "the look itself broke (RecursionError)"),
    ],
    ids=["ours", "foreign", "key", "deep"],
)
async def test_what_breaks_is_a_finding_and_foreign_words_are_not_told(error, found):
    assert await Check("x", raising(error), "do this").findings() == [Finding("x", Level.FAIL, found, "do this")]


async def test_what_hangs_ends_at_its_time():
    hanging = Check("x", asyncio.Event().wait, "wait less", seconds=0.01)
    assert await hanging.findings() == [Finding("x", Level.FAIL, "no answer within 0.01 seconds", "wait less")]


async def test_a_thread_that_hangs_is_left_behind():
    go = threading.Event()
    [finding] = await Check("x", lambda: apart(go.wait), seconds=0.05).findings()
    assert finding.level is Level.FAIL
    [left] = [thread for thread in threading.enumerate() if thread.name == "doctor"]
    assert left.daemon, "our end does not wait for it"
    go.set()
    left.join(30)


async def test_a_thread_that_asks_for_the_end_is_a_finding():
    def leaves():
        raise SystemExit(3)

    [finding] = await Check("x", lambda: apart(leaves)).findings()
    assert finding.found == "the look itself broke (RuntimeError)"


async def test_one_look_may_find_several_things():
    async def look():
        return [Finding("a", Level.OK, "1"), Finding("b", Level.WARN, "2")]

    assert [one.check for one in await Check("x", look).findings()] == ["a", "b"]
