"""How answers of idibu, and requests not sent, are printed: tables for people, records without secrets for programs."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any

import click
from pydantic import SecretStr
from rich.table import Table

from apptrack_ingest.cli.showing import print_json, print_table, safe, text
from apptrack_ingest.idibu import Rehearsal

_KEPT_BACK = ("xml", "client_hash")
"""Fields that programs do not get: idibu's own XML has the hashes too."""


def record(value: Any) -> Any:
    """An answer as JSON knows it: dates as idibu writes them, in ISO 8601; no hash, no password, no raw XML."""
    if isinstance(value, SecretStr):
        return None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.name not in _KEPT_BACK]
        return {name: record(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {name: record(item) for name, item in value.items()}
    return [record(item) for item in value] if isinstance(value, list | tuple) else value


def print_rehearsal(rehearsal: Rehearsal, as_json: bool) -> None:
    """A request that is not sent."""
    if as_json:
        print_json({"dry_run": True, **record(rehearsal)})
        return
    for line in str(rehearsal).splitlines():
        click.echo(safe(line))


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is missing is left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value not in (None, ""):
            table.add_row(name, text(value))
    print_table(table)


def print_rows(headers: Sequence[str], rows: Iterable[Sequence[object]], folding: Sequence[str] = ()) -> None:
    """A table; columns in `folding` may be broken over lines where the terminal is narrow."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header not in folding)
    for row in rows:
        table.add_row(*map(text, row))
    print_table(table)


def count(number: int, noun: str) -> str:
    """`1 address`, `2 addresses`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural if number != 1 else ''}"
