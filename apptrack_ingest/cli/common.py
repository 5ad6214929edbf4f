"""What all commands share: the configuration option, errors as exit codes, an opened spool."""

import contextlib
import functools
import getpass
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import uvloop
from rich.console import Console

from apptrack_ingest import settings
from apptrack_ingest.errors import (
    CannotListen,
    ChildFailed,
    ConfigError,
    HandlerError,
    IngestError,
    NotAllowed,
    NotFound,
    SpoolUnavailable,
)
from apptrack_ingest.logs import escape
from apptrack_ingest.service.place import spool_of as open_spool_of
from apptrack_ingest.service.place import where
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool import opening
from apptrack_ingest.spool.contract import Spool

P = ParamSpec("P")
T = TypeVar("T")

FAILED, NO_SUCH_THING, NOT_NOW, DAMAGED, NO_SPOOL, BAD_CONFIGURATION = 1, 3, 4, 5, 69, 78
"""Exit codes beside 0 and click's own 2; 69 and 78 are those of sysexits.h, which systemd and mail systems know."""

err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
out = Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())

config_option = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="APPTRACK_CONFIG",
    help="The TOML file with the settings; also APPTRACK_CONFIG. Without it the defaults and APPTRACK_… hold.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def version() -> str:
    """Our release."""
    try:
        return installed("apptrack-ingest")
    except PackageNotFoundError:
        return "unknown"


def actor() -> str:
    """Who gives the command, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def errors_as_exit_codes(command: Callable[P, T]) -> Callable[P, T]:
    """Prints an error of ours as a sentence instead of a traceback, and exits with its code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            for problem in error.problems:
                err.print(f"configuration: {escape(str(problem))}", markup=False)
            sys.exit(FAILED if isinstance(error, CannotListen) else BAD_CONFIGURATION)
        except IngestError as error:
            err.print(f"error: {escape(str(error))}", markup=False)
            sys.exit(code_of(error))
        except BrokenPipeError:
            sys.exit(FAILED)

    return wrapped


def code_of(error: IngestError) -> int:
    """The exit code that says what kind of error it was."""
    if isinstance(error, ChildFailed):
        return error.code
    codes = {NotFound: NO_SUCH_THING, NotAllowed: NOT_NOW, SpoolUnavailable: NO_SPOOL, HandlerError: BAD_CONFIGURATION}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), FAILED)


def run(work: Awaitable[T]) -> T:
    """Runs asynchronous work to its end, on uvloop; Ctrl-C ends it."""

    async def awaited() -> T:
        return await work

    return uvloop.run(awaited())


@contextlib.asynccontextmanager
async def spool_of(config: Path | None) -> AsyncIterator[tuple[Spool, Settings]]:
    """The spool of the configuration, opened and closed, and the settings.

    Raises NotFound where there is no spool yet: looking must not make one."""
    found = settings.load(config)
    if not await opening.exists(where(found)):
        raise NotFound(
            f"there is no spool at {found.spool_shown}: has `apptrack-ingest serve` run with this configuration?"
        )
    spool = open_spool_of(found)
    try:
        yield spool, found
    finally:
        await spool.close()


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
