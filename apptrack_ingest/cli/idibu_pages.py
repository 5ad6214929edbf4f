"""The commands of `idibu` that list: so many from an offset on, asked for in idibu's pages."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import click

from apptrack_ingest.idibu.limits import LARGEST_PAGE

T = TypeVar("T")
Command = Callable[..., None]


def paged(command: Command) -> Command:
    """`--offset` and `--limit`."""
    offset = click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many: the next page.")
    limit = click.option(
        "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="At most so many."
    )
    return offset(limit(command))


def page_of(limit: int) -> int:
    """How many to ask for at a time: one more than wanted tells whether there are more."""
    return min(limit + 1, LARGEST_PAGE)


async def first(most: int, listed: AsyncIterator[T]) -> list[T]:
    """At most so many of a list that comes page by page."""
    found: list[T] = []
    async for one in listed:
        found.append(one)
        if len(found) == most:
            break
    return found
