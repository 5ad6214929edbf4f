"""A worker's name is nobody else's, and only who is dead for certain is called dead."""

import logging
from pathlib import Path

import pytest

from apptrack_ingest.service.names import MOST, Names
from apptrack_ingest.service.part import Part


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    file = tmp_path / "boot_id"
    file.write_text("a-boot\n")
    return file


def test_each_start_has_a_name_of_its_own_and_knows_those_before_it(tmp_path: Path, boot: Path) -> None:
    first = Names(tmp_path / "data", own_spool=False, boot=boot)
    assert first.before == ()
    second = Names(tmp_path / "data", own_spool=False, boot=boot)
    assert second.before == (first.own,) and second.own != first.own
    third = Names(tmp_path / "data", own_spool=False, boot=boot)
    assert third.before == (first.own, second.own), "nobody has ended their leases yet"
    third.forget()
    assert Names(tmp_path / "data", own_spool=False, boot=boot).before == (third.own,)


def test_who_lives_on_another_machine_is_not_called_dead(tmp_path: Path, boot: Path) -> None:
    """A data directory that was copied to another machine, or is on a disk that two of them share."""
    first = Names(tmp_path / "data", own_spool=False, boot=boot)
    boot.write_text("another-boot\n")
    assert Names(tmp_path / "data", own_spool=False, boot=boot).before == ()
    alone = tmp_path / "alone"
    first = Names(alone, own_spool=True, boot=boot)
    boot.write_text("a-third-boot\n")
    assert Names(alone, own_spool=True, boot=boot).before == (first.own,), "its spool is in the directory, too"


def test_two_containers_of_one_host_name_have_nothing_in_common(tmp_path: Path, boot: Path) -> None:
    one, other = (Names(tmp_path / name, own_spool=False, boot=boot) for name in ("one", "other"))
    assert one.own != other.own and one.before == other.before == ()


def test_where_no_system_tells_its_boot_nobody_is_called_dead(tmp_path: Path) -> None:
    for _ in range(2):
        assert Names(tmp_path / "data", own_spool=False, boot=tmp_path / "none").before == ()


def test_what_is_in_the_file_is_not_trusted_to_be_ours(tmp_path: Path, boot: Path) -> None:
    (tmp_path / "worker.names").write_bytes(b"\xff\xfe nonsense\nno-name\n\na-boot one two\na-boot host/worker-1-a\n")
    assert Names(tmp_path, own_spool=False, boot=boot).before == ("host/worker-1-a",)
    (tmp_path / "worker.names").write_text("".join(f"a-boot host/worker-{n}\n" for n in range(3 * MOST)))
    assert len(Names(tmp_path, own_spool=False, boot=boot).before) == MOST


def test_a_name_that_cannot_be_remembered_stops_no_start(
    tmp_path: Path, boot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").touch()
    with caplog.at_level(logging.WARNING):
        names = Names(tmp_path / "data", own_spool=False, boot=boot)
    assert "/worker-" in names.own and names.before == ()


def test_of_several_processes_each_knows_its_own_dead_alone(tmp_path: Path, boot: Path) -> None:
    first, second = (Names(tmp_path, own_spool=True, boot=boot, part=Part(n, 2)) for n in (1, 2))
    assert first.before == second.before == ()
    again = Names(tmp_path, own_spool=True, boot=boot, part=Part(2, 2))
    assert again.before == (second.own,), "the first one lives"
    third = Names(tmp_path, own_spool=True, boot=boot, part=Part(1, 2))
    assert third.before == (first.own,)


def test_where_there_are_fewer_the_first_ends_what_the_others_left(tmp_path: Path, boot: Path) -> None:
    owns = [Names(tmp_path, own_spool=True, boot=boot, part=Part(n, 3)).own for n in (1, 2, 3)]
    alone = Names(tmp_path, own_spool=True, boot=boot)
    assert set(alone.before) == set(owns)
    assert set(Names(tmp_path, own_spool=True, boot=boot).before) == {*owns, alone.own}, "it did not come to it"
    alone.forget()
    assert Names(tmp_path, own_spool=True, boot=boot).before == (alone.own,)
    assert [file.name for file in tmp_path.glob("*.names")] == ["worker.names"]
