"""`list`: which applications there are, newest first, and what idibu is not told at present."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from apptrack_ingest.cli.common import config_option, errors_as_exit_codes, json_option, out, run, spool_of
from apptrack_ingest.cli.showing import STYLES, local, print_json, print_table, say, standing, text, who
from apptrack_ingest.model import Backlog, HeldReason, ReportState, State
from apptrack_ingest.settings import Settings, accounts_without_hash
from apptrack_ingest.spool.contract import Filter, Pause, Summary

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


def since(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Epoch seconds of `90m`, `2h`, `7d`, `1w` ago, or of a date with or without a time, local unless it names a zone."""
    if value is None:
        return None
    if age := re.fullmatch(r"(\d{1,9})([smhdw])", value.strip()):
        return time.time() - int(age[1]) * _UNITS[age[2]]
    try:
        return datetime.fromisoformat(value.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{value!r} is neither an age like 2h or 7d nor a date like 2026-03-02") from None


@dataclass(frozen=True, slots=True)
class Page:
    """What `list` shows; `more` says that older applications match too."""

    rows: list[Summary]
    more: bool
    without_hash: list[str]
    pauses: list[Pause]
    notes: list[str]


@click.command("list", short_help="List applications, newest first.")
@config_option
@click.option("--state", "states", multiple=True, type=click.Choice([s.value for s in State]), help="Only this state.")
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    type=click.Choice([r.value for r in HeldReason]),
    help="Only those held for this reason.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Choice([r.value for r in ReportState]),
    help="Only those whose newest report to idibu is in this state.",
)
@click.option("--account", help="Only this account.")
@click.option("--applicant-id", type=ID, help="Only this applicant (X-iTrackID).")
@click.option("--client-reference", help="Only this client reference.")
@click.option("--candidate", metavar="TEXT", help="Only where this is part of the candidate's name or address.")
@click.option("--since", metavar="AGE|DATE", callback=since, help="Only since: 2h, 7d, or a date like 2026-03-02.")
@click.option("--before", type=ID, metavar="ID", help="Only ids below this one: the next page.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@json_option
@errors_as_exit_codes
def list_applications(
    config: Path | None,
    states: tuple[str, ...],
    reasons: tuple[str, ...],
    reports: tuple[str, ...],
    before: int | None,
    limit: int,
    as_json: bool,
    **narrowed: Any,
) -> None:
    """List applications, newest first, and say what idibu is not told at present.

    --state, --reason and --report can be given several times; any of the values then fits.
    """
    wanted = Filter(
        states=tuple(map(State, states)),
        reasons=tuple(map(HeldReason, reasons)),
        report_states=tuple(map(ReportState, reports)),
        before_id=before,
        limit=limit + 1,
        **narrowed,
    )
    page = run(_page(config, wanted))
    if as_json:
        _print_json(page)
    else:
        _print(page)


async def _page(config: Path | None, wanted: Filter) -> Page:
    """One more than wanted is asked for, to know whether there are more."""
    async with spool_of(config) as (spool, found):
        rows = await spool.find(wanted)
        pauses = await spool.pauses()
        notes = list(unreported(found, await spool.backlog(), pauses))
    keep = wanted.limit - 1
    return Page(rows[:keep], len(rows) > keep, accounts_without_hash(found), pauses, notes)


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
    for pause in pauses:
        yield (
            f"reporting of account {pause.account} is paused since {local(pause.since)} ({pause.reason}):"
            f" {_reports(due.get(pause.account, 0))}; tried again at {local(pause.until)}, or as soon as its hash is changed"
        )


def _reports(count: int) -> str:
    return f"idibu is told nothing, {count} report{'' if count == 1 else 's'} waiting"


def _print(page: Page) -> None:
    if page.rows:
        print_table(_table(page.rows, time.time()))
    else:
        out.print("nothing found")
    if page.more:
        say(f"there are more: add --before {page.rows[-1].application_id}")
    for note in page.notes:
        say(f"note: {note}")


def _table(rows: list[Summary], now: float) -> Table:
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
            "paused": [
                {"account": p.account, "reason": p.reason, "since": p.since, "until": p.until} for p in page.pauses
            ],
            "notes": page.notes,
        }
    )


COMMANDS = (list_applications,)
"""Commands."""
