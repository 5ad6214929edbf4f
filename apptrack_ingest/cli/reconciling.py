"""`reconcile`: holds the ledger and what idibu shows against each other, and tells idibu again what it lost."""

import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from apptrack_ingest import reconcile as reconciling
from apptrack_ingest.cli.common import (
    FAILED,
    actor,
    config_option,
    err,
    errors_as_exit_codes,
    json_option,
    run,
    spool_of,
)
from apptrack_ingest.cli.many import throttle
from apptrack_ingest.cli.orders import known_account
from apptrack_ingest.cli.selecting import moment
from apptrack_ingest.cli.showing import iso, local, print_json, print_table, safe, say, text
from apptrack_ingest.errors import IdibuUnauthorized, NotAllowed
from apptrack_ingest.idibu.http import Http
from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.reconcile import FIXABLE, MEANING, WRONG, Account, Kind, Looked, Pace
from apptrack_ingest.service.reconciling import accounts_of
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Order, Spool
from apptrack_ingest.worker import SystemClock

SHOWN, SHOWN_TO_PROGRAMS = 20, 1000
"""Findings of each kind, by account, that are told one by one; the rest are counted."""


@click.command()
@config_option
@click.option("--account", help="Only this account; without it all that are reported for and have a hash.")
@click.option(
    "--since",
    metavar="AGE|DATE",
    default="7d",
    show_default=True,
    callback=moment,
    help="What was received, or touched at idibu, since: 2h, 30d, or a date like 2026-03-02.",
)
@click.option("--fix", is_flag=True, help="Tell idibu again what is missing there, different, refused or failed.")
@click.option("--dry-run", is_flag=True, help="With --fix: only show what would be told again.")
@click.option(
    "--throttle", metavar="RATE", callback=throttle, help="At most so many requests in a time: 10/s (the usual), 60/1m."
)
@json_option
@errors_as_exit_codes
def reconcile(
    config: Path | None,
    account: str | None,
    since: float,
    fix: bool,
    dry_run: bool,
    throttle: Rate | None,
    as_json: bool,
) -> None:
    """Hold the ledger, idibu's statuses and, where it may be asked for, idibu's list of applicants against each other.

    Nothing is changed without --fix, which makes our newest outcomes due again where idibu shows none, or another; a running
    `serve` sends them. It never touches what we did not handle, nor an outcome that a newer one replaced, and may be stopped
    and given again at any time. Exit code 1: something is left that a person should look at, or idibu could not be asked.
    """
    if dry_run and not fix:
        raise click.UsageError("--dry-run goes with --fix; without --fix nothing is changed anyway")
    wish = _Wish(account, since, fix, dry_run, throttle or reconciling.USUAL_PACE, as_json)
    sys.exit(run(wish.carry_out(config)))


@dataclass(frozen=True, slots=True)
class _Told:
    """What came of one account: what was found, and how many reports are due again, or need not be."""

    looked: Looked
    again: int = 0
    overtaken: int = 0

    @property
    def wrong(self) -> bool:
        """Whether a person should look."""
        settled = FIXABLE if self.again + self.overtaken else frozenset()
        return self.looked.error is not None or any(self.looked.counts[kind] for kind in WRONG - settled)


@dataclass(slots=True)
class _Wish:
    """What was asked for on the command line."""

    account: str | None
    since: float
    fix: bool
    dry_run: bool
    rate: Rate
    as_json: bool
    clock: SystemClock = field(default_factory=SystemClock)

    async def carry_out(self, config: Path | None) -> int:
        """Looks at each account, puts right, tells; returns the exit code."""
        async with spool_of(config) as (spool, found):
            http = Http()
            try:
                accounts = self._accounts(found, http)
                told = [await self._one(spool, account) for account in accounts]
            finally:
                await http.close()
        left_out = (
            sorted(set(found.known_accounts) - {account.name for account in accounts}) if not self.account else []
        )
        if self.as_json:
            print_json({"since": iso(self.since), "accounts": [_shape(one) for one in told], "left_out": left_out})
        else:
            _say(told, left_out, self)
        return FAILED if any(one.wrong for one in told) else 0

    def _accounts(self, found: Settings, http: Http) -> list[Account]:
        """Raises NotFound for an account that is not there, NotAllowed where none can be asked about."""
        if self.account is None:
            accounts = accounts_of(found, http)
            if not accounts:
                raise NotAllowed("no account is both reported for and has a hash: there is nothing to ask idibu about")
            return accounts
        own = found.known_accounts[known_account(found, self.account)]
        if not own.reporting:
            raise NotAllowed(f"account {self.account} is not reported for (reporting = false): idibu was told nothing")
        if own.hash is None:
            raise NotAllowed(f"account {self.account} has no hash to ask idibu with; set its hash_file")
        return accounts_of(found, http, [self.account])

    async def _one(self, spool: Spool, account: Account) -> _Told:
        with _progress() as bar:
            task = bar.add_task(f"{account.name}: looking", total=None)

            async def step() -> None:
                bar.advance(task)

            looked = await self._look(spool, account, step)
        # Where not all could be looked at, nothing is put right: the same command does both once idibu can be asked.
        if not self.fix or self.dry_run or looked.error is not None or not looked.fixable:
            return _Told(looked)
        return await self._put_right(spool, looked)

    async def _look(self, spool: Spool, account: Account, step: Callable[[], Awaitable[None]]) -> Looked:
        return await reconciling.look(
            spool,
            account,
            since=self.since,
            clock=self.clock,
            pace=Pace(self.rate, self.clock),
            most=SHOWN_TO_PROGRAMS if self.as_json else SHOWN,
            step=step,
        )

    async def _put_right(self, spool: Spool, looked: Looked) -> _Told:
        """An order in the history, as all that is done about more than one application."""
        order = Order("reconcile", actor(), looked.account, f"--since {iso(looked.since)} --fix")
        number = await spool.begin_order(order, now=time.time())
        again = overtaken = 0
        with _progress() as bar:
            task = bar.add_task(f"{looked.account}: telling again", total=len(looked.fixable))
            pace = Pace(self.rate, self.clock)
            async for fixed in reconciling.fix(spool, looked.fixable, actor=actor(), clock=self.clock, pace=pace):
                again, overtaken = again + (not fixed.overtaken), overtaken + fixed.overtaken
                bar.advance(task)
        await spool.end_order(number, done=again, refused=overtaken, now=time.time())
        return _Told(looked, again, overtaken)


# --- telling ---------------------------------------------------------------------------------------------------------


def _say(told: list[_Told], left_out: list[str], wish: _Wish) -> None:
    for one in told:
        _say_account(one, wish)
    found = {kind for one in told for kind in one.looked.counts}
    for kind in Kind:
        if kind in found:
            say(f"{kind.value}: {MEANING[kind]}")
    if left_out:
        say(f"left out, without a hash or not reported for: {', '.join(left_out)}")


def _say_account(told: _Told, wish: _Wish) -> None:
    looked = told.looked
    counted = ", ".join(f"{looked.counts[kind]} {kind.value}" for kind in Kind if looked.counts[kind])
    extent = f"{looked.statuses} statuses and {looked.outcomes} outcomes since {local(looked.since)}"
    if looked.shown:
        print_table(_table(looked))
    if looked.error is None:
        say(f"{looked.account}: {counted or 'ledger and idibu agree'} ({extent})")
    else:
        err.print(f"{looked.account}: error: {safe(_sentence(looked))}", markup=False)
        say(f"{looked.account}: {counted or 'nothing found'} until then ({extent})")
    if looked.unavailable:
        say(
            f"{looked.account}: idibu's list of applicants could not be had ({looked.unavailable}); whether mails never came"
            " is not known"
        )
    if told.again or told.overtaken:
        rest = f"; {told.overtaken} need not be, they are on their way or replaced" if told.overtaken else ""
        say(f"{looked.account}: {told.again} due again, a running `serve` sends them{rest}")
    elif wish.dry_run:
        say(f"{looked.account}: {len(looked.fixable)} would be told again")


def _sentence(looked: Looked) -> str:
    if isinstance(looked.error, IdibuUnauthorized):
        return f"idibu does not accept its hash ({looked.error.detail}); correct hash or hash_file"
    detail = looked.error.detail if looked.error else ""
    return f"idibu could not be asked to the end ({detail}); give the command again, nothing was changed"


def _table(looked: Looked) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("finding", "applicant", "application", "here", "at idibu"):
        table.add_column(name, no_wrap=name not in ("here", "at idibu"), overflow="fold")
    for one in looked.shown:
        style = "red" if one.kind in WRONG else ""
        cells = (one.applicant_id, one.application_id, one.ours, one.theirs)
        table.add_row(text(one.kind.value, style), *(text(cell) for cell in cells))
    return table


def _shape(told: _Told) -> dict[str, Any]:
    looked = told.looked
    return {
        "account": looked.account,
        "statuses": looked.statuses,
        "outcomes": looked.outcomes,
        "applicants": looked.applicants,
        "applicants_unavailable": looked.unavailable or None,
        "error": _sentence(looked) if looked.error else None,
        "findings": {kind.value: looked.counts[kind] for kind in Kind},
        "shown": [{**_record(one), "meaning": MEANING[one.kind]} for one in looked.shown],
        "fixable": len(looked.fixable),
        "told_again": told.again,
        "overtaken": told.overtaken,
    }


def _record(one: reconciling.Finding) -> dict[str, Any]:
    names = ("applicant_id", "application_id", "report_id", "ours", "theirs")
    return {"finding": one.kind.value, **{name: getattr(one, name) for name in names}}


def _progress() -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


COMMANDS = (reconcile,)
