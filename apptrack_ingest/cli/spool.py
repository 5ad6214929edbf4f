"""`spool copy`, `spool check`, `spool backup`: the spool as a whole, beside or without a running service."""

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from apptrack_ingest import settings
from apptrack_ingest.cli.common import DAMAGED, FAILED, config_option, err, errors_as_exit_codes, json_option, out, run
from apptrack_ingest.errors import ConfigError, NotAllowed, NotFound, Problem, SpoolError
from apptrack_ingest.service import lock
from apptrack_ingest.service.place import spool_of, where
from apptrack_ingest.service.supervisor import ROLES
from apptrack_ingest.settings.sections import SPOOL_FILE
from apptrack_ingest.settings.spool_url import is_url, problem_of, without_secrets
from apptrack_ingest.spool import opening
from apptrack_ingest.spool.checking import Check
from apptrack_ingest.spool.copying import Copied, Copy
from apptrack_ingest.spool.opening import Where
from apptrack_ingest.spool.sqlite.backup import back_up
from apptrack_ingest.spool.tables import Tables

MOST_NAMED = 20
"""Applications that a sentence lists by their ids."""


@click.group()
def spool() -> None:
    """Copy, check and back up the spool as a whole."""


def place(text: str, key: str) -> Where:
    """What a person named: a URL, or a file of SQLite. ConfigError."""
    if not is_url(text):
        return Path(text) / SPOOL_FILE if Path(text).is_dir() else Path(text)
    problem = problem_of(text)
    if problem is not None:
        raise ConfigError([Problem(key, repr(without_secrets(text)), problem)])
    return text


def shown(where: Where) -> str:
    """As it may be shown to anybody."""
    return str(where) if isinstance(where, Path) else without_secrets(where)


# --- copy ------------------------------------------------------------------------------------------------------------


@spool.command()
@config_option
@click.option("--to", "to", metavar="URL-OR-PATH", help="The target: an empty database's URL, or a SQLite file.")
@click.option(
    "--to-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that holds the target's URL: what stands on the command line is seen by others.",
)
@click.option("--from", "source", metavar="URL-OR-PATH", help="The source, if it is not the configuration's spool.")
@click.option(
    "--leave-damaged",
    is_flag=True,
    help="Go on without the bytes of mails that are damaged in the source; they are named.",
)
@json_option
@errors_as_exit_codes
def copy(
    config: Path | None, to: str | None, to_file: Path | None, source: str | None, leave_damaged: bool, as_json: bool
) -> None:
    """Copy the spool with everything in it to another database: SQLite to PostgreSQL, and back.

    Stop `serve` before. The copy is compared with its source; until it is complete nothing can be served from it. Cut off,
    it goes on where it was when the same command is given again. A mail that is damaged in the source ends it, or is left
    out. The source stays as it is: serve from one of the two only.
    """
    if (to is None) == (to_file is None):
        raise click.UsageError("say where to: --to or --to-file")
    target = place(to_file.read_text(encoding="utf-8").strip() if to_file else str(to), "--to")
    origin = place(source, "--from") if source else where(settings.load(config))
    if target == origin:
        raise NotAllowed("source and target are the same spool: nothing was copied")
    copied = run(_copy(origin, target, quiet=as_json, leave_damaged=leave_damaged))
    if as_json:
        click.echo(json.dumps(asdict(copied)))
    else:
        _tell_of(copied, origin, target)


def _tell_of(copied: Copied, origin: Where, target: Where) -> None:
    rows = ", ".join(f"{count} {table}" for table, count in copied.rows.items() if count)
    out.print(f"copied and compared: {rows or 'an empty spool'}; {copied.bodies} mails", markup=False)
    if copied.damaged:
        out.print(
            f"{_mails_of(copied.damaged)} missing or damaged in the source, and left out: what waits of them will be held as"
            " unreadable",
            markup=False,
        )
    out.print(f"The spool is in {shown(target)} now. {_how_to_serve(target)}, and serve from there.", markup=False)
    out.print(f"{shown(origin)} is as it was: never serve from both, each would hand over what waits.", markup=False)


def _how_to_serve(target: Where) -> str:
    if not isinstance(target, Path):
        return "Set spool = the URL"
    return (
        "Set data_dir = its directory"
        if target.name == SPOOL_FILE
        else f"Make it {SPOOL_FILE} in a data_dir of its own"
    )


def _mails_of(ids: Sequence[int]) -> str:
    """Whose mails a sentence is about."""
    listed = ", ".join(map(str, ids[:MOST_NAMED])) + (f" and {len(ids) - MOST_NAMED} more" * (len(ids) > MOST_NAMED))
    return (
        f"the mail of application {listed} is"
        if len(ids) == 1
        else f"the mails of {len(ids)} applications ({listed}) are"
    )


async def _copy(origin: Where, target: Where, *, quiet: bool, leave_damaged: bool) -> Copied:
    if not await opening.exists(origin):
        raise NotFound(f"there is no spool at {shown(origin)}")
    async with contextlib.AsyncExitStack() as stack:
        for where in (origin, target):
            stack.enter_context(_locked(where))
        source = await stack.enter_async_context(_tables(origin))
        destination = await stack.enter_async_context(_tables(target))
        bar = stack.enter_context(_bar(TaskProgressColumn(), hidden=quiet))
        task = bar.add_task("copying")

        async def nobody_else() -> None:
            await _nobody_else(origin, source)
            await _nobody_else(target, destination)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        return await Copy(source, destination, nobody_else, tell, leave_damaged=leave_damaged).run()


@contextlib.contextmanager
def _locked(where: Where) -> Iterator[None]:
    """Keeps every `serve` off a data directory for as long as this takes; who is there already is told of at once."""
    directories = [where.parent] if isinstance(where, Path) else []
    with contextlib.ExitStack() as held:
        for directory, role in product(directories, ROLES):
            held.callback(os.close, lock.take(directory, role, wait=0.0))
        yield


async def _nobody_else(where: Where, tables: Tables) -> None:
    if others := await tables.others():
        raise NotAllowed(
            f"{shown(where)} is in use: apptrack-ingest is connected to it {others} times; stop every `serve` first"
        )


@contextlib.asynccontextmanager
async def _tables(where: Where) -> AsyncIterator[Tables]:
    tables = await opening.open_tables(where)
    try:
        yield tables
    finally:
        await tables.close()


def _bar(*columns: TextColumn | TaskProgressColumn | MofNCompleteColumn, hidden: bool) -> Progress:
    """A progress bar on a terminal, and nothing anywhere else."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=err,
        disable=hidden or not err.is_terminal,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )


# --- check -----------------------------------------------------------------------------------------------------------


@spool.command()
@config_option
@click.option(
    "--mend",
    is_flag=True,
    help="First make anew what the spool counts and notes of its own rows (tallies, lines, times); others wait meanwhile.",
)
@json_option
@errors_as_exit_codes
def check(config: Path | None, mend: bool, as_json: bool) -> None:
    """Read the whole spool and tell of everything that is not as it must be; exit code 1 where there is something.

    Every mail is compared with the digest taken at its receipt, the ledger with the rules it follows, and what is counted
    with the rows. A `serve` may go on meanwhile.
    """
    found = settings.load(config)
    findings, bodies = run(_check(where(found), found.spool_shown, mend=mend, as_json=as_json))
    if as_json:
        click.echo(json.dumps({"findings": findings, "mails": bodies}))
    elif not findings:
        out.print(f"{bodies} mails and all that is known of them are as they must be", markup=False)
    if findings:
        raise SystemExit(FAILED)


async def _check(where: Where, name: str, *, mend: bool, as_json: bool) -> tuple[list[str], int]:
    if not await opening.exists(where):
        raise NotFound(f"there is no spool at {name}: has `apptrack-ingest serve` run with this configuration?")
    findings: list[str] = []
    async with _tables(where) as tables:
        if mend:
            await tables.derive()
        with _bar(MofNCompleteColumn(), hidden=as_json) as bar:
            task = bar.add_task("checking")
            looking = Check(tables, lambda done, total: bar.update(task, completed=done, total=total))
            async for finding in looking.findings():
                findings.append(finding)
                if not as_json:
                    out.print(finding, markup=False)
    return findings, looking.bodies


# --- backup ----------------------------------------------------------------------------------------------------------


@spool.command()
@config_option
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@errors_as_exit_codes
def backup(config: Path | None, file: Path, force: bool) -> None:
    """Make a consistent copy of a SQLite spool as one FILE of mode 0600, beside a running `serve`.

    A mail that is damaged in the spool is damaged in the copy, too, and named: the copy is made all the same, exit code 5.
    It replaces no FILE then, even with --force, and becomes FILE.damaged.

    A spool in PostgreSQL is backed up with PostgreSQL's own tools; the command says how, with exit code 1.
    """
    found = settings.load(config)
    if found.spool_url is not None:
        raise SpoolError(
            f"the spool is in PostgreSQL ({found.spool_shown}), whose own tools make its backup: pg_dump --format=custom, or"
            " a base backup with the write-ahead log kept (docs/backup.md)"
        )
    if not found.database.exists():
        raise NotFound(
            f"there is no spool at {found.database}: has `apptrack-ingest serve` run with this configuration?"
        )
    run(spool_of(found).close())  # the schema is brought up to date, as for every command
    saved = back_up(found.database, file, replace=force)
    out.print(
        f"{saved.file}: {saved.applications} applications and {saved.bodies} mails, {saved.size} bytes,"
        " checked and on the disk",
        markup=False,
    )
    if saved.damaged:
        err.print(
            f"{_mails_of(saved.damaged)} missing or damaged in the spool itself, and so in this copy"
            + (f"; {file} is left as it was" if saved.file != file else "")
            + ": `apptrack-ingest spool check` tells more, docs/backup.md what to do",
            markup=False,
        )
        raise SystemExit(DAMAGED)


COMMANDS = (spool,)
