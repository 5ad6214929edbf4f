"""What options are no place for: the fields of adverts and accounts, from a TOML file and `--set`, and secrets, in files."""

import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import SecretStr, TypeAdapter, ValidationError

from apptrack_ingest.errors import IngestError
from apptrack_ingest.idibu import Advert, JobConfig, JobTime, JobType

T = TypeVar("T")
Command = Callable[..., None]

_NAMED: Mapping[str, type[Enum]] = {"job_type": JobType, "job_time": JobTime}
"""Choices that are numbers at idibu: their names will do."""


def filled_in(command: Command) -> Command:
    """`--file` and `--set`: where a command's many fields come from."""
    file = click.option(
        "--file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A TOML file with the fields (docs/idibu.md shows one).",
    )
    assign = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="A field, which wins over the file's; repeatable.",
    )
    return file(assign(command))


def values_of(file: Path | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """The fields as they were written; `config.lockboards` stands for `lockboards` in the section `config`."""
    values = _from_file(file)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        *sections, key = (part.strip() for part in path.split("."))
        if not key or not equals:
            raise click.BadParameter("write KEY=VALUE", param_hint="--set")
        if key == "password":
            raise click.BadParameter("the command line is no place for a password: --password-file", param_hint="--set")
        holder = values
        for section in sections:
            holder = holder.setdefault(section, {})
            if not isinstance(holder, dict):
                raise click.BadParameter(f"{section} has no parts", param_hint="--set")
        holder[key] = value
    return values


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{path} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not valid TOML: write it in UTF-8") from None
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None


def advert_of(values: dict[str, Any]) -> tuple[Advert, JobConfig]:
    """The advert and the config block that the fields describe; a usage error names every mistake."""
    advert = {name: _choice(name, value) for name, value in values.items() if name != "config"}
    if "boards" in advert:
        advert["boards"] = list(_boards(advert["boards"]))
    return made(Advert, advert), made(JobConfig, values.get("config", {}), "config.")


def _choice(name: str, value: Any) -> Any:
    member = str(value).upper().replace("-", "_")
    known = _NAMED[name].__members__ if name in _NAMED else {}
    return known.get(member, value)


def _boards(value: Any) -> Iterator[Any]:
    """A list of ids or tables, or text: `517, 41:7` is board 517, and 41 for seven days."""
    for one in value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]:
        number, _, days = str(one).strip().partition(":")
        yield one if isinstance(one, dict) else {"id": number, "days": days or None}


def made(kind: type[T], values: Any, where: str = "") -> T:
    """The record these fields make; a usage error names every mistake, without the values: they may be people's."""
    if not isinstance(values, dict):
        raise click.UsageError(f"{where.rstrip('.')} must be a section")
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise click.UsageError(f"no such field: {where}{unknown[0]}; known are {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise click.UsageError("; ".join(f"{where}{mistake}" for mistake in _mistakes(error))) from None


def _mistakes(error: ValidationError) -> Iterator[str]:
    for mistake in error.errors(include_url=False, include_input=False, include_context=False):
        # A choice of types is told once, not for each type.
        name = ".".join(str(part) for part in mistake["loc"] if not (isinstance(part, str) and "[" in part))
        yield f"{name}: {mistake['msg']}" if name else mistake["msg"].removeprefix("Value error, ")


# --- secrets ---------------------------------------------------------------------------------------------------------


def password_from(file: Path | None) -> SecretStr:
    """The password in a file, or asked for, twice; where nobody is there to be asked a usage error says what to do."""
    if file is None:
        if not _somebody_is_there():
            raise click.UsageError("there is no terminal to ask for the account's password: give --password-file FILE")
        return SecretStr(click.prompt("Password of the account", hide_input=True, confirmation_prompt=True, err=True))
    try:
        return SecretStr(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise IngestError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


class SecretFile:
    """A new file of mode 0600 for a secret that is yet to come: made first, so that nothing is asked for in vain."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise IngestError(f"{path} is there already, and may hold another hash: name a new file") from None
        except OSError as error:
            raise IngestError(f"{path} cannot be written: {error.strerror}") from None

    def write(self, secret: SecretStr) -> None:
        """Writes it to the disk. Raises IngestError where that fails."""
        try:
            with os.fdopen(self._descriptor, "w", encoding="utf-8") as file:
                file.write(secret.get_secret_value() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise IngestError(
                f"{self._path} cannot be written: {error.strerror}; `idibu account show --hash-file` gets the hash again"
            ) from None

    def drop(self) -> None:
        """Removes the file: there is nothing to write."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)
