"""The data directory as it can be found, and what its disk says."""

import errno
import os
from pathlib import Path

import pytest

from apptrack_ingest.doctor import machine
from apptrack_ingest.doctor.finding import Level
from apptrack_ingest.receive.pressure import Floors, Room
from apptrack_ingest.settings import Settings


def floors(free_bytes: int, free_inodes: int = 0) -> Floors:
    return Floors(free_bytes, free_inodes, 1, 1, 1)


def test_a_directory_of_ours_alone_is_well(tmp_path):
    tmp_path.chmod(0o700)
    assert machine.owned(tmp_path).level is Level.OK


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o777])
def test_one_that_others_may_enter_is_warned_of(tmp_path, mode):
    tmp_path.chmod(mode)
    finding = machine.owned(tmp_path)
    assert (finding.level, finding.advice) == (Level.WARN, f"chmod 700 {tmp_path}")


def test_one_that_is_not_there_yet_is_made_later_and_not_now(tmp_path):
    wanted = tmp_path / "a" / "b"
    assert machine.owned(wanted).level is Level.OK
    assert machine.synced(wanted).level is Level.OK
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_its_place_fails(tmp_path):
    (tmp_path / "data").write_text("")
    assert machine.owned(tmp_path / "data").level is Level.FAIL


def test_one_that_is_not_ours_is_told(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    finding = machine.owned(tmp_path)
    assert finding.level is Level.WARN and "belongs to user" in finding.found


def test_one_below_a_directory_that_is_closed_to_us_is_not_called_missing(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    exists = Path.exists

    def seen(path):
        if path.parent == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return exists(path)

    monkeypatch.setattr(Path, "exists", seen)  # as root one may everything
    monkeypatch.setattr(os, "access", lambda path, _: path != closed)
    finding = machine.owned(closed / "data")
    assert finding.level is Level.FAIL and "closed to us" in finding.found and "serve" in finding.advice
    assert machine.free_space(closed / "data", floors(0)).level is Level.OK


@pytest.mark.parametrize("where", ["there", "not there"])
def test_one_that_we_may_not_write_fails(tmp_path, monkeypatch, where):
    monkeypatch.setattr(os, "access", lambda *_: False)  # as root one may everything
    directory = tmp_path if where == "there" else tmp_path / "data"
    assert machine.owned(directory).level is Level.FAIL


@pytest.mark.parametrize(
    ("kind", "spool", "level"),
    [
        ("ext4", "sqlite", Level.OK),
        ("nfs4", "sqlite", Level.FAIL),
        ("nfs4", "postgresql://db.example/spool", Level.OK),
        ("tmpfs", "sqlite", Level.WARN),
        (None, "sqlite", Level.OK),
    ],
)
def test_what_its_file_system_means(monkeypatch, kind, spool, level):
    monkeypatch.setattr(machine, "filesystem_of", lambda _: kind)
    assert machine.file_system(Settings(spool=spool)).level is level


@pytest.mark.parametrize(
    ("room", "level"),
    [
        (Room(99, None), Level.FAIL),
        (Room(299, None), Level.WARN),
        (Room(300, None), Level.OK),
        (Room(10**9, 9), Level.FAIL),
        (Room(10**9, 29), Level.WARN),
        (Room(10**9, 30), Level.OK),
    ],
)
def test_how_much_room_is_enough(tmp_path, monkeypatch, room, level):
    monkeypatch.setattr(machine, "room_of", lambda _: room)
    assert machine.free_space(tmp_path, floors(100, 10)).level is level


def test_a_disk_that_does_not_sync_fails_and_nothing_is_left(tmp_path, monkeypatch):
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    finding = machine.synced(tmp_path)
    assert (finding.level, "Input/output error" in finding.found) == (Level.FAIL, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("answer", "level"), [(0, Level.OK), (5, Level.WARN), (-1, Level.OK)])
def test_the_clock_as_the_system_tells(monkeypatch, answer, level):
    library = type("Library", (), {"adjtimex": staticmethod(lambda _: answer)})
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda *_, **__: library)
    assert machine.clock().level is level


def test_the_real_clock_of_this_machine_is_told_somehow():
    assert machine.clock().level in (Level.OK, Level.WARN)


def test_the_present_directory_is_found_from_a_relative_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert machine.present(Path("x/y")) == tmp_path
