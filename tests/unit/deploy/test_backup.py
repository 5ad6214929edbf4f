"""The backup page's commands, taken from the page and run: a snapshot of a spool that is being written, and its return."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.sqlite import open_spool

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backup.md"

WRITER = """
import asyncio, sys
from pathlib import Path
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.spool.sqlite import open_spool

async def main():
    spool = open_spool(Path(sys.argv[1]))
    for number in range(1, 1_000_000):
        raw = b"X-iTrackID: %d\\r\\n\\r\\n" % number + b"x" * 40_000
        message = Message(Envelope("a@b.example", ("c@d.example",), "127.0.0.1"), 1.0, raw)
        await spool.put(message, [Arrival("acme", number, True)])
        print(number, flush=True)

asyncio.run(main())
"""
"""Puts mails for ever, one commit after the other, and says the number of each when it is committed."""


def commands(name: str) -> str:
    """The shell commands of the page's block that is marked as tested."""
    found = re.search(rf"<!-- tested: {name} -->\n( *)```sh\n(.*?)\n *```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the page has no block for {name}"
    return textwrap.dedent(found[1] + found[2])


def run_commands(name: str, **variables: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: str(value) for name, value in variables.items()}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(["sh", "-c", commands(name)], env=environment, capture_output=True, text=True, timeout=120)


class Writer:
    """A process that puts mails into a spool and tells what was committed."""

    def __init__(self, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(database)], stdout=subprocess.PIPE, text=True
        )

    def committed(self) -> int:
        """The number of the next mail that is committed."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def until(self, number: int) -> None:
        while self.committed() < number:
            pass

    def kill(self) -> int:
        """Kills it as a crash would; returns the number of the last mail it said was committed."""
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            return 0
        self._process.kill()
        said = self._process.stdout.read().split("\n")
        self._process.wait(30)
        self._process.stdout.close()
        # The last line may be cut off.
        return max((int(number) for number in said[:-1]), default=0)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "data" / "spool.sqlite3")
    yield made
    made.kill()


def applicants(database: Path) -> list[int]:
    """The applicant ids in a spool's file, which is checked first."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchone() is None
        return sorted(row[0] for row in connection.execute("SELECT applicant_id FROM applications"))


def put(database: Path) -> int:
    """How many mails were put into a spool, whether they are in its ledger yet or not."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM puts").fetchone()[0])


async def oldest_raw(database: Path) -> bytes:
    spool = open_spool(database)
    try:
        assert (await spool.backlog()).size_bytes > 0
        await spool.check_writable()
        found = await spool.find(Filter(applicant_id=1))
        return await spool.raw(found[0].message_id)
    finally:
        await spool.close()


def test_a_backup_of_a_spool_being_written_holds_all_that_was_committed_before(writer: Writer, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    writer.until(50)
    done = run_commands("backup", DATA=data, DEST=backup)
    assert (done.returncode, done.stderr) == (0, "")
    kept = applicants(backup / "spool.sqlite3")
    assert writer.kill() > len(kept), "nothing was written during the backup"
    assert kept == list(range(1, len(kept) + 1)), "a gap: not the state of one moment"
    assert len(kept) >= 50
    assert [file.name for file in backup.iterdir()] == ["spool.sqlite3"]
    assert (backup / "spool.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_restore_leaves_nothing_of_the_broken_spool_in_place(writer: Writer, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    writer.until(20)
    assert run_commands("backup", DATA=data, DEST=backup).returncode == 0
    kept = applicants(backup / "spool.sqlite3")
    writer.until(len(kept) + 20)
    writer.kill()
    assert (data / "spool.sqlite3-wal").exists(), "the crash left no -wal, which this test is about"

    done = run_commands("restore", DATA=data, FROM=backup)
    assert (done.returncode, done.stderr) == (0, "")
    assert applicants(data / "spool.sqlite3") == kept
    assert asyncio.run(oldest_raw(data / "spool.sqlite3")).startswith(b"X-iTrackID: 1\r\n")
    assert (data / "spool.sqlite3").stat().st_mode & 0o777 == 0o600
    aside = next(data.glob("before-restore.*"))
    assert put(aside / "spool.sqlite3") > len(kept), "what was there is kept whole, for a last look"


def test_a_restore_works_into_an_empty_place(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "data" / "spool.sqlite3")
    asyncio.run(spool.close())
    assert run_commands("backup", DATA=tmp_path / "data", DEST=tmp_path / "backup").returncode == 0
    done = run_commands("restore", DATA=tmp_path / "elsewhere", FROM=tmp_path / "backup")
    assert (done.returncode, done.stderr) == (0, "")
    assert applicants(tmp_path / "elsewhere" / "spool.sqlite3") == []


def test_a_mistyped_path_is_no_empty_backup(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = run_commands("backup", DATA=tmp_path / "data", DEST=tmp_path / "backup")
    assert done.returncode != 0
    assert "there is no spool at" in done.stderr
    assert list((tmp_path / "data").iterdir()) == []
    assert not (tmp_path / "backup" / "spool.sqlite3").exists()


def test_a_broken_spool_makes_no_backup(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "spool.sqlite3").write_bytes(b"not a database at all" * 1000)
    done = run_commands("backup", DATA=tmp_path / "data", DEST=tmp_path / "backup")
    assert done.returncode != 0
    assert not (tmp_path / "backup" / "spool.sqlite3").exists()
