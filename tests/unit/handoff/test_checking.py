"""Asking a handler whether it could work: its words, bounded and without its secrets, whatever it does."""

import sys
import textwrap

import pytest

from apptrack_ingest.errors import ConfigError, HandlerError, IngestError
from apptrack_ingest.handoff.checking import MAX_WORDS, check

HANDLERS = """
    import asyncio, os, time
    from pydantic import BaseModel, SecretStr
    from apptrack_ingest import Accepted, RetryLater

    class Base:
        class Settings(BaseModel):
            key: SecretStr = SecretStr("s3cret-key")
            api_token: str = "t0ken-of-ours"
            url: str = "https://jo:pa55word@ats.example/x?auth=qu3ry"
            plain: str = "harmless"
        def __init__(self, settings):
            self.settings = settings
        async def handle(self, application):
            return Accepted()
        async def close(self):
            open("closed", "w").close()

    class Silent(Base):
        def check(self):
            return None

    class Says(Base):
        async def check(self):
            return "three\\nqueues,\\x1b[31m none full"

    class Tells(Base):
        def check(self):
            s = self.settings
            raise RuntimeError(f"{s.key.get_secret_value()} {s.api_token} {s.url} pa55word qu3ry {s.plain}")

    class Later(Base):
        async def check(self):
            raise RetryLater("closed for the night")

    class Blocks(Base):
        async def check(self):
            await asyncio.Event().wait()

    class Leaves(Base):
        def check(self):
            raise SystemExit(9)

    class Cancels(Base):
        async def check(self):
            raise asyncio.CancelledError("by itself")

    class Talks(Base):
        def check(self):
            return "x" * 5000

    def plain(application):
        return Accepted()
"""


@pytest.fixture(autouse=True)
def checked_handlers(tmp_path, monkeypatch):
    (tmp_path / "checked_handlers.py").write_text(textwrap.dedent(HANDLERS))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "checked_handlers", raising=False)
    return tmp_path


def asked(name, timeout=30.0, **settings):
    return check(f"checked_handlers:{name}", settings, timeout)


def test_what_it_says_is_one_line_for_people(checked_handlers):
    assert asked("Says") == "three queues, [31m none full"
    assert (checked_handlers / "closed").exists(), "what was built for this is closed again"
    assert asked("Silent") == "it says that it can work"
    assert len(asked("Talks")) == MAX_WORDS


def test_one_without_a_check_is_only_built_and_so_is_every_one_that_is_not_to_be_asked():
    assert asked("plain") is None
    assert check("checked_handlers:Tells", {}, 5.0, ask=False) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Later", "closed for the night"),
        ("Leaves", "SystemExit: 9"),
        ("Cancels", "CancelledError: by itself"),
        ("Blocks", "no answer within"),
    ],
)
def test_why_it_cannot_work(name, words):
    with pytest.raises(IngestError, match=words):
        asked(name, timeout=0.05 if name == "Blocks" else 30.0)


def test_its_secrets_are_taken_out_of_what_it_says(checked_handlers):
    (checked_handlers / "token").write_text("from-a-f1le\n")
    with pytest.raises(IngestError) as caught:
        asked("Tells", api_token_file=str(checked_handlers / "token"))
    said = str(caught.value)
    assert "harmless" in said and said.startswith("RuntimeError: ")
    assert not any(secret in said for secret in ("s3cret", "f1le", "pa55word", "qu3ry"))
    with pytest.raises(IngestError) as caught:
        asked("Tells")
    assert "t0ken" not in str(caught.value)


def test_one_that_cannot_be_built_says_so():
    with pytest.raises(ConfigError):
        asked("Says", unknown=1)
    with pytest.raises(HandlerError):
        asked("NotThere")
