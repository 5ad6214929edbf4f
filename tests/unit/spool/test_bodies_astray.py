"""Bodies beside the database when somebody else, or an accident in the middle, has touched their files."""

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Message, State
from apptrack_ingest.spool.contract import Action, Facts, Filter, Settlement
from apptrack_ingest.spool.sqlite import SqliteSpool, bodies, messages, open_spool, segments, space
from apptrack_ingest.spool.sqlite.backup import back_up
from apptrack_ingest.spool.sqlite.bodies import LARGE
from apptrack_ingest.spool.sqlite.connection import connect
from apptrack_ingest.spool.sqlite.segments import Appender

Mail = Callable[..., Message]
BODY = b"Very Private Person " * (LARGE // 20 + 1)


async def put(spool: SqliteSpool, mail: Mail, raw: bytes = BODY, applicant_id: int = 7) -> int:
    return await spool.put(mail(raw), [Arrival("acme", applicant_id, True)])


async def finish(spool: SqliteSpool) -> None:
    for summary in await spool.find(Filter(states=(State.RECEIVED,), limit=1000)):
        for event in (Event.HOLD, Event.DISCARD):
            await spool.act(summary.application_id, Action(event, "me", ""), now=2000)


def files(database: Path) -> list[Path]:
    return list(Path(f"{database}-bodies").rglob("*.log"))


def sweep(database: Path) -> int:
    with contextlib.closing(connect(database, 10)) as connection:
        return bodies.sweep(connection)


async def test_a_segment_that_was_swept_before_goes_when_the_process_that_empties_it_dies(
    database: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(database)
    await put(spool, mail)
    await spool.close()
    sweep(database)
    assert len(files(database)) == 1
    with monkeypatch.context() as dead:
        dead.setattr(bodies, "_remove_if_empty", lambda *_: False)
        spool = open_spool(database)
        await finish(spool)
        assert await spool.erase_finished(before=3000, limit=10) == 1
        await spool.close()
    assert sweep(database) == 1
    assert files(database) == []


async def test_of_a_segment_that_is_gone_nothing_is_kept(database: Path, spool: SqliteSpool) -> None:
    with contextlib.closing(connect(database, 10)) as connection:
        connection.execute("INSERT INTO swept (segment) VALUES (1)")
        bodies.sweep(connection)
        assert connection.execute("SELECT count(*) FROM swept").fetchone()[0] == 0


async def test_a_file_that_somebody_took_away_takes_no_further_mail(
    database: Path, spool: SqliteSpool, mail: Mail
) -> None:
    first = await put(spool, mail)
    (file,) = files(database)
    file.rename(file.with_name("elsewhere"))
    second = await put(spool, mail)
    assert await spool.raw(second) == BODY
    file.with_name("elsewhere").rename(file)
    assert await spool.raw(first) == BODY


async def test_of_a_mail_that_was_not_taken_nothing_is_left_though_no_other_comes(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await put(spool, mail, BODY.replace(b"Private", b"Public!"))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(messages, "put_all", full)
        with pytest.raises(SpoolUnavailable):
            await put(spool, mail)
    assert any(BODY in file.read_bytes() for file in files(database))
    sweep(database)
    assert not any(b"Private" in file.read_bytes() for file in files(database))
    assert b"Public!" in await spool.raw(kept)
    assert await spool.raw(await put(spool, mail)) == BODY


def test_the_directories_names_are_brought_to_the_disk_whoever_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, really = [], segments.sync_directory

    def noted(directory: Path) -> None:
        synced.append(directory)
        really(directory)

    directory = tmp_path / "bodies" / "name"
    directory.mkdir(parents=True)  # by one who was killed right after
    monkeypatch.setattr(segments, "sync_directory", noted)
    appender = Appender(directory)
    appender.append([b"body"])
    appender.close()
    assert {directory, directory.parent, tmp_path} <= set(synced)


def test_without_holes_every_byte_is_overwritten_however_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.pwrite
    path = tmp_path / "segment"
    path.write_bytes(b"x" * 1000)
    monkeypatch.setattr(segments, "_fallocate", None)
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: really(file, data[:7], at))
    file = os.open(path, os.O_RDWR)
    segments.blank(file, 100, 800)
    os.close(file)
    assert path.read_bytes() == b"x" * 100 + bytes(800) + b"x" * 100


async def test_where_no_thread_can_be_had_a_commit_is_answered_all_the_same(
    spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(spool, mail, b"small")

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    spool._around._checkpoints._pages = 10**6
    assert await put(spool, mail, b"small") == 2


async def test_what_a_backup_that_was_killed_left_does_not_get_into_the_next(
    database: Path, spool: SqliteSpool, mail: Mail, tmp_path: Path
) -> None:
    await put(spool, mail)
    for end in ("", "-journal", "-wal", "-shm"):
        (tmp_path / f"saved.part{end}").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"left" * 1000)
    saved = await asyncio.to_thread(back_up, database, tmp_path / "saved")
    assert saved.bodies == 1
    assert [path.name for path in tmp_path.glob("saved*")] == ["saved"]


async def test_what_retention_erased_is_not_left_at_the_end_of_the_log(
    database: Path, spool: SqliteSpool, mail: Mail
) -> None:
    await put(spool, mail, b"Very Private Person")
    (claim,) = await spool.claim(worker="w", now=1000, lease=60, limit=1)
    done = Settlement(Event.REJECT, "rejected", facts=Facts(candidate_name="Very Private Person"))
    await spool.settle(claim, done, now=1000)
    await spool.act(1, Action(Event.DISCARD, "me", ""), now=1000)
    log = Path(f"{database}-wal")
    assert b"Very Private Person" in log.read_bytes()
    assert await spool.erase_finished(before=3000, limit=1) == 1
    assert await spool.erase_finished(before=3000, limit=1) == 0
    assert b"Very Private Person" not in log.read_bytes() + database.read_bytes()


async def test_a_log_that_is_being_read_is_emptied_when_it_is_not(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "PATIENCE", 0.01)
    await put(spool, mail, b"Very Private Person")
    await finish(spool)
    log = Path(f"{database}-wal")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM messages").fetchall()
        assert await spool.erase_finished(before=3000, limit=10) == 1
        assert b"Very Private Person" in log.read_bytes()
        reader.execute("COMMIT")
    assert await spool.erase_finished(before=3000, limit=10) == 0
    assert log.stat().st_size == 0
