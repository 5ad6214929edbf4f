"""Processes that write take turns: whoever waits comes next, and nobody waits for ever for one that has stopped."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from apptrack_ingest.spool.sqlite import gate
from apptrack_ingest.spool.sqlite.gate import Gate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turn"


def in_a_thread(gate: Gate, done: list[str], name: str) -> threading.Thread:
    def pass_it() -> None:
        with gate.passed() as waited:
            done.append(name if waited else f"{name} at once")

    thread = threading.Thread(target=pass_it)
    thread.start()
    return thread


def stands_in_line(gate: Gate) -> None:
    """Returns when it has seen that it is not its turn."""
    until = time.monotonic() + 10
    while not gate._in_line:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_one_waits_until_the_other_is_done(path: Path) -> None:
    first, second, done = Gate(path), Gate(path), []
    for _ in range(3):
        with first.passed():
            thread = in_a_thread(second, done, "second")
            stands_in_line(second)
            done.append("first")
        thread.join(10)
    assert done == ["first", "second"] * 3
    first.close()
    second.close()


def test_one_that_stops_in_the_middle_holds_nobody_up_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.01)
    stopped, other, done = Gate(path), Gate(path), []
    with stopped.passed():
        for _ in range(2):
            with other.passed():
                done.append("other")
    assert done == ["other", "other"]
    other.close()


def test_one_that_stopped_is_waited_for_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.01)
    asked, really = [], gate._Waiter.got_it

    def noted(waiter: gate._Waiter, patience: float) -> bool:
        asked.append(patience)
        return really(waiter, patience)

    monkeypatch.setattr(gate._Waiter, "got_it", noted)
    stopped, other = Gate(path), Gate(path)
    with stopped.passed():
        for _ in range(5):
            with other.passed():
                pass
    assert asked == [0.01]
    stopped.close()
    other.close()


def test_where_no_thread_can_be_had_nobody_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    first, second = Gate(path), Gate(path)
    with first.passed(), second.passed():
        pass
    first.close()
    second.close()


def open_files(path: Path) -> int:
    return sum(1 for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and str(link.readlink()) == str(path))


def test_a_gate_that_is_closed_while_it_waits_keeps_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.01)
    stopped, other = Gate(path), Gate(path)
    with stopped.passed():
        with other.passed():
            pass
        other.close()
    stopped.close()
    for thread in [thread for thread in threading.enumerate() if thread.name == "spool-gate"]:
        thread.join(10)
    assert open_files(path) == 0


def test_who_went_on_without_its_turn_does_not_keep_it_when_it_comes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.01)
    stopped, other, third = Gate(path), Gate(path), Gate(path)
    with stopped.passed(), other.passed():
        pass
    monkeypatch.setattr(gate, "PATIENCE", 10)
    done: list[str] = []
    for each in (third, other, third, other):
        in_a_thread(each, done, "passed").join(5)
    # One of them may have met the turn on its way through the waiting thread, which gives it back.
    assert [said.removesuffix(" at once") for said in done] == ["passed"] * 4
    for each in (stopped, other, third):
        each.close()
    waiters = [thread for thread in threading.enumerate() if thread.name == "spool-gate"]
    for thread in waiters:
        thread.join(10)
    assert not any(thread.is_alive() for thread in waiters), "they end with their gates"


KILLED = """
import pathlib, sys
from apptrack_ingest.spool.sqlite.gate import Gate
with Gate(pathlib.Path(sys.argv[1])).passed():
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_the_turn_of_one_that_is_killed_is_over(path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        done: list[str] = []
        waits = Gate(path)
        thread = in_a_thread(waits, done, "next")
        stands_in_line(waits)
        assert done == []
        process.kill()
        thread.join(10)
    assert done == ["next"]
    waits.close()


def test_where_there_can_be_no_file_nobody_waits(tmp_path: Path) -> None:
    first, second = Gate(tmp_path / "missing" / "turn"), Gate(tmp_path / "missing" / "turn")
    with first.passed(), second.passed():
        pass
    first.close()
    second.close()
