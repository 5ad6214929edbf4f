"""The configuration page's examples are configurations that load, and what it says of a reload is what the code does."""

import re
import tomllib
from pathlib import Path

import pytest
from apptrack_handlers.folder import Folder
from apptrack_handlers.webhook import Webhook
from pydantic import BaseModel

from apptrack_ingest.receive.users import Users
from apptrack_ingest.service.build import NEEDS_RESTART, SMTP_NEEDS_RESTART
from apptrack_ingest.settings import Settings, load

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
HANDLERS: dict[str, type[BaseModel]] = {"webhook": Webhook.Settings, "folder": Folder.Settings}


@pytest.mark.parametrize("example", EXAMPLES, ids=["own recipients", "shared recipients"])
def test_an_example_loads(example: str, tmp_path: Path) -> None:
    hashes = tmp_path / "hashes"
    hashes.mkdir()
    for name in re.findall(r'/etc/apptrack-ingest/hashes/(\w+)"', example):
        (hashes / name).write_text("a-hash\n", encoding="utf-8")
    file = tmp_path / "example.toml"
    file.write_text(example.replace("/etc/apptrack-ingest/hashes", str(hashes)), encoding="utf-8")
    settings = load(file, {})
    assert len(settings.accounts) == 2
    for account in settings.accounts.values():
        assert account.hash is not None
        HANDLERS[account.handler].model_validate(account.handler_settings)


def test_the_table_of_names_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(.+)` \| `(APPTRACK_\w+)=(.+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    secret = tmp_path / "secret"
    secret.write_text("x", encoding="utf-8")
    for in_file, variable, value in rows:
        toml = in_file.replace("` `", "\n").replace("…", str(secret))
        with monkeypatch.context() as only_this:
            only_this.setenv(variable, value.replace("…", str(secret)))
            assert Settings() == Settings(**tomllib.loads(toml)), variable


def test_what_needs_a_restart() -> None:
    line = re.search(r"\*\*needs a restart\*\*: (.*?), and of `\[smtp\]` (.*?);", PAGE, re.DOTALL)
    assert line
    assert tuple(re.findall(r"`\[?(\w+)\]?`", line[1])) == NEEDS_RESTART
    assert tuple(re.findall(r"`(\w+)`", line[2])) == SMTP_NEEDS_RESTART


def test_lists_and_tables_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^    (APPTRACK_(?:SMTP|TRUST|ACCOUNTS)__\w+)='(.+)'$", PAGE, re.MULTILINE)
    assert len(lines) == 5
    for variable, value in lines:
        monkeypatch.setenv(variable, value)
    found = Settings()
    assert [(one.host, one.port, one.tls) for one in found.smtp.listeners] == [
        ("0.0.0.0", 25, "starttls"),
        ("0.0.0.0", 465, "implicit"),
    ]
    assert Users({name: hashed.get_secret_value() for name, hashed in found.smtp.users.items()})
    assert [str(network) for network in found.trust.networks] == ["127.0.0.0/8", "::1/128", "192.0.2.0/24"]
    assert found.accounts["acme"].trust.dkim == ("idibu.com",)
    assert found.accounts["acme"].handler_settings["secrets"] == ["whsec_…"]
