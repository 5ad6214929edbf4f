"""Wake-up hints: heard at once, never waited for, never a reason to fail."""

import asyncio
import os
import resource
from pathlib import Path

import pytest

from apptrack_ingest.spool.sqlite.hints import Hints


async def heard(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()


@pytest.mark.parametrize("name", ["hints", "a-directory-with-a-long-name-" * 5], ids=["short", "long"])
async def test_all_who_listen_hear_a_hint(tmp_path: Path, name: str) -> None:
    listeners, events = [Hints(tmp_path / name) for _ in range(2)], [asyncio.Event() for _ in range(2)]
    for listener, event in zip(listeners, events, strict=True):
        listener.listen(event.set)
    sender = Hints(tmp_path / name)
    sender.send()
    await asyncio.gather(*map(heard, events))
    for hints in (*listeners, sender):
        hints.close()
    assert list((tmp_path / name).iterdir()) == []


async def test_a_listener_that_died_is_forgotten_and_the_others_are_told(tmp_path: Path) -> None:
    dead, alive, event = Hints(tmp_path), Hints(tmp_path), asyncio.Event()
    dead.listen(lambda: None)
    alive.listen(event.set)
    assert dead._listener is not None
    asyncio.get_running_loop().remove_reader(dead._listener.fileno())
    dead._listener.close()
    sender = Hints(tmp_path)
    sender.send()
    await heard(event)
    assert len(list(tmp_path.iterdir())) == 1
    alive.close()
    sender.close()


async def test_the_directory_is_read_anew_when_somebody_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, listdir = list[Path](), os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: read.append(path) or listdir(path))  # type: ignore[func-returns-value]
    sender, listener, event = Hints(tmp_path), Hints(tmp_path), asyncio.Event()
    os.utime(tmp_path, (1000.0, 1000.0))
    for _ in range(5):
        sender.send()
    assert len(read) == 1
    listener.listen(event.set)
    sender.send()
    await heard(event)
    for hints in (sender, listener):
        hints.close()


async def test_nobody_waits_for_a_listener_that_does_not_listen(tmp_path: Path) -> None:
    hints, event = Hints(tmp_path), asyncio.Event()
    hints.listen(event.set)
    for _ in range(5000):
        hints.send()
    await heard(event)
    hints.close()


def test_without_listeners_a_hint_goes_nowhere(tmp_path: Path) -> None:
    hints = Hints(tmp_path / "none")
    hints.send()
    hints.close()
    hints.close()


def test_a_hint_that_cannot_be_sent_is_lost_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Hints(tmp_path / "file").send()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        Hints(tmp_path).send()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
