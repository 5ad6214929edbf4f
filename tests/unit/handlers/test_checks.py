"""What the built-in handlers say when `doctor` asks whether they could work; nothing is left of it, and nothing is sent."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from apptrack_handlers.command import Command
from apptrack_handlers.folder import Folder
from apptrack_handlers.webhook import Webhook

from apptrack_ingest import RetryLater
from apptrack_ingest.testing import FakeAts


@pytest.fixture
def ats() -> Iterator[FakeAts]:
    with FakeAts() as ats:
        yield ats


@pytest.mark.parametrize("path", ["", "not/there/yet"])
def test_a_folder_writes_a_file_that_is_gone_at_once(tmp_path: Path, path: str) -> None:
    assert str(tmp_path) in Folder(Folder.Settings(path=tmp_path / path)).check()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_cannot_work(tmp_path: Path) -> None:
    (tmp_path / "candidates").write_text("")
    with pytest.raises(OSError, match="candidates"):
        Folder(Folder.Settings(path=tmp_path / "candidates")).check()


def webhook(url: str, **settings: object) -> Webhook:
    return Webhook(Webhook.Settings.model_validate({"url": url} | settings))


async def test_a_webhook_asks_by_a_head_and_any_answer_will_do(ats: FakeAts) -> None:
    handler = webhook(ats.url)
    assert "HTTP" in await handler.check()
    assert ats.requests == [], "no application was sent"
    await handler.close()


async def test_a_webhook_without_its_ats_cannot_work_and_keeps_its_secrets() -> None:
    handler = webhook("http://jo:pa55word@127.0.0.1:9/qu3ry?key=s3cret-key")
    with pytest.raises(RetryLater) as caught:
        await handler.check()
    assert not any(secret in caught.value.reason for secret in ("pa55word", "s3cret"))
    await handler.close()


def test_a_command_looks_for_its_program_and_does_not_run_it(tmp_path: Path) -> None:
    program = tmp_path / "upload"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    handler = Command(Command.Settings(argv=[str(program)], directory=tmp_path))
    assert handler.check() == f"{program} may be executed"
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]
    program.unlink()
    with pytest.raises(OSError, match="upload"):
        handler.check()


def test_a_command_without_room_for_its_directories_cannot_work(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    handler = Command(Command.Settings(argv=["true"], directory=private))
    shutil.rmtree(private)
    with pytest.raises(OSError, match="private"):
        handler.check()
