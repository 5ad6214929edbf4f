"""The command handler: what the program gets, what its end means, and that nothing of it stays behind."""

import asyncio
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from apptrack_handlers import command
from apptrack_handlers.command import Command

from apptrack_ingest import Accepted, Rejected, RetryLater
from apptrack_ingest.errors import ConfigError
from apptrack_ingest.handoff import build
from apptrack_ingest.testing import A_PDF, a_document, an_application

APPLICATION = an_application()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "private"
    path.mkdir()
    return path


Shell = Callable[..., Command]


@pytest.fixture
def shell(private: Path) -> Shell:
    """A handler that runs a shell script; the script's further arguments are $1, $2 …"""

    def make(script: str, *arguments: Path, **settings: Any) -> Command:
        argv = ["sh", "-c", script, "sh", *map(str, arguments)]
        return Command(Command.Settings(argv=argv, directory=private, **settings))

    return make


async def until(condition: Callable[[], Any]) -> Any:
    """The condition's value once it is true, within ten seconds."""
    deadline = time.monotonic() + 10
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came to pass"
        await asyncio.sleep(0.005)
    return value


def gone(pid: int) -> bool:
    """Ended; perhaps a zombie that nobody in this container collects."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# --- what the program gets ----------------------------------------------------------------------------------------------


async def test_json_on_stdin_and_documents_in_a_private_directory(shell: Shell, private: Path, tmp_path: Path) -> None:
    script = 'cat >"$1/in"; pwd >"$1/pwd"; cp -p * "$1"; stat -c %a . >"$1/mode"; echo "$APPTRACK_DOCUMENTS" >"$1/env"'
    application = an_application(documents=(a_document("../cv.pdf"), a_document("cv.pdf", b"other")))
    assert await shell(script, tmp_path).handle(application) == Accepted(None)

    told = json.loads((tmp_path / "in").read_text())
    directory = (tmp_path / "pwd").read_text().strip()
    assert (tmp_path / "env").read_text().strip() == told["directory"] == directory
    assert Path(directory).parent == private
    assert (tmp_path / "mode").read_text() == "700\n"
    assert [document["path"] for document in told["documents"]] == [f"{directory}/cv.pdf", f"{directory}/cv-2.pdf"]
    assert (tmp_path / "cv.pdf").read_bytes() == A_PDF
    assert (tmp_path / "cv-2.pdf").read_bytes() == b"other"
    assert told["candidate"]["name"] == "Jane Doe"
    assert list(private.iterdir()) == []


async def test_nothing_of_the_candidate_or_of_ours_in_the_process_list(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPTRACK_ACCOUNTS__ONE__HASH", "a-secret")
    monkeypatch.setenv("ATS_TOKEN", "allowed")
    script = (
        'cat >/dev/null; tr "\\0" "\\n" </proc/$$/environ >"$1/environ"; tr "\\0" "\\n" </proc/$$/cmdline >"$1/cmdline"'
    )
    await shell(script, tmp_path, environment=["PATH", "ATS_TOKEN", "NOT_SET"]).handle(APPLICATION)
    environ = (tmp_path / "environ").read_text()
    assert {line.partition("=")[0] for line in environ.split()} <= {"PATH", "ATS_TOKEN", "APPTRACK_DOCUMENTS", "PWD"}
    for text in (environ, (tmp_path / "cmdline").read_text()):
        assert not [private for private in ("Jane", "Doe", "jane", "40809163", "a-secret") if private in text]


async def test_a_large_application_for_a_program_that_does_not_read(shell: Shell) -> None:
    application = an_application(text="x" * 3_000_000)
    assert await shell("echo id-1").handle(application) == Accepted("id-1")
    assert await shell("exec <&-; echo id-1").handle(application) == Accepted("id-1")


# --- what its end means ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("echo '  id-7 '; echo more", Accepted("id-7")),
        ("printf 'id-7'", Accepted("id-7")),
        (":", Accepted(None)),
        ("echo; echo id-7", Accepted(None)),
        ("echo noise >&2; echo id-7", Accepted("id-7")),
        ("echo first >&2; echo 'no such job' >&2; echo >&2; exit 65", Rejected("no such job")),
        ("echo 'not allowed' >&2; exit 77", Rejected("not allowed")),
        ("exit 65", Rejected("the program refused it (exit code 65)")),
    ],
)
async def test_verdicts(shell: Shell, script: str, verdict: Accepted | Rejected) -> None:
    assert await shell(script).handle(APPLICATION) == verdict


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'ATS is down' >&2; exit 75", "the program asked to be run again: ATS is down"),
        ("exit 1", "the program ended with exit code 1"),
        ("echo id-7; exit 127", "the program ended with exit code 127"),
        ("kill -9 $$", "the program was killed by signal 9"),
    ],
)
async def test_everything_else_is_retried(shell: Shell, script: str, reason: str) -> None:
    with pytest.raises(RetryLater) as caught:
        await shell(script).handle(APPLICATION)
    assert caught.value.reason == reason


async def test_output_is_read_within_bounds(shell: Shell) -> None:
    handler = shell("yes | head -c 3000000; head -c 3000000 /dev/zero >&2; echo >&2; echo 'the end' >&2; exit 65")
    assert await handler.handle(APPLICATION) == Rejected("the end")


async def test_a_program_that_went_away_since_the_start_is_retried(private: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    handler = Command(Command.Settings(argv=[str(program)], directory=private))
    program.unlink()
    with pytest.raises(RetryLater, match="could not be started: No such file"):
        await handler.handle(APPLICATION)
    assert list(private.iterdir()) == []


# --- that nothing stays behind ------------------------------------------------------------------------------------------

STUBBORN = """
trap "" TERM
sleep 1000 & echo $! $$ >"$1/half"
mv "$1/half" "$1/pids"
cat >/dev/null
while :; do sleep 1000; done
"""


async def pids(tmp_path: Path) -> list[int]:
    await until((tmp_path / "pids").exists)
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


async def all_gone(running: list[int]) -> None:
    """The processes, and what watches them to their end: left to the loop's, it would be missed by a later test."""
    for pid in running:
        await until(partial(gone, pid))
    await until(lambda: not command._ending)


async def test_a_timeout_kills_the_whole_process_group(
    shell: Shell, tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TERM_GRACE", 0.05)
    with pytest.raises(RetryLater, match=r"did not end within 1\.5 seconds"):
        await shell(STUBBORN, tmp_path, timeout=1.5).handle(APPLICATION)
    await all_gone(await pids(tmp_path))
    assert list(private.iterdir()) == []


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_cancellation_kills_the_whole_process_group(
    shell: Shell, tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch, cancellations: int
) -> None:
    monkeypatch.setattr(command, "TERM_GRACE", 0.05)
    task = asyncio.create_task(shell(STUBBORN, tmp_path).handle(APPLICATION))
    running = await pids(tmp_path)
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await all_gone(running)
    assert list(private.iterdir()) == []


async def test_a_program_cancelled_while_it_starts_is_not_lost_sight_of(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TERM_GRACE", 0.05)
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    real = loop.subprocess_exec

    async def slow(*arguments: Any, **options: Any) -> Any:
        started = await real(*arguments, **options)
        await told.wait()
        return started

    monkeypatch.setattr(loop, "subprocess_exec", slow)
    task = asyncio.create_task(shell(STUBBORN, tmp_path).handle(APPLICATION))
    running = await pids(tmp_path)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    told.set()
    await all_gone(running)


async def test_a_polite_program_may_tidy_up(shell: Shell, tmp_path: Path) -> None:
    script = (
        'trap "touch $1/tidied; exit" TERM; echo $$ >"$1/half"; mv "$1/half" "$1/pids"; while :; do sleep 0.01; done'
    )
    task = asyncio.create_task(shell(script, tmp_path).handle(APPLICATION))
    await pids(tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "tidied").exists()


async def test_a_child_that_outlives_the_program_does_not_hold_up_the_verdict(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PIPE_GRACE", 0.05)
    script = 'sleep 1000 & echo $! >"$1/pids"; echo id-7'
    assert await shell(script, tmp_path).handle(APPLICATION) == Accepted("id-7")
    for pid in await pids(tmp_path):
        await until(partial(gone, pid))


def test_documents_left_by_a_killed_process_are_swept_and_no_others(shell: Shell, private: Path) -> None:
    left, in_use, foreign = (private / name for name in (command.PREFIX + "left", command.PREFIX + "used", "other"))
    for directory in (left, in_use, foreign):
        directory.mkdir()
        (directory / "cv.pdf").write_bytes(A_PDF)
    descriptor = os.open(in_use, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        shell(":")
    finally:
        os.close(descriptor)
    assert sorted(private.iterdir()) == sorted([in_use, foreign])


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "argv"),
        ({"argv": []}, "argv"),
        ({"argv": ["no-such-program-anywhere"]}, "argv"),
        ({"argv": ["sh"], "timeout": 0}, "timeout"),
        ({"argv": ["sh"], "directory": "/no/such/directory"}, "directory"),
    ],
)
def test_mistakes_in_the_settings(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("command", settings)
    assert [problem.key for problem in caught.value.problems] == [f"handler_settings.{key}"]


def test_the_program_is_found_once_and_for_all() -> None:
    found = build("command", {"argv": ["sh", "-c", ":"]}).settings.argv
    assert Path(found[0]).is_absolute()
    assert found[1:] == ["-c", ":"]
    assert stat.S_ISREG(Path(found[0]).stat().st_mode)
