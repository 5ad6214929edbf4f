"""Real faults: a full disk, failing writes and syncs, a read-only disk, a lock, kill -9. Each time SpoolUnavailable,
nothing half-kept, and recovery without reopening."""

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.model import Arrival, Message
from apptrack_ingest.spool import sqlite
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.sqlite import SqliteSpool, entering, open_spool

HERE = Path(__file__).parent
Mail = Callable[..., Message]
BODIES = "(SELECT id FROM puts WHERE raw IS NOT NULL UNION ALL SELECT message_id FROM stored)"


async def put(spool: SqliteSpool, message: Message, applicant_id: int = 7) -> int:
    return await spool.put(message, [Arrival("acme", applicant_id, True)])


async def applicants(spool: SqliteSpool) -> list[int]:
    return sorted(s.applicant_id or 0 for s in await spool.find(Filter(limit=1000)))


def rows(database: Path) -> dict[str, int]:
    """What is really in the tables, to see that nothing was kept by halves."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        tables = {"messages": "messages", "bodies": BODIES, "applications": "applications"}
        return {name: connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for name, t in tables.items()}


# --- a full disk, a read-only disk --------------------------------------------------------------------------------


def mount(*arguments: str) -> bool:
    program = shutil.which("mount")
    return (
        program is not None and subprocess.run([program, *arguments], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes of its own."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=2m", "none", str(directory)):
        pytest.skip("NOT TESTED: full and read-only disks (needs the right to mount a tmpfs; run as root)")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, max(filler.stat().st_size - leave, 0))
    return filler


async def test_a_mail_too_large_for_the_disk_takes_no_other_along(disk: Path, mail: Mail) -> None:
    database = disk / "data" / "spool.sqlite3"
    spool = open_spool(database)
    await put(spool, mail(), 1)
    wanted = [put(spool, mail(b"x" * (3_000_000 if n == 5 else 100)), n) for n in range(2, 9)]
    results = await asyncio.gather(*wanted, return_exceptions=True)
    assert [type(result) for result in results] == [int, int, int, SpoolUnavailable, int, int, int]
    assert await applicants(spool) == [1, 2, 3, 4, 6, 7, 8]
    assert rows(database) == dict.fromkeys(("messages", "bodies", "applications"), 7)
    await spool.close()


async def test_a_full_disk_is_told_and_recovered_from(disk: Path, mail: Mail) -> None:
    database = disk / "data" / "spool.sqlite3"
    spool = open_spool(database)
    await put(spool, mail(), 1)
    (claimed,) = await spool.claim(worker="w", now=2000, lease=60, limit=1)
    filler = fill(disk)
    with pytest.raises(SpoolUnavailable, match=r"full|No space") as caught:
        await put(spool, mail(b"x" * 100_000), 2)
    assert caught.value.code in ("SQLITE_FULL", "ENOSPC"), "the log's reason"
    assert await applicants(spool) == [1]
    assert await spool.raw(claimed.message_id) == b"hello"
    filler.unlink()
    await put(spool, mail(), 3)
    assert await spool.renew([claimed], now=2001, lease=60) == []
    assert await applicants(spool) == [1, 3]
    assert rows(database) == dict.fromkeys(("messages", "bodies", "applications"), 2)
    await spool.close()


@pytest.mark.parametrize("kilobytes", [0, 12, 24, 48, 64, 96])
async def test_a_spool_that_finds_no_room_at_the_start_says_so_and_can_be_opened_later(
    disk: Path, kilobytes: int
) -> None:
    database = disk / "data" / "spool.sqlite3"
    filler = fill(disk, leave=kilobytes * 1024)
    with pytest.raises(SpoolUnavailable, match=r"full|I/O|No space"):
        open_spool(database)
    filler.unlink()
    spool = open_spool(database)
    await spool.check_writable()
    await spool.close()


async def test_what_is_put_into_the_last_of_a_disk_is_told_of_and_found_when_there_is_room(
    disk: Path, mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    """A put takes less room than to enter it: what was accepted may have to wait for more."""
    database = disk / "data" / "spool.sqlite3"
    spool = open_spool(database)
    accepted = 0
    with contextlib.suppress(SpoolUnavailable):
        for _ in range(2000):
            await put(spool, mail(b"x" * 2000), accepted + 1)
            accepted += 1
    with pytest.raises(SpoolUnavailable, match=r"safe, but cannot be entered .*: .*full; make room on its disk"):
        await spool.find(Filter())
    assert "cannot be entered in the ledger" in caplog.text
    await spool.close()
    spool = open_spool(database)  # nothing has to be written for that
    with pytest.raises(SpoolUnavailable, match="full"):
        await spool.load()
    assert mount("-o", "remount,size=20m", str(disk))
    assert await applicants(spool) == list(range(1, accepted + 1))[-1000:]
    assert await spool.count(Filter()) == accepted > 20
    await spool.close()


async def test_a_disk_that_is_nearly_full_has_room_for_a_few_at_a_time(disk: Path, mail: Mail) -> None:
    entered = []
    for kilobytes in (120, 160, 200, 240, 280):  # of which some end within what would be entered at once
        database = disk / "data" / "spool.sqlite3"
        spool = open_spool(database)
        await asyncio.gather(*(put(spool, mail(b"x" * 500), n) for n in range(300)))
        filler = fill(disk, leave=kilobytes * 1024)
        with pytest.raises(SpoolUnavailable, match="full"):
            await spool.find(Filter())
        entered.append(rows(database)["messages"])
        filler.unlink()
        assert await applicants(spool) == list(range(300))
        await spool.close()
        shutil.rmtree(database.parent)
    assert [number for number in entered if number % entering.MOST_AT_ONCE], entered


async def test_a_read_only_disk_is_told_and_recovered_from(disk: Path, mail: Mail) -> None:
    database = disk / "data" / "spool.sqlite3"
    await open_spool(database).close()
    spool = open_spool(database)
    assert mount("-o", "remount,ro", str(disk))
    for attempt in (put(spool, mail()), spool.claim(worker="w", now=2000, lease=60, limit=1), spool.check_writable()):
        with pytest.raises(SpoolUnavailable):
            await attempt
    with pytest.raises(SpoolUnavailable, match="check the directory's owner, mode and free space"):
        open_spool(database)
    assert mount("-o", "remount,rw", str(disk))
    await put(spool, mail(), 9)
    assert await applicants(spool) == [9]
    assert rows(database) == dict.fromkeys(("messages", "bodies", "applications"), 1)
    await spool.close()


# --- writes and syncs that fail -----------------------------------------------------------------------------------

FAULTY_RUN = """
import asyncio, json, pathlib, sys
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.sqlite import open_spool

control, database, wanted = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]

async def outcome(operation):
    try:
        await operation
    except SpoolUnavailable:
        return "unavailable"
    return "done"

def put(spool, n):  # in the database, or beside it
    raw = b"x" * (20000 if n % 2 else 60000)
    return outcome(spool.put(Message(Envelope("", (), "192.0.2.1"), 1000.0, raw), [Arrival("acme", n, True)]))

async def kept(spool):
    return sorted(s.applicant_id for s in await spool.find(Filter()))

async def main():
    spool, seen = open_spool(database), {}
    seen["before"] = await put(spool, 1)
    await kept(spool)
    control.write_text(wanted)
    seen["alone"] = await put(spool, 2)
    seen["together"] = list(await asyncio.gather(*(put(spool, n) for n in range(3, 8))))
    seen["claim"] = await outcome(spool.claim(worker="w", now=2000, lease=60, limit=9))
    seen["kept meanwhile"] = await kept(spool)
    control.write_text("")
    seen["after"] = await put(spool, 8)
    seen["kept"] = await kept(spool)
    seen["attempts"] = sorted(s.attempts for s in await spool.find(Filter()))
    await spool.close()
    print(json.dumps(seen))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    library = tmp_path_factory.mktemp("shim") / "faulty_io.so"
    if compiler is None:
        pytest.skip("NOT TESTED: failing writes and syncs (needs a C compiler, cc)")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "faulty_io.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


@pytest.mark.parametrize(
    ("call", "number"),
    [("fsync", errno.EIO), ("write", errno.EIO), ("write", errno.ENOSPC), ("write", errno.EROFS)],
    ids=["sync-EIO", "write-EIO", "write-ENOSPC", "write-EROFS"],
)
def test_a_failing_disk_is_told_and_recovered_from(
    shim: Path, tmp_path: Path, database: Path, call: str, number: int
) -> None:
    control = tmp_path / "control"
    run = subprocess.run(
        [sys.executable, "-c", FAULTY_RUN, str(control), str(database), f"{call} {number}"],
        env={**os.environ, "LD_PRELOAD": str(shim), "FAULT_FILE": str(control)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "control.hits").stat().st_size > 0
    assert json.loads(run.stdout) == {
        "before": "done",
        "alone": "unavailable",
        "together": ["unavailable"] * 5,
        "claim": "unavailable",
        "kept meanwhile": [1],
        "after": "done",
        "kept": [1, 8],
        "attempts": [0, 0],
    }
    assert rows(database) == dict.fromkeys(("messages", "bodies", "applications"), 2)


# --- a lock -------------------------------------------------------------------------------------------------------

HOLD_A_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("free", flush=True)
"""


@contextlib.contextmanager
def locked(database: Path) -> Iterator[Callable[[], None]]:
    """Another process holds the database's lock until told to let go."""
    command = [sys.executable, "-c", HOLD_A_LOCK, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        stdin, stdout = process.stdin, process.stdout

        def let_go() -> None:
            stdin.write("go\n")
            stdin.flush()
            assert stdout.readline() == "free\n"

        yield let_go


async def test_a_lock_past_the_time_is_told_and_recovered_from(
    database: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    spool = open_spool(database)
    await put(spool, mail(), 1)
    assert await applicants(spool) == [1]
    with locked(database) as let_go:
        puts = [put(spool, mail(), n) for n in range(2, 6)]
        results = await asyncio.gather(*puts, spool.check_writable(), return_exceptions=True)
        assert {type(result) for result in results} == {SpoolUnavailable}
        assert "locked" in str(results[0])
        assert await applicants(spool) == [1]
        let_go()
    await put(spool, mail(), 6)
    assert await applicants(spool) == [1, 6]
    await spool.close()


async def test_a_lock_that_ends_in_time_only_delays(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    with locked(database) as let_go:
        waiting = asyncio.create_task(put(spool, mail(), 1))
        await asyncio.sleep(0)
        assert await applicants(spool) == []
        assert not waiting.done()
        let_go()
        await waiting
    assert await applicants(spool) == [1]


# --- kill -9 ------------------------------------------------------------------------------------------------------

PUTS_WITHOUT_END = """
import asyncio, itertools, os, pathlib, sys
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.spool.sqlite import open_spool

async def client(spool, numbers):
    for n in numbers:
        raw = b"%d " % n * 2000
        message_id = await spool.put(Message(Envelope("", (), "192.0.2.1"), 1000.0, raw), [Arrival("acme", n, True)])
        os.write(1, b"%d %d\\n" % (message_id, n))

async def main():
    spool, numbers = open_spool(pathlib.Path(sys.argv[1])), itertools.count(1)
    await asyncio.gather(*(client(spool, numbers) for _ in range(8)))

asyncio.run(main())
"""


async def test_whatever_was_answered_before_a_kill_is_there_after_it(database: Path) -> None:
    answered: dict[int, int] = {}
    for enough in (1, 40, 150):
        command = [sys.executable, "-c", PUTS_WITHOUT_END, str(database)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(enough)]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        answered |= {int(line.split()[0]): int(line.split()[1]) for line in lines}
        with contextlib.closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT count(*) FROM puts").fetchone()[0] >= len(answered)
        assert rows(database)["messages"] < len(answered), "none that was put since the last look was entered yet"
        spool = open_spool(database)
        for message_id, n in answered.items():
            assert await spool.raw(message_id) == b"%d " % n * 2000
        await spool.close()
        kept = rows(database)
        assert len(answered) <= kept["messages"] == kept["bodies"] == kept["applications"]
    assert len(answered) >= 191
