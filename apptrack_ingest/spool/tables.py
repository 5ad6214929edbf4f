"""A spool's rows as they stand in their tables, for whom the contract is too narrow: to copy a spool, to check it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from apptrack_ingest.errors import SpoolError
from apptrack_ingest.spool.derived import Rule

Row = tuple[Any, ...]

COPYING = "copying:"
"""Begins the key of the mark that a copy has in its target until it is complete; behind it stands what was copied."""

PASSING_MARKS = "key NOT LIKE 'copying:%' AND key <> 'writable'"
"""SQL for the marks that are a spool's own, and not of the moment."""

FIRST = ("messages", "applications", "reports", "attempts", "actions")
"""The tables that refer to one another, in the order in which rows can be put into them."""

DERIVED_TABLES = frozenset(
    {
        # kept by triggers
        "tallies",
        "tally_changes",
        "hours",
        "rerouted",
        # what was put and is not in the others yet
        "puts",
        # where the bodies are, whose door is `bodies`
        "bodies",
        "bodies_directory",
        "stored",
        "emptied",
        "swept",
        # which steps were taken
        "schema_steps",
    }
)
DERIVED_COLUMNS = frozenset(
    {
        ("applications", "behind"),
        ("applications", "candidate_folded"),
        ("messages", "crc32"),
        ("messages", "finished_at"),
        ("messages", "untrusted"),
    }
)
"""What each database has of its own and makes from the rest."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with the columns that both databases have of it; rows of a `numbered` one have an `id` that only grows."""

    name: str
    columns: tuple[str, ...]

    @property
    def numbered(self) -> bool:
        """Whether its rows have ids."""
        return "id" in self.columns

    @property
    def listed(self) -> str:
        """Its columns for a statement."""
        return ", ".join(f'"{column}"' for column in self.columns)

    @property
    def where(self) -> str:
        """SQL for the rows that are the spool's own."""
        return PASSING_MARKS if self.name == "marks" else "true"


class Tables(Protocol):
    """The tables of one spool. Values in statements have names (`:name`). Every method may raise SpoolUnavailable."""

    @property
    def kept(self) -> str:
        """SQL for the ids of messages whose body is kept."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What must hold of what the database derives from the rest."""

    async def complete(self) -> None:
        """Brings into the tables what was put and is not in them yet, committed."""

    async def columns(self) -> Mapping[str, Sequence[str]]:
        """The columns of each table."""

    def snapshot(self) -> AbstractAsyncContextManager[None]:
        """All questions within see the same moment."""

    async def query(self, sql: str, **values: object) -> list[Row]:
        """The rows that a question gives."""

    async def run(self, sql: str, **values: object) -> None:
        """Carries out a statement, committed."""

    async def add(self, table: Table, rows: Sequence[Row], *, anew: bool = False) -> None:
        """Adds rows in one transaction; `anew` removes those that were there."""

    async def last_id(self, table: Table) -> int:
        """The highest id that was ever given."""

    async def set_last_id(self, table: Table, number: int) -> None:
        """The next id given is higher than this."""

    async def body(self, message_id: int) -> bytes:
        """A message's bytes. NotFound when there are none, or they are damaged."""

    async def add_bodies(self, bodies: Sequence[tuple[int, bytes]]) -> None:
        """Keeps bodies, committed, and takes digests that were not taken yet."""

    async def others(self) -> int:
        """How many others are connected, where the database can tell."""

    async def own_findings(self) -> list[str]:
        """What the database itself finds wrong with its files, a sentence each."""

    async def derive(self) -> None:
        """Makes anew, committed, what the database derives from the rest; nobody else writes meanwhile."""

    async def finish(self) -> None:
        """What makes a spool that was just filled fit for use."""

    async def close(self) -> None:
        """Lets go of the database."""


def unfinished(shown: str) -> SpoolError:
    """The error for a spool that is a copy which was cut off."""
    return SpoolError(
        f"the spool {shown} is a copy that was not finished: run the same `apptrack-ingest spool copy` again, to its end"
    )


def agreed(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> list[Table]:
    """The tables of two spools, in the order in which they can be filled. SpoolError where they differ in more than what
    each makes from the rest."""
    mine, theirs = _own(one), _own(other)
    if mine != theirs:
        differ = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        raise SpoolError(
            f"the two spools were made by different releases (they differ in {', '.join(differ)}): run `migrate` with one"
            " release on both"
        )
    order = {name: number for number, name in enumerate(FIRST)}
    return [Table(name, mine[name]) for name in sorted(mine, key=lambda name: (order.get(name, len(order)), name))]


def _own(columns: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {
        table: tuple(sorted(column for column in names if (table, column) not in DERIVED_COLUMNS))
        for table, names in columns.items()
        if table not in DERIVED_TABLES
    }


def plain(value: Any) -> Any:
    """A value as both databases can hold it: a boolean as a number, a text without NUL."""
    if isinstance(value, bool):
        return int(value)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
