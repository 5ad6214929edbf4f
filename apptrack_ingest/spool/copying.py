"""Copies a spool with everything in it from one database to another: in batches, resumable, verified."""

# ruff: noqa: S608 - statements are made of our own names and constants alone

import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from apptrack_ingest.errors import NotAllowed, NotFound, SpoolError
from apptrack_ingest.spool.rows import is_as_received
from apptrack_ingest.spool.tables import COPYING, Row, Table, Tables, agreed, plain

ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 8_000_000
"""What one transaction moves: flat memory, however large the spool."""

ROW_WEIGHT = 400
"""Bytes that a row counts as, for the progress."""

Tell = Callable[[str, int, int], None]
"""Told of the progress: what is done now, how much of how much."""


def _silent(*_: object) -> None:
    """Nobody watches."""


@dataclass(slots=True)
class Copied:
    """What the target holds now, by table; `bodies` are the messages' bytes, `damaged` the applications whose mail is
    missing or damaged in the source and was left out."""

    rows: dict[str, int] = field(default_factory=dict)
    bodies: int = 0
    resumed: bool = False
    damaged: list[int] = field(default_factory=list)


class _Damaged(SpoolError):
    """The bytes of a message are not there as they were received."""


@dataclass(slots=True)
class Copy:
    """One copy from `source`, which nobody may change meanwhile, to `target`.

    The target carries a mark until the copy is complete and verified: opened before, it is refused. A copy that was cut
    off goes on where it was, if the source is still the same; if not, it begins anew. `quiet` raises where somebody uses
    the source or the target. A message whose bytes are damaged in the source ends the copy, or with `leave_damaged` goes
    without them.
    """

    source: Tables
    target: Tables
    quiet: Callable[[], Awaitable[None]]
    tell: Tell = _silent
    clock: Callable[[], float] = time.time
    leave_damaged: bool = False
    _done: int = 0
    _total: int = 0

    async def run(self) -> Copied:
        """Copies everything. NotAllowed where the target holds something else, or somebody uses either; SpoolError where
        the two differ in the end."""
        await self.quiet()
        for side in (self.source, self.target):
            await side.complete()
        if await self.source.query(f"SELECT 1 FROM marks WHERE key LIKE '{COPYING}%'"):
            raise NotAllowed("the source is itself a copy that was not finished: nothing was copied")
        tables = agreed(await self.source.columns(), await self.target.columns())
        identity = await _identity(self.source, tables)
        resumed = await self._begin(tables, COPYING + identity)
        self._total = 2 * await _weight(self.source, tables)
        for table in tables:
            await self._copy(table)
            if table.name == "messages":
                await self._copy_bodies()
        await self._point_forward()
        for table in tables:
            if table.numbered:
                await self.target.set_last_id(table, await self.source.last_id(table))
        await self.target.derive()
        copied = await self._verified(tables, identity)
        await self.quiet()
        await self.target.finish()
        await self._forget_marks()
        copied.resumed = resumed
        return copied

    # -- beginning

    async def _begin(self, tables: list[Table], mark: str) -> bool:
        """Whether a copy of the same is there already, to be gone on with."""
        marks = {row[0] for row in await self.target.query(f"SELECT key FROM marks WHERE key LIKE '{COPYING}%'")}
        if marks == {mark}:
            return True
        if marks:
            await self._clear(tables)
        else:
            await self._refuse_what_is_filled(tables)
        await self._forget_marks()
        await self.target.run("INSERT INTO marks (key, at) VALUES (:key, :at)", key=mark, at=self.clock())
        return False

    async def _refuse_what_is_filled(self, tables: list[Table]) -> None:
        for table in tables:
            if table.name == "marks":
                continue
            [(rows,)] = await self.target.query(f"SELECT count(*) FROM {table.name}")
            if rows:
                raise NotAllowed(
                    f"the target is no empty spool, it has {rows} rows in {table.name}: nothing was copied; name an empty"
                    " database, or a file that is not there yet"
                )

    async def _clear(self, tables: list[Table]) -> None:
        """Empties what an earlier copy of something else left half done."""
        await self.target.run("UPDATE applications SET duplicate_of = NULL WHERE duplicate_of IS NOT NULL")
        await self.target.run("DELETE FROM bodies")
        for table in reversed(tables):
            await self.target.run(f"DELETE FROM {table.name} WHERE {table.where}")

    async def _forget_marks(self) -> None:
        await self.target.run(f"DELETE FROM marks WHERE key LIKE '{COPYING}%'")

    # -- moving

    async def _copy(self, table: Table) -> None:
        if not table.numbered:
            rows = [row async for page in pages(self.source, table) for row in page]
            await self.target.add(table, rows, anew=True)
            self._advance(table.name, len(rows) * ROW_WEIGHT)
            return
        [(after,)] = await self.target.query(f"SELECT coalesce(max(id), 0) FROM {table.name}")
        [(before,)] = await self.source.query(f"SELECT count(*) FROM {table.name} WHERE id <= :id", id=after)
        self._advance(table.name, before * ROW_WEIGHT)
        async for page in pages(self.source, table, after=after):
            await self.target.add(table, [_to_be_added(table, row) for row in page])
            self._advance(table.name, len(page) * ROW_WEIGHT)

    async def _copy_bodies(self) -> None:
        batch: list[tuple[int, bytes]] = []
        weight = 0
        async for message_id, size, sha256 in self._without_body():
            weight += size
            try:
                batch.append((message_id, await _received(self.source, message_id, size, sha256)))
            except _Damaged as error:
                self._bear(error)
            if weight >= BYTES_AT_ONCE or len(batch) >= ROWS_AT_ONCE:
                await self.target.add_bodies(batch)
                self._advance("bodies", weight)
                batch, weight = [], 0
        await self.target.add_bodies(batch)
        self._advance("bodies", weight)

    async def _without_body(self) -> AsyncIterator[tuple[int, int, str]]:
        """The messages whose body the target has not got yet; first those that an earlier run had to leave out."""
        [(after,)] = await self.target.query("SELECT coalesce(max(message_id), 0) FROM bodies")
        left_out = await self.target.query(
            "SELECT id FROM messages WHERE erased_at IS NULL AND id <= :id"
            " AND NOT EXISTS (SELECT 1 FROM bodies b WHERE b.message_id = messages.id) ORDER BY id",
            id=after,
        )
        [(before,)] = await self.source.query(
            "SELECT coalesce(sum(size), 0) FROM messages WHERE erased_at IS NULL AND id <= :id", id=after
        )
        self._advance("bodies", int(before))
        for (message_id,) in left_out:
            for row in await self.source.query("SELECT id, size, sha256 FROM messages WHERE id = :id", id=message_id):
                yield row
        async for message in whole_messages(self.source, after=after):
            yield message

    def _bear(self, error: _Damaged) -> None:
        if not self.leave_damaged:
            raise SpoolError(
                f"{error}; `apptrack-ingest spool check` tells of all such damage, and with --leave-damaged everything else"
                " is copied"
            )

    async def _point_forward(self) -> None:
        """An application may be the duplicate of one that came after it: it could not be said before that was there."""
        forward = "SELECT id, duplicate_of FROM applications WHERE duplicate_of > id"
        for application_id, duplicate_of in await self.source.query(forward):
            await self.target.run(
                "UPDATE applications SET duplicate_of = :other WHERE id = :id", other=duplicate_of, id=application_id
            )

    # -- verifying

    async def _verified(self, tables: list[Table], identity: str) -> Copied:
        """Reads both sides again: each table's rows, and each body against the digest taken at its receipt."""
        copied = Copied()
        for table in tables:
            copied.rows[table.name] = await self._compared(table)
        async for message_id, size, sha256 in whole_messages(self.target):
            if await self._is_whole(message_id, size, sha256):
                copied.bodies += 1
            else:
                copied.damaged += await applications_of(self.target, message_id)
            self._advance("verify", size)
        if await _identity(self.source, tables) != identity:
            raise SpoolError("the source was used during the copy: run the command again, with nothing using it")
        return copied

    async def _is_whole(self, message_id: int, size: int, sha256: str) -> bool:
        """Whether the target has a message's bytes. SpoolError where it has not, and should."""
        try:
            await _received(self.target, message_id, size, sha256)
        except _Damaged as error:
            try:
                await _received(self.source, message_id, size, sha256)
            except _Damaged as damage:
                self._bear(damage)
                return False
            raise SpoolError(f"{error}; nothing was finished") from None
        return True

    async def _compared(self, table: Table) -> int:
        """The number of rows, if they are the same on both sides."""
        rows, theirs = 0, pages(self.target, table)
        async for page in pages(self.source, table):
            if not _same(table, page, await anext(theirs, [])):
                await self._differs(table)
            rows += len(page)
            self._advance("verify", len(page) * ROW_WEIGHT)
        if await anext(theirs, []):
            await self._differs(table)
        return rows

    async def _differs(self, table: Table) -> None:
        """What is there cannot be gone on with."""
        mark = f"{COPYING}changed"
        await self.target.run(f"UPDATE marks SET key = :mark WHERE key LIKE '{COPYING}%'", mark=mark)
        raise SpoolError(
            f"the copy differs from the source in {table.name}: was the source used meanwhile? Run the command again, with"
            " nothing using it: it begins anew"
        )

    def _advance(self, what: str, weight: int) -> None:
        self._done += weight
        self.tell(what, self._done, max(self._total, self._done))


async def pages(tables: Tables, table: Table, *, after: int = 0) -> AsyncIterator[list[Row]]:
    """The rows of a table as the target is to have them, page by page, from the one behind the id `after` on."""
    if not table.numbered:
        sql = f"SELECT {table.listed} FROM {table.name} WHERE {table.where}"
        yield [as_left(table, row) for row in await tables.query(sql)]
        return
    at = table.columns.index("id")
    sql = f"SELECT {table.listed} FROM {table.name} WHERE id > :after ORDER BY id LIMIT {ROWS_AT_ONCE}"
    while page := await tables.query(sql, after=after):
        yield [as_left(table, row) for row in page]
        after = page[-1][at]


async def whole_messages(tables: Tables, *, after: int = 0) -> AsyncIterator[tuple[int, int, str]]:
    """Id, size and SHA-256 of every message that is not erased."""
    sql = "SELECT id, size, sha256 FROM messages WHERE erased_at IS NULL AND id > :after ORDER BY id LIMIT :limit"
    while page := await tables.query(sql, after=after, limit=ROWS_AT_ONCE):
        for message_id, size, sha256 in page:
            yield message_id, size, sha256
        after = page[-1][0]


async def _received(tables: Tables, message_id: int, size: int, sha256: str) -> bytes:
    """A message's bytes as they were received; raises _Damaged where they are not to be had."""
    try:
        raw = await tables.body(message_id)
    except NotFound as error:
        raise _Damaged(str(error)) from None
    if not is_as_received(raw, size, sha256):
        raise _Damaged(f"message {message_id}: its bytes are not those that were received")
    return raw


async def applications_of(tables: Tables, message_id: int) -> list[int]:
    """The ids of a message's applications: those by which people know it."""
    rows = await tables.query("SELECT id FROM applications WHERE message_id = :id ORDER BY id", id=message_id)
    return [row[0] for row in rows]


def _same(table: Table, mine: list[Row], theirs: list[Row]) -> bool:
    """Whether rows are the same, as far as both databases can say."""
    if not table.numbered:
        return Counter(map(_plain, mine)) == Counter(map(_plain, theirs))
    if table.name == "messages" and len(mine) == len(theirs):
        at = table.columns.index("sha256")
        pairs = zip(mine, theirs, strict=True)
        theirs = [row if my[at] else (*row[:at], "", *row[at + 1 :]) for my, row in pairs]
    return [*map(_plain, mine)] == [*map(_plain, theirs)]


def _plain(row: Row) -> Row:
    return tuple(plain(value) for value in row)


def as_left(table: Table, row: Row) -> Row:
    """The row with a lease that has run out, where it has one: who held it is dead, or would work for another spool."""
    if "lease_until" not in table.columns:
        return row
    at = table.columns.index("lease_until")
    return row if row[at] is None else (*row[:at], 0.0, *row[at + 1 :])


def _to_be_added(table: Table, row: Row) -> Row:
    """The row without what refers to a later one."""
    if "duplicate_of" not in table.columns:
        return row
    at = table.columns.index("duplicate_of")
    later = row[at] is not None and row[at] > row[table.columns.index("id")]
    return (*row[:at], None, *row[at + 1 :]) if later else row


_CHANGING: Mapping[str, str] = {
    "applications": "sum(lease_token), sum(attempts), count(settled_at), count(delivered_at), max(settled_at)",
    "reports": "sum(lease_token), sum(attempts), count(settled_at), max(settled_at)",
    "attempts": "count(ended_at)",
    "messages": "count(erased_at), sum(size)",
}
"""What changes whenever work is done, besides the number of rows."""


async def _identity(tables: Tables, wanted: list[Table]) -> str:
    """Tells one state of a spool from another, and from another spool's; the last word is the verification's."""
    found: list[object] = []
    for table in wanted:
        what = "count(*)" + (", max(id)" if table.numbered else "")
        what += f", {_CHANGING[table.name]}" if table.name in _CHANGING else ""
        [row] = await tables.query(f"SELECT {what} FROM {table.name} WHERE {table.where}")
        found.append([table.name, *(str(value) for value in row)])
    first = await tables.query("SELECT id, received_at, size FROM messages ORDER BY id LIMIT 1")
    return hashlib.sha256(json.dumps([found, [str(value) for row in first for value in row]]).encode()).hexdigest()[:32]


async def _weight(tables: Tables, wanted: list[Table]) -> int:
    """How much there is to copy, in bytes or nearly so."""
    [(size,)] = await tables.query("SELECT coalesce(sum(size), 0) FROM messages WHERE erased_at IS NULL")
    weight = int(size)
    for table in wanted:
        [(rows,)] = await tables.query(f"SELECT count(*) FROM {table.name}")
        weight += rows * ROW_WEIGHT
    return weight
