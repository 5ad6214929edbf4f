"""`try`: a handler on a saved mail, its settings from everywhere they can come from, and its verdict as an exit code."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from apptrack_ingest.cli import main
from apptrack_ingest.testing import an_email

from .conftest import HOSTILE, House

HANDLERS = """
from pydantic import BaseModel
from apptrack_ingest import Accepted, Duplicate, Rejected, RetryLater

class Scripted:
    class Settings(BaseModel):
        answer: str = "accept"
        times: int = 1
        closes: str = ""
    def __init__(self, settings):
        self.settings = settings
    async def handle(self, application):
        if self.settings.answer == "raise":
            raise RuntimeError("out of paper")
        if self.settings.answer == "later":
            raise RetryLater("the ATS is down", after=90)
        return {"accept": Accepted("ats-7"), "duplicate": Duplicate(), "reject": Rejected("filled")}[self.settings.answer]
    async def close(self):
        if self.settings.closes:
            open(self.settings.closes, "w").close()
"""


@pytest.fixture
def mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scripted_handlers.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "application.eml"
    path.write_bytes(an_email())
    return path


def attempt(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["try", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


SCRIPTED = "scripted_handlers:Scripted"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("accept", 0, "accepted  remote id: ats-7"),
        ("duplicate", 0, "duplicate"),
        ("reject", 1, "rejected  reason: filled"),
        ("later", 1, "retry-later  detail: the ATS is down, after: 90"),
        ("raise", 1, "exception  detail: RuntimeError: out of paper"),
    ],
)
def test_the_verdict_decides_the_exit_code(mail: Path, answer: str, code: int, words: str) -> None:
    assert words in attempt(SCRIPTED, mail, "--set", f"answer={answer}", code=code).stdout


def test_the_application_is_shown(mail: Path) -> None:
    told = attempt(SCRIPTED, mail).stdout
    for words in (
        "40809163",
        "Jane Doe <jane.doe@example.com>",
        "VAC-1042",
        "Seek",
        "Kara Smith",
        "Jane Doe CV.pdf (cv:",
    ):
        assert words in told


def test_json(mail: Path) -> None:
    told = json.loads(attempt(SCRIPTED, mail, "--json").stdout)
    assert told["application"]["attempt"] == 1
    assert "content" not in told["application"]["documents"][0]
    assert (told["outcome"]["result"], told["outcome"]["remote_id"]) == ("accepted", "ats-7")


def test_the_folder_handler_really_files(mail: Path, tmp_path: Path) -> None:
    attempt("folder", mail, "--set", f"path={tmp_path / 'filed'}", "--account", "acme")
    assert (tmp_path / "filed" / "acme" / "40809163" / "application.json").exists()


def test_the_handler_is_closed(mail: Path, tmp_path: Path) -> None:
    attempt(SCRIPTED, mail, "--set", f"closes={tmp_path / 'closed'}")
    assert (tmp_path / "closed").exists()


def test_settings_from_a_file_and_the_command_line(mail: Path, tmp_path: Path) -> None:
    file = tmp_path / "handler.toml"
    file.write_text('answer = "reject"\ntimes = 3\n')
    attempt(SCRIPTED, mail, "--settings", file, code=1)
    attempt(SCRIPTED, mail, "--settings", file, "--set", "answer=accept")


def test_settings_of_the_account(mail: Path, house: House) -> None:
    attempt("folder", mail, "--config", house.config, "--account", "acme")
    assert (house.folders / "acme" / "40809163").is_dir()


def test_settings_of_an_account_with_another_handler_are_left_out(mail: Path, house: House) -> None:
    told = attempt(SCRIPTED, mail, "--config", house.config, "--account", "acme").stderr
    assert "account acme uses the handler folder; its settings are left out" in told


def test_an_unknown_account_of_a_configuration(mail: Path, house: House) -> None:
    assert (
        "there are: acme, beta, quiet"
        in attempt("folder", mail, "--config", house.config, "--account", "x", code=3).stderr
    )


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--set", "answr=x"), 78, "did you mean answer?"),
        (("--set", "times=x"), 78, "handler_settings.times"),
        (("--set", "answer"), 2, "write KEY=VALUE"),
        (("--set", "=x"), 2, "write KEY=VALUE"),
    ],
)
def test_wrong_settings_are_explained(mail: Path, words: tuple[str, ...], code: int, told: str) -> None:
    assert told in attempt(SCRIPTED, mail, *words, code=code).stderr


def test_a_settings_file_that_is_no_toml(mail: Path, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"answer = \xff")
    assert "not valid TOML" in attempt(SCRIPTED, mail, "--settings", tmp_path / "x.toml", code=78).stderr


def test_an_unknown_handler(mail: Path) -> None:
    assert "did you mean folder?" in attempt("foldr", mail, code=78).stderr


def test_a_mail_without_an_id(tmp_path: Path, mail: Path) -> None:
    mail.write_bytes(an_email(None))
    assert "give --applicant-id N" in attempt(SCRIPTED, mail, code=1).stderr
    assert "4711" in attempt(SCRIPTED, mail, "--applicant-id", 4711).stdout


def test_text_of_a_mail_does_not_act_on_the_terminal(mail: Path) -> None:
    hostile = HOSTILE.replace("\r\n", " ").replace("\ud800", "")
    mail.write_bytes(an_email(name="x", text=hostile).replace(b"Subject: ", b"Subject: " + hostile.encode() + b" "))
    told = attempt(SCRIPTED, mail).stdout
    assert not set(told) & set("\x1b\r\x07\x9b\u202e")
    assert "[bold red]:boom:[/]" in told
