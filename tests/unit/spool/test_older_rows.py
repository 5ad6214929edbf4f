"""What an older release wrote stands in line, is counted, found and erased like all else, once the schema is brought up."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest
from postgres import Server, postgres_server

from apptrack_ingest.model import ReportState, State
from apptrack_ingest.spool import postgres, sqlite
from apptrack_ingest.spool.contract import Filter, Spool
from apptrack_ingest.spool.opening import open_tables
from apptrack_ingest.spool.postgres import migrations as pg_migrations
from apptrack_ingest.spool.sqlite import migrations
from apptrack_ingest.spool.sqlite.connection import connect

__all__ = ["postgres_server"]

ROWS = """
INSERT INTO messages (id, received_at, sender, recipients, peer, helo, smtputf8, size, sha256)
    VALUES (1, 1000, '', '[]', '', '', 1 = 0, 5, 'x'), (2, 1000, '', '[]', '', '', 1 = 0, 5, 'x'),
        (3, 9000, '', '[]', '', '', 1 = 0, 5, 'x'), (4, 9000, '', '[]', '', '', 1 = 0, 5, 'x');
INSERT INTO applications (id, message_id, account, applicant_id, trusted, trust_note, state, reason, received_at, due_at,
        settled_at)
    VALUES (1, 1, 'acme', 7, 1 = 1, '', 'delivered', NULL, 1000, NULL, 1001),
        (2, 2, 'acme', 8, 1 = 1, '', 'delivered', NULL, 1000, NULL, 1001),
        (3, 3, 'acme', 7, 1 = 1, '', 'received', NULL, 9000, 9000, NULL),
        (4, 3, 'blue', NULL, 1 = 0, '', 'held', 'untrusted', 9000, NULL, 9001),
        (5, 4, 'acme', 7, 1 = 1, '', 'received', NULL, 9000, 9000, NULL);
INSERT INTO reports (id, application_id, account, applicant_id, status, date_processed, state, created_at)
    VALUES (1, 1, 'acme', 7, 'success', 1000, 'confirmed', 1000), (2, 2, 'acme', 8, 'fail', 1000, 'failed', 1000)
"""
"""Two finished mails, of which the report of one failed; two of one applicant that wait; one held for a stranger."""


def only(steps: int, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIGRATIONS", module.MIGRATIONS[:steps])


async def in_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    with closing(connect(path, 5.0)) as connection, monkeypatch.context() as older:
        only(2, migrations, older)
        migrations.migrate(connection)
        for statement in ROWS.split(";\n"):
            connection.execute(statement)
    return sqlite.open_spool(path)


async def in_postgres(server: Server, monkeypatch: pytest.MonkeyPatch) -> Spool:
    url = server.url(server.make())
    connection = await asyncpg.connect(url)
    with monkeypatch.context() as older:
        only(1, pg_migrations, older)
        await pg_migrations.migrate(connection)
        for statement in ROWS.split(";\n"):
            await connection.execute(statement)
    await connection.close()
    return postgres.open_spool(url)


@pytest.fixture(params=["sqlite", "postgres"])
async def spool(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Spool]:
    if request.param == "sqlite":
        spool = await in_sqlite(tmp_path / "spool.sqlite3", monkeypatch)
    else:
        spool = await in_postgres(request.getfixturevalue("postgres_server"), monkeypatch)
    yield spool
    await spool.close()


async def test_they_are_counted(spool: Spool) -> None:
    load, backlog = await spool.load(), await spool.backlog()
    assert (load.waiting, load.untrusted_messages, load.untrusted_bytes) == (2, 1, 5)
    assert backlog.applications == {("acme", State.DELIVERED): 2, ("acme", State.RECEIVED): 2, ("blue", State.HELD): 1}
    assert backlog.reports == {("acme", ReportState.CONFIRMED): 1, ("acme", ReportState.FAILED): 1}


async def test_all_that_is_derived_of_them_is_right(spool: Spool) -> None:
    await spool.load()
    where = spool.database if isinstance(spool, sqlite.SqliteSpool) else spool._door._url  # type: ignore[attr-defined]
    tables = await open_tables(where)
    try:
        assert [row for rule in tables.rules for row in await tables.query(rule.breaches)] == []
    finally:
        await tables.close()


async def test_they_stand_in_line(spool: Spool) -> None:
    claimed = await spool.claim(worker="w", now=9e9, lease=60.0, limit=9)
    assert [each.application_id for each in claimed] == [3]


async def test_they_are_found_by_their_time(spool: Spool) -> None:
    assert [each.application_id for each in await spool.find(Filter(since=8999.0))] == [5, 4, 3]
    assert [each.application_id for each in await spool.find(Filter(until=8999.0))] == [2, 1]


async def test_what_is_finished_is_erased(spool: Spool) -> None:
    assert await spool.erase_finished(before=5000.0, limit=9) == 1
    assert [(await spool.story(n)).erased for n in (1, 2)] == [True, False]
    await spool.drop_report(2, actor="jo", note="", now=5000.0)
    assert await spool.erase_finished(before=5000.0, limit=9) == 1
    assert await spool.erase_finished(before=9e9, limit=9) == 0
