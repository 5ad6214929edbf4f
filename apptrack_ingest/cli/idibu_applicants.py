"""`idibu applicants`: those the job boards sent idibu, whether their mail came here or not."""

from datetime import datetime

import click

from apptrack_ingest.cli.idibu_asking import Asking, Whose, asks
from apptrack_ingest.cli.idibu_pages import first, page_of, paged
from apptrack_ingest.cli.idibu_showing import print_rows, record
from apptrack_ingest.cli.showing import print_json, say, who

_TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"])


@click.command("applicants", short_help="Those who applied.")
@click.option("--after", type=_TIME, help="Only those that reached idibu after this time, by idibu's clock.")
@click.option("--before", type=_TIME, help="Only those that reached idibu before it.")
@paged
@asks(Whose.ACCOUNT)
def applicants(asking: Asking, after: datetime | None, before: datetime | None, offset: int, limit: int) -> None:
    """List the account's applicants at idibu, whether their mail came here or not. Not every account may use this."""
    listed = asking.ask(
        lambda client: first(limit + 1, client.applicants.listed(after, before, offset, page_of(limit)))
    )
    more = len(listed) > limit
    if asking.as_json:
        print_json({"applicants": record(listed[:limit]), "next_offset": offset + limit if more else None})
        return
    if not listed:
        say("idibu lists no applicants")
        return
    rows = [
        (one.id, one.date, who(one.name, one.email), one.job_reference, one.portal_name, one.status)
        for one in listed[:limit]
    ]
    headers = ("applicant id", "reached idibu", "candidate", "job reference", "portal", "status")
    print_rows(headers, rows, folding=("candidate", "job reference", "portal"))
    if more:
        say(f"there are more: add --offset {offset + limit}")


COMMANDS = (applicants,)
"""Commands of the group."""
