"""`history`: what people ordered about more than one application, and what came of it."""

from pathlib import Path

import click
from rich.table import Table

from apptrack_ingest.cli.common import config_option, errors_as_exit_codes, json_option, out, run, spool_of
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.showing import local, print_json, print_table, say, shape, text
from apptrack_ingest.spool.contract import OrderRecord


@click.command(short_help="Who ordered what about many at once, and why.")
@config_option
@click.option("--account", help="Only what was about this account.")
@click.option("--before", type=ID, metavar="ID", help="Only orders below this one: the next page.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@json_option
@errors_as_exit_codes
def history(config: Path | None, account: str | None, before: int | None, limit: int, as_json: bool) -> None:
    """Show who ordered what about more than one application, newest first: pauses and their ends, decisions on all that a
    selection matched, and who had a candidate forgotten.

    Decisions on single applications stand in `show ID`, those made by an order with its number.
    """
    found = run(_orders(config, account, before, limit))
    if as_json:
        print_json([_shape(each) for each in found])
    elif found:
        print_table(_table(found))
    else:
        out.print("nothing found")
    if not as_json and len(found) == limit:
        say(f"there may be more: add --before {found[-1].order_id}")


async def _orders(config: Path | None, account: str | None, before: int | None, limit: int) -> list[OrderRecord]:
    async with spool_of(config) as (spool, _):
        return await spool.orders(account=account, before_id=before, limit=limit)


def _shape(each: OrderRecord) -> dict[str, object]:
    """One object without a second one inside."""
    shaped = shape(each)
    return {**shaped.pop("order"), **shaped}


def _table(found: list[OrderRecord]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("order", "when", "who", "what", "account"):
        table.add_column(header, no_wrap=True)
    for header in ("about", "came of it", "why"):
        table.add_column(header, overflow="fold")
    for each in found:
        order = each.order
        who = order.actor or "apptrack-ingest"
        values = (each.order_id, local(each.at), who, order.action, order.account, order.subject, _outcome(each))
        table.add_row(*map(text, (*values, order.note)))
    return table


def _outcome(each: OrderRecord) -> str:
    if each.ended_at is None:
        return "under way, or cut off"
    refused = f", not for {each.refused}" if each.refused else ""
    return f"done for {each.done}{refused}" if each.done or each.refused else "done"


COMMANDS = (history,)
"""Commands."""
