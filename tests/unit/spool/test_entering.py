"""A put is one row first and entered in the ledger later: whoever looks finds it there, and nothing can part the two."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apptrack_ingest.errors import NotFound, SpoolUnavailable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Message, State
from apptrack_ingest.spool import sqlite as sqlite_spool
from apptrack_ingest.spool.checking import Check
from apptrack_ingest.spool.contract import Action, Filter
from apptrack_ingest.spool.copying import Copy
from apptrack_ingest.spool.opening import open_tables
from apptrack_ingest.spool.sqlite import SqliteSpool, bodies, entering, messages, migrations, open_spool
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

    def counted(connection: sqlite3.Connection) -> bool:
        before = entering.entered(connection)
        more = really(connection)
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


# --- what cannot be entered ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def broken(database: Path, message_id: int) -> Iterator[None]:
    """A row that was put is damaged meanwhile."""
    with looking_into(database) as connection:
        [(was,)] = connection.execute("SELECT applications FROM puts WHERE id = ?", (message_id,)).fetchall()
        connection.execute("UPDATE puts SET applications = '[[' WHERE id = ?", (message_id,))
        yield
        connection.execute("UPDATE puts SET applications = ? WHERE id = ?", (was, message_id))


async def test_what_cannot_be_entered_is_told_and_holds_up_nothing_else(
    database: Path, spool: SqliteSpool, mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    await put(spool, mail(), 1)
    assert await applicants(spool) == [1]
    await put(spool, mail(), 2)
    with caplog.at_level(logging.INFO), broken(database, 2):
        assert await applicants(spool) == [1]
        (claimed,) = await spool.claim(worker="w", now=2000, lease=60, limit=9)
        assert await spool.renew([claimed], now=2001, lease=60) == []
        assert await put(spool, mail(), 3) == 3
        assert await applicants(spool) == [1]
        tables = await open_tables(database)
        found = [finding async for finding in Check(tables).findings()]
        await tables.close()
        assert len(found) == 1 and found[0].startswith("mails that came in last cannot be entered in the ledger: ")
        with pytest.raises(SpoolUnavailable, match=r"cannot be entered in the ledger: .* spool check"):
            await spool.check_writable()
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "mails that came in cannot be entered in the ledger" in told
    assert await applicants(spool) == [1, 2, 3]
    await spool.check_writable()


async def test_a_question_does_not_wait_for_ever_for_it(
    database: Path, spool: SqliteSpool, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_spool, "PATIENCE", 0.05)
    await put(spool, mail(), 1)
    with looking_into(database) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await applicants(spool) == []
        other.execute("ROLLBACK")
    monkeypatch.undo()
    assert await applicants(spool) == [1]


async def test_nobody_is_forgotten_while_a_mail_cannot_be_looked_at(
    database: Path, spool: SqliteSpool, mail: Mail
) -> None:
    await put(spool, mail(), 1)
    with broken(database, 1), pytest.raises(SpoolUnavailable):
        await spool.forget("jo@example.com", [], actor="me", note="", now=2000)
    assert (await spool.forget("jo@example.com", [], actor="me", note="", now=2000)).applications == 0


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
