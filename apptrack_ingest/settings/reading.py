"""Reads the settings from file, environment and secret files, and names every mistake with key, value and advice."""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    SettingsError,
)

from apptrack_ingest.errors import ConfigError, Problem
from apptrack_ingest.settings.contradictions import contradictions
from apptrack_ingest.settings.intake import Listener
from apptrack_ingest.settings.kinds import is_web_address
from apptrack_ingest.settings.sections import PREFIX, Account, Settings
from apptrack_ingest.settings.spool_url import MASK, SpoolPlace, checked, without_secrets

OWN_VARIABLES = frozenset({"APPTRACK_CONFIG", "APPTRACK_DOCUMENTS"})
"""Variables with our prefix that are no settings: the configuration file's path, and what the command handler gives to its
program (which may well call us)."""


# --- reading ---------------------------------------------------------------------------------------------------------


def load(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads file, environment and secret files; raises ConfigError with every mistake found.

    `environ` is only looked through for unknown names; pydantic-settings itself reads os.environ.
    """
    settings, problems = inspect(path, environ)
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def inspect(path: Path | None, environ: Mapping[str, str] = os.environ) -> tuple[Settings | None, list[Problem]]:
    """What could be read, and every mistake found; what is wrong is left out so that the rest can be looked at too.

    The settings are None where nothing can be said of the rest. Raises ConfigError where the file cannot be read at all.
    """
    problems = list(_wrong_variables(environ))
    values = _read_toml(path) if path is not None else {}
    settings, wrong = _validated(values)
    problems += wrong
    if settings is None:
        return None, problems
    settings, secret_problems = _read_secret_files(settings)
    # What was left out as wrong must not be called missing.
    named = tuple(problem.key for problem in problems)
    return settings, [
        *problems,
        *secret_problems,
        *(found for found in contradictions(settings) if not any(key.startswith(found.key) for key in named)),
    ]


def _validated(values: dict[str, Any]) -> tuple[Settings | None, list[Problem]]:
    """Validates again and again, each time without what was wrong the time before."""
    problems: dict[str, Problem] = {}
    for _ in range(10):
        try:
            return Settings(**values), list(problems.values())
        except SettingsError as error:
            return None, [*problems.values(), Problem("environment", "", str(error))]
        except ValidationError as error:
            found = error.errors(include_url=False)
            for mistake in found:
                problem = _problem(mistake)
                problems.setdefault(problem.key, problem)
            pruned = [_pruned(values, [str(part) for part in mistake["loc"]]) for mistake in found]
            if not any(pruned):
                break
    return None, list(problems.values())


def _pruned(values: dict[str, Any], location: list[str]) -> bool:
    """Removes what `location` leads to, or the nearest thing around it that the file holds; False where it holds none
    (it came from the environment)."""
    holder: Any = values
    for depth, part in enumerate(location):
        if not isinstance(holder, dict) or part not in holder:
            return False
        if depth == len(location) - 1 or not isinstance(holder[part], dict):
            del holder[part]
            return True
        holder = holder[part]
    return False


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(str(path), "", f"not valid TOML: {error}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), "", "not valid TOML: write it in UTF-8")]) from None
    except OSError as error:
        raise ConfigError([Problem(str(path), "", f"cannot be read: {error.strerror}")]) from None


_SERVICE_LINK = re.compile(
    r"APPTRACK_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes injected the variable for a service whose name begins like ours (docs/configuration.md)."""
    return bool(_SERVICE_LINK.fullmatch(name)) or (name.endswith("_PORT") and "://" in value)


def _wrong_variables(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Variables of our prefix that pydantic-settings would pass over in silence, or stop at without naming them."""
    for name, value in environ.items():
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in OWN_VARIABLES or _is_service_link(upper, value):
            continue
        top, *rest = upper.removeprefix(PREFIX).lower().split("__")
        if top not in Settings.model_fields:
            yield Problem(
                name,
                "",
                f"no such setting; sections and settings are {', '.join(Settings.model_fields)}"
                " (two underscores between the parts of a name)",
            )
        elif rest and not _is_section(top):
            yield Problem(name, "", f"{top} has no parts; write {PREFIX}{top.upper()}")
        elif _is_section(top, *rest) and not _is_json_object(value):
            yield Problem(name, MASK, f"write one variable for each setting, {name}__…, or a JSON object")


def _is_section(top: str, *rest: str) -> bool:
    """Whether a path of names leads to a section rather than to one value."""
    if top == "accounts":
        return len(rest) < 2 or rest[1:] in {("handler_settings",), ("trust",)}
    if (top, *rest) == ("smtp", "users"):
        return True
    annotation = Settings.model_fields[top].annotation
    return not rest and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


_SECRET_KEYS = re.compile(r"hash|secret|password|token|users|webhook_url|handler_settings", re.IGNORECASE)


def _problem(error: Any) -> Problem:
    """One of pydantic's findings in our words; a value is shown only where its key cannot be a secret's."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "settings"
    if error["type"] == "extra_forbidden":
        return Problem(key, "", f"no such setting here; {_known_here(location[:-1])}")
    if error["type"] in ("model_type", "dict_type"):
        # Whatever stands where a section belongs: it may well be the secret that belongs into the section.
        return Problem(key, MASK, f"write a section, [{key}]")
    if key == "spool":
        shown = without_secrets(str(error["input"]))
        return Problem(key, repr(shown), error["msg"].removeprefix("Value error, "))
    shown = MASK if _SECRET_KEYS.search(key) else re.sub(r"://[^/]*@", f"://{MASK}@", repr(error["input"]))
    if isinstance(error["input"], dict | BaseModel):
        shown = ""
    return Problem(key, shown, error["msg"].removeprefix("Value error, "))


def _known_here(path: list[str]) -> str:
    model: Any = Settings
    for part in path:
        if part == "listeners" or part.isdigit():
            model = Listener
        elif model is Settings and part == "accounts":
            model = dict
        elif model is dict:
            model = Account
        else:
            model = model.model_fields[part].annotation
    return f"known are {', '.join(model.model_fields)}" if model is not dict else "write [accounts.NAME]"


def _read_secret_files(settings: Settings) -> tuple[Settings, list[Problem]]:
    """Reads every `…_file` anew, so that a reload takes up a changed secret."""
    problems: list[Problem] = []

    def secret(path: Path, key: str) -> SecretStr | None:
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            # Without a slash it may be the secret itself, written into the wrong setting.
            shown = repr(str(path)) if "/" in str(path) else MASK
            problems.append(
                Problem(key, shown, f"cannot be read: {reason}; write the path of a file that holds the secret")
            )
            return None
        if not text:
            problems.append(Problem(key, repr(str(path)), "the file is empty; write the secret into it"))
        return SecretStr(text)

    accounts = {
        name: account.model_copy(update={"hash": secret(account.hash_file, f"accounts.{name}.hash_file")})
        if account.hash_file
        else account
        for name, account in settings.accounts.items()
    }
    digest = settings.digest
    if digest.webhook_url_file:
        url = secret(digest.webhook_url_file, "digest.webhook_url_file")
        if url is not None and url.get_secret_value() and not is_web_address(url):
            problems.append(Problem("digest.webhook_url_file", MASK, "the file holds no http or https URL"))
        digest = digest.model_copy(update={"webhook_url": url})
    idibu = settings.idibu
    if idibu.partner_password_file:
        password = secret(idibu.partner_password_file, "idibu.partner_password_file")
        idibu = idibu.model_copy(update={"partner_password": password})
    read = {"accounts": accounts, "digest": digest, "idibu": idibu}
    if settings.spool_file and (place := secret(settings.spool_file, "spool_file")) is not None:
        try:
            read["spool"] = checked(SpoolPlace(place.get_secret_value()))
        except ValueError as error:
            problems.append(Problem("spool_file", repr(without_secrets(place.get_secret_value())), str(error)))
    return settings.model_copy(update=read), problems
