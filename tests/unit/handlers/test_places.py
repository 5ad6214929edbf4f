"""Locks on names in a directory: between threads, between processes, and gone with whoever held them."""

import errno
import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from apptrack_handlers.places import LOCKS, Opened, locked


@pytest.fixture
def directory(tmp_path: Path) -> str:
    (tmp_path / LOCKS).touch()
    return str(tmp_path)


@pytest.fixture(params=["a byte each", "flock alone"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def unknown(*arguments: Any) -> Any:
        raise OSError(errno.EINVAL, "Invalid argument")

    if request.param == "flock alone":
        monkeypatch.setattr(fcntl, "fcntl", unknown)
    return str(request.param)


def taken(directory: str, name: str) -> bool:
    with locked(directory, name, wait=False) as ours:
        return not ours


@pytest.mark.usefixtures("kernel")
def test_a_name_is_ours_until_we_let_go(directory: str) -> None:
    with locked(directory, "7") as ours:
        assert ours
        assert taken(directory, "7")
    assert not taken(directory, "7")


def test_another_name_is_free(directory: str) -> None:
    with locked(directory, "7"):
        assert not taken(directory, "8")
        with locked(directory, "8"):
            assert taken(directory, "7")


@pytest.mark.usefixtures("kernel")
def test_who_waits_gets_it_when_it_is_free(directory: str) -> None:
    order = []

    def wait() -> None:
        with locked(directory, "7"):
            order.append("waited")

    with locked(directory, "7"):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "waited"]


@pytest.mark.usefixtures("kernel")
def test_another_process_holds_it_until_it_is_killed(directory: str) -> None:
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with locked(directory, "7"):
            os.write(tell, b"x")
            signal.pause()
        os._exit(0)
    assert os.read(told, 1) == b"x"
    assert taken(directory, "7")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not taken(directory, "7")
    os.close(told)
    os.close(tell)


def test_a_file_that_cannot_be_locked_is_an_error(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*arguments: Any) -> Any:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "fcntl", none_left)
    for wait in (True, False):
        with pytest.raises(OSError, match="No locks"), locked(directory, "7", wait=wait):
            pass


def test_what_was_opened_is_closed_even_where_closing_one_fails(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"), Opened() as opened:
        first, second, third = (opened.open(str(tmp_path), os.O_RDONLY) for _ in range(3))
        os.close(second)
    for descriptor in (first, second, third):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
