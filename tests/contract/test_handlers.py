"""The handlers we ship keep the promises of the contract suite, each against something real."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from apptrack_handlers.command import Command
from apptrack_handlers.demo import Demo
from apptrack_handlers.folder import Folder
from apptrack_handlers.webhook import Webhook

from apptrack_ingest import Application, Verdict
from apptrack_ingest.handoff import running
from apptrack_ingest.testing import FakeAts, ForgettingContract, HandlerContract, Held, RecordingHandler


def in_folder(path: Path) -> list[Held]:
    """The candidates a reader of the folder handler's directory finds, complete or not at all."""
    held = []
    for file in path.glob("*/*/application.json"):
        application = json.loads(file.read_text(encoding="utf-8"))
        contents = [(file.parent / document["file"]).read_bytes() for document in application["documents"]]
        digests = frozenset(hashlib.sha256(content).hexdigest() for content in contents)
        assert digests == {document["sha256"] for document in application["documents"]}
        held.append(Held(application["applicant_id"], digests))
    return held


class TestFolder(ForgettingContract):
    @pytest.fixture
    def handler(self, tmp_path: Path) -> Folder:
        self.path = tmp_path
        return Folder(Folder.Settings(path=tmp_path))

    def candidates(self) -> list[Held]:
        return in_folder(self.path)


class TestDemo(ForgettingContract):
    @pytest.fixture
    def handler(self, tmp_path: Path) -> Demo:
        self.path = tmp_path
        return Demo(Demo.Settings(path=tmp_path))

    def candidates(self) -> list[Held]:
        return in_folder(self.path)


@pytest.fixture(params=["json", "multipart"])
def webhook_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestWebhook(HandlerContract):
    @pytest.fixture
    def handler(self, webhook_format: str) -> Iterator[Webhook]:
        with FakeAts() as self.ats:
            yield Webhook(Webhook.Settings.model_validate({"url": self.ats.url, "format": webhook_format}))

    def candidates(self) -> list[Held]:
        return self.ats.held()


PROGRAM = """
import hashlib, json, os, pathlib, sys
application = json.load(sys.stdin)
digests = [hashlib.sha256(pathlib.Path(d["path"]).read_bytes()).hexdigest() for d in application["documents"]]
target = pathlib.Path(sys.argv[1], f"{application['applicant_id']}.json")
half = target.with_suffix(f".{os.getpid()}")
half.write_text(json.dumps([application["applicant_id"], digests]))
half.replace(target)
print("ats-%d" % application["applicant_id"])
"""


class TestCommand(HandlerContract):
    @pytest.fixture
    def handler(self, tmp_path: Path) -> Command:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        self.ats = tmp_path / "ats"
        self.ats.mkdir()
        self.private = tmp_path / "private"
        self.private.mkdir()
        argv = [sys.executable, "-I", "-S", str(program), str(self.ats)]
        return Command(Command.Settings(argv=argv, directory=self.private))

    def candidates(self) -> list[Held]:
        assert list(self.private.iterdir()) == [], "documents were left behind"
        held = [json.loads(file.read_text()) for file in self.ats.glob("*.json")]
        return [Held(applicant_id, frozenset(digests)) for applicant_id, digests in held]


class TestRecordingHandler(HandlerContract):
    @pytest.fixture
    def handler(self) -> RecordingHandler:
        self.recorded = RecordingHandler()
        return self.recorded

    def candidates(self) -> list[Held]:
        return [Held(applicant_id) for applicant_id in {each.applicant_id for each in self.recorded.applications}]


class Stubborn(RecordingHandler):
    """Does not let go when it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def handle(self, application: Application) -> Verdict:
        while application.attempt == 1 and not self.released.is_set():
            with suppress(asyncio.CancelledError):
                await self.released.wait()
        return await super().handle(application)

    async def close(self) -> None:
        self.released.set()


class ForStubborn(HandlerContract):
    def __init__(self, handler: RecordingHandler) -> None:
        self.recorded = handler

    def candidates(self) -> list[Held]:
        return [Held(applicant_id) for applicant_id in {each.applicant_id for each in self.recorded.applications}]


@pytest.mark.parametrize(
    "test", ["test_after_a_timeout_it_can_be_repeated", "test_cancelled_anywhere_it_can_be_repeated"]
)
def test_the_suite_catches_a_handler_that_cannot_be_cancelled(monkeypatch: pytest.MonkeyPatch, test: str) -> None:
    monkeypatch.setattr(running, "CANCEL_GRACE", 0.2)
    handler = Stubborn()
    with pytest.raises(AssertionError, match="does not end"):
        getattr(ForStubborn(handler), test)(handler)
