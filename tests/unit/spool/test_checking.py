"""`check` finds each damage that was done on purpose, and nothing in a spool that is sound."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from filled import BODIES, fill, fill_the_rest
from postgres import Server, postgres_server

from apptrack_ingest.spool.checking import Check
from apptrack_ingest.spool.opening import open_spool, open_tables
from apptrack_ingest.spool.sqlite.tables import SqliteTables
from apptrack_ingest.spool.tables import Tables

__all__ = ["postgres_server"]


@pytest.fixture(params=["sqlite", "postgres"])
async def tables(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: Server) -> AsyncIterator[Tables]:
    """The tables of a filled spool."""
    with ExitStack() as stack:
        lent = stack.enter_context(postgres_server.lent()) if request.param == "postgres" else None
        where = lent or tmp_path / "data" / "spool.sqlite3"
        spool = open_spool(where)
        await fill(spool)
        await spool.close()
        tables = await open_tables(where)
        await fill_the_rest(tables)
        yield tables
        await tables.close()


async def findings(tables: Tables) -> list[str]:
    return [finding async for finding in Check(tables).findings()]


async def test_a_sound_spool_has_no_findings(tables: Tables) -> None:
    seen: list[tuple[int, int]] = []
    check = Check(tables, lambda done, total: seen.append((done, total)))
    assert [finding async for finding in check.findings()] == []
    assert check.bodies == len(BODIES) and seen[-1] == (len(BODIES), len(BODIES))


DAMAGES = [
    ("UPDATE applications SET due_at = NULL WHERE id = 6", ["application 6: received, and never due"]),
    ("UPDATE applications SET settled_at = 1 WHERE id = 6", ["application 6: received, and settled"]),
    ("UPDATE applications SET settled_at = NULL WHERE id = 2", ["application 2: rejected, and never settled"]),
    ("UPDATE applications SET due_at = 1 WHERE id = 2", ["application 2: rejected, and due"]),
    ("UPDATE applications SET reason = NULL WHERE id = 5", ["application 5: held for no reason"]),
    ("UPDATE applications SET delivered_at = NULL WHERE id = 1", ["application 1: delivered at no time"]),
    ("UPDATE applications SET state = 'lost' WHERE id = 2", ["application 2: no such state, lost"]),
    (
        "UPDATE attempts SET ended_at = NULL WHERE id = 1",
        ["attempt 1 of application 1: never ended, and nobody is at it"],
    ),
    ("UPDATE reports SET due_at = 1, settled_at = 1 WHERE state = 'superseded'", ["report 1: superseded, and due"]),
    (
        "UPDATE reports SET state = 'due', due_at = 1, settled_at = NULL WHERE id = 1",
        ["report 1: due, although report 2 of the same applicant is newer"],
    ),
    ("UPDATE reports SET state = 'nowhere' WHERE state = 'superseded'", ["report 1: no such state, nowhere"]),
    ("UPDATE messages SET size = size + 1 WHERE id = 4", ["message 4: it has 5 bytes, and 6 were received"]),
    (
        f"UPDATE messages SET sha256 = '{'0' * 64}' WHERE id = 4",
        ["message 4: its bytes are not those that were received (SHA-256 differs)"],
    ),
    ("UPDATE messages SET erased_at = 1 WHERE id = 2", ["message 2: erased, and its bytes are there all the same"]),
    ("DELETE FROM {bodies} = 4", ["message 4: no raw mail is kept for message 4"]),
    ("UPDATE applications SET behind = true WHERE id = 6", ["application 6: its place in its applicant's line"]),
    *(
        DERIVED := [
            (
                "UPDATE tallies SET number = number + 3 WHERE subject = 'applications' AND state = 'held'",
                ["the tally of applications (account 'acme', state 'held', reason 'by-operator') is off by 3"],
            ),
            ("DELETE FROM tallies WHERE subject = 'reports'", ["the tally of reports (account 'acme'"]),
            (
                "UPDATE tallies SET bytes = bytes + 7, number = number - 1 WHERE subject = 'messages'",
                ["the tally of messages (account '', state '', reason '') is off by -1, and by 7 bytes"],
            ),
            ("UPDATE messages SET finished_at = 1.5 WHERE id = 6", ["message 6: the time at which it was finished"]),
            ("UPDATE hours SET low = 3", ["application 1: it would not be found by its time"]),
            ("DELETE FROM hours", ["application 1: it would not be found by its time"]),
            (
                "UPDATE reports SET account = 'blue' WHERE id = 1",
                ["application 1: it is not known as routed elsewhere"],
            ),
        ]
    ),
]


@pytest.mark.parametrize(("damage", "found"), DAMAGES, ids=[found[0] for _, found in DAMAGES])
async def test_a_damage_is_found(tables: Tables, damage: str, found: list[str]) -> None:
    await tables.derive()  # what was only added to is summed up
    bodies = "puts WHERE id" if isinstance(tables, SqliteTables) else "bodies WHERE message_id"
    await tables.run(damage.replace("{bodies}", bodies))
    told = await findings(tables)
    for beginning in found:
        assert [one for one in told if one.startswith(beginning)], told
    assert len(told) <= len(found) + 1 or "FROM hours" in damage or "UPDATE hours" in damage


@pytest.mark.parametrize("damage", [damage for damage, _ in DERIVED])
async def test_what_is_derived_is_made_anew(tables: Tables, damage: str) -> None:
    await tables.derive()
    await tables.run(damage)
    assert await findings(tables) != []
    await tables.derive()
    assert await findings(tables) == []


async def test_a_lease_that_nobody_can_hold_is_found(tables: Tables) -> None:
    await tables.run("UPDATE applications SET lease_worker = NULL WHERE lease_worker = 'dead'")
    await tables.run("UPDATE attempts SET ended_at = 1 WHERE ended_at IS NULL")
    told = await findings(tables)
    assert [one.partition(": ")[2] for one in told] == [
        "in work, and under no lease",
        "in work, and no attempt is under way",
    ]


async def damaged(tmp_path: Path, damage: str) -> list[str]:
    """The findings in a SQLite spool that somebody changed who minds no reference."""
    where = tmp_path / "data" / "spool.sqlite3"
    spool = open_spool(where)
    await fill(spool)
    await spool.close()
    connection = sqlite3.connect(where, isolation_level=None)
    connection.create_function("fold", 1, lambda text: text)
    connection.executescript(damage)
    connection.close()
    tables = await open_tables(where)
    try:
        return await findings(tables)
    finally:
        await tables.close()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM messages WHERE id = 4", "application 4: its message is not there"),
        ("DELETE FROM messages WHERE id = 2", "message 2: its bytes are there, and the message is not"),
        ("DELETE FROM applications WHERE id = 4", "message 4: belongs to no application"),
        ("DELETE FROM applications WHERE id = 1", "report 1: its application 1 is not there"),
        ("DELETE FROM applications WHERE id = 1", "attempt 1: its application 1 is not there"),
        ("DELETE FROM applications WHERE id = 5", "action 1: its application 5 is not there"),
        ("DELETE FROM messages WHERE id = 4", "applications, row 4: refers to a row of messages that is not there"),
        ("UPDATE puts SET raw = x'00' WHERE id = 4", "message 4: the raw mail of message 4 is missing"),
        ("DELETE FROM stored", "message 2: no raw mail is kept for message 2"),
        ("INSERT INTO bodies VALUES (2, x'00')", "message 2: its bytes are kept in two places"),
        (
            "INSERT INTO stored SELECT 4, segment, start + 5, 6 FROM stored; UPDATE puts SET raw = NULL WHERE id = 4",
            "message 2: another's bytes are in the place of its own",
        ),
        ("INSERT INTO emptied SELECT segment, start + 9, 1 FROM stored", "message 2: its place is to be emptied"),
    ],
)
async def test_what_no_constraint_allows_is_found_all_the_same(tmp_path: Path, damage: str, found: str) -> None:
    told = await damaged(tmp_path, damage)
    assert [one for one in told if one.startswith(found)], told


async def test_a_broken_file_is_found(tmp_path: Path) -> None:
    where = tmp_path / "data" / "spool.sqlite3"
    spool = open_spool(where)
    await fill(spool)
    await spool.close()
    connection = sqlite3.connect(where, isolation_level=None)
    page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'actions_by_application'").fetchone()[0]
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with where.open("r+b") as file:
        file.seek((page - 1) * size + 8)
        file.write(b"\xff" * 64)
    tables = await open_tables(where)
    told = await tables.own_findings()
    assert told and all(one.startswith("the database's file: ") for one in told)
    await tables.close()
