"""Copying a spool from one database to the other and back: everything, once, verified, and from where it was cut off."""

import asyncio
import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from filled import BODIES, NOW, assert_all_filled, fill, fill_the_rest
from postgres import Server, postgres_server

from apptrack_ingest.errors import NotAllowed, NotFound, SpoolError
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Envelope, Message, Report, ReportStatus, State
from apptrack_ingest.spool import copying
from apptrack_ingest.spool.checking import Check
from apptrack_ingest.spool.contract import Action, Filter
from apptrack_ingest.spool.copying import Copied, Copy
from apptrack_ingest.spool.opening import Where, open_spool, open_tables
from apptrack_ingest.spool.sqlite.tables import SqliteTables
from apptrack_ingest.spool.tables import Tables, agreed

__all__ = ["postgres_server"]

Another = Callable[[str], Where]


@pytest.fixture
def another(tmp_path: Path, postgres_server: Server) -> Iterator[Another]:
    """Gives the place of a new spool in the database of that name."""
    numbers = count(1)
    with ExitStack() as stack:

        def place(kind: str) -> Where:
            if kind == "postgres":
                return stack.enter_context(postgres_server.lent())
            return tmp_path / str(next(numbers)) / "spool.sqlite3"

        yield place


@pytest.fixture(params=[("sqlite", "postgres"), ("postgres", "sqlite"), ("sqlite", "sqlite"), ("postgres", "postgres")],
                ids="-to-".join)  # fmt: skip
def both(request: pytest.FixtureRequest, another: Another) -> tuple[Where, Where]:
    """Two new places."""
    one, other = request.param
    return another(one), another(other)


@asynccontextmanager
async def tables_at(*places: Where) -> AsyncIterator[list[Tables]]:
    opened = [await open_tables(place) for place in places]
    try:
        yield opened
    finally:
        for tables in opened:
            await tables.close()


async def filled(where: Where) -> None:
    spool = open_spool(where)
    await fill(spool)
    await spool.close()
    async with tables_at(where) as [tables]:
        await fill_the_rest(tables)


async def nobody() -> None:
    """Nobody uses either."""


async def copied(source: Where, target: Where, *, leave_damaged: bool = False) -> Copied:
    async with tables_at(source, target) as [one, other]:
        return await Copy(one, other, nobody, leave_damaged=leave_damaged).run()


async def told_of(where: Where) -> list[object]:
    """All that the contract tells of a spool."""
    spool = open_spool(where)
    try:
        rows = await spool.find(Filter(limit=1000))
        told = [await spool.story(row.application_id) for row in rows]
        raw = [await spool.raw(number) for number in range(1, len(BODIES) + 1)]
        backlog = replace(await spool.backlog(), size_bytes=0)
        return [told, raw, await spool.pauses(), await spool.load(), await spool.mark("digest"), backlog]
    finally:
        await spool.close()


# --- everything ---------------------------------------------------------------------------------------------------------


async def test_everything_arrives(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    done = await copied(source, target)
    async with tables_at(source) as [tables]:
        columns = await tables.columns()
    assert_all_filled([table.name for table in agreed(columns, columns)], done.rows)
    assert done.bodies == len(BODIES) and not done.resumed
    before, after = await told_of(source), await told_of(target)
    # A database that keeps no NUL has another sign in its place.
    assert repr(after[:-1]).replace("\\x00", "\ufffd") == repr(before[:-1]).replace("\\x00", "\ufffd")
    assert after[-1] == before[-1]
    async with tables_at(target) as [tables]:
        assert [finding async for finding in Check(tables).findings()] == []


async def test_what_is_derived_is_right_in_the_copy_whatever_the_order_in_which_it_came(
    both: tuple[Where, Where],
) -> None:
    """Rows come table by table: an application is there before the report that it still owes."""
    source, target = both
    await filled(source)
    spool = open_spool(source)
    owed = Report(4, ReportStatus.FAIL, NOW)
    await spool.act(4, Action(Event.DISCARD, "jo", report=owed), now=NOW)
    await spool.close()
    await copied(source, target)
    for where in both:
        async with tables_at(where) as [tables]:
            assert [finding async for finding in Check(tables).findings()] == []


async def test_there_and_back_is_the_same(another: Another) -> None:
    first, there, back = another("sqlite"), another("postgres"), another("sqlite")
    await filled(first)
    await copied(first, there)
    await copied(there, back)
    assert (await told_of(back))[:2] == (await told_of(there))[:2]


async def test_a_copy_goes_on_working_where_the_source_was(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    await copied(source, target)
    spool = open_spool(target)
    try:
        assert (await spool.next_due(now=NOW, accounts=["acme"])).lease_end is not None
        [reaped] = await spool.reap(now=NOW + 10, reports_for=[])
        assert reaped.crashes == 1, "who held the lease is dead, at once and not when it would have run out"
        envelope = Envelope("", ("cv@acme.example",), "192.0.2.1")
        assert await spool.put(Message(envelope, NOW, b"new"), [Arrival("acme", 99, True)]) == len(BODIES) + 1
        [newest] = await spool.find(Filter(limit=1))
        assert newest.application_id == len(BODIES) + 1
        assert [row.application_id for row in await spool.find(Filter(candidate="MÜLLER"))]
        applications = sum((await spool.backlog()).applications.values())
        assert applications == len(BODIES) + 1
        assert {row.state for row in await spool.find(Filter())} > {State.DELIVERED, State.HELD}
    finally:
        await spool.close()


async def test_ids_of_rows_that_are_gone_are_not_given_again(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    async with tables_at(source) as [tables]:
        await tables.run("DELETE FROM actions")
    await copied(source, target)
    spool = open_spool(target)
    await spool.close()
    async with tables_at(source, target) as [one, other]:
        columns = await one.columns()
        actions = next(table for table in agreed(columns, columns) if table.name == "actions")
        assert await other.last_id(actions) == await one.last_id(actions) > 0


# --- what is refused ------------------------------------------------------------------------------------------------------


async def test_a_target_that_holds_something_is_left_alone(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    await filled(target)
    before = await told_of(target)
    with pytest.raises(NotAllowed, match="no empty spool"):
        await copied(source, target)
    assert await told_of(target) == before


async def test_nothing_is_copied_while_somebody_uses_either(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)

    async def somebody() -> None:
        raise NotAllowed("in use")

    async with tables_at(source, target) as [one, other]:
        with pytest.raises(NotAllowed, match="in use"):
            await Copy(one, other, somebody).run()
        assert await other.query("SELECT count(*) FROM messages") == [(0,)]


async def test_a_damaged_source_is_named(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    async with tables_at(source) as [tables]:
        await tables.run("UPDATE messages SET sha256 = 'another' WHERE id = 4")
    with pytest.raises(SpoolError, match="message 4"):
        await copied(source, target)
    with pytest.raises(SpoolError, match="was not finished"):
        await prepared(target)


async def test_a_damaged_source_is_copied_without_what_is_damaged_when_told_to(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    async with tables_at(source) as [tables]:
        await tables.run("UPDATE messages SET sha256 = 'another' WHERE id = 4")
        kept = "puts WHERE id" if isinstance(tables, SqliteTables) else "bodies WHERE message_id"
        await tables.run(f"DELETE FROM {kept} = 6")
    with pytest.raises(SpoolError, match=r"message 4: .*--leave-damaged"):
        await copied(source, target)
    done = await copied(source, target, leave_damaged=True)
    assert (done.bodies, done.damaged, done.resumed) == (len(BODIES) - 2, [4, 6], True)
    spool = open_spool(target)
    try:
        assert [await spool.raw(number) for number in (1, 2, 3, 5)] == [*BODIES[:3], BODIES[4]]
        for number in (4, 6):
            with pytest.raises(NotFound):
                await spool.raw(number)
        assert len(await spool.find(Filter())) == len(BODIES)
    finally:
        await spool.close()


async def test_what_was_left_out_is_fetched_once_it_is_whole_again(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    async with tables_at(source, target) as [one, other]:
        await one.run("UPDATE messages SET sha256 = 'another' WHERE id IN (2, 4)")

        class Cut(Copy):
            async def _point_forward(self) -> None:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await Cut(one, other, nobody, leave_damaged=True).run()
        for number in (2, 4):
            digest = hashlib.sha256(BODIES[number - 1]).hexdigest()
            await one.run("UPDATE messages SET sha256 = :digest WHERE id = :id", digest=digest, id=number)
            await other.run("UPDATE messages SET sha256 = :digest WHERE id = :id", digest=digest, id=number)
    done = await copied(source, target)
    assert (done.bodies, done.damaged, done.resumed) == (len(BODIES), [], True)
    assert (await told_of(target))[1] == BODIES


async def test_what_is_whole_in_the_source_must_be_whole_in_the_copy(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    async with tables_at(source, target) as [one, other]:

        class Losing(Copy):
            async def _point_forward(self) -> None:
                await other.run("DELETE FROM bodies WHERE message_id = 2")
                await super()._point_forward()

        with pytest.raises(SpoolError, match=r"message 2: .*; nothing was finished"):
            await Losing(one, other, nobody, leave_damaged=True).run()
    with pytest.raises(SpoolError, match="was not finished"):
        await prepared(target)


async def prepared(where: Where) -> None:
    spool = open_spool(where)
    try:
        await spool.prepare()
    finally:
        await spool.close()


# --- cut off --------------------------------------------------------------------------------------------------------


class Cut(Exception):
    """The copy is cut off here."""


async def cut_off(source: Where, target: Where, after: int) -> int:
    """Copies up to so many steps of progress; returns how many there were."""
    steps = 0

    def tell(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            raise Cut

    async with tables_at(source, target) as [one, other]:
        with suppress(Cut):
            await Copy(one, other, nobody, tell).run()
    return steps


async def test_cut_off_anywhere_it_goes_on_and_is_refused_meanwhile(
    both: tuple[Where, Where], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "ROWS_AT_ONCE", 2)
    source, target = both
    await filled(source)
    for after in (1, 3, 6, 10, 20, 30):
        assert await cut_off(source, target, after) == after
        with pytest.raises(SpoolError, match="was not finished"):
            await prepared(target)
    assert (await copied(source, target)).resumed
    assert (await told_of(target))[1] == BODIES


async def test_a_source_that_was_used_since_is_copied_anew(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    await cut_off(source, target, 8)
    spool = open_spool(source)
    await spool.reap(now=2e9, reports_for=[])
    [claim] = await spool.claim(worker="w", now=2e9, lease=60, limit=1)
    await spool.close()
    done = await copied(source, target)
    assert not done.resumed
    spool = open_spool(target)
    assert (await spool.story(claim.application_id)).summary.in_work
    await spool.close()


async def test_a_source_that_changes_meanwhile_is_noticed(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    changed = False

    async with tables_at(source, target, source) as [one, other, beside]:

        def tell(what: str, *_: object) -> None:
            nonlocal changed
            changed = changed or what == "attempts"

        async def quiet() -> None:
            """Asked at the beginning, too."""

        class Meddling(Copy):
            async def _point_forward(self) -> None:
                await beside.run("UPDATE applications SET candidate_name = 'Somebody Else' WHERE id = 2")
                await super()._point_forward()

        with pytest.raises(SpoolError, match="differs from the source in applications"):
            await Meddling(one, other, quiet, tell).run()
        assert changed
    assert not (await copied(source, target)).resumed


COPYING = """
import asyncio, sys
from pathlib import Path
from apptrack_ingest.spool import copying
from apptrack_ingest.spool.copying import Copy
from apptrack_ingest.spool.opening import open_tables

copying.ROWS_AT_ONCE = 2

async def nobody():
    pass

def tell(what, done, total):
    print(what, flush=True)
    sys.stdin.readline()

async def main(source, target):
    one, other = [await open_tables(Path(p) if "://" not in p else p) for p in (source, target)]
    await Copy(one, other, nobody, tell).run()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_process_killed_during_the_copy_costs_nothing(both: tuple[Where, Where]) -> None:
    source, target = both
    await filled(source)
    command = [sys.executable, "-c", COPYING, str(source), str(target)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    while process.stdout.readline() != "bodies\n":
        process.stdin.write("go on\n")
        process.stdin.flush()
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.communicate)
    done = await copied(source, target)
    assert done.resumed and done.bodies == len(BODIES)
    assert (await told_of(target))[1] == BODIES


# --- other releases -------------------------------------------------------------------------------------------------


async def test_spools_of_different_releases_are_not_copied(another: Another, postgres_server: Server) -> None:
    source, target = another("sqlite"), postgres_server.url(postgres_server.make())
    await filled(source)
    async with tables_at(target) as [tables]:
        await tables.run("ALTER TABLE applications ADD COLUMN colour text")
    with pytest.raises(SpoolError, match=r"different releases .*applications"):
        await copied(source, target)


async def test_a_data_directory_moved_to_another_place_is_still_whole(another: Another, tmp_path: Path) -> None:
    source = another("sqlite")
    await filled(source)
    assert isinstance(source, Path)
    moved = tmp_path / "moved"
    shutil.move(source.parent, moved)
    target = another("postgres")
    assert (await copied(moved / source.name, target)).bodies == len(BODIES)
