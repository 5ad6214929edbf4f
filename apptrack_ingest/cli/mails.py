"""`reparse` and `export`: commands on the mail itself, as it was received."""

import dataclasses
import os
import sys
from pathlib import Path

import click

from apptrack_ingest.cli.common import config_option, err, errors_as_exit_codes, run, spool_of
from apptrack_ingest.cli.orders import Order, believed, carry_out, for_each_id, vouched
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.showing import safe
from apptrack_ingest.errors import IngestError, NotFound
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool.contract import Facts, Story
from apptrack_ingest.worker.application import facts_of

MENDED_BY_READING = (HeldReason.UNREADABLE, HeldReason.NO_APPLICANT_ID, HeldReason.INVALID_APPLICANT_ID)
"""Reasons to be held that a newer release may find gone."""

# --- reparse ---------------------------------------------------------------------------------------------------------


@click.command(short_help="Read mails again with this release.")
@for_each_id
def reparse(ids: tuple[int, ...], config: Path | None, as_json: bool) -> None:
    """Read mails again with this release and keep what they say; shows what changed.

    An application held because its mail could not be read, or showed no usable applicant id, goes back to work if it
    can be read now. Nothing is handed over again otherwise: for that there is `retry`.
    """
    carry_out(config, ids, as_json, "reparse", _reparse)


async def _reparse(order: Order, application_id: int) -> str:
    story = await order.spool.story(application_id)
    summary = story.summary
    parsed = await order.parser.parse(await order.raw(story))
    # An id once believed stays: another one would be another applicant, whom a person must name (`route`).
    # That of an attached mail is the worker's to judge, by its signature: here it is believed only if a person vouched.
    counts = vouched(story) if parsed.inner is not None else believed(story)
    found = parsed.applicant_id if summary.applicant_id is None and counts else None
    facts = facts_of(parsed)
    await order.spool.update_facts(application_id, facts, found)
    changes = _changes(summary.facts, facts) + ([f"applicant_id: - -> {found}"] if found is not None else [])
    told = "; ".join(changes) or "nothing changed"
    if _is_mended(story, found, attached=parsed.inner is not None):
        await order.act(story, Event.RETRY)
        told += "; its hand-off is tried again"
    return told


def _is_mended(story: Story, found: int | None, *, attached: bool) -> bool:
    summary = story.summary
    if summary.state is not State.HELD or summary.reason not in MENDED_BY_READING:
        return False
    return summary.applicant_id is not None or found is not None or attached


def _changes(before: Facts, now: Facts) -> list[str]:
    return [
        f"{field.name}: {_value(old)} -> {_value(new)}"
        for field in dataclasses.fields(Facts)
        if (old := getattr(before, field.name)) != (new := getattr(now, field.name))
    ]


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return "-" if value is None else str(value)


# --- export ----------------------------------------------------------------------------------------------------------


@click.command(short_help="Write the mail as received (.eml).")
@click.argument("application_id", metavar="ID", type=ID)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="The file to write, readable by you alone; without it, or with -, standard output.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@config_option
@errors_as_exit_codes
def export(application_id: int, output: Path | None, force: bool, config: Path | None) -> None:
    """Write the mail of application ID as it was received (.eml), with our Received header on top."""
    to_file = output is not None and str(output) != "-"
    if not to_file and sys.stdout.isatty():
        raise click.UsageError(
            "a mail may hold anything, so none is written to a terminal: give -o FILE, or use a pipe"
        )
    raw = run(_raw(config, application_id))
    if output is not None and to_file:
        _write(output, raw, force)
        err.print(f"{len(raw)} bytes written to {safe(output)}", markup=False)
    else:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()


async def _raw(config: Path | None, application_id: int) -> bytes:
    async with spool_of(config) as (spool, _):
        story = await spool.story(application_id)
        if story.erased:
            raise NotFound(f"application {application_id}: its mail was erased by retention or `forget`")
        return await spool.raw(story.summary.message_id)


def _write(path: Path, raw: bytes, force: bool) -> None:
    """Writes a new file that nobody else can read, whole or not at all; with `force` in the place of an old one."""
    new = path.with_name(f".{path.name}.{os.getpid()}") if force else path
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise IngestError(f"{new} exists; --force replaces it") from None
    except OSError as error:
        raise IngestError(f"{new} cannot be made: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        if force:
            new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise IngestError(f"{path} cannot be written: {error.strerror}") from None


COMMANDS = (reparse, export)
"""Commands."""
