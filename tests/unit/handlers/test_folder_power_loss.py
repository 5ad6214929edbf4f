"""The folder handler when the power goes: only what was synced is there afterwards."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apptrack_handlers.folder import OPEN_FILES, WORK, Folder

from apptrack_ingest import Application, Person
from apptrack_ingest.testing import a_document, an_application

FIRST = an_application(applicant_id=7)
UPDATE = an_application(applicant_id=7, documents=(a_document("new.pdf", b"new"), a_document("b.txt", b"")))
MANY = an_application(
    applicant_id=7, documents=tuple(a_document(f"{n}.txt", b"%d" % n) for n in range(2 * OPEN_FILES + 3))
)


class Disk:
    """Remembers of every file and directory what it held when it was synced: what a power loss leaves of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: dict[int, Any] = {}
        self.moves: list[tuple[int, tuple[str, int]]] = []
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "rename", self._moving(os.rename))
        monkeypatch.setattr(os, "replace", self._moving(os.replace))

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self.synced[os.fstat(descriptor).st_ino] = self._held(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def lost(self, path: Path) -> list[str]:
        """What a power loss would take of `path` and all below it, but for what is ours alone."""
        here = [] if self.synced.get(path.stat().st_ino) == self._held(path) else [path.name]
        below = [entry for entry in path.iterdir() if entry.name != WORK] if path.is_dir() else []
        return here + [name for entry in below for name in self.lost(entry)]

    @staticmethod
    def _held(path: Path) -> Any:
        if path.is_dir():
            return {(entry.name, entry.inode()) for entry in os.scandir(path)}
        return path.read_bytes()

    def _moving(self, move: Callable[..., None]) -> Callable[..., None]:
        def moved(source: str, to: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            what = Path(os.readlink(f"/proc/self/fd/{src_dir_fd}"), source)
            assert self.lost(what) == [], "shown before it was synced"
            for directory, name in self.moves[-1:]:
                assert name in self.synced[directory], "the step before was not synced"
            self.moves.append((os.fstat(dst_dir_fd).st_ino, (to, what.stat().st_ino)))
            move(source, to, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        return moved


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def in_(path: Path) -> Folder:
    return Folder(Folder.Settings(path=path))


@pytest.mark.parametrize("applications", [(FIRST,), (FIRST, UPDATE), (FIRST, UPDATE, FIRST), (MANY,), (FIRST, MANY)])
def test_what_was_accepted_stays(tmp_path: Path, disk: Disk, applications: tuple[Application, ...]) -> None:
    path = tmp_path / "deep" / "here"
    for application in applications:
        in_(path).handle(application)
        assert disk.lost(tmp_path) == []


@pytest.mark.parametrize("before", [None, UPDATE], ids=["first delivery", "update"])
@pytest.mark.parametrize("again", [False, True], ids=["another process", "the same"])
def test_an_attempt_that_ended_before_its_last_sync_is_made_durable_by_the_next(
    tmp_path: Path, disk: Disk, before: Application | None, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = in_(tmp_path)
    handler.handle(before or an_application(applicant_id=8))
    steps = len(disk.moves) + (2 if before else 1)
    synced = disk.fsync

    def broken(descriptor: int) -> None:
        if len(disk.moves) == steps:
            raise OSError(errno.EIO, "Input/output error")
        synced(descriptor)

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="Input/output"):
            handler.handle(FIRST)
    disk.synced.pop((tmp_path / "default" / ("7" if before else "")).stat().st_ino)
    (handler if again else in_(tmp_path)).handle(FIRST)
    assert len(disk.moves) == steps, "nothing was written again"
    assert disk.lost(tmp_path / "default") == []


def test_an_account_that_somebody_was_killed_while_making_is_made_durable(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "here" / "default" / WORK).mkdir(parents=True)
    in_(tmp_path / "here").handle(FIRST)
    assert disk.lost(tmp_path / "here") == []


def test_who_was_forgotten_does_not_come_back(tmp_path: Path, disk: Disk) -> None:
    handler = in_(tmp_path)
    handler.handle(FIRST)
    assert handler.forget(Person("default", "", (7,))) == 1
    assert disk.lost(tmp_path / "default") == []
    assert disk.synced[(tmp_path / "default" / WORK).stat().st_ino] == disk._held(tmp_path / "default" / WORK)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_does_not_sync_directories(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, "not of directories")

    monkeypatch.setattr(os, "fsync", files_only)
    handler = in_(tmp_path / "here")
    for application in (FIRST, UPDATE, UPDATE):
        handler.handle(application)
    assert handler.forget(Person("default", "", (7,))) == 1


def test_directories_that_were_taken_away_are_made_again(tmp_path: Path) -> None:
    handler = in_(tmp_path / "here")
    handler.handle(FIRST)
    (tmp_path / "here").rename(tmp_path / "moved")
    handler.handle(FIRST)
    assert (tmp_path / "here" / "default" / "7" / "application.json").exists()


def test_a_place_for_work_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    handler = in_(tmp_path)
    handler.handle(FIRST)
    (tmp_path / "default" / WORK / ".locks").unlink()
    handler.handle(UPDATE)
    (tmp_path / "default" / WORK / ".locks").unlink()
    (tmp_path / "default" / WORK).rmdir()
    handler.handle(FIRST)
    assert len(list((tmp_path / "default" / "7").glob("delivery-*"))) == 2


def test_many_at_a_time_leave_one_whole_candidate(tmp_path: Path) -> None:
    """Each handler stands for a process: the lock belongs to the opened file, whoever opened it."""
    applications = [an_application(applicant_id=7, subject=str(n), documents=MANY.documents) for n in range(8)]
    threads = [threading.Thread(target=in_(tmp_path).handle, args=(application,)) for application in applications]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    candidate = tmp_path / "default" / "7"
    assert len(list(candidate.glob("delivery-*"))) == 2
    assert [entry.name for entry in (tmp_path / "default" / WORK).iterdir()] == [".locks"]
