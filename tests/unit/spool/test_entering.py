"""A put is one row first and entered in the ledger later: whoever looks finds it there, and nothing can part the two."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from apptrack_ingest.errors import NotFound, SpoolError, SpoolUnavailable
from apptrack_ingest.lifecycle import EarlyRule, Event
from apptrack_ingest.model import Arrival, Message, Stage, State
from apptrack_ingest.spool import sqlite as sqlite_spool
from apptrack_ingest.spool.checking import Check
from apptrack_ingest.spool.contract import Action, Due, Filter, Load, Pause
from apptrack_ingest.spool.copying import Copy
from apptrack_ingest.spool.opening import open_tables
from apptrack_ingest.spool.sqlite import SqliteSpool, bodies, entering, messages, migrations, open_spool
from apptrack_ingest.spool.sqlite import tables as tables_of_sqlite
from apptrack_ingest.spool.sqlite.backup import back_up
from apptrack_ingest.spool.sqlite.bodies import LARGE
from apptrack_ingest.spool.sqlite.connection import connect

Mail = Callable[..., Message]


async def put(spool: SqliteSpool, message: Message, applicant_id: int = 7) -> int:
    return await spool.put(message, [Arrival("acme", applicant_id, True)])


@contextlib.contextmanager
def looking_into(database: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(database, 10)) as connection:
        yield connection


def entered(database: Path) -> list[int]:
    """The messages that are in the ledger."""
    with looking_into(database) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM messages ORDER BY id")]


async def applicants(spool: SqliteSpool) -> list[int]:
    return sorted(summary.applicant_id or 0 for summary in await spool.find(Filter(limit=1000)))


async def test_a_put_alone_is_one_row(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    ids = [await put(spool, mail(b"x" * size), size) for size in (1, LARGE)]
    assert (ids, entered(database)) == ([1, 2], [])
    with looking_into(database) as connection:
        rows = connection.execute("SELECT id, size, length(raw) FROM puts").fetchall()
        assert [tuple(row) for row in rows] == [(1, 1, 1), (2, LARGE, None)]
        assert bodies.sweep(connection) == 0, "the bytes of what is not entered are no leftovers"
    assert [await spool.raw(each) for each in ids] == [b"x", b"x" * LARGE]
    assert entered(database) == [1, 2]


async def test_another_process_finds_it(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    other = open_spool(database)
    for n in range(3):
        await put(spool, mail(), n)
        (claimed,) = await other.claim(worker="w", now=2000, lease=60, limit=9)
        assert claimed.applicant_id == n
    await put(spool, mail(), 9)
    due, load, backlog = await asyncio.gather(
        other.next_due(now=2000, accounts=[], full=[]), other.load(), other.backlog()
    )
    assert (due.hand_off, load.waiting, backlog.applications) == (1000.0, 4, {("acme", State.RECEIVED): 4})
    await other.close()


async def test_all_is_entered_as_it_came_and_in_its_order(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    arrivals = [
        Arrival("acme", 2**63 - 1, True, "note \N{LATIN SMALL LETTER E WITH ACUTE} \"'\\u0000\\"),
        Arrival(None, None, False, "a\0b \udcff"),
        Arrival("blue", 0, True),
    ]
    for _ in range(2):
        await spool.put(mail(), arrivals)
    found = sorted(await spool.find(Filter()), key=lambda summary: summary.application_id)
    assert [(each.account, each.applicant_id) for each in found] == [(a.account, a.applicant_id) for a in arrivals * 2]
    with looking_into(database) as connection:
        columns = "message_id, trusted, trust_note, received_at, due_at"
        rows = [tuple(row) for row in connection.execute(f"SELECT {columns} FROM applications ORDER BY id")]
    notes = [arrivals[0].trust_note, "a\ufffdb \ufffd", ""]
    assert rows == [
        (message_id, int(arrival.trusted), note, 1000.0, 1000.0)
        for message_id in (1, 2)
        for arrival, note in zip(arrivals, notes, strict=True)
    ]


async def test_what_could_never_be_entered_is_not_put(spool: SqliteSpool, mail: Mail) -> None:
    results = await asyncio.gather(*(put(spool, mail(), n) for n in (1, 2**63, 2)), return_exceptions=True)
    assert [type(result) for result in results] == [int, OverflowError, int]
    assert await applicants(spool) == [1, 2]


async def test_many_are_entered_a_few_at_a_time_before_a_question_is_answered(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, at_once, really = 3 * entering.MOST_AT_ONCE + 5, [], entering.enter

    def counted(connection: sqlite3.Connection, most: int) -> bool:
        before = entering.entered(connection)
        more = really(connection, most)
        at_once.append(entering.entered(connection) - before)
        return more

    await asyncio.gather(*(put(spool, mail(), n) for n in range(many)))
    assert entered(database) == []
    monkeypatch.setattr(entering, "enter", counted)
    assert await applicants(spool) == list(range(many))
    assert (sum(at_once), max(at_once)) == (many, entering.MOST_AT_ONCE)


async def test_no_id_is_ever_given_twice(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    assert [await put(spool, mail(), n) for n in range(3)] == [1, 2, 3]
    for summary in await spool.find(Filter()):
        for event in (Event.HOLD, Event.DISCARD):
            await spool.act(summary.application_id, Action(event, "me", ""), now=2000)
    assert await spool.erase_finished(before=3000, limit=10) == 3
    assert await spool.erase_tombstones(before=4000, limit=10) == 3
    with looking_into(database) as connection:
        for table in ("puts", "messages"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
    assert await put(spool, mail(), 9) == 4
    assert await applicants(spool) == [9]


async def test_what_is_erased_is_gone_from_where_it_was_put(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    for n, raw in enumerate((b"small", b"x" * LARGE)):
        await put(spool, mail(raw), n)
    for summary in await spool.find(Filter()):
        for event in (Event.HOLD, Event.DISCARD):
            await spool.act(summary.application_id, Action(event, "me", ""), now=2000)
    await spool.erase_finished(before=3000, limit=10)
    with looking_into(database) as connection:
        assert connection.execute("SELECT count(*) FROM puts").fetchone()[0] == 0
    with pytest.raises(NotFound):
        await spool.raw(1)


QUESTIONS: dict[str, tuple[Callable[[SqliteSpool], Awaitable[object]], object]] = {
    "find": (applicants, [7]),
    "count": (lambda spool: spool.count(Filter()), 1),
    "story": (lambda spool: state_of(spool, 1), State.RECEIVED),
    "raw": (lambda spool: spool.raw(1), b"hello"),
    "arrived": (lambda spool: spool.arrived("acme", [7, 8]), {7}),
    "load": (lambda spool: spool.load(), Load(1, 0, 0)),
    "backlog": (lambda spool: received_in(spool), {("acme", State.RECEIVED): 1}),
    "next_due": (lambda spool: spool.next_due(now=2000, accounts=[]), Due(1000.0)),
    "traces": (lambda spool: traces_of(spool, 1), [7]),
    "claim": (lambda spool: claimed_by(spool), [7]),
    "act": (lambda spool: spool.act(1, Action(Event.HOLD, "me"), now=2000), State.HELD),
    "reported": (
        lambda spool: spool.report_waiting("acme", EarlyRule(after=10.0), now=2000, limit=9),
        1,
    ),
}
"""What may be asked and done, and what comes of it where one mail has just been put."""


async def state_of(spool: SqliteSpool, application_id: int) -> State:
    return (await spool.story(application_id)).summary.state


async def received_in(spool: SqliteSpool) -> object:
    return (await spool.backlog()).applications


async def traces_of(spool: SqliteSpool, application_id: int) -> list[int | None]:
    return [trace.applicant_id for trace in await spool.traces("jo@example.com", [application_id])]


async def claimed_by(spool: SqliteSpool) -> list[int | None]:
    return [claim.applicant_id for claim in await spool.claim(worker="w", now=2000, lease=60, limit=9)]


@pytest.mark.parametrize("name", QUESTIONS)
async def test_whatever_is_asked_or_done_finds_it(spool: SqliteSpool, mail: Mail, name: str) -> None:
    question, answer = QUESTIONS[name]
    await put(spool, mail())
    assert await question(spool) == answer


async def test_what_was_put_may_be_called_due_roughly_and_a_claim_finds_out(
    database: Path, spool: SqliteSpool, mail: Mail
) -> None:
    async def due(**options: bool) -> float | None:
        return (await spool.next_due(now=2000, accounts=[], **options)).hand_off

    await spool.pause(Pause("acme", Stage.HAND_OFF, "rests", 1500.0, None, actor="me"))
    await put(spool, mail(), 1)
    assert await due(roughly=True) == 2000
    assert entered(database) == [], "it was not entered for that"
    assert await claimed_by(spool) == []
    assert (entered(database), await due(roughly=True)) == ([1], None)
    for n in range(entering.MOST_AT_ONCE + 1):
        await put(spool, mail(), n)
    assert await due(roughly=True) is None, "so many that one claim does not enter them all"
    await put(spool, mail(), 9)
    with broken(database):
        assert await claimed_by(spool) == []
        assert await due(roughly=True) is None, "or a worker would claim without end"
    assert await due() is None


async def test_two_processes_enter_each_once(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    other, many = open_spool(database), 2 * entering.MOST_AT_ONCE + 7

    async def put_all(into: SqliteSpool, first: int) -> None:
        for n in range(first, many, 2):
            await put(into, mail(), n)
            if n % 20 < 2:
                await into.count(Filter())

    await asyncio.gather(put_all(spool, 0), put_all(other, 1))
    assert await applicants(spool) == await applicants(other) == list(range(many))
    await other.close()


# --- what cannot be entered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["'[['", "'[]'", "'7'", "x'00ff'", "'[5]'", '\'["acme",7,1,""]\''])
async def test_a_damaged_row_is_entered_for_a_person_to_see(
    database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail, damage: str
) -> None:
    for n in range(3):
        await put(spool, mail(), n)
    with looking_into(database) as connection:
        connection.execute(f"UPDATE puts SET applications = {damage} WHERE id = 2")
    saved = await asyncio.to_thread(back_up, database, tmp_path / "backup.sqlite3")
    assert saved.damaged == ()
    found = sorted(await spool.find(Filter()), key=lambda summary: summary.application_id)
    ours = [each for each in found if each.message_id == 2]
    assert [each.applicant_id for each in found if each.message_id != 2] == [0, 2]
    assert {(each.account, each.applicant_id) for each in ours} == {(None, None)}
    assert "cannot be read" in (await spool.story(ours[0].application_id)).trust_note


@contextlib.contextmanager
def broken(database: Path) -> Iterator[None]:
    """Nothing can be entered."""
    with looking_into(database) as connection:
        connection.execute("CREATE TRIGGER broken BEFORE INSERT ON messages BEGIN SELECT raise(ABORT, 'broken'); END")
        yield
        connection.execute("DROP TRIGGER broken")


async def test_where_nothing_can_be_entered_that_is_told_and_the_rest_goes_on(
    database: Path, spool: SqliteSpool, mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    await put(spool, mail(), 1)
    assert await applicants(spool) == [1]
    await put(spool, mail(), 2)
    with caplog.at_level(logging.INFO), broken(database):
        assert (await spool.next_due(now=2000, accounts=[])).hand_off == 1000.0
        (claimed,) = await spool.claim(worker="w", now=2000, lease=60, limit=9)
        assert await spool.renew([claimed], now=2001, lease=60) == []
        assert await put(spool, mail(), 3) == 3
        assert await state_of(spool, 1) == State.RECEIVED
        assert await spool.raw(1) == b"hello"
        tables = await open_tables(database)
        found = [finding async for finding in Check(tables).findings()]
        await tables.close()
        assert len(found) == 1 and found[0].startswith("mails that came in last cannot be entered in the ledger: ")
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "mails that came in cannot be entered in the ledger" in told
    assert await applicants(spool) == [1, 2, 3]
    await spool.check_writable()


INCOMPLETE: dict[str, Callable[[SqliteSpool], Awaitable[object]]] = {
    "find": applicants,
    "count": QUESTIONS["count"][0],
    "load": QUESTIONS["load"][0],
    "backlog": QUESTIONS["backlog"][0],
    "arrived": QUESTIONS["arrived"][0],
    "traces": QUESTIONS["traces"][0],
    "forget": lambda spool: spool.forget("jo@example.com", [], actor="me", note="", now=2000),
    "check_writable": lambda spool: spool.check_writable(),
}


@pytest.mark.parametrize("name", INCOMPLETE)
async def test_no_answer_leaves_out_accepted_mail(database: Path, spool: SqliteSpool, mail: Mail, name: str) -> None:
    await put(spool, mail(), 1)
    with (
        broken(database),
        pytest.raises(SpoolUnavailable, match=r"in the ledger: IntegrityError: broken; .*spool check"),
    ):
        await INCOMPLETE[name](spool)
    await INCOMPLETE[name](spool)


async def test_a_question_about_what_is_known_waits_for_nobody_s_lock(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_spool, "PATIENCE", 0.05)
    await put(spool, mail(), 1)
    assert await applicants(spool) == [1]
    await put(spool, mail(), 2)
    with looking_into(database) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(sqlite_spool.BUSY_SECONDS / 2):
            assert await state_of(spool, 1) == State.RECEIVED
        other.execute("ROLLBACK")
    assert await applicants(spool) == [1, 2]


async def test_a_check_of_a_spool_that_somebody_writes_to_has_no_findings(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables_of_sqlite, "BUSY_SECONDS", 0.1)
    await put(spool, mail(b"x" * LARGE), 1)
    assert await applicants(spool) == [1]
    tables = await open_tables(database)
    with looking_into(database) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [finding async for finding in Check(tables).findings()] == []
        other.execute("ROLLBACK")
    await put(spool, mail(b"x" * LARGE), 2)
    async with tables.snapshot():  # what is put after it was asked to be complete is no finding
        assert [rule for rule in Check(tables)._rules() if await tables.query(rule.breaches)] == []
    await tables.close()


async def test_what_an_earlier_release_erases_is_gone_too(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    for n in range(2):
        await put(spool, mail(), n)
    await applicants(spool)
    with looking_into(database) as earlier:
        earlier.execute("UPDATE messages SET erased_at = 2000 WHERE id = 1")
        earlier.execute("DELETE FROM applications")
        earlier.execute("DELETE FROM messages WHERE id = 2")
        assert earlier.execute("SELECT count(*) FROM puts").fetchone()[0] == 0


async def test_an_earlier_release_beside_it_cannot_take_its_id(database: Path, spool: SqliteSpool, mail: Mail) -> None:
    insert = (
        "INSERT INTO messages (received_at, sender, recipients, peer, helo, smtputf8, size, sha256, crc32)"
        " VALUES (1000, '', '[]', '', '', 0, 5, '', 17)"
    )
    await put(spool, mail(), 1)
    with looking_into(database) as earlier:
        with pytest.raises(sqlite3.IntegrityError, match="another mail was put under this id"):
            earlier.execute(insert)
        assert await applicants(spool) == [1]
        earlier.execute(insert)
    assert await put(spool, mail(), 3) == 3
    assert await applicants(spool) == [1, 3]


# --- copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, LARGE])
async def test_a_backup_has_it(database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail, size: int) -> None:
    await put(spool, mail(b"x" * size), 3)
    saved = await asyncio.to_thread(back_up, database, tmp_path / "backup.sqlite3")
    assert (saved.applications, saved.bodies, saved.damaged) == (1, 1, ())
    restored = open_spool(saved.file)
    assert await restored.raw(1) == b"x" * size
    assert await applicants(restored) == [3]
    assert await put(restored, mail(), 4) == 2
    await restored.close()


@pytest.mark.parametrize("size", [5, LARGE])
async def test_a_copy_has_it(database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail, size: int) -> None:
    await put(spool, mail(b"x" * size), 3)
    await spool.close()
    target = tmp_path / "copy" / "spool.sqlite3"
    one, other = await open_tables(database), await open_tables(target)

    async def quiet() -> None:
        pass

    assert (await Copy(one, other, quiet).run()).bodies == 1
    for tables in (one, other):
        await tables.close()
    copied = open_spool(target)
    assert await copied.raw(1) == b"x" * size
    assert await put(copied, mail(), 4) == 2
    assert await applicants(copied) == [3, 4]
    await copied.close()


async def test_a_backup_is_not_to_lose_what_the_spool_has(
    database: Path, spool: SqliteSpool, tmp_path: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = bodies.gather

    def losing(copy: sqlite3.Connection, live: sqlite3.Connection) -> bodies.Gathered:
        gathered = really(copy, live)
        copy.execute("UPDATE puts SET raw = NULL")
        return gathered

    monkeypatch.setattr(bodies, "gather", losing)
    await put(spool, mail(), 3)
    with pytest.raises(SpoolError, match="the copy is not whole"):
        await asyncio.to_thread(back_up, database, tmp_path / "backup.sqlite3")


# --- what an earlier release left ---------------------------------------------------------------------------------


async def test_bodies_of_an_earlier_release_are_where_they_were(
    database: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = migrations.MIGRATIONS.index(migrations.PUTS)
    with monkeypatch.context() as older:
        older.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:before])
        directory = sqlite_spool.make_fit(database)
    [place] = messages_beside(directory, b"y" * LARGE)
    with looking_into(database) as connection:
        for message_id, size in ((1, 5), (2, LARGE)):
            connection.execute(
                "INSERT INTO messages (id, received_at, sender, recipients, peer, helo, smtputf8, size, sha256)"
                " VALUES (?, 1000, '', '[]', '', '', 0, ?, '')",
                (message_id, size),
            )
            connection.execute(
                "INSERT INTO applications (message_id, account, applicant_id, trusted, received_at, due_at)"
                " VALUES (?, 'acme', ?, 1, 1000, 1000)",
                (message_id, message_id),
            )
        connection.execute("INSERT INTO bodies VALUES (1, x'7878787878')")
        connection.execute("INSERT INTO stored VALUES (2, ?, ?, ?)", place)
    spool = open_spool(database)
    assert [await spool.raw(n) for n in (1, 2)] == [b"xxxxx", b"y" * LARGE]
    assert await put(spool, mail(), 3) == 3
    assert await applicants(spool) == [1, 2, 3]
    await spool.close()
    with looking_into(database) as connection:
        assert bodies.sweep(connection) <= 1
        assert bodies.fetch(connection, 2) == b"y" * LARGE
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def messages_beside(directory: Path, *raws: bytes) -> list[tuple[int, int, int]]:
    appender = sqlite_spool.Puts(directory, lambda: None)._appender
    places = appender.append(list(raws))
    appender.close()
    return [tuple(place) for place in places]


def test_a_message_put_by_itself_is_entered(tmp_path: Path, mail: Mail) -> None:
    database = tmp_path / "data" / "spool.sqlite3"
    sqlite_spool.make_fit(database)
    with looking_into(database) as connection:
        assert messages.put(connection, mail(), [Arrival("acme", 1, True)]) == 1
    assert entered(database) == [1]
