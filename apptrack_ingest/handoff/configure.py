"""Builds a handler from what the settings say about it, and reports every mistake there before the first mail comes."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from apptrack_ingest.errors import ConfigError, HandlerError, Problem
from apptrack_ingest.handoff.loading import Target, load, told

KEY = "handler_settings"
MASK = "********"
_FILE = "_file"
# A wrong value of these types is shown; a wrong str is not, it may be a credential that landed in the wrong place.
_HARMLESS = (bool, int, float, Path, Enum)
_SECRET_NAME = re.compile(r"secret|passw|token|api_?key|hash|credential|auth", re.IGNORECASE)
_LISTS = (list, tuple, set, frozenset)

Model = TypeVar("Model", bound=BaseModel)


def build(name: str, settings: Mapping[str, Any]) -> Any:
    """The handler called `name`, made from `settings`: an instance of its class, or the function itself.

    Any field KEY of the handler's `Settings` may come as KEY_file, a path whose content (without the newline at its
    end) is the value; one entry a line for a list, JSON for a table. Raises HandlerError when the handler cannot be
    loaded or made, ConfigError with every mistake in `settings` otherwise (keys begin with `handler_settings`).
    """
    target = load(name)
    model = _model(name, target)
    if model is not None:
        return _make(name, target, validate(model, settings))
    _refuse_all(name, settings)
    return _make(name, target) if inspect.isclass(target) else target


def describe(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The effective settings of the handler, defaults included, as JSON values fit to be shown.

    Masked are secret fields, whatever came from a file, names that sound secret, and credentials and queries in URLs.
    Raises as `build` does.
    """
    model = _model(name, load(name))
    if model is None:
        _refuse_all(name, settings)
        return {}
    checked = validate(model, settings)
    hidden = _read(model, settings).from_files
    return {key: MASK if key in hidden else _shown(key, getattr(checked, key)) for key in model.model_fields}


def validate(model: type[Model], settings: Mapping[str, Any]) -> Model:
    """`settings` as the model wants them, KEY_file read. Raises ConfigError with every mistake found."""
    given = _read(model, settings)
    problems = given.problems + [Problem(_key(*path), "", advice) for path, advice in _unknown(model, given.values)]
    try:
        checked = model.model_validate(given.values)
    except ValidationError as error:
        problems += _problems(error, model, given)
    if problems:
        raise ConfigError(_one_for_each_key(problems)) from None
    return checked


def _model(name: str, target: Target) -> type[BaseModel] | None:
    model = getattr(target, "Settings", None)
    if model is None or (isinstance(model, type) and issubclass(model, BaseModel)):
        return model
    raise HandlerError(f"handler {name!r}: its `Settings` must be a pydantic model")


def _refuse_all(name: str, settings: Mapping[str, Any]) -> None:
    if settings:
        raise ConfigError(
            [Problem(_key(key), "", f"the handler {name} takes no settings; remove it") for key in settings]
        )


def _make(name: str, target: Target, *arguments: BaseModel) -> Any:
    try:
        return target(*arguments)
    except (ConfigError, HandlerError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a handler's constructor may raise anything
        why = told(error)
        for secret in {text for argument in arguments for text in _secrets(argument)}:
            why = why.replace(secret, MASK)
        raise HandlerError(f"handler {name!r} could not be made: {why}") from None


def redacted(name: str, settings: Mapping[str, Any], text: str) -> str:
    """A text of the handler's, without the values of its settings that `describe` would not show. Raises as `build` does."""
    model = _model(name, load(name))
    if model is None:
        return text
    checked, from_files = validate(model, settings), _read(model, settings).from_files
    hidden = set(_secrets(checked))
    for key in model.model_fields:
        for value in _texts(getattr(checked, key)):
            if key in from_files or _SECRET_NAME.search(key):
                hidden.add(value)
            elif (shown := _without_credentials(value)) != value:
                hidden |= {value, *_hidden_parts(value, shown)}
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _texts(value: Any) -> Iterator[str]:
    """All the text in a value, but what is wrapped as secret."""
    if isinstance(value, BaseModel):
        yield from (text for name in type(value).model_fields for text in _texts(getattr(value, name)))
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, _LISTS):
        yield from (text for item in value for text in _texts(item))
    elif isinstance(value, str | Path) or (hasattr(value, "host") and hasattr(value, "scheme")):
        yield str(value)


def _hidden_parts(url: str, shown: str) -> Iterator[str]:
    """The user, the password and the query of a URL, which may be told without the rest of it."""
    if shown == MASK:
        return
    parts = urlsplit(url)
    values = (value for _, value in parse_qsl(parts.query))
    yield from (part for part in (parts.password, parts.netloc.rpartition("@")[0], parts.query, *values) if part)


# --- what was given -------------------------------------------------------------------------------------------------


@dataclass
class _Given:
    """The settings with every KEY_file replaced by KEY and the file's content, and what went wrong in doing so."""

    values: dict[str, Any] = field(default_factory=dict)
    from_files: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def _read(model: type[BaseModel], settings: Mapping[str, Any]) -> _Given:
    given, fields = _Given(), _fields(model)
    for key, value in settings.items():
        target = key.removesuffix(_FILE)
        if key not in fields and target != key and target in fields:
            _read_file(given, settings, fields[target], target, value)
        else:
            given.values[key] = _from_text(fields[key], value) if key in fields else value
    return given


def _read_file(given: _Given, settings: Mapping[str, Any], of: FieldInfo, target: str, path: Any) -> None:
    given.from_files.add(target)
    if target in settings:
        given.problems.append(Problem(_key(target + _FILE), "", f"give {target} or {target}{_FILE}, not both"))
        return
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no path of a text file in UTF-8"
        given.problems.append(Problem(_key(target + _FILE), str(path), f"the file cannot be read: {reason}"))
    else:
        given.values[target] = _from_text(of, content.removesuffix("\n").removesuffix("\r"))


def _from_text(of: FieldInfo, value: Any) -> Any:
    """Files and environment variables are text: a list comes as JSON or one entry a line, a table as JSON."""
    kinds = {get_origin(kind) or kind for kind in _alternatives(of.annotation)} - {NoneType}
    kind = next(iter(kinds)) if len(kinds) == 1 else None
    if not isinstance(value, str) or not inspect.isclass(kind) or not issubclass(kind, (*_LISTS, Mapping, BaseModel)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return [line.strip() for line in value.splitlines() if line.strip()] if issubclass(kind, _LISTS) else value


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Every key the model understands: field names and aliases."""
    keys: dict[str, FieldInfo] = {}
    for name, of in model.model_fields.items():
        alias = of.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        keys |= {key: of for key in (name, of.alias, *choices) if isinstance(key, str)}
    return keys


# --- what is wrong with it --------------------------------------------------------------------------------------------


def _unknown(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of every key the model has no field for, also where the model forgot to forbid them."""
    fields = _fields(model)
    for key, value in values.items():
        if key not in fields:
            if model.model_config.get("extra") != "allow":
                yield (key,), _no_such(key, model)
        elif isinstance(value, Mapping):
            for kind in _alternatives(fields[key].annotation):
                if inspect.isclass(kind) and issubclass(kind, BaseModel):
                    yield from (((key, *path), advice) for path, advice in _unknown(kind, value))


def _no_such(key: str, model: type[BaseModel]) -> str:
    known = list(model.model_fields)
    close = get_close_matches(key, [*known, *(name + _FILE for name in known)], n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"the handler has no such setting; {hint}"


def _problems(error: ValidationError, model: type[BaseModel], given: _Given) -> Iterator[Problem]:
    fields = _fields(model)
    for mistake in error.errors(include_url=False, include_context=False):
        path = mistake["loc"]
        top = str(path[0]) if path else ""
        if mistake["type"] == "missing":
            # A field whose file could not be read has its problem already.
            if top not in given.from_files:
                yield Problem(_key(*path), "", "missing, and it has no default")
            continue
        harmless = top in fields and top not in given.from_files and _is_harmless(fields[top].annotation)
        yield Problem(
            _key(*path), _value(mistake["input"], harmless), _advice(mistake["msg"], mistake["input"], harmless)
        )


def _value(value: Any, harmless: bool) -> str:
    return repr(value)[:100] if harmless else MASK


def _advice(message: str, value: Any, harmless: bool) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message.replace(value, MASK) if isinstance(value, str) and value and not harmless else message


def _one_for_each_key(problems: list[Problem]) -> list[Problem]:
    """The first of each key: an unknown key can be found by us and by a model that forbids it."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.key, problem)
    return list(first.values())


def _key(*path: str | int) -> str:
    return ".".join([KEY, *map(str, path)])


# --- what may be shown ------------------------------------------------------------------------------------------------


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types an annotation allows, `X | None` and Annotated taken apart."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for part in get_args(annotation) for kind in _alternatives(part))
    return (annotation,)


def _is_harmless(annotation: Any) -> bool:
    def one(kind: Any) -> bool:
        if get_origin(kind) in _LISTS:
            return all(_is_harmless(part) for part in get_args(kind) if part is not Ellipsis)
        return (
            kind is NoneType or get_origin(kind) is Literal or (inspect.isclass(kind) and issubclass(kind, _HARMLESS))
        )

    return all(one(kind) for kind in _alternatives(annotation))


def _shown(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        return {name: _shown(name, getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(name): _shown(str(name), item) for name, item in value.items()}
    if isinstance(value, _LISTS):
        return [_shown(key, item) for item in value]
    text = str(value.value if isinstance(value, Enum) else value)
    return MASK if text and _SECRET_NAME.search(key) else _without_credentials(text)


def _without_credentials(text: str) -> str:
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK
    host = parts.netloc.rpartition("@")
    netloc = f"{MASK}@{host[2]}" if host[1] else host[2]
    return parts._replace(netloc=netloc, query=MASK if parts.query else "", fragment="").geturl()


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield from filter(None, [value.get_secret_value()])
    elif isinstance(value, BaseModel):
        yield from (text for name in type(value).model_fields for text in _secrets(getattr(value, name)))
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _secrets(item))
    elif isinstance(value, _LISTS):
        yield from (text for item in value for text in _secrets(item))
