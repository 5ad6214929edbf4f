"""`pause`, `resume` and `pauses`: an account's hand-off or its reporting at rest, while its mail is received as before."""

import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from apptrack_ingest.cli.common import actor, config_option, errors_as_exit_codes, json_option, out, run, spool_of
from apptrack_ingest.cli.listing import goes_on, in_force, pause_shape
from apptrack_ingest.cli.orders import known_account
from apptrack_ingest.cli.selecting import seconds_of
from apptrack_ingest.cli.showing import local, print_json, print_table, say, text
from apptrack_ingest.errors import NotAllowed
from apptrack_ingest.model import Backlog, ReportState, Stage, State
from apptrack_ingest.spool.contract import Pause

reporting_option = click.option("--reporting", is_flag=True, help="Its reports to idibu instead of its hand-offs.")


def a_time(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Epoch seconds of so long from now."""
    if value is None:
        return None
    if (seconds := seconds_of(value)) is None:
        raise click.BadParameter(f"{value!r} is no length of time like 90m, 2h or 7d")
    return time.time() + seconds


def stage_of(reporting: bool) -> Stage:
    """What is meant."""
    return Stage.REPORT if reporting else Stage.HAND_OFF


WHAT = {Stage.HAND_OFF: "hand-off", Stage.REPORT: "reporting"}
"""The stages in a sentence."""


@click.command(short_help="Let an account's hand-offs or reports rest.")
@click.argument("account")
@reporting_option
@click.option("--for", "until", metavar="TIME", callback=a_time, help="For so long: 90m, 2h, 7d; else until `resume`.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the history.")
@config_option
@errors_as_exit_codes
def pause(account: str, reporting: bool, until: float | None, reason: str, config: Path | None) -> None:
    """Let the hand-offs of ACCOUNT rest, or with --reporting its reports to idibu.

    Mail for it is received as before and waits. What is under way ends by itself. A pause that is there already is changed.
    """
    if not reason.strip():
        raise click.UsageError("--reason must say why")
    wanted = Pause(account, stage_of(reporting), reason, time.time(), until, actor=actor())
    run(_pause(config, wanted))
    say(f"{WHAT[wanted.stage]} of account {account} is paused: {goes_on(wanted)}")


async def _pause(config: Path | None, wanted: Pause) -> None:
    async with spool_of(config) as (spool, found):
        known_account(found, wanted.account)
        await spool.pause(wanted)


@click.command(short_help="Let an account's hand-offs or reports go on.")
@click.argument("account")
@reporting_option
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the history.")
@config_option
@errors_as_exit_codes
def resume(account: str, reporting: bool, reason: str, config: Path | None) -> None:
    """Let the hand-offs of ACCOUNT go on, or with --reporting its reports, with their whole retry schedule before them.

    That ends any pause, also one that apptrack-ingest made because idibu does not accept the account's hash: it is tried
    at once, and paused again where the hash is still wrong.
    """
    stage = stage_of(reporting)
    run(_resume(config, account, stage, reason))
    say(f"{WHAT[stage]} of account {account} goes on")


async def _resume(config: Path | None, account: str, stage: Stage, reason: str) -> None:
    async with spool_of(config) as (spool, found):
        if await spool.resume(account, stage, now=time.time(), actor=actor(), note=reason):
            return
        others = [each for each in await spool.pauses() if each.account == account]
        if not others:
            known_account(found, account)
        hint = f"; its {WHAT[others[0].stage]} is: {goes_on(others[0])}" if others else ""
        raise NotAllowed(f"{WHAT[stage]} of account {account} is not paused{hint}")


# --- looking ---------------------------------------------------------------------------------------------------------


@click.command(short_help="What is paused, by whom and why.")
@config_option
@json_option
@errors_as_exit_codes
def pauses(config: Path | None, as_json: bool) -> None:
    """Show what is paused: since when, until when, by whom and why, and how much waits."""
    found, backlog = run(_pauses(config))
    if as_json:
        print_json([{**pause_shape(each), "waiting": waiting(each, backlog)} for each in found])
    elif found:
        print_table(_table(found, backlog))
    else:
        out.print("nothing is paused")


async def _pauses(config: Path | None) -> tuple[list[Pause], Backlog]:
    async with spool_of(config) as (spool, _):
        return in_force(await spool.pauses(), time.time()), await spool.backlog()


def waiting(each: Pause, backlog: Backlog) -> int:
    """How much waits for its end."""
    if each.stage is Stage.REPORT:
        return backlog.reports.get((each.account, ReportState.DUE), 0)
    return backlog.applications.get((each.account, State.RECEIVED), 0)


def _table(found: list[Pause], backlog: Backlog) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("account", "stage", "since", "until", "by", "waiting"):
        table.add_column(header, no_wrap=True)
    table.add_column("why", overflow="fold")
    for each in found:
        row: list[Any] = [each.account, each.stage, local(each.since), _until(each), each.actor or "apptrack-ingest"]
        table.add_row(*map(text, (*row, waiting(each, backlog), each.reason)))
    return table


def _until(each: Pause) -> str:
    if each.until is None:
        return "told"
    return local(each.until) if each.actor else f"tried again {local(each.until)}"


COMMANDS = (pause, resume, pauses)
"""Commands."""
