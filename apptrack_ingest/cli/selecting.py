"""Which applications: the options by which `list` and the decisions select them, one word for one thing."""

import re
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import click

from apptrack_ingest.cli.showing import iso
from apptrack_ingest.model import HeldReason, ReportState, State
from apptrack_ingest.spool.contract import Filter

Command = Callable[..., None]

LARGEST_ID = 2**63 - 1
"""The largest id the spool's database can hold."""


class Id(click.IntRange):
    """An id of ours or of idibu's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, if the spool can look it up."""
        number = super().convert(value, param, ctx)
        return number if number <= LARGEST_ID else self.fail(f"{value} is too large for an id", param, ctx)


ID = Id(min=1)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(text: str) -> int | None:
    """The seconds of `90m`, `2h`, `7d`, `1w`; None where it is no such length of time."""
    age = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    return int(age[1]) * _UNITS[age[2]] if age else None


def moment(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Epoch seconds of `90m`, `2h`, `7d`, `1w` ago, or of a date with or without a time, local unless it names a zone."""
    if value is None:
        return None
    if (age := seconds_of(value)) is not None:
        return time.time() - age
    try:
        return datetime.fromisoformat(value.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{value!r} is neither an age like 2h or 7d nor a date like 2026-03-02") from None


def _choices(values: Iterable[StrEnum]) -> Any:
    return click.Choice([value.value for value in values])


_OPTIONS: dict[str, Callable[[Command], Command]] = {
    "states": click.option("--state", "states", multiple=True, type=_choices(State), help="Only this state."),
    "reasons": click.option(
        "--held-reason", "reasons", multiple=True, type=_choices(HeldReason), help="Only those held for this reason."
    ),
    "report_states": click.option(
        "--report-state",
        "report_states",
        multiple=True,
        type=_choices(ReportState),
        help="Only those whose newest report to idibu is in this state.",
    ),
    "account": click.option("--account", help="Only this account; an empty name: those of none."),
    "applicant_id": click.option("--applicant-id", type=ID, help="Only this applicant (X-iTrackID)."),
    "client_reference": click.option("--client-reference", help="Only this client reference."),
    "candidate": click.option(
        "--candidate", metavar="TEXT", help="Only where this is part of the candidate's name or address."
    ),
    "portal": click.option("--portal", metavar="NAME", help="Only from this job board, by its whole name."),
    "since": click.option(
        "--since", metavar="AGE|DATE", callback=moment, help="Only received since: 2h, 7d, or a date like 2026-03-02."
    ),
    "until": click.option("--until", metavar="AGE|DATE", callback=moment, help="Only received before: as --since."),
}
"""By the filter's fields."""


def selection(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """The options that select applications, but for some of the filter's fields."""

    def decorate(command: Command) -> Command:
        for name in reversed([name for name in _OPTIONS if name not in without]):
            command = _OPTIONS[name](command)
        return command

    return decorate


def filter_of(given: Mapping[str, Any], **more: Any) -> Filter:
    """The filter that the options say, read out of a command's parameters."""
    kinds: dict[str, Any] = {"states": State, "reasons": HeldReason, "report_states": ReportState}
    fields: dict[str, Any] = {
        name: tuple(map(kinds[name], given[name])) if name in kinds else given[name]
        for name in _OPTIONS
        if given.get(name) is not None
    }
    return Filter(**fields, **more)


def says_something(wanted: Filter) -> bool:
    """Whether any field narrows."""
    return any(getattr(wanted, name) not in (None, ()) for name in _OPTIONS)


_FLAGS = {"states": "--state", "reasons": "--held-reason", "report_states": "--report-state"}


def words_of(wanted: Filter) -> str:
    """The filter as its options, for the history; what would name a candidate is left out."""
    words: list[str] = []
    for name in _OPTIONS:
        value = getattr(wanted, name)
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        if name == "candidate" and value is not None:
            words += [flag, "…"]
        elif name in ("since", "until") and value is not None:
            words += [flag, iso(value)]
        elif isinstance(value, tuple):
            words += [word for each in value for word in (flag, each.value)]
        elif value is not None:
            words += [flag, shlex.quote(str(value))]
    return " ".join(words)
