"""What the README shows a new user is true: its configuration holds, its handler runs as it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from apptrack_ingest.service import build
from apptrack_ingest.testing import an_email

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_least_configuration_holds(tmp_path: Path) -> None:
    (tmp_path / "idibu-hash").write_text("a-hash\n")
    (tmp_path / "webhook-key").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    config = tmp_path / "least.toml"
    config.write_text(block("toml").replace("/run/secrets", str(tmp_path)))
    found = build.checked(config)
    assert list(found.known_accounts) == ["acme"] and found.accounts["acme"].hash is not None


@pytest.mark.parametrize(
    ("client_reference", "told"), [(None, "no client reference"), ("VAC-1", "ConnectError")], ids=["rejects", "no ATS"]
)
def test_the_handler_runs_as_the_readme_tries_it(tmp_path: Path, client_reference: str | None, told: str) -> None:
    handler = block("python").replace("https://ats.example", "http://127.0.0.1:9")
    (tmp_path / "my_ats.py").write_text(handler)
    (tmp_path / "mail.eml").write_bytes(an_email(7, client_reference=client_reference))
    [command] = re.findall(r"^    PYTHONPATH=\. apptrack-ingest (try .*)$", README, re.MULTILINE)
    tried = subprocess.run(
        [sys.executable, "-P", "-m", "apptrack_ingest", *command.split()],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert tried.returncode == 1
    assert told in tried.stdout + tried.stderr
