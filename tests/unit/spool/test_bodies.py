"""Bodies beside the database: none is lost or left behind, whatever ends when; erased is erased."""

import asyncio
import contextlib
import hashlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apptrack_ingest.errors import NotFound, SpoolUnavailable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Message, State
from apptrack_ingest.spool.contract import Action, Filter
from apptrack_ingest.spool.sqlite import SqliteSpool, bodies, entering, messages, open_spool, segments
from apptrack_ingest.spool.sqlite.bodies import LARGE
from apptrack_ingest.spool.sqlite.connection import connect
from apptrack_ingest.spool.sqlite.segments import Appender, Place

Mail = Callable[..., Message]
SECRET = b"Very Private Person "
KEPT = "SELECT id, raw FROM puts WHERE raw IS NOT NULL UNION ALL SELECT message_id, raw FROM bodies"


def large(n: int = 0, size: int = LARGE) -> bytes:
    return (SECRET + b"%d " % n) * (size // 20 + 1)


async def put(spool: SqliteSpool, message: Message, applicant_id: int = 7) -> int:
    return await spool.put(message, [Arrival("acme", applicant_id, True)])


async def finish(spool: SqliteSpool, *applications: int) -> None:
    """Discards what was received (of these, when named), so that it may be erased."""
    for summary in await spool.find(Filter(states=(State.RECEIVED,), limit=1000)):
        if not applications or summary.application_id in applications:
            for event in (Event.HOLD, Event.DISCARD):
                await spool.act(summary.application_id, Action(event, "me", ""), now=2000)


@contextlib.contextmanager
def looking_into(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection of one's own to a database in which all that was put is entered."""
    with contextlib.closing(connect(database, 10)) as connection:
        entering.enter_all(connection)
        yield connection


def places(database: Path) -> dict[int, Place]:
    with looking_into(database) as connection:
        rows = connection.execute("SELECT message_id, segment, start, size FROM stored")
        return {row[0]: Place(*row[1:]) for row in rows}


def files(database: Path) -> dict[str, bytes]:
    """Everything in the directory of bodies."""
    directory = Path(f"{database}-bodies")
    return {file.name: file.read_bytes() for file in directory.rglob("*.log")}


def sweep(database: Path) -> int:
    with looking_into(database) as connection:
        return bodies.sweep(connection)


# --- where a body is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "beside"), [(0, False), (LARGE - 1, False), (LARGE, True), (3 * LARGE, True)])
async def test_large_bodies_are_beside_the_database_and_come_back_as_they_were(
    database: Path, spool: SqliteSpool, mail: Mail, size: int, beside: bool
) -> None:
    raw = os.urandom(size)
    message_id = await put(spool, mail(raw))
    assert await spool.raw(message_id) == raw
    assert (message_id in places(database)) is beside


async def test_files_and_directories_are_for_us_alone(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    await put(spool, mail(large()))
    found = list(Path(f"{database}-bodies").rglob("*"))
    assert sorted(path.stat().st_mode & 0o777 for path in found) == [0o600, 0o700]
    assert Path(f"{database}-bodies").stat().st_mode & 0o777 == 0o700


async def test_what_waits_together_is_synced_once(
    spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs, go_on, really = [], threading.Event(), os.fdatasync

    def counted(file: int) -> None:
        syncs.append(file)
        assert go_on.wait(10)
        really(file)

    monkeypatch.setattr(os, "fdatasync", counted)
    first = asyncio.create_task(put(spool, mail(large()), 1))
    await asyncio.sleep(0)
    while not syncs:
        await asyncio.sleep(0.001)
    others = [asyncio.create_task(put(spool, mail(large(n)), n)) for n in range(2, 12)]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, *others)
    assert len(syncs) == 2


async def test_bodies_that_an_earlier_release_kept_in_the_database_are_read(
    database: Path, spool: SqliteSpool, mail: Mail
) -> None:
    with looking_into(database) as connection:
        message_id = messages.put(connection, mail(large()), [Arrival("acme", 7, True)])
        connection.execute("UPDATE messages SET crc32 = NULL")
    assert await spool.raw(message_id) == large()
    assert places(database) == {}


async def test_a_segment_ends_and_the_next_begins(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 3 * LARGE)
    raws = [large(n, size) for n, size in enumerate([LARGE, LARGE, LARGE, 9 * LARGE, LARGE])]
    ids = await asyncio.gather(*(put(spool, mail(raw), n) for n, raw in enumerate(raws)))
    assert [await spool.raw(message_id) for message_id in ids] == raws
    found = places(database)
    assert len({found[message_id].segment for message_id in ids}) == 4
    assert found[ids[3]].start == 0


def test_a_segment_gets_no_older_than_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appender, now = Appender(tmp_path), 1_800_000_000 * 10**9
    found = []
    for hours in (0, 23, 25, 48, 50):
        monkeypatch.setattr(segments.time, "time_ns", lambda hours=hours: now + hours * 3600 * 10**9)
        found += appender.append([b"body"])
    assert [place.start for place in found] == [0, 4, 0, 4, 0]
    appender.close()


async def test_the_digest_is_there_when_asked_for_and_when_all_else_is_gone(spool: SqliteSpool, mail: Mail) -> None:
    raws = (b"small", large())
    digests = [hashlib.sha256(raw).hexdigest() for raw in raws]
    for n, raw in enumerate(raws):
        await put(spool, mail(raw), n)
    assert [(await spool.story(n)).sha256 for n in (1, 2)] == digests
    await finish(spool)
    assert await spool.erase_finished(before=3000, limit=10) == 2
    assert [(await spool.story(n)).sha256 for n in (1, 2)] == digests


# --- damage -------------------------------------------------------------------------------------------------------


async def test_damage_is_told_and_never_handed_over(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    small, beside, gone = [await put(spool, mail(raw), n) for n, raw in enumerate([b"small", large(), large()])]
    (file,) = Path(f"{database}-bodies").rglob("*.log")
    with file.open("r+b") as opened:
        opened.seek(places(database)[beside].start + 5)
        opened.write(b"?")
    with looking_into(database) as connection:
        connection.execute("UPDATE puts SET raw = ? WHERE id = ?", (b"smalL", small))
    for message_id, where in ((small, "the database"), (beside, file.name)):
        with pytest.raises(NotFound, match=f"message {message_id} is missing from or damaged in {where}"):
            await spool.raw(message_id)
    assert await spool.raw(gone) == large()
    os.truncate(file, 0)
    with pytest.raises(NotFound, match="damaged"):
        await spool.raw(gone)
    file.unlink()
    with pytest.raises(NotFound, match="restore it from a backup"):
        await spool.raw(gone)


async def test_a_read_overtaken_by_an_erasure_says_erased(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await put(spool, mail(large()))
    really = segments.read

    def overtaken(directory: Path, place: Place) -> bytes:
        with looking_into(database) as connection:
            bodies.erase(connection, message_id)
            bodies.clear(connection)
        return really(directory, place)

    monkeypatch.setattr(segments, "read", overtaken)
    with pytest.raises(NotFound, match="has erased it"):
        await spool.raw(message_id)


# --- erasing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holes", [True, False])
async def test_erased_is_erased_from_the_disk_and_the_rest_stays(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch, holes: bool
) -> None:
    if not holes:
        monkeypatch.setattr(segments, "_fallocate", None)
    ids = [await put(spool, mail(large(n, 8 * LARGE)), n) for n in range(3)]
    (name,) = files(database)
    before = Path(f"{database}-bodies").rglob(name).__next__().stat().st_blocks
    await finish(spool, 2)
    assert await spool.erase_finished(before=3000, limit=10) == 1
    (left,) = files(database).values()
    assert SECRET + b"1 " not in left
    assert left.count(SECRET + b"0 ") == left.count(SECRET + b"2 ") > 0
    assert [await spool.raw(ids[n]) for n in (0, 2)] == [large(n, 8 * LARGE) for n in (0, 2)]
    with pytest.raises(NotFound):
        await spool.raw(ids[1])
    after = Path(f"{database}-bodies").rglob(name).__next__().stat().st_blocks
    assert after < before * 0.8 if holes else after == before


async def test_a_segment_goes_when_nothing_in_it_is_wanted_any_more(database: Path, mail: Mail) -> None:
    spool = open_spool(database)
    await put(spool, mail(large()), 1)
    await spool.close()
    spool = open_spool(database)
    await finish(spool)
    await put(spool, mail(large(2)), 2)
    assert len(files(database)) == 2
    assert await spool.erase_finished(before=3000, limit=10) == 1
    assert len(files(database)) == 1
    await finish(spool)
    assert await spool.erase_finished(before=3000, limit=10) == 1
    assert len(files(database)) == 1, "it is still being written to"
    await spool.close()
    sweep(database)
    assert files(database) == {}


async def test_what_cannot_be_removed_now_is_removed_later(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(spool, mail(large()))
    await finish(spool)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(segments, "blank", fails)
        assert await spool.erase_finished(before=3000, limit=10) == 1
        with pytest.raises(NotFound):
            await spool.raw(1)
        assert SECRET in b"".join(files(database).values())
    assert await spool.erase_finished(before=3000, limit=10) == 0
    assert SECRET not in b"".join(files(database).values())


# --- sweeping -----------------------------------------------------------------------------------------------------


async def test_what_was_written_and_never_committed_is_swept_once_nobody_can_commit_it(
    database: Path, spool: SqliteSpool, mail: Mail
) -> None:
    await put(spool, mail(large(1)), 1)
    with looking_into(database) as connection:
        directory = bodies.directory_of(connection)
    appender = Appender(directory)
    appender.append([large(7), large(8)])
    sweep(database)
    assert any(SECRET + b"7 " in content for content in files(database).values())
    appender.close()
    sweep(database)
    assert not any(SECRET + b"7 " in content for content in files(database).values())
    assert await spool.raw(1) == large(1)


async def test_a_full_segment_is_not_swept_before_its_last_rows_are_committed(
    database: Path, spool: SqliteSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", LARGE)
    with looking_into(database) as connection:
        directory = bodies.directory_of(connection)
    appender = Appender(directory)
    appender.append([large(1), large(2), large(3)])
    sweep(database)
    assert len(files(database)) == 3
    appender.release()
    sweep(database)
    assert len(files(database)) == 1
    appender.close()


def test_a_segment_taken_for_a_leftover_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, removed = segments.fcntl.flock, []

    def late(file: int, how: int) -> None:
        if not removed:
            removed.extend(tmp_path.glob("*.log"))
            removed[0].unlink()
        really(file, how)

    monkeypatch.setattr(segments.fcntl, "flock", late)
    appender = Appender(tmp_path)
    (place,) = appender.append([b"body"])
    assert removed
    assert segments.path_of(tmp_path, place.segment) not in removed
    assert segments.read(tmp_path, place) == b"body"
    appender.close()


async def test_sweeping_all_the_time_takes_nothing_from_writers(
    database: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 4 * LARGE)
    spools = [open_spool(database) for _ in range(2)]
    over, rounds = threading.Event(), []

    def sweep_on() -> None:
        while not over.is_set():
            with contextlib.suppress(sqlite3.OperationalError):
                rounds.append(sweep(database))

    thread = threading.Thread(target=sweep_on)
    thread.start()
    try:
        ids = await asyncio.gather(*(put(spools[n % 2], mail(large(n)), n) for n in range(300)))
    finally:
        over.set()
        thread.join()
    assert sum(rounds) > 0
    assert [await spools[0].raw(message_id) for message_id in ids] == [large(n) for n in range(300)]
    for spool in spools:
        await spool.close()


async def test_another_database_in_the_same_place_takes_nothing_for_leftovers(
    database: Path, tmp_path: Path, mail: Mail
) -> None:
    spool = open_spool(database)
    await put(spool, mail(large()))
    await spool.close()
    aside = tmp_path / "aside"
    database.rename(aside)
    spool = open_spool(database)
    await put(spool, mail(large(2)))
    await spool.close()
    sweep(database)
    aside.replace(database)
    spool = open_spool(database)
    assert await spool.raw(1) == large()
    await spool.close()


# --- faults of the disk -------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_nothing_and_the_next_is_kept(tmp_path: Path) -> None:
    appender = Appender(tmp_path)
    (kept,) = appender.append([b"kept"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            appender.append([b"x" * 5000, b"y" * 8000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    path = segments.path_of(tmp_path, kept.segment)
    assert path.stat().st_size == 4
    (after,) = appender.append([b"after"])
    assert (after.segment, after.start) == (kept.segment, 4)
    assert [segments.read(tmp_path, place) for place in (kept, after)] == [b"kept", b"after"]
    appender.close()


def test_after_a_sync_that_failed_nothing_more_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appender = Appender(tmp_path)
    (kept,) = appender.append([b"kept"])

    def fails(file: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError, match="Input/output"):
            appender.append([b"lost"])
    (after,) = appender.append([b"after"])
    assert after.segment != kept.segment
    appender.close()


async def test_no_row_is_committed_before_its_body_is_on_the_disk(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, seen = os.fdatasync, []

    def looks(file: int) -> None:
        with contextlib.closing(connect(database, 10)) as connection:
            seen.append(connection.execute("SELECT count(*) FROM messages").fetchone()[0])
            seen[-1] += connection.execute(f"SELECT count(*) FROM puts WHERE id > {entering.ENTERED}").fetchone()[0]
        really(file)

    monkeypatch.setattr(os, "fdatasync", looks)
    for n in range(3):
        await put(spool, mail(large(n)), n)
    assert seen == [0, 1, 2]


async def test_one_that_cannot_be_written_takes_no_other_along(
    spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.pwrite

    def full(file: int, data: bytes, at: int) -> int:
        if len(data) > 5 * LARGE:
            raise OSError(28, "No space left on device")
        return really(file, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    raws = [large(n, 9 * LARGE if n == 3 else LARGE) for n in range(6)]
    results = await asyncio.gather(*(put(spool, mail(raw), n) for n, raw in enumerate(raws)), return_exceptions=True)
    assert [n for n, result in enumerate(results) if isinstance(result, SpoolUnavailable)] == [3]
    kept = {n: result for n, result in enumerate(results) if isinstance(result, int)}
    assert {n: await spool.raw(message_id) for n, message_id in kept.items()} == {n: raws[n] for n in kept}


# --- kill -9 ------------------------------------------------------------------------------------------------------

DIES = """
import asyncio, os, pathlib, signal, sys
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.spool.contract import Action
from apptrack_ingest.spool.sqlite import around, bodies, messages, open_spool, segments

database, step = pathlib.Path(sys.argv[1]), sys.argv[2]
armed = False

def die_in(owner, name, *, after=False):
    really = getattr(owner, name)
    def dies(*arguments, **named):
        result = really(*arguments, **named) if after else None
        if armed:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else really(*arguments, **named)
    setattr(owner, name, dies)

STEPS = {
    "before the body's sync": (os, "fdatasync", False),
    "after the body's sync": (os, "fdatasync", True),
    "before the rows": (messages, "put_all", False),
    "before the commit": (messages, "put_all", True),
    "after the commit": (around.Around, "committed", False),
    "before erased bytes are removed": (bodies, "clear", False),
    "when they are, and it is not noted": (segments, "sync", True),
    "when that is noted": (bodies, "clear", True),
}
owner, name, after = STEPS[step]
die_in(owner, name, after=after)

async def main():
    global armed
    spool = open_spool(database)

    def put(n):
        mail = Message(Envelope("", (), "192.0.2.1"), 1000.0, b"Very Private Person %d " % n * 2000)
        return spool.put(mail, [Arrival("acme", n, True)])

    for n in (1, 2):
        print(await put(n), flush=True)
    erases = "erased" in step or "noted" in step
    if erases:
        for event in (Event.HOLD, Event.DISCARD):
            await spool.act(2, Action(event, "me", ""), now=2000)
    armed = True
    await (spool.erase_finished(before=3000, limit=10) if erases else put(3))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        ("before the body's sync", {1, 2}),
        ("after the body's sync", {1, 2}),
        ("before the rows", {1, 2}),
        ("before the commit", {1, 2}),
        ("after the commit", {1, 2, 3}),
        ("before erased bytes are removed", {1}),
        ("when they are, and it is not noted", {1}),
        ("when that is noted", {1}),
    ],
)
async def test_killed_at_any_step_nothing_is_lost_and_nothing_left_behind(
    database: Path, step: str, kept: set[int]
) -> None:
    command = [sys.executable, "-c", DIES, str(database), step]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (-signal.SIGKILL, "1\n2\n"), run.stderr
    spool = open_spool(database)
    assert await spool.erase_finished(before=0, limit=10) == 0
    for n in (1, 2, 3):
        if n in kept:
            assert await spool.raw(n) == b"Very Private Person %d " % n * 2000
        else:
            with pytest.raises(NotFound):
                await spool.raw(n)
    there = b"".join(files(database).values())
    assert {n for n in (1, 2, 3) if b"Person %d " % n in there} == kept
    await spool.close()


# --- a copy -------------------------------------------------------------------------------------------------------


async def test_a_copy_is_made_whole(database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail) -> None:
    for n, raw in enumerate([b"small", large(1), large(2)]):
        await put(spool, mail(raw), n)
    file = tmp_path / "copy" / "spool.sqlite3"
    file.parent.mkdir()
    with looking_into(database) as live:
        live.execute("VACUUM INTO ?", (str(file),))
        bodies.erase(live, 3)
        with looking_into(file) as copy:
            assert bodies.directory_of(copy).name == bodies.directory_of(live).name
            assert bodies.gather(copy, live) == (1, [3])
            assert bodies.directory_of(copy).name != bodies.directory_of(live).name
    with contextlib.closing(sqlite3.connect(file)) as copy:
        assert dict(copy.execute(KEPT)) == {1: b"small", 2: large(1)}


async def test_what_is_damaged_is_so_in_a_copy(database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail) -> None:
    raws = [b"small", large(1), large(2), large(3)]
    small, whole, changed, cut = [await put(spool, mail(raw), n) for n, raw in enumerate(raws)]
    (file,) = Path(f"{database}-bodies").rglob("*.log")
    with file.open("r+b") as opened:
        opened.seek(places(database)[changed].start)
        opened.write(b"?")
        opened.truncate(places(database)[cut].start)
    with looking_into(database) as live:
        live.execute("UPDATE puts SET raw = ? WHERE id = ?", (b"smalL", small))
        live.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
        with looking_into(tmp_path / "copy") as copy:
            assert bodies.gather(copy, live) == (3, [])
            assert bodies.damaged_in(copy) == [small, changed, cut]
            assert bodies.fetch(copy, whole) == raws[1]
            kept = dict(copy.execute(KEPT))
    assert kept == {small: b"smalL", whole: raws[1], changed: b"?" + raws[2][1:]}


async def test_what_the_disk_cannot_give_is_damaged_for_whoever_copies_and_not_for_a_worker(
    database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail
) -> None:
    message_id = await put(spool, mail(large()))
    (file,) = Path(f"{database}-bodies").rglob("*.log")
    file.rename(tmp_path / "aside")
    file.symlink_to("/proc/self/mem")  # reading from its beginning gives EIO
    with looking_into(database) as live:
        with pytest.raises(OSError, match="Input/output error"):
            bodies.fetch(live, message_id)
        with pytest.raises(NotFound, match=r"cannot be read \(Input/output error\)"):
            bodies.fetch_once(live, message_id)
        live.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
        with looking_into(tmp_path / "copy") as copy:
            assert bodies.gather(copy, live) == (1, [])
            assert bodies.damaged_in(copy) == [message_id]


async def test_old_rows_without_a_checksum_are_held_against_their_digest(
    database: Path, spool: SqliteSpool, mail: Mail
) -> None:
    whole, changed, cut = [await put(spool, mail(raw), n) for n, raw in enumerate([b"whole", b"three", b"four"])]
    with looking_into(database) as connection:
        for number, raw in ((whole, b"whole"), (changed, b"three"), (cut, b"four")):
            digest = hashlib.sha256(raw).hexdigest()
            connection.execute("UPDATE messages SET crc32 = NULL, sha256 = ? WHERE id = ?", (digest, number))
        connection.execute("UPDATE puts SET raw = ? WHERE id = ?", (b"thr33", changed))
        connection.execute("UPDATE puts SET raw = ? WHERE id = ?", (b"f", cut))
        assert bodies.damaged_in(connection) == [changed, cut]


async def test_a_copy_goes_without_a_file_that_is_missing(
    database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail
) -> None:
    message_id = await put(spool, mail(large()))
    (file,) = Path(f"{database}-bodies").rglob("*.log")
    file.unlink()
    with looking_into(database) as live:
        live.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
        with looking_into(tmp_path / "copy") as copy:
            assert bodies.gather(copy, live) == (1, [])
            assert bodies.damaged_in(copy) == [message_id]
            with pytest.raises(NotFound, match="no raw mail"):
                bodies.fetch(copy, message_id)
