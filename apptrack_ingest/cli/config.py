"""`check-config` and `migrate`: what holds, and whether the spool is up to date."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from apptrack_ingest.cli.common import config_option, err, errors_as_exit_codes, json_option, out, plain, run
from apptrack_ingest.service import build
from apptrack_ingest.service.place import spool_of
from apptrack_ingest.settings import Settings, accounts_without_hash


@click.command("check-config")
@config_option
@json_option
@errors_as_exit_codes
def check_config(config: Path | None, as_json: bool) -> None:
    """Print the effective configuration, secrets masked, or every mistake in it (exit code 78)."""
    found = build.checked(config)
    values = plain(build.effective(found))
    if as_json:
        click.echo(json.dumps(values, indent=2))
    else:
        for line in _toml(values):
            out.print(line, markup=False)
    _notes(found)


def _notes(found: Settings) -> None:
    """What is allowed and yet better known."""
    for account in accounts_without_hash(found):
        err.print(
            f"note: accounts.{account} has no hash: its outcomes wait as due and idibu is told nothing", markup=False
        )
    if found.any_recipient:
        err.print(
            "note: no account has recipients: `default` takes every recipient, from this machine only", markup=False
        )


def _toml(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """As a TOML file would say it; what has no value is a comment."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    for key, value in values.items():
        if key not in tables:
            yield f"# {key} is not set" if value is None else f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in tables.items():
        if value:
            name = f"{prefix}{key}"
            if any(not isinstance(item, dict) for item in value.values()):
                yield ""
                yield f"[{name}]"
            yield from _toml(value, f"{name}.")


@click.command()
@config_option
@errors_as_exit_codes
def migrate(config: Path | None) -> None:
    """Make the spool, or bring its schema up to date; `serve` does so by itself at its start."""
    found = build.checked(config)
    run(_prepare(found))
    out.print(f"the spool {found.spool_shown} is up to date", markup=False)


async def _prepare(found: Settings) -> None:
    spool = spool_of(found)
    try:
        await spool.prepare()
    finally:
        await spool.close()


COMMANDS = (check_config, migrate)
