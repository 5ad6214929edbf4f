"""The compose file: its keys are Compose's, its files exist, its settings load, its containers are confined."""

import base64
import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from apptrack_handlers.webhook import Webhook

from apptrack_ingest.settings import Settings, load

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
VARIABLES = {"ATS_WEBHOOK_SECRET": SECRET}
"""What .env must set; everything else must have a default."""

DURATION = {"type": "string", "pattern": r"^(\d+(ms|s|m|h))+$"}
TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
SCHEMA: dict[str, Any] = {
    # The part of the Compose specification that the file uses; a key outside of it is a mistake or new here.
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": {"$ref": "#/$defs/service"}, "minProperties": 1},
        "secrets": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["file"],
                "properties": {"file": {"type": "string"}},
            },
        },
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
        "networks": {
            "type": "object",
            "additionalProperties": False,
            "required": ["default"],
            "properties": {
                "default": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["ipam"],
                    "properties": {
                        "ipam": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["config"],
                            "properties": {
                                "config": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "required": ["subnet"],
                                        "properties": {"subnet": {"type": "string"}},
                                    },
                                    "minItems": 1,
                                    "maxItems": 1,
                                }
                            },
                        }
                    },
                }
            },
        },
    },
    "$defs": {
        "service": {
            "type": "object",
            "additionalProperties": False,
            "required": ["image"],
            "properties": {
                "image": {"type": "string"},
                "build": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
                },
                "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                "stop_grace_period": DURATION,
                "read_only": {"type": "boolean"},
                "cap_drop": TEXTS,
                "security_opt": TEXTS,
                "tmpfs": TEXTS,
                "mem_limit": {"type": "string", "pattern": r"^\d+[bkmg]$"},
                "pids_limit": {"type": "integer"},
                "user": {"type": "string"},
                "command": TEXTS,
                "environment": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
                "secrets": TEXTS,
                "volumes": TEXTS,
                "ports": {**TEXTS, "items": {"type": "string", "pattern": r"^([\d.]+:)?\d+:\d+$"}},
                "healthcheck": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["test", "interval", "timeout", "start_period", "retries"],
                    "properties": {
                        "test": TEXTS,
                        "interval": DURATION,
                        "timeout": DURATION,
                        "start_period": DURATION,
                        "retries": {"type": "integer"},
                    },
                },
                "depends_on": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["condition"],
                        "properties": {"condition": {"enum": ["service_started", "service_healthy"]}},
                    },
                },
            },
        }
    },
}


def interpolated(text: str) -> str:
    """`${NAME:-default}` and `${NAME:?complaint}`, as Compose replaces them."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        return VARIABLES[name] if operator == ":?" else VARIABLES.get(name, rest)

    return re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, text)


@pytest.fixture
def compose() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE.read_text(encoding="utf-8")))
    return values


def seconds(duration: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smh])", duration))


def test_every_key_is_one_of_composes(compose: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(compose)


def test_every_reference_leads_somewhere(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] != "service_healthy" or "healthcheck" in compose["services"][other]
    build = compose["services"]["apptrack-ingest"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_no_container_can_do_more_than_it_must(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "healthcheck" in service, name
        assert service["restart"] == "unless-stopped", name
        assert re.search(r":v?\d+\.\d+", service["image"]), f"{name}: pin the image by its tag"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def settings_of(compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What apptrack-ingest makes of the file and the environment that the container gets."""
    service = compose["services"]["apptrack-ingest"]
    mounted = dict(volume.split(":")[1::-1] for volume in service["volumes"])
    secret = tmp_path / "acme_hash"
    secret.write_text("a-hash\n", encoding="utf-8")
    environment = {name: str(value) for name, value in service["environment"].items()}
    environment["APPTRACK_ACCOUNTS__ACME__HASH_FILE"] = str(secret)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load(DEPLOY / mounted[environment["APPTRACK_CONFIG"]], environment)


def test_its_settings_load_and_fit_the_handler(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(compose, tmp_path, monkeypatch)
    account = settings.accounts["acme"]
    assert account.hash is not None and account.hash.get_secret_value() == "a-hash"
    assert account.reporting
    assert account.recipients == ("applications@acme.example",)
    assert (settings.smtp.host, settings.web.host) == ("0.0.0.0", "0.0.0.0")
    handler = Webhook.Settings.model_validate(account.handler_settings)
    assert [secret.get_secret_value() for secret in handler.secrets] == [SECRET]
    assert handler.url.get_secret_value() == "http://example-ats:8080/applications"
    assert 401 in handler.retry_statuses


def test_it_trusts_its_own_network_which_only_the_host_reaches(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = compose["networks"]["default"]["ipam"]["config"]
    own = ipaddress.ip_network(config["subnet"])
    assert own.is_private
    settings = settings_of(compose, tmp_path, monkeypatch)
    assert settings.trust.networks == (*Settings().trust.networks, own)
    # Both or neither: behind a port that the Internet reaches, Docker's gateway speaks for everyone.
    published = compose["services"]["apptrack-ingest"]["ports"]
    assert all(ipaddress.ip_address(port.split(":")[0]).is_loopback for port in published)


def test_ports_and_hash_file_are_the_ones_the_settings_name(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose["services"]["apptrack-ingest"]
    settings = settings_of(compose, tmp_path, monkeypatch)
    inside = {int(port.rsplit(":", 1)[1]) for port in service["ports"]}
    assert inside == {settings.smtp.port, settings.web.port}
    assert f":{settings.web.port}/readyz" in service["healthcheck"]["test"][-1]
    assert service["environment"]["APPTRACK_ACCOUNTS__ACME__HASH_FILE"] == f"/run/secrets/{service['secrets'][0]}"


def test_a_stop_leaves_time_to_drain(compose: dict[str, Any]) -> None:
    settings = Settings()
    grace = seconds(compose["services"]["apptrack-ingest"]["stop_grace_period"])
    assert grace > settings.smtp.drain_timeout + settings.worker.drain_timeout


def test_the_ats_checks_with_the_secret_the_handler_signs_with(compose: dict[str, Any]) -> None:
    signs = json.loads(
        compose["services"]["apptrack-ingest"]["environment"]["APPTRACK_ACCOUNTS__ACME__HANDLER_SETTINGS"]
    )
    checks = compose["services"]["example-ats"]["environment"]["ATS_WEBHOOK_SECRETS"]
    assert signs["secrets"] == checks.split()


def test_prometheus_scrapes_the_sidecar_and_reads_the_rules(compose: dict[str, Any]) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"apptrack-ingest:{Settings().web.port}"]
    mounts = dict(volume.split(":")[1::-1] for volume in compose["services"]["prometheus"]["volumes"])
    for rules in config["rule_files"]:
        assert mounts[f"/etc/prometheus/{rules}"] == f"./{rules}"


def test_the_health_checks_are_python_that_compiles(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        test = service["healthcheck"]["test"]
        if test[1] == "python":
            compile(test[3], "healthcheck", "exec")
