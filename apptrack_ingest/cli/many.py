"""A decision on all applications that a filter selects: counted, asked, carried out page by page, told as a tally."""

import asyncio
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apptrack_ingest.cli.common import actor, config_option, err, errors_as_exit_codes, json_option, run
from apptrack_ingest.cli.listing import table_of
from apptrack_ingest.cli.orders import Command, Order, Result, Work, carry_out, order_of, result_of, tell
from apptrack_ingest.cli.selecting import ID, filter_of, says_something, selection, words_of
from apptrack_ingest.cli.showing import print_json, print_table, say
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.lifecycle import Rate, parse_rates
from apptrack_ingest.model import ReportState, State
from apptrack_ingest.spool import contract
from apptrack_ingest.spool.contract import Filter, Summary

PAGE = 200
"""Applications looked at in one page: what is kept in memory, however many match."""

AT_ONCE = 8
"""Decisions under way at a time: they share commits, and a few mails may have to be read for them."""

SHOWN = 20
"""Applications shown before it is done, and errors told one by one."""


def throttle(context: click.Context, parameter: click.Parameter, value: str | None) -> Rate | None:
    """At most so many decisions in a span of time."""
    try:
        rates = parse_rates(value or "")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if len(rates) > 1:
        raise click.BadParameter("one rate is enough")
    return rates[0] if rates else None


_OPTIONS = (
    click.option(
        "--limit", type=click.IntRange(min=1), help="Of what a selection matches at most so many, the oldest."
    ),
    click.option("--dry-run", is_flag=True, help="Only show how many a selection matches, and the first of them."),
    click.option("--throttle", metavar="RATE", callback=throttle, help="At most so many in a time: 5/s, 100/1m."),
    click.option("--yes", is_flag=True, help="Do not ask before all that a selection matches is done."),
)


def for_many(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """What a decision takes: ids, or the options that select applications, and how to go about it."""

    def decorate(command: Command) -> Command:
        command = config_option(json_option(errors_as_exit_codes(command)))
        for option in reversed(_OPTIONS):
            command = option(command)
        return click.argument("ids", metavar="[ID]...", nargs=-1, type=ID)(selection(without)(command))

    return decorate


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line. `selected` narrows to `states` (or reports in `report_states`), from which
    the decision leads on."""

    command: str
    given: Mapping[str, Any]
    work: Work
    states: frozenset[State] = frozenset()
    report_states: frozenset[ReportState] = frozenset()

    def carry_out(self, note: str) -> None:
        """Does it, by ids or by selection, and exits with the worst code."""
        ids: tuple[int, ...] = self.given["ids"]
        selects = says_something(filter_of(self.given))
        if bool(ids) == selects:
            raise click.UsageError("give either IDs, or options that select applications, such as --state or --account")
        if ids and (self.given["dry_run"] or self.given["limit"] or self.given["throttle"]):
            raise click.UsageError("--dry-run, --limit and --throttle go with options that select, not with IDs")
        if ids:
            carry_out(self.given["config"], ids, self.given["as_json"], note, self.work)
        else:
            sys.exit(run(_Many(self, self.filter(), note).carry_out()))

    def filter(self) -> Filter:
        """The selection, narrowed to what the decision can be made about."""
        wanted = filter_of(self.given)
        return dataclasses.replace(
            wanted,
            states=_narrowed("--state", wanted.states, self.states),
            report_states=_narrowed("--report-state", wanted.report_states, self.report_states),
        )


def _narrowed(flag: str, given: tuple[Any, ...], possible: frozenset[Any]) -> tuple[Any, ...]:
    """What was given, if it is possible; all that is possible, if nothing was."""
    if possible and (impossible := [value for value in given if value not in possible]):
        raise click.UsageError(f"{flag} {impossible[0]}: this command is for {', '.join(sorted(possible))}")
    return given or tuple(sorted(possible))


@dataclass(slots=True)
class _Tally:
    """What came of it so far; only the first of what could not be done are kept."""

    done: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    first: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Counts one."""
        if result.exit_code == 0:
            self.done += 1
            return
        self.codes[result.exit_code] += 1
        if len(self.first) < SHOWN:
            self.first.append(result)

    @property
    def refused(self) -> int:
        """How many could not be done."""
        return self.codes.total()


@dataclass(slots=True)
class _Many:
    """One order on all that match."""

    wish: Wish
    wanted: Filter
    note: str

    async def carry_out(self) -> int:
        """Looks, asks, does and tells; returns the exit code."""
        config: Path | None = self.wish.given["config"]
        async with order_of(config, self.note) as order:
            newest = await order.spool.find(Filter(limit=1))
            # What arrives from now on is no part of it, or it might never end.
            bounds = dataclasses.replace(self.wanted, before_id=newest[0].application_id + 1 if newest else 1)
            matched = await order.spool.count(bounds)
            matched = min(matched, self.wish.given["limit"] or matched)
            if self.wish.given["dry_run"] or not matched:
                first = await order.spool.find(
                    dataclasses.replace(bounds, oldest_first=True, limit=min(matched, SHOWN))
                )
                self._preview(matched, first)
                return 0
            self._ask(matched)
            return await self._do(order, bounds, matched)

    def _preview(self, matched: int, first: list[Summary]) -> None:
        if self.wish.given["as_json"]:
            print_json({"matched": matched, "applications": first})
            return
        say(f"{self.wish.command}: {_applications(matched)} match{'es' if matched == 1 else ''}")
        if first:
            print_table(table_of(first, time.time()))
        if len(first) < matched:
            say(f"and {matched - len(first)} more")

    def _ask(self, matched: int) -> None:
        if self.wish.given["yes"]:
            return
        if self.wish.given["as_json"] or not sys.stdin.isatty():
            raise click.UsageError(f"{_applications(matched)} would be affected; --yes says that this is meant")
        click.confirm(f"{self.wish.command}: {_applications(matched)}. Go on?", abort=True, err=True)

    async def _do(self, order: Order, bounds: Filter, matched: int) -> int:
        known = contract.Order(self.wish.command, actor(), bounds.account, words_of(bounds), self.note)
        number = await order.spool.begin_order(known, now=time.time())
        tally = _Tally()
        with _progress(self.wish.command) as bar:
            task = bar.add_task(self.wish.command, total=matched)
            async for result in self._results(dataclasses.replace(order, number=number), bounds, matched):
                tally.add(result)
                bar.advance(task)
        await order.spool.end_order(number, done=tally.done, refused=tally.refused, now=time.time())
        self._tell(number, matched, tally)
        return max(tally.codes, default=0)

    async def _results(self, order: Order, bounds: Filter, left: int) -> AsyncIterator[Result]:
        """Page by page, oldest first. What was decided already matches no more, so the same command goes on after a stop."""
        pace = _Pace(self.wish.given["throttle"])
        last: int | None = 0
        while last is not None and left > 0:
            page = dataclasses.replace(bounds, oldest_first=True, after_id=last, limit=min(PAGE, left))
            ids = [row.application_id for row in await order.spool.find(page)]
            for start in range(0, len(ids), pace.at_once):
                await pace.wait()
                some = ids[start : start + pace.at_once]
                for result in await asyncio.gather(*(result_of(order, each, self.wish.work) for each in some)):
                    yield _unless_unavailable(result)
            left -= len(ids)
            last = ids[-1] if ids else None

    def _tell(self, number: int, matched: int, tally: _Tally) -> None:
        if self.wish.given["as_json"]:
            shape = {"order_id": number, "matched": matched, "done": tally.done, "refused": tally.refused}
            print_json({**shape, "first_refused": tally.first})
            return
        for result in tally.first:
            tell(result)
        rest = f", {tally.refused} could not be" if tally.refused else ""
        say(f"{self.wish.command}: done for {tally.done} of {_applications(matched)}{rest} (order {number})")


def _unless_unavailable(result: Result) -> Result:
    """With the spool away nothing else would go better; raised, so that it ends here."""
    if result.exit_code == 69:
        raise SpoolUnavailable(f"{result.text}; stopped at application {result.application_id}, give the command again")
    return result


def _applications(count: int) -> str:
    return f"{count} application{'' if count == 1 else 's'}"


def _progress(what: str) -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


class _Pace:
    """Keeps to a rate, one after the other; without one, several at a time."""

    def __init__(self, rate: Rate | None) -> None:
        self._gap = rate.seconds / rate.count if rate else 0.0
        self.at_once = 1 if rate else AT_ONCE
        self._next = time.monotonic()

    async def wait(self) -> None:
        """Returns when the next may begin."""
        await asyncio.sleep(max(0.0, self._next - time.monotonic()))
        self._next = max(self._next, time.monotonic()) + self._gap
