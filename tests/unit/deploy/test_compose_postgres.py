"""The compose file for a spool in PostgreSQL: what it adds is sound, and what it tells to do fits together."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from apptrack_ingest.settings import Settings, load

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
FILE = DEPLOY / "compose.postgres.yaml"
BASE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
ADDED: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_what_it_adds_to_has_the_same_names() -> None:
    ours = ADDED["services"]["apptrack-ingest"]
    assert set(BASE["services"]["apptrack-ingest"]["secrets"]) < set(ours["secrets"]), "a list replaces the one before"
    assert set(ADDED["secrets"]) | set(BASE["secrets"]) == {*ours["secrets"], *ADDED["services"]["postgres"]["secrets"]}
    assert not set(ADDED["services"]) - {"apptrack-ingest"} & set(BASE["services"])


def test_the_spools_url_is_taken_from_its_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [(name, value)] = ADDED["services"]["apptrack-ingest"]["environment"].items()
    assert value == "/run/secrets/spool_url" and name == "APPTRACK_SPOOL_FILE"
    line = re.search(r'echo "(postgresql://.*)" > (\S+)', FILE.read_text(encoding="utf-8"))
    assert line and f"./{line[2]}" == ADDED["secrets"]["spool_url"]["file"]
    file = tmp_path / "url"
    file.write_text(re.sub(r"\$\(.*?\)", "0123abc", line[1]) + "\n", encoding="utf-8")
    monkeypatch.setenv(name, str(file))
    found = load(None)
    server = ADDED["services"]["postgres"]["environment"]
    assert found.spool_url == f"postgresql://{server['POSTGRES_USER']}:0123abc@postgres:5432/{server['POSTGRES_DB']}"
    assert "spool_file" in Settings.model_fields


def test_the_server_is_confined_and_keeps_its_data() -> None:
    server = ADDED["services"]["postgres"]
    assert server["cap_drop"] == ["ALL"] and server["read_only"] and "ports" not in server
    assert server["security_opt"] == ["no-new-privileges:true"] and server["user"] == "999:999"
    assert server["volumes"][0].split(":")[0] in ADDED["volumes"]
    assert "UTF8" in server["environment"]["POSTGRES_INITDB_ARGS"]
    assert server["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", server["image"])
