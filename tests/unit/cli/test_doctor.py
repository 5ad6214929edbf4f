"""`doctor`: a line each, what to do under it, JSON, one account alone, without the network, and its exit code."""

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from apptrack_ingest.cli import main

SECRET, PASSWORD = "hash-of-acme-8f3a", "pa55word-of-the-ats"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir(mode=0o700)
    path = tmp_path / "apptrack.toml"
    path.write_text(f"""
data_dir = "{tmp_path}/data"
smtp = {{ port = 0 }}
web = {{ port = 0 }}
idibu = {{ base_url = "http://127.0.0.1:9", timeout = 2 }}
limits = {{ free_space = 0, free_inodes = 0 }}
dns = {{ nameservers = ["127.0.0.1:9"], timeout = 0.5 }}

[accounts.acme]
hash = "{SECRET}"
recipients = ["applications@acme.example"]
handler_settings = {{ path = "{tmp_path}/candidates" }}

[accounts.beta]
reporting = false
recipients = ["applications@beta.example"]
handler = "webhook"
handler_settings = {{ url = "http://jo:{PASSWORD}@127.0.0.1:9/x" }}
""")
    return path


def doctor(config, *words, code):
    result = CliRunner().invoke(main, ["doctor", "--config", str(config), *words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert SECRET not in result.output and PASSWORD not in result.output
    return result.output


def levels(output):
    """Each look's level."""
    return {name: level for level, name in re.findall(r"^(ok|warn|fail) +(.+?(?::\d+)?): ", output, re.MULTILINE)}


def test_everything_is_told_in_its_place_and_what_fails_with_a_remedy(config):
    output = doctor(config, code=1)
    found = levels(output)
    assert found["configuration"] == found["data directory"] == found["fsync"] == found["spool"] == "ok"
    assert found["handler of acme"] == "ok"
    assert found["handler of beta"] == found["hash of acme"] == found["MX of beta.example"] == "fail"
    for line, following in zip(output.splitlines(), [*output.splitlines()[1:], ""], strict=True):
        if line.startswith(("warn", "fail")):
            assert following.startswith("      -> "), line
    assert not (config.parent / "data" / "spool.sqlite3").exists() and not (config.parent / "candidates").exists()


def test_offline_nothing_is_asked_and_only_what_is_here_counts(config):
    found = levels(doctor(config, "--offline", code=0))
    assert "hash of acme" not in found and "MX of acme.example" not in found and "clock of idibu" not in found
    assert found["handler of beta"] == "ok"


def test_one_account_alone(config):
    found = levels(doctor(config, "--account", "acme", code=1))
    assert "handler of acme" in found and not {name for name in found if "beta" in name}


def test_an_account_that_is_not_there(config):
    assert "known: acme, beta" in doctor(config, "--account", "gamma", code=3)


def test_for_programs(config):
    findings = json.loads(doctor(config, "--json", "--offline", code=0))
    assert {tuple(one) for one in findings} == {("check", "level", "found", "advice")}
    assert {one["level"] for one in findings} <= {"ok", "warn"}


@pytest.mark.parametrize(
    ("text", "said"),
    [('colour = "blue"\n', "colour"), ("[accounts.acme\n", "apptrack.toml"), ("smtp = 3\nweb = 4\n", "web")],
)
def test_with_mistakes_in_the_settings_nothing_else_is_looked_at(config, text, said):
    config.write_text(text + (config.read_text() if "colour" in text else ""))
    output = doctor(config, code=1)
    assert said in output and set(levels(output)) == {"configuration"}


def test_a_file_that_is_not_there(config):
    assert "fail" in doctor(config.parent / "none.toml", code=1)


HANDLERS = """
import asyncio, threading

class Prints:
    def handle(self, application): ...
    def check(self):
        print("not JSON")

class Hangs:
    def handle(self, application): ...
    async def check(self):
        await asyncio.to_thread(threading.Event().wait)
"""


@pytest.fixture
def foreign(config, monkeypatch):
    """The configuration with a handler of somebody else's."""

    def made(handler):
        (config.parent / "foreign_handlers.py").write_text(HANDLERS)
        monkeypatch.setenv("PYTHONPATH", str(config.parent))
        config.write_text(f"""
data_dir = "{config.parent}/data"
idibu = {{ base_url = "http://127.0.0.1:9", timeout = 2 }}
accounts.default = {{ reporting = false, handler = "foreign_handlers:{handler}", handler_timeout = 1 }}
""")
        command = [sys.executable, "-m", "apptrack_ingest", "doctor", "--config", str(config), "--json"]
        answer = subprocess.run(command, capture_output=True, timeout=40, check=False)
        return answer.returncode, json.loads(answer.stdout)[-1]

    return made


def test_what_a_handler_prints_does_not_stand_in_the_json(foreign):
    _, finding = foreign("Prints")
    assert finding["found"] == "foreign_handlers:Prints: it says that it can work"


def test_a_check_that_hangs_in_a_thread_does_not_keep_us(foreign):
    code, finding = foreign("Hangs")
    assert code == 1 and finding["found"] == "foreign_handlers:Hangs: no answer within 1 seconds"
