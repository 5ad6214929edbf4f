"""The spool is looked at, and nothing of it is made, migrated or changed."""

import sqlite3
from pathlib import Path

import pytest
from filled import fill
from postgres import postgres_server

from apptrack_ingest.doctor import spool
from apptrack_ingest.doctor.finding import Level
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.examining import Examined
from apptrack_ingest.spool.opening import open_spool

__all__ = ["postgres_server"]


async def look(**given):
    [check] = spool.checks(Settings(**given))
    return await check.findings()


async def test_where_there_is_none_none_is_made(tmp_path):
    [finding] = await look(data_dir=tmp_path / "data")
    assert finding.level is Level.OK and "none yet" in finding.found
    assert list(tmp_path.iterdir()) == []


async def test_one_that_we_may_not_see_is_not_taken_for_none(tmp_path, monkeypatch):
    def refused(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refused)  # as root one may everything
    [finding] = await look(data_dir=tmp_path)
    assert finding.level is Level.FAIL and "owner, mode" in finding.found


async def test_one_in_use_opens_and_stays_as_it_is(tmp_path):
    used = open_spool(tmp_path / "spool.sqlite3")
    try:
        await fill(used)
        [finding] = await look(data_dir=tmp_path)
        assert finding.level is Level.OK and "opens, schema" in finding.found
    finally:
        await used.close()


def made_by(tmp_path: Path, version: int) -> Path:
    database = tmp_path / "spool.sqlite3"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE marks (key TEXT PRIMARY KEY, at REAL)")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
    return database


async def test_an_older_one_is_not_migrated_by_looking(tmp_path):
    database = made_by(tmp_path, 3)
    [finding] = await look(data_dir=tmp_path)
    assert finding.level is Level.WARN and "backup" in finding.advice
    assert sqlite3.connect(database).execute("PRAGMA user_version").fetchone() == (3,)


async def test_a_newer_one_and_a_broken_one_fail(tmp_path):
    made_by(tmp_path, 999)
    [finding] = await look(data_dir=tmp_path)
    assert finding.level is Level.FAIL and "newer release" in finding.advice
    (tmp_path / "spool.sqlite3").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    [finding] = await look(data_dir=tmp_path)
    assert finding.level is Level.FAIL and finding.advice


def test_a_copy_that_was_cut_off_fails():
    assert spool.stands("x", Examined(9, 2, 9, unfinished=True)).level is Level.FAIL


def test_a_newer_schema_that_this_release_can_use_is_well():
    assert spool.stands("x", Examined(11, 9, 9)).level is Level.OK


async def test_postgresql_is_looked_at_with_its_clock(postgres_server):
    url = postgres_server.url(postgres_server.make())
    [empty, _] = await look(spool=url)
    assert "none yet" in empty.found
    used = open_spool(url)
    try:
        await used.prepare()
        opened, clock = await look(spool=url)
    finally:
        await used.close()
    assert (opened.level, clock.level, clock.check) == (Level.OK, Level.OK, "clock of the database")


@pytest.mark.parametrize("server", ["127.0.0.1:9", "/spool?host=/nowhere"])
async def test_a_server_that_is_not_there_fails_without_the_password(server):
    place = f"postgresql://jo:Kr0kus@{server}/spool" if ":9" in server else f"postgresql://jo:Kr0kus@{server}"
    [finding] = await look(spool=place)
    assert finding.level is Level.FAIL and "Kr0kus" not in repr(finding)
