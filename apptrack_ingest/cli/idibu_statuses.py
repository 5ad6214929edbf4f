"""`idibu status`: what idibu holds of applicants, and putting one right by hand."""

import re
from collections.abc import Sequence
from datetime import datetime

import click

from apptrack_ingest.cli.idibu_asking import Asking, Whose, asks
from apptrack_ingest.cli.idibu_pages import first, page_of, paged
from apptrack_ingest.cli.idibu_showing import print_facts, print_rows, record
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.showing import print_json, say
from apptrack_ingest.errors import NotFound
from apptrack_ingest.idibu import Addressing, ApplicantStatus, Client, IdibuRefused, ReportStatus, StatusUpdate

_NOT_THERE = re.compile(r"\b(applicant|candidate|status)\b.{0,40}\b(not found|not exist|unknown)\b", re.IGNORECASE)
"""Assumed: no document shows what idibu says of an applicant that it holds nothing of."""


@click.group("status", short_help="What idibu holds of applicants.")
def status() -> None:
    """What idibu holds of the account's applicants: success or fail, the remote id, the error message."""


@status.command("get")
@click.argument("applicant_id", type=ID)
@click.option(
    "--addressing",
    type=click.Choice([one.value for one in Addressing]),
    default=Addressing.PATH.value,
    show_default=True,
    help="How the applicant is named: in the path (older documents), or as ?id= in the query (later ones).",
)
@asks(Whose.ACCOUNT)
def get_status(asking: Asking, applicant_id: int, addressing: str) -> None:
    """Show what idibu holds of APPLICANT_ID (its X-iTrackID)."""

    async def held(client: Client) -> ApplicantStatus | None:
        try:
            return await client.get_status(applicant_id, Addressing(addressing))
        except IdibuRefused as error:
            if _NOT_THERE.search(error.detail):
                return None
            raise

    one = asking.ask(held)
    if one is None:
        raise NotFound(f"idibu holds no status of applicant {applicant_id}")
    if asking.as_json:
        print_json(record(one))
        return
    print_facts(
        [
            ("applicant", one.id),
            ("status", one.status.value),
            ("remote id", one.remote_id),
            ("error message", one.error_message),
            ("processed", one.date_processed),
            ("created", one.date_created),
            ("modified", one.date_modified),
        ]
    )


@status.command("list")
@click.option("--remote-id", metavar="PATTERN", help="Only with this remote id; * stands for any text.")
@paged
@asks(Whose.ACCOUNT)
def list_statuses(asking: Asking, remote_id: str | None, offset: int, limit: int) -> None:
    """List what idibu holds of the account's applicants, in idibu's order."""
    if remote_id is not None and offset:
        raise click.UsageError("--offset does not go with --remote-id: idibu's document has no pages there")
    page = page_of(limit)
    if remote_id is None:
        listed = asking.ask(lambda client: first(limit + 1, client.statuses(offset, page)))
    else:
        listed = asking.ask(lambda client: first(limit + 1, client.by_remote_id(remote_id, page)))
    more = len(listed) > limit
    if asking.as_json:
        print_json({"applicants": record(listed[:limit]), "next_offset": offset + limit if more else None})
    else:
        _print(listed[:limit], (f"add --offset {offset + limit}" if remote_id is None else "raise --limit") * more)


def _print(listed: Sequence[ApplicantStatus], how_to_go_on: str) -> None:
    if not listed:
        say("idibu holds nothing")
        return
    rows = [(one.id, one.status.value, one.remote_id, one.date_processed, one.error_message) for one in listed]
    headers = ("applicant id", "status", "remote id", "processed", "error message")
    print_rows(headers, rows, folding=("remote id", "error message"))
    if how_to_go_on:
        say(f"there are more: {how_to_go_on}")


@status.command("set")
@click.argument("applicant_id", type=ID)
@click.argument("outcome", metavar="success|fail", type=click.Choice([one.value for one in ReportStatus]))
@click.option("--remote-id", metavar="ID", help="The candidate's id in the ATS.")
@click.option("--error-message", metavar="TEXT", help="Why it failed; needed with fail.")
@click.option(
    "--date",
    "date_processed",
    type=click.DateTime(["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]),
    help="When it was processed, written to idibu as it is given; without it idibu takes its current date.",
)
@asks(Whose.ACCOUNT, confirms=True)
def set_status(
    asking: Asking,
    applicant_id: int,
    outcome: str,
    remote_id: str | None,
    error_message: str | None,
    date_processed: datetime | None,
) -> None:
    """Store the status of APPLICANT_ID at idibu by hand, in place of what it holds.

    The spool does not learn of it: what is reported afterwards replaces it. `retry --report` sends our own outcome again.
    """
    try:
        update = StatusUpdate(ReportStatus(outcome), remote_id, error_message, date_processed)
    except ValueError:
        raise click.UsageError("a fail needs --error-message") from None
    asking.confirm(f"applicant {applicant_id} of {asking.whose} becomes {outcome} at idibu, whatever it is now")
    asking.ask(lambda client: client.post_status(applicant_id, update), changes=True)
    asking.tell({"applicant_id": applicant_id, **record(update)}, f"applicant {applicant_id} is {outcome} at idibu")


COMMANDS = (status,)
"""Commands of the group."""
