"""The parser's process: killed at its deadline, held to its memory, replaced when it dies, gone after close."""

import asyncio
import base64
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from apptrack_ingest.errors import IngestError, Unreadable
from apptrack_ingest.parse.limits import Limits
from apptrack_ingest.parse.pool import ParserPool

GOOD = b"From: jane@example.org\r\nX-iTrackID: 4\r\n\r\nhello"
# Each of these lines may be a boundary, and none is one: many seconds.
BOMB = b"X-iTrackID: 4\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b?\n" * 8_000_000
MEBI = 1024 * 1024
NO_LIMIT = 4096 * MEBI


@pytest.fixture
async def make_pool():
    pools = []

    def make(**options) -> ParserPool:
        pools.append(ParserPool(**{"deadline": 60.0, "memory_bytes": NO_LIMIT} | options))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()
    assert children() == []


def children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid]


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def busy(pool: ParserPool) -> "tuple[asyncio.Task, int]":
    """Start a long parse and wait until the child is at it."""
    await pool.parse(GOOD)
    (pid,) = children()
    idle = cpu_seconds(pid)
    task = asyncio.create_task(pool.parse(BOMB))
    await until(lambda: cpu_seconds(pid) > idle + 0.2)
    return task, pid


async def code_of(parse) -> str:
    with pytest.raises(Unreadable) as caught:
        await parse
    return caught.value.code


async def test_nothing_is_started_before_the_first_mail(make_pool):
    pool = make_pool()
    assert children() == []
    assert (await pool.parse(GOOD)).applicant_id == 4
    assert len(children()) == 1


async def test_refusals_come_back_with_code_and_detail(make_pool):
    pool = make_pool(limits=Limits(header_block=10))
    assert await code_of(pool.parse(GOOD)) == "header-block-too-large"


async def test_a_bomb_ends_at_the_deadline_and_the_next_mail_is_read(make_pool):
    pool = make_pool(deadline=2.0)
    await pool.parse(GOOD)
    first = children()
    assert await code_of(pool.parse(BOMB)) == "deadline"
    assert (await pool.parse(GOOD)).applicant_id == 4
    assert children() != first


async def test_a_memory_hog_is_refused_and_the_next_mail_is_read(make_pool):
    pool = make_pool(memory_bytes=16 * MEBI)
    assert await code_of(pool.parse(b"X-iTrackID: 4\r\n\r\n" + b"a" * 24 * MEBI)) == "memory"
    assert (await pool.parse(GOOD)).applicant_id == 4


async def test_a_killed_child_is_replaced(make_pool):
    pool = make_pool()
    task, pid = await busy(pool)
    os.kill(pid, signal.SIGKILL)
    assert await code_of(task) == "parser-died"
    assert (await pool.parse(GOOD)).applicant_id == 4


async def test_a_child_killed_while_idle_costs_no_mail(make_pool):
    pool = make_pool()
    await pool.parse(GOOD)
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    assert (await pool.parse(GOOD)).applicant_id == 4


async def test_signals_to_the_whole_group_do_not_end_a_child(make_pool):
    pool = make_pool()
    await pool.parse(GOOD)
    (pid,) = children()
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert (await pool.parse(GOOD)).applicant_id == 4
    assert children() == [pid]


async def test_a_cancelled_parse_frees_its_child(make_pool):
    pool = make_pool()
    task, pid = await busy(pool)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await pool.parse(GOOD)).applicant_id == 4
    assert pid not in children()


async def test_a_child_is_replaced_after_its_number_of_mails(make_pool):
    pool = make_pool(max_tasks=2)
    seen = set()
    for _ in range(5):
        await pool.parse(GOOD)
        seen.update(children())
    assert len(seen) >= 2


async def test_as_many_at_a_time_as_there_are_processes(make_pool):
    pool = make_pool(processes=2)
    parsed = await asyncio.gather(*(pool.parse(GOOD) for _ in range(8)))
    assert [one.applicant_id for one in parsed] == [4] * 8
    assert 1 <= len(children()) <= 2


async def test_the_loop_goes_on_while_a_mail_is_parsed(make_pool):
    task, _ = await busy(make_pool())  # which watches the child work from this very loop
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_documents_come_through_whole(make_pool):
    content = os.urandom(3 * MEBI)
    raw = b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(content)
    (document,) = (await make_pool().parse(raw)).documents
    assert document.content == content


async def test_close_ends_what_is_under_way_and_refuses_what_comes(make_pool):
    pool = make_pool()
    task, pid = await busy(pool)
    await pool.close()
    with pytest.raises(IngestError):
        await task
    with pytest.raises(IngestError):
        await pool.parse(GOOD)
    assert children() == []
    with pytest.raises(ProcessLookupError):  # not even a zombie
        os.kill(pid, 0)


PARENT = """
import asyncio, multiprocessing
from apptrack_ingest.parse.pool import ParserPool
async def main():
    pool = ParserPool(deadline=60.0, memory_bytes=2**32)
    await pool.parse(b"X-iTrackID: 4\\r\\n\\r\\n")
    bomb = asyncio.create_task(pool.parse(b"\\r\\n" + b"a\\r\\n" * 30_000_000))
    await asyncio.sleep(0)
    print(multiprocessing.active_children()[0].pid, flush=True)
    await bomb
if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal on a parent's death is Linux's")
async def test_a_busy_child_dies_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        idle = cpu_seconds(pid)
        await until(lambda: cpu_seconds(pid) > idle + 0.2)
        assert not gone(pid)
        parent.kill()
    await until(lambda: gone(pid))


def gone(pid: int) -> bool:
    """Whether a process ended, reaped by whoever inherited it or not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
