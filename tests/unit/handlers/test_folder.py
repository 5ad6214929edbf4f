"""The folder handler: what a reader finds, at any moment and after any crash."""

import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from apptrack_handlers import folder, places
from apptrack_handlers.folder import Folder

from apptrack_ingest import Accepted, Application, Candidate, Person
from apptrack_ingest.testing import A_PDF, a_document, an_application

FIRST = an_application(applicant_id=7)
UPDATE = an_application(applicant_id=7, documents=(a_document("new.pdf", A_PDF + b"%new"), a_document("b.txt", b"b")))


def in_(path: Path, **settings: Any) -> Folder:
    return Folder(Folder.Settings(path=path, **settings))


def read(path: Path, account: str = "default", applicant: int = 7) -> dict[str, Any]:
    """What a reader sees: the application, and under `contents` every file that it names."""
    directory = path / account / str(applicant)
    application: dict[str, Any] = json.loads((directory / "application.json").read_text(encoding="utf-8"))
    application["contents"] = {d["name"]: (directory / d["file"]).read_bytes() for d in application["documents"]}
    return application


def left_over(path: Path) -> list[str]:
    """What is under way, or was left by whoever was killed; the file of the locks is always there."""
    return sorted({entry.name for entry in (path / "default" / ".work").iterdir()} - {".locks"})


def deliveries(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "default" / "7").glob("delivery-*"))


def test_what_a_reader_finds(tmp_path: Path) -> None:
    assert in_(tmp_path).handle(FIRST) == Accepted("default/7")
    application = read(tmp_path)
    assert application["applicant_id"] == 7
    assert application["candidate"]["email"] == "jane.doe@example.com"
    assert application["contents"] == {"Jane Doe CV.pdf": A_PDF}
    assert (tmp_path / "default" / "7" / application["mail"]).read_bytes() == FIRST.raw
    assert sorted(entry.name for entry in (tmp_path / "default").iterdir()) == [".work", "7"]


def test_the_mail_can_be_left_out(tmp_path: Path) -> None:
    in_(tmp_path, mail=False).handle(FIRST)
    assert read(tmp_path)["mail"] is None
    assert not list(tmp_path.rglob("*.eml"))


def test_the_same_key_again_changes_nothing(tmp_path: Path) -> None:
    in_(tmp_path).handle(FIRST)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "default" / "7").rglob("*")}
    again = an_application(applicant_id=7, attempt=2)
    assert in_(tmp_path).handle(again) == Accepted("default/7")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "default" / "7").rglob("*")} == before


def test_a_reader_at_work_keeps_its_files_through_one_update(tmp_path: Path) -> None:
    handler = in_(tmp_path)
    handler.handle(FIRST)
    seen = tmp_path / "default" / "7" / read(tmp_path)["documents"][0]["file"]
    handler.handle(UPDATE)
    assert seen.read_bytes() == A_PDF
    assert set(read(tmp_path)["contents"]) == {"new.pdf", "b.txt"}


def test_deliveries_do_not_pile_up_and_an_old_one_can_come_back(tmp_path: Path) -> None:
    handler = in_(tmp_path)
    for subject in ("a", "b", "c", "b", "a", "b"):
        handler.handle(an_application(applicant_id=7, subject=subject))
        assert read(tmp_path)["subject"] == subject
    assert len(deliveries(tmp_path)) == 2


def test_a_document_named_like_the_mail_is_kept(tmp_path: Path) -> None:
    document = a_document("application.eml", b"from somebody else")
    in_(tmp_path).handle(an_application(applicant_id=7, documents=(document,)))
    assert read(tmp_path)["contents"] == {"application.eml": b"from somebody else"}
    assert (tmp_path / "default" / "7" / read(tmp_path)["mail"]).read_bytes() == FIRST.raw


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_spoiled_application_json_is_put_right(tmp_path: Path, content: str) -> None:
    in_(tmp_path).handle(FIRST)
    (tmp_path / "default" / "7" / "application.json").write_text(content)
    in_(tmp_path).handle(FIRST)
    assert read(tmp_path)["contents"] == {"Jane Doe CV.pdf": A_PDF}


@pytest.mark.parametrize("inside", [(), ("notes.txt",), ("delivery-of-old", "notes.txt")])
def test_a_directory_that_is_there_already_becomes_the_candidates(tmp_path: Path, inside: tuple[str, ...]) -> None:
    candidate = tmp_path / "default" / "7"
    candidate.mkdir(parents=True)
    for name in inside:
        (candidate / name).mkdir()
    in_(tmp_path).handle(FIRST)
    assert read(tmp_path)["contents"] == {"Jane Doe CV.pdf": A_PDF}
    assert (candidate / "notes.txt").exists() is ("notes.txt" in inside), "what is not ours stays"
    assert len(deliveries(tmp_path)) == 1
    assert left_over(tmp_path) == []


def test_a_file_in_the_candidates_place_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "7").write_text("whose?")
    with pytest.raises(NotADirectoryError):
        in_(tmp_path).handle(FIRST)
    assert (tmp_path / "default" / "7").read_text() == "whose?"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("account", ["", ".", "..", "../other", "a/b", "a\\b", "a\0b", ".work"])
def test_an_account_name_cannot_leave_the_directory(tmp_path: Path, account: str) -> None:
    with pytest.raises(ValueError, match="name of a directory"):
        in_(tmp_path / "here").handle(an_application(account=account))
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(("group_readable", "modes"), [(False, {0o700, 0o600}), (True, {0o750, 0o640})])
def test_files_are_private_unless_opened_to_the_group(tmp_path: Path, group_readable: bool, modes: set[int]) -> None:
    in_(tmp_path / "here", group_readable=group_readable).handle(FIRST)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert found.pop(tmp_path / "here" / "default" / ".work" / ".locks") == 0o600, "of no use to a reader"
    assert set(found.values()) == modes


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            in_(tmp_path).handle(FIRST)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    in_(tmp_path).handle(FIRST)
    assert read(tmp_path)["contents"] == {"Jane Doe CV.pdf": A_PDF}


def test_what_a_killed_process_left_of_another_applicant_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "default" / ".work" / "8" / "delivery-x"
    left.mkdir(parents=True)
    (left / "cv.pdf").write_bytes(A_PDF)
    (tmp_path / "default" / ".work" / "8.lock").touch()
    in_(tmp_path).handle(FIRST)
    assert left_over(tmp_path) == []


# --- forgetting ---------------------------------------------------------------------------------------------------------


def person(*applicant_ids: int, email: str = "jane.doe@example.com", account: str = "default") -> Person:
    return Person(account, email, applicant_ids)


def test_a_person_is_removed_with_all_deliveries(tmp_path: Path) -> None:
    for application in (FIRST, UPDATE, an_application(applicant_id=8, candidate=Candidate("Jo", "jo@example.org"))):
        in_(tmp_path).handle(application)
    assert in_(tmp_path).forget(person(7)) == 1
    assert sorted(path.name for path in (tmp_path / "default").iterdir()) == [".work", "8"]
    assert left_over(tmp_path) == []
    assert in_(tmp_path).forget(person(7)) == 0


def test_where_nothing_was_filed_nothing_is_made(tmp_path: Path) -> None:
    assert in_(tmp_path / "none").forget(person(7)) == 0
    assert not (tmp_path / "none").exists()


def test_another_accounts_candidates_stay(tmp_path: Path) -> None:
    in_(tmp_path).handle(an_application(account="beta"))
    in_(tmp_path).handle(FIRST)
    assert in_(tmp_path).forget(person(FIRST.applicant_id)) == 1
    assert len(list((tmp_path / "beta").glob("*/application.json"))) == 1


@pytest.mark.parametrize("spoilt", ["", "[]", "{}", '{"candidate": 1}', '{"candidate": {"email": ["x"]}}'])
def test_a_spoilt_file_is_in_nobodys_way(tmp_path: Path, spoilt: str) -> None:
    in_(tmp_path).handle(an_application(applicant_id=8))
    in_(tmp_path).handle(FIRST)
    (tmp_path / "default" / "8" / "application.json").write_text(spoilt)
    assert in_(tmp_path).forget(person()) == 1
    assert (tmp_path / "default" / "8").exists()


def test_a_removal_that_was_killed_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    line, alive = 0, True
    while alive:
        line += 1
        path = tmp_path / str(line)
        in_(path).handle(FIRST)
        alive = killed_at(line, partial(in_(path).forget, person(7)))
        if alive:
            in_(path).forget(person(7))
        assert not (path / "default" / "7").exists()
        assert left_over(path) == []
    assert line > 10, "the whole removal was walked through"


# --- kill -9 ------------------------------------------------------------------------------------------------------------


def killed_at(line: int, deliver: Callable[[], object]) -> bool:
    """Run `deliver` in a process of its own that is killed before the n-th line it executes of the handler's."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal count
            if frame.f_code.co_filename not in (folder.__file__, places.__file__):
                return None
            count += event == "line"
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            deliver()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def complete(application: dict[str, Any], of: Application) -> bool:
    return bool(application["contents"] == {document.name: document.content for document in of.documents})


@pytest.mark.parametrize("before", [None, FIRST], ids=["first delivery", "update"])
def test_a_kill_at_any_line_leaves_a_complete_candidate(
    tmp_path: Path, before: Application | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a kill loses nothing that was written
    line, alive = 0, True
    while alive:
        line += 1
        path = tmp_path / str(line)
        if before:
            in_(path).handle(before)
        alive = killed_at(line, partial(in_(path).handle, UPDATE))
        if (path / "default" / "7").exists():
            seen = read(path)
            assert complete(seen, UPDATE) or (before and complete(seen, before)), f"killed at line {line}"
        else:
            assert not before, f"killed at line {line}: the candidate is gone"
        in_(path).handle(UPDATE)
        assert complete(read(path), UPDATE)
        assert left_over(path) == []
        assert len(deliveries(path)) <= 2
    assert line > 40, "the whole delivery was walked through"
