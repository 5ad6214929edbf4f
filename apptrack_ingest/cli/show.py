"""`show`: all that is known of one application."""

import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.table import Table

from apptrack_ingest.cli.common import config_option, errors_as_exit_codes, json_option, out, run, spool_of
from apptrack_ingest.cli.listing import in_force, rests
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.showing import STYLES, print_json, print_table, say, shape, standing, text, who, zoned
from apptrack_ingest.cli.story import timeline, what_is_next
from apptrack_ingest.spool.contract import Story


@dataclass(frozen=True, slots=True)
class Told:
    """A story, what comes next, and when that was looked up."""

    story: Story
    following: list[str]
    now: float


@click.command(short_help="Show the whole story of one application.")
@click.argument("application_id", metavar="ID", type=ID)
@config_option
@json_option
@errors_as_exit_codes
def show(application_id: int, config: Path | None, as_json: bool) -> None:
    """Show the whole story of application ID: what the mail said, every attempt, report and decision, and what is next."""
    told = run(_told(config, application_id))
    if as_json:
        print_json({**shape(told.story), "timeline": timeline(told.story), "next": told.following})
    else:
        _print(told)


async def _told(config: Path | None, application_id: int) -> Told:
    async with spool_of(config) as (spool, found):
        story = await spool.story(application_id)
        now, account = time.time(), story.summary.account
        pauses, resting = in_force(await spool.pauses(), now), await rests(spool, account, now)
        return Told(story, what_is_next(story, found, pauses, resting, now), now)


def _print(told: Told) -> None:
    summary = told.story.summary
    heading = text(f"Application {summary.application_id}: ", "bold")
    out.print(heading.append_text(text(standing(summary, told.now), STYLES.get(summary.state, "bold"))))
    _print_pairs(_facts(told.story))
    out.print("\n[bold]What happened[/]")
    _print_pairs([(zoned(entry.at), f"{entry.kind:15} {entry.text}") for entry in timeline(told.story)])
    out.print("\n[bold]What is next[/]")
    for line in told.following:
        say(f"  {line}")


def _print_pairs(pairs: list[tuple[str, object]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(f"  {name}", text(value))
    print_table(table)


def _facts(story: Story) -> list[tuple[str, object]]:
    summary, facts = story.summary, story.summary.facts
    erased = "erased by retention or `forget`" if story.erased else ""
    pairs: list[tuple[str, object]] = [
        ("account", summary.account),
        ("applicant id", summary.applicant_id),
        ("candidate", who(facts.candidate_name, facts.candidate_email) or erased),
        ("client reference", facts.client_reference),
        ("job", facts.job_title),
        ("portal", facts.portal_name),
        ("remote id", summary.remote_id),
        ("attempts", summary.attempts),
        ("envelope from", story.sender or erased or "<> (a bounce)"),
        ("envelope to", ", ".join(story.recipients) or erased),
        ("peer", f"{story.peer} ({story.helo})" if story.helo else story.peer),
        ("trusted", f"{'yes' if story.trusted else 'no'}: {story.trust_note}"),
        *(("found out", line) for line in story.evidence),
        ("message", f"{summary.message_id}, {story.size} bytes, {erased or 'kept'}"),
        ("sha256", story.sha256),
        ("content digest", facts.content_digest),
    ]
    warnings = (*story.message_warnings, *facts.warnings)
    return pairs + [("warning", warning) for warning in warnings]


COMMANDS = (show,)
"""Commands."""
