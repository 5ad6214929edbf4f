"""`list`: which applications there are, newest first, and what is not handed off or reported at present."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from apptrack_ingest.cli.common import config_option, errors_as_exit_codes, json_option, out, run, spool_of
from apptrack_ingest.cli.selecting import ID, filter_of, selection
from apptrack_ingest.cli.showing import STYLES, local, print_json, print_table, say, standing, text, who
from apptrack_ingest.model import Backlog, ReportState, Stage, State
from apptrack_ingest.settings import Settings, accounts_without_hash
from apptrack_ingest.spool.contract import Filter, Pause, Spool, Summary, rest_mark

NO_NEWS = 24 * 3600.0
"""Seconds after its time for which it is believed that an ATS is away still: then nobody tries it, for whatever reason."""


@dataclass(frozen=True, slots=True)
class Page:
    """What `list` shows; `more` says that older applications match too."""

    rows: list[Summary]
    more: bool
    without_hash: list[str]
    pauses: list[Pause]
    resting: dict[str, float]
    """Before when nothing is handed off, by account: those whose ATS a worker found to be away."""
    notes: list[str]


@click.command("list", short_help="List applications, newest first.")
@config_option
@selection()
@click.option("--before", type=ID, metavar="ID", help="Only ids below this one: the next page.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@json_option
@errors_as_exit_codes
def list_applications(config: Path | None, before: int | None, limit: int, as_json: bool, **given: Any) -> None:
    """List applications, newest first, and say what is not handed off or reported at present.

    --state, --held-reason and --report-state can be given several times; any of the values then fits.
    """
    page = run(_page(config, filter_of(given, before_id=before, limit=limit + 1)))
    if as_json:
        _print_json(page)
    else:
        _print(page)


async def _page(config: Path | None, wanted: Filter) -> Page:
    """One more than wanted is asked for, to know whether there are more."""
    async with spool_of(config) as (spool, found):
        rows = await spool.find(wanted)
        now = time.time()
        pauses = in_force(await spool.pauses(), now)
        backlog = await spool.backlog()
        resting = await _resting(spool, backlog, now)
    notes = [*not_handed_off(backlog, pauses, resting, now), *unreported(found, backlog, pauses)]
    keep = wanted.limit - 1
    return Page(rows[:keep], len(rows) > keep, accounts_without_hash(found), pauses, resting, notes)


async def _resting(spool: Spool, backlog: Backlog, now: float) -> dict[str, float]:
    """`rests` of the accounts of which something waits."""
    waiting = sorted(account for (account, state) in backlog.applications if account and state is State.RECEIVED)
    found = {account: await rests(spool, account, now) for account in waiting}
    return {account: until for account, until in found.items() if until is not None}


async def rests(spool: Spool, account: str | None, now: float) -> float | None:
    """Before when nothing of an account is handed off because its ATS is away, where it is; that may be past already."""
    until = await spool.mark(rest_mark(account)) if account else None
    return until if until and now < until + NO_NEWS else None


def in_force(pauses: list[Pause], now: float) -> list[Pause]:
    """Without those of people whose time is up; our own last until idibu has confirmed a report."""
    return [pause for pause in pauses if not (pause.actor and pause.over(now))]


def unreported(found: Settings, backlog: Backlog, pauses: list[Pause]) -> Iterator[str]:
    """What idibu is not told at present, and why, in sentences."""
    due = {account: count for (account, state), count in backlog.reports.items() if state is ReportState.DUE}
    for account in accounts_without_hash(found):
        yield f"account {account} has no hash: {_reports(due.get(account, 0))}; set accounts.{account}.hash_file"
    for account in sorted(due):
        known = found.known_accounts.get(account)
        if known is None:
            yield f"account {account} is not in the settings: {_reports(due[account])}"
        elif not known.reporting:
            yield f"reporting of account {account} is off: {_reports(due[account])}"
    for pause in (each for each in pauses if each.stage is Stage.REPORT):
        yield f"{_pause(pause)}: {_reports(due.get(pause.account, 0))}; {goes_on(pause)}"


def not_handed_off(backlog: Backlog, pauses: list[Pause], resting: Mapping[str, float], now: float) -> Iterator[str]:
    """What is not handed off at present, and why, in sentences."""
    for pause in (each for each in pauses if each.stage is Stage.HAND_OFF):
        yield f"{_pause(pause)}: {_waiting(backlog, pause.account)}; {goes_on(pause)}"
    stopped = {pause.account for pause in pauses if pause.stage is Stage.HAND_OFF}
    for account, until in resting.items():
        if account not in stopped:
            yield f"{is_away(account, until, now)}: {_waiting(backlog, account)}"


def _waiting(backlog: Backlog, account: str) -> str:
    waiting = backlog.applications.get((account, State.RECEIVED), 0)
    return f"{waiting} application{'' if waiting == 1 else 's'} waiting"


def is_away(account: str, until: float, now: float) -> str:
    """What is to be known of an account whose ATS was away when it was last tried."""
    away = f"the ATS of account {account} is away or asked for a rest"
    if until > now:
        return f"{away}; nothing is handed off before {local(until)}"
    return f"{away}, as far as is known; single hand-offs are tried until it answers"


def _pause(pause: Pause) -> str:
    what = "reporting" if pause.stage is Stage.REPORT else "hand-off"
    by = f" by {pause.actor}" if pause.actor else ""
    why = f" ({pause.reason})" if pause.reason else ""
    return f"{what} of account {pause.account} is paused since {local(pause.since)}{by}{why}"


def goes_on(pause: Pause) -> str:
    """When and by what a pause ends."""
    command = f"`resume {pause.account}{' --reporting' if pause.stage is Stage.REPORT else ''}`"
    if pause.until is None:
        return f"goes on with {command}"
    if pause.actor:
        return f"goes on at {local(pause.until)}, or with {command}"
    return f"tried again at {local(pause.until)}, with {command}, or as soon as its hash is changed"


def _reports(count: int) -> str:
    return f"idibu is told nothing, {count} report{'' if count == 1 else 's'} waiting"


def _print(page: Page) -> None:
    if page.rows:
        print_table(table_of(page.rows, time.time()))
    else:
        out.print("nothing found")
    if page.more:
        say(f"there are more: add --before {page.rows[-1].application_id}")
    for note in page.notes:
        say(f"note: {note}")


def table_of(rows: Sequence[Summary], now: float) -> Table:
    """Applications as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("id", "received", "account", "applicant id"):
        table.add_column(header, no_wrap=True)
    table.add_column("candidate", overflow="fold", max_width=48)
    table.add_column("client reference", overflow="fold", max_width=36)
    table.add_column("state", overflow="fold")
    table.add_column("report", no_wrap=True)
    table.add_column("remote id", overflow="fold", max_width=40)
    for row in rows:
        table.add_row(
            text(row.application_id),
            text(local(row.received_at)),
            text(row.account),
            text(row.applicant_id),
            text(who(row.facts.candidate_name, row.facts.candidate_email)[:200]),
            text((row.facts.client_reference or "")[:200]),
            text(standing(row, now), STYLES.get(row.state, "")),
            text(row.report),
            text(row.remote_id),
        )
    return table


def _print_json(page: Page) -> None:
    print_json(
        {
            "applications": page.rows,
            "next_before": page.rows[-1].application_id if page.more else None,
            "accounts_without_hash": page.without_hash,
            "paused": [pause_shape(pause) for pause in page.pauses],
            "resting": [{"account": account, "until": until} for account, until in page.resting.items()],
            "notes": page.notes,
        }
    )


def pause_shape(pause: Pause) -> dict[str, object]:
    """A pause for programs."""
    names = ("account", "stage", "reason", "actor", "since", "until")
    return {name: getattr(pause, name) for name in names}


COMMANDS = (list_applications,)
"""Commands."""
