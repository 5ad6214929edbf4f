"""What holds for every command that asks idibu: faults are sentences with advice, dry runs send nothing, secrets stay."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from apptrack_ingest.cli import main
from apptrack_ingest.idibu.sandbox_script import Fault, Step

from .conftest import HASH, PASSWORD, SECRETS, Idibu

LOGIN = "l0gin-pa55"
JOB = ("sender_id=7", "title=Developer", "description=To do", "reference=REF-1", "boards=10", "config.lockboards=yes")
ACCOUNT = (
    *("username=newby", "firstname=Ann", "lastname=Oh", "email=ann@example.com", "company_name=Newby", "address1=1 St"),
    *("country=UK", "postcode=X1", "phone=+44 1", "www=https://newby.example"),
)


def sets(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for field in fields for word in ("--set", field))


COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("idibu", "status", "get"): ("1",),
    ("idibu", "status", "list"): (),
    ("idibu", "status", "set"): ("1", "success", "--yes"),
    ("idibu", "applicants"): (),
    ("idibu", "accounts"): (),
    ("idibu", "account", "show"): (),
    ("idibu", "account", "new"): (*sets(ACCOUNT), "--password-file", "PASSWORD", "--hash-file", "NEW", "--yes"),
    ("idibu", "account", "update"): ("--password-file", "PASSWORD", "--yes"),
    ("idibu", "services", "list"): (),
    ("idibu", "services", "add"): ("aptrack",),
    ("idibu", "services", "remove"): ("aptrack", "--yes"),
    ("idibu", "credits", "show"): (),
    ("idibu", "credits", "set"): ("5", "--yes"),
    ("idibu", "credits", "increment"): ("1", "--yes"),
    ("idibu", "cc", "show"): (),
    ("idibu", "cc", "add"): ("a@x.example",),
    ("idibu", "cc", "remove"): ("b@x.example", "--yes"),
    ("idibu", "jobs", "add"): ("VAC-1", *sets(JOB)),
    ("idibu", "jobs", "update"): ("--reference", "VAC-1", *sets(JOB)),
    ("idibu", "jobs", "repost"): ("--reference", "VAC-1", *sets(JOB)),
    ("idibu", "jobs", "quick-repost"): ("--reference", "VAC-1"),
    ("idibu", "jobs", "delete"): ("--reference", "VAC-1", "--yes"),
    ("idibu", "jobs", "cancel"): ("--queue", "1802", "--yes"),
    ("connect",): (),
    ("disconnect",): ("--yes",),
}
"""All of them, with words that make sense."""


def commands(idibu: Idibu) -> Iterator[tuple[str, ...]]:
    (idibu.directory / "password").write_text(LOGIN)
    files = {"PASSWORD": str(idibu.directory / "password"), "NEW": str(idibu.directory / "new.hash")}
    for name, words in COMMANDS.items():
        yield (*name, *(files.get(word, word) for word in words))


def below(name: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        yield name
        return
    for word, one in command.commands.items():
        yield from below((*name, word), one)


def test_here_they_all_are() -> None:
    group = main.get_command(click.Context(main), "idibu")
    assert {*below(("idibu",), group), ("connect",), ("disconnect",)} == set(COMMANDS)


def changes(words: tuple[str, ...]) -> bool:
    """Whether the first thing it asks for is a change."""
    return words[0] == "idibu" and words[1] != "cc" and words[2:3] not in [(), ("get",), ("list",), ("show",)]


FAULTS = [
    (Step(fault=Fault.CLOSE), "idibu was not reached", "check idibu.base_url"),
    (Step(fault=Fault.HTML), "no answer of idibu", "try again later"),
    (Step(fault=Fault.ERROR, status=404), "no answer of idibu", "check idibu.base_url"),
    (Step(fault=Fault.FAILED, text="Not today"), "idibu refused: Not today\n", ""),
    (Step(fault=Fault.UNAUTHORIZED), "idibu refused: Invalid hash; check", "_file"),
    (Step(fault=Fault.BUSY, retry_after="7"), "idibu is busy", "try again in 7 seconds"),
]


@pytest.mark.parametrize(("step", "says", "advice"), FAULTS, ids=lambda value: getattr(value, "fault", None))
def test_each_fault_is_one_line_that_says_what_to_do(idibu: Idibu, step: Step, says: str, advice: str) -> None:
    idibu.misbehave(step.model_copy(update={"times": None}))
    for words in commands(idibu):
        result = idibu.run(*words, code=1)
        assert result.stdout == "", words
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, words
        assert says in result.stderr and advice in result.stderr, words
        lost = step.fault in (Fault.CLOSE, Fault.HTML, Fault.ERROR, Fault.BUSY) and changes(words)
        assert ("look before you repeat it" in result.stderr) is lost, words
    assert not (idibu.directory / "new.hash").exists()
    assert idibu.sandbox.jobs() == [] and idibu.sandbox.applicants() == []


def test_what_idibu_repeats_of_a_secret_is_masked(idibu: Idibu) -> None:
    (idibu.directory / "password").write_text(LOGIN)
    idibu.misbehave(Step(fault=Fault.FAILED, text=f"Not {HASH} of {PASSWORD} with {LOGIN}"))
    words = ("idibu", "account", "update", "--password-file", idibu.directory / "password", "--yes")
    assert "Not *** of *** with ***" in idibu.run(*words, code=1).stderr


def test_a_dry_run_changes_nothing_and_shows_what_it_would_send(idibu: Idibu) -> None:
    idibu.run("idibu", "cc", "add", "b@x.example")
    before = idibu.sandbox.accounts()
    asked = len(idibu.calls)
    for words in commands(idibu):
        result = idibu.run(*(word for word in words if word != "--yes"), "--dry-run")
        if words[0] == "disconnect":  # nothing of ours is there
            continue
        method, _, rest = result.output.partition(" ")
        assert method in ("GET", "POST") and rest.startswith(idibu.sandbox.base_url), words
        assert "********" in result.output and LOGIN not in result.output, words
        if method == "POST":
            assert "<idibu>" in result.output or "<applicant>" in result.output, words
    assert set(idibu.calls[asked:]) == {"getccemail"}
    assert (idibu.sandbox.accounts(), idibu.sandbox.jobs(), idibu.sandbox.applicants()) == (before, [], [])
    assert not (idibu.directory / "new.hash").exists()


def test_nobody_there_is_told_as_such(idibu: Idibu) -> None:
    idibu.configure(url="http://127.0.0.1:1")
    said = idibu.run("idibu", "status", "list", code=1).stderr
    assert "not reached (no connection" in said and "http://127.0.0.1:1" in said


def test_an_answer_that_does_not_come_is_not_waited_for(idibu: Idibu) -> None:
    idibu.config.write_text(idibu.config.read_text().replace('"2s"', '"0.2s"'))
    idibu.misbehave(Step(fault=Fault.HANG, times=None))
    assert "no answer within 0.2 seconds" in idibu.run("connect", code=1).stderr


def test_what_is_safe_is_asked_again_and_what_is_not_is_not(idibu: Idibu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTRACK_IDIBU__ATTEMPTS", "2")
    idibu.misbehave(Step(fault=Fault.BUSY, retry_after="0"))
    idibu.run("connect")
    idibu.misbehave(Step(fault=Fault.BUSY, retry_after="0"))
    idibu.run("idibu", "credits", "increment", 1, "--yes", code=1)
    assert [one.credits for one in idibu.sandbox.accounts()] == [None, None]


# --- as a person runs them -------------------------------------------------------------------------------------------


def ran(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apptrack_ingest", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def test_real_processes_connect_to_a_sandbox_of_its_own(tmp_path: Path) -> None:
    kept = tmp_path / "told.jsonl"
    command = [sys.executable, "-m", "apptrack_ingest", "sandbox", "--port", "0", "--file", str(kept)]
    with subprocess.Popen([*command, "--hash", f"{HASH}=acme"], stdout=subprocess.PIPE, text=True) as sandbox:
        try:
            assert sandbox.stdout is not None
            url = sandbox.stdout.readline().split("listens on ")[1].split()[0]
            config = tmp_path / "apptrack.toml"
            config.write_text(
                f'[idibu]\nbase_url = "{url}"\npartner_id = 1\npartner_password = "sandbox"\n'
                f'[accounts.acme]\nhash = "{HASH}"\nrecipients = ["applications@in.acme.example"]\n'
            )
            first, second = ran(config, "connect"), ran(config, "connect")
            refused = ran(config, "disconnect")
        finally:
            sandbox.terminate()
            sandbox.wait(30)
    assert (first.returncode, first.stderr) == (0, "")
    assert "from now on" in first.stdout and "already" in second.stdout
    assert refused.returncode == 2 and "--yes" in refused.stderr
    shown = "".join(run.stdout + run.stderr for run in (first, second, refused)) + kept.read_text()
    assert not [secret for secret in SECRETS if secret in shown]
