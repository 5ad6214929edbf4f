"""The demo's handler trips where it was told to, and files the rest."""

from pathlib import Path

import pytest
from apptrack_handlers.demo import Demo

from apptrack_ingest import Accepted, Rejected, RetryLater
from apptrack_ingest.handoff import build
from apptrack_ingest.testing import an_application


@pytest.fixture
def handler(tmp_path: Path) -> Demo:
    settings = {"path": str(tmp_path), "fail_first": [1], "reject": {"2": "the job is closed"}, "retry_after": 0.5}
    built = build("demo", settings)
    assert isinstance(built, Demo)
    return built


def test_fails_on_the_first_attempt_only(handler: Demo) -> None:
    with pytest.raises(RetryLater, match="being restarted") as caught:
        handler.handle(an_application(applicant_id=1))
    assert caught.value.after == 0.5
    assert handler.handle(an_application(applicant_id=1, attempt=2)) == Accepted("default/1")


def test_rejects_for_its_reason(handler: Demo, tmp_path: Path) -> None:
    assert handler.handle(an_application(applicant_id=2)) == Rejected("the job is closed")
    assert list(tmp_path.iterdir()) == []


def test_files_everybody_else(handler: Demo, tmp_path: Path) -> None:
    assert handler.handle(an_application(applicant_id=3)) == Accepted("default/3")
    assert (tmp_path / "default" / "3" / "application.json").exists()
