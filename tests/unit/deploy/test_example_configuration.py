"""The commented example configuration shows every setting there is, and no default that the code does not have."""

import re
import tomllib
import types
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from apptrack_ingest.settings import Account, Listener, Settings, load

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "deploy" / "apptrack-ingest.toml"
BY_NAMES_OF_YOURS = ("handler_settings", "users")
ALTERNATIVES = {("accounts", "acme", "hash"), ("digest", "webhook_url"), ("spool",), ("idibu", "partner_password")}
"""Settings that exclude another one which is shown beside them."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.upper().startswith("APPTRACK_"):
            monkeypatch.delenv(name)


def uncommented() -> dict[str, Any]:
    """The example with the `#` before each setting removed, as its reader would."""
    text = re.sub(r"^#(?=[a-z0-9_]+ = |\[)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return tomllib.loads(text)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section a field holds: itself, the value of `accounts`, or what `listeners` are."""
    candidates = get_args(annotation) if get_origin(annotation) in (dict, tuple, types.UnionType) else (annotation,)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def every_setting(model: type[BaseModel], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every setting; an account stands under the example's name for one."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        below = (*path, name, "acme") if section is Account else (*path, name)
        found += every_setting(section, below) if section else [below]
    return found


def shown(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every setting in the example."""
    found: list[tuple[str, ...]] = []
    for name, value in values.items():
        value = value[0] if name == "listeners" else value
        is_section = isinstance(value, dict) and name not in BY_NAMES_OF_YOURS
        found += shown(value, (*path, name)) if is_section else [(*path, name)]
    return found


def without(values: dict[str, Any], paths: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        name: without(value, paths, (*path, name)) if isinstance(value, dict) else value
        for name, value in values.items()
        if (*path, name) not in paths
    }


def default_of(path: tuple[str, ...]) -> Any:
    value: Any = Settings(accounts={"acme": Account.model_validate({})})
    for part in path:
        value = value[part] if isinstance(value, dict) else getattr(value, part)
        value = Listener() if part == "listeners" else value
    return value


def test_it_loads_as_it_is_and_changes_nothing() -> None:
    assert load(EXAMPLE, {}) == Settings()


def test_it_shows_every_setting_and_no_other() -> None:
    assert sorted(shown(uncommented())) == sorted(every_setting(Settings))


def test_each_commented_default_is_the_codes_default() -> None:
    no_default = {path for path in every_setting(Settings) if default_of(path) is None}
    values = without(uncommented(), no_default)
    # Both are empty by default; what one listener has by default is shown all the same.
    (listener,) = values["smtp"].pop("listeners")
    del values["smtp"]["users"]
    optional = {path[-1] for path in no_default if path[:2] == ("smtp", "listeners")}
    assert Listener(**{key: value for key, value in listener.items() if key not in optional}) == Listener()
    as_shown = Settings(**values)
    assert as_shown == Settings(accounts={"acme": Account.model_validate({})})


def test_the_examples_for_settings_without_default_are_valid() -> None:
    values = without(uncommented(), ALTERNATIVES)
    values["digest"]["mail_to"] = ["people@acme.example"]
    example = Settings(**values)
    assert example.accounts["acme"].client_id == 4711
    assert example.smtp.tls_certificate is not None
    for path in ALTERNATIVES:
        assert path in shown(uncommented())


def test_each_setting_without_default_says_so() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for path in every_setting(Settings):
        if default_of(path) is not None:
            continue
        before = text[: re.search(rf"^#{path[-1]} = ", text, re.MULTILINE).start()]  # type: ignore[union-attr]
        paragraph = before.rsplit("\n\n", 1)[-1]
        assert "No default" in paragraph, f"{'.'.join(path)} has no default, and its comment does not say so"
