"""A handler's settings are checked before the first mail, every mistake is named, and no secret is repeated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from apptrack_ingest.errors import ConfigError, HandlerError, Problem
from apptrack_ingest.handoff import build, configure, describe

SECRET = "hunter2-hunter2"


class Deep(BaseModel):
    user: str = "nobody"


class Ats:
    class Settings(BaseModel):
        url: str
        port: int = 443
        mode: Literal["fast", "slow"] = "fast"
        ids: list[int] = []
        token: SecretStr = SecretStr("")
        tokens: list[SecretStr] = []
        headers: dict[str, SecretStr] = {}
        deep: Deep = Deep()
        place: Path | None = None
        short: str = Field(default="", max_length=3)

        @field_validator("url")
        @classmethod
        def _https(cls, url: str) -> str:
            if not url.startswith("https://"):
                raise ValueError(f"{url} does not begin with https://")
            return url

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def handle(self, application: Any) -> None: ...


class Plain:
    def handle(self, application: Any) -> None: ...


class Open(Ats):
    class Settings(BaseModel):
        model_config = ConfigDict(extra="allow")


class Explodes(Ats):
    def __init__(self, settings: Ats.Settings) -> None:
        raise RuntimeError(f"cannot log in with {settings.token.get_secret_value()}")


class Wrong(Ats):
    Settings = dict  # type: ignore[assignment]


def function(application: Any) -> None: ...


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers of this module, by their bare name."""
    monkeypatch.setattr(configure, "load", lambda name: globals()[name])


def problems(settings: Mapping[str, Any], name: str = "Ats") -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        build(name, settings)
    assert SECRET not in str(caught.value)
    return list(caught.value.problems)


def test_what_is_built() -> None:
    assert build("Ats", {"url": "https://ats", "port": "8443"}).settings.port == 8443
    assert isinstance(build("Plain", {}), Plain)
    assert build("function", {}) is function


def test_every_mistake_is_named_at_once() -> None:
    found = problems({"port": "many", "mode": "slw", "ids": ["x"], "zzz": 1, "deep": {"usr": "x"}})
    assert {problem.key: (problem.value, problem.advice) for problem in found} == {
        "handler_settings.zzz": ("", found[0].advice),
        "handler_settings.deep.usr": ("", found[1].advice),
        "handler_settings.url": ("", "missing, and it has no default"),
        "handler_settings.port": (
            "'many'",
            "Input should be a valid integer, unable to parse string as an integer",
        ),
        "handler_settings.mode": ("'slw'", "Input should be 'fast' or 'slow'"),
        "handler_settings.ids.0": (
            "'x'",
            "Input should be a valid integer, unable to parse string as an integer",
        ),
    }
    assert "known: url, port" in found[0].advice
    assert "did you mean user?" in found[1].advice


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": f"http://me:{SECRET}@ats"},
        {"url": "https://ats", "token": [SECRET]},
        {"url": "https://ats", "headers": SECRET},
        {"url": "https://ats", "headers": {"authorization": [SECRET]}},
        {"url": "https://ats", "short": SECRET},
        {"url": "https://ats", "tokn": SECRET},
        {"url": "https://ats", "deep": {"user": [SECRET], "more": SECRET}},
    ],
)
def test_a_wrong_value_that_may_be_secret_is_masked(wrong: dict[str, Any]) -> None:
    assert problems(wrong)


def test_unknown_keys_are_fine_where_the_handler_asks_for_them() -> None:
    assert build("Open", {"anything": 1}).settings.anything == 1


@pytest.mark.parametrize("name", ["Plain", "function"])
def test_settings_for_a_handler_that_takes_none(name: str) -> None:
    (problem,) = problems({"url": "https://ats"}, name)
    assert problem == Problem("handler_settings.url", "", f"the handler {name} takes no settings; remove it")


def test_values_from_files(tmp_path: Path) -> None:
    for name, content in {
        "url": "https://ats\n",
        "token": f"{SECRET} \r\n",
        "tokens": "one\n\ntwo\n",
        "headers": '{"X-Key": "k"}\n',
        "port": "99\n",
    }.items():
        (tmp_path / name).write_bytes(content.encode())
    files = {f"{name}_file": str(tmp_path / name) for name in ("url", "token", "tokens", "headers", "port")}
    settings = build("Ats", files).settings
    assert (settings.url, settings.port) == ("https://ats", 99)
    assert settings.token.get_secret_value() == f"{SECRET} "
    assert [token.get_secret_value() for token in settings.tokens] == ["one", "two"]
    assert settings.headers["X-Key"].get_secret_value() == "k"


def test_a_wrong_value_from_a_file_is_masked_whatever_its_type(tmp_path: Path) -> None:
    (tmp_path / "port").write_text(SECRET)
    (problem,) = problems({"url": "https://ats", "port_file": str(tmp_path / "port")})
    assert problem.value == configure.MASK


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    found = problems(
        {
            "url_file": str(tmp_path / "none"),
            "token": "t",
            "token_file": str(tmp_path / "binary"),
            "short_file": str(tmp_path / "binary"),
            "place_file": 5,
        }
    )
    assert [(problem.key, problem.advice.rpartition(": ")[2]) for problem in found] == [
        ("handler_settings.url_file", "No such file or directory"),
        ("handler_settings.token_file", "give token or token_file, not both"),
        ("handler_settings.short_file", "it is no path of a text file in UTF-8"),
        ("handler_settings.place_file", "it is no path of a text file in UTF-8"),
    ]


def test_lists_and_tables_from_the_environment_are_text() -> None:
    settings = build("Ats", {"url": "https://ats", "ids": "[1, 2]", "tokens": "one", "headers": '{"a": "b"}'}).settings
    assert settings.ids == [1, 2]
    assert len(settings.tokens) == len(settings.headers) == 1


def test_a_constructor_that_fails_does_not_spill_its_secrets() -> None:
    with pytest.raises(HandlerError, match="cannot log in with") as caught:
        build("Explodes", {"url": "https://ats", "token": SECRET})
    assert SECRET not in str(caught.value)


def test_settings_that_are_no_model() -> None:
    with pytest.raises(HandlerError, match="pydantic model"):
        build("Wrong", {})


def test_the_effective_settings_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc")
    shown = describe(
        "Ats",
        {
            "url": f"https://me:{SECRET}@ats.example:444/in?key={SECRET}",
            "token": SECRET,
            "headers": {"X-Key": SECRET},
            "short_file": str(tmp_path / "short"),
        },
    )
    assert shown == {
        "url": "https://********@ats.example:444/in?********",
        "port": 443,
        "mode": "fast",
        "ids": [],
        "token": "********",
        "tokens": [],
        "headers": {"X-Key": "********"},
        "deep": {"user": "nobody"},
        "place": None,
        "short": "********",
    }
