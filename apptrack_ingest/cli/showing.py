"""How values reach a terminal or a program: escaped text, local times, tables that cut no id, JSON."""

import dataclasses
import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from apptrack_ingest.cli.common import out
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool.contract import Summary

NOTHING = "-"
"""What a person reads where there is no value."""

_TIMES = (
    *("received_at", "settled_at", "due_at", "started_at", "ended_at", "created_at", "date_processed"),
    *("at", "since", "until"),
)
"""Fields of the spool's records that hold epoch seconds."""


# --- text ------------------------------------------------------------------------------------------------------------


def safe(value: object) -> str:
    """Text from anywhere made harmless for a terminal: what is not printable there is written as its escape, so that
    neither control characters nor right-to-left overrides of a mail act on whoever reads it."""
    text = "".join(char if char.isprintable() else _escaped(char) for char in str(value))
    encoding = out.encoding
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(char: str) -> str:
    return " " if unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode("ascii")


def text(value: object, style: str = "") -> Text:
    """A value as a table takes it: escaped, never read as markup; nothing is a dash."""
    return Text(NOTHING if value is None or value == "" else safe(value), style)


def say(line: str) -> None:
    """One line to standard output, escaped."""
    out.print(safe(line), markup=False)


def who(name: str | None, email: str | None) -> str:
    """A person, as far as known."""
    return " ".join(part for part in (name, f"<{email}>" if email else None) if part)


# --- times -----------------------------------------------------------------------------------------------------------


def local(at: float) -> str:
    """A time in this machine's zone, without the zone's name."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def zoned(at: float) -> str:
    """A time in this machine's zone, with its distance from UTC."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S %z}"


def iso(at: float) -> str:
    """A time for programs: ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = round(max(0.0, seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


# --- the state -------------------------------------------------------------------------------------------------------

STYLES = {
    State.DELIVERED: "green",
    State.HELD: "yellow",
    State.REJECTED: "red",
    State.FAILED: "red",
    State.DISCARDED: "dim",
    State.DUPLICATE: "dim",
}


def standing(summary: Summary, now: float) -> str:
    """The state with what a person asks next: held why, in work, or tried again when."""
    if summary.state is State.HELD:
        return f"held: {summary.reason or HeldReason.BY_OPERATOR}"
    if summary.state is not State.RECEIVED:
        return summary.state.value
    if summary.in_work:
        return "received, in work"
    if summary.due_at is None or summary.due_at <= now:
        return "received, due now"
    return f"received, next attempt {local(summary.due_at)}"


# --- tables and JSON -------------------------------------------------------------------------------------------------


def print_table(table: Table) -> None:
    """Prints a table at least as wide as its ids need; into a pipe or file as wide as all of it needs."""
    endless = Console(file=out.file, width=1_000_000)
    measured = Measurement.get(endless, endless.options, table)
    width = max(out.width, measured.minimum) if out.is_terminal else max(measured.maximum, 1)
    Console(file=out.file, width=width, highlight=False, emoji=False).print(table, crop=False)


def print_json(value: object) -> None:
    """Prints a value for programs, in ASCII alone."""
    click.echo(json.dumps(shape(value), indent=2))


def shape(value: Any, name: str = "") -> Any:
    """A record of the spool as JSON knows it, times in ISO 8601."""
    if dataclasses.is_dataclass(value):
        return {field.name: shape(getattr(value, field.name), field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): shape(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shape(item, name) for item in value]
    return iso(value) if name in _TIMES and isinstance(value, float | int) else value
