"""Opening the PostgreSQL spool: URLs and passwords, migrations, several processes at once, releases side by side."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from postgres import Server

from apptrack_ingest.errors import SpoolError, SpoolUnavailable
from apptrack_ingest.logs import exception_fields
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.opening import open_tables
from apptrack_ingest.spool.postgres import Options, migrations, open_spool
from apptrack_ingest.spool.postgres.migrations import MIGRATIONS, Step
from apptrack_ingest.spool.tables import agreed

Put = Callable[..., Awaitable[int]]
Beside = asyncpg.Connection
SECRET = "Kr0kus"


async def version(url: str) -> tuple[int, int]:
    connection = await asyncpg.connect(url)
    try:
        return await migrations.version_of(connection)
    finally:
        await connection.close()


# --- URLs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://jo:{SECRET}/x@db.example/spool",
        f"postgresql://jo:{SECRET}#x@db.example/spool",
        f"postgresql://jo:1?{SECRET}@db.example/spool",
        f"postgresql://jo:{SECRET}@[db.example/spool",
        f"postgresql://jo:{SECRET}@db.example:port/spool",
        f"postgresql://jo:{SECRET}@one.example,two.example:{SECRET}/spool",
        f"mysql://jo:{SECRET}@db.example/spool",
        f"postgresql://jo:{SECRET}@db.example/spool?sslmode={SECRET}",
        "spool.sqlite3",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SpoolError, match=r"in the URL|percent-encoded") as caught:
        open_spool(url)
    assert SECRET not in str(caught.value)
    assert not isinstance(caught.value, SpoolUnavailable)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        ("127.0.0.1:1/spool", "ECONNREFUSED"),
        ("x..example/spool", "UnicodeError"),
        ("/spool?host=/nowhere/Krokus", "ENOENT"),
    ],
)
async def test_what_cannot_be_reached_is_told_without_the_password(rest: str, code: str, impatient: Options) -> None:
    spool = open_spool(f"postgresql://jo:{SECRET}@{rest}", options=impatient)
    with pytest.raises(SpoolUnavailable, match="PostgreSQL: ") as caught:
        await spool.check_writable()
    assert exception_fields(caught.value)["reason"] == code
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__
    assert SECRET not in repr(spool)
    await spool.close()


async def test_a_wrong_password_is_told_without_it(other: Beside, postgres_server: Server, impatient: Options) -> None:
    hba = postgres_server.data / "pg_hba.conf"
    rules = hba.read_text()
    await other.execute("DROP ROLE IF EXISTS careful")
    await other.execute(f"CREATE ROLE careful LOGIN PASSWORD '{SECRET}:/?#[]@%'")
    name = await other.fetchval("SELECT current_database()")
    hba.write_text(f"local all careful scram-sha-256\n{rules}")
    try:
        await other.execute("SELECT pg_reload_conf()")
        right = open_spool(postgres_server.url(name, user="careful", password=f"{SECRET}:/?#[]@%"), options=impatient)
        wrong = open_spool(postgres_server.url(name, user="careful", password=f"{SECRET}!"), options=impatient)
        with pytest.raises(SpoolUnavailable, match="password authentication failed") as caught:
            await wrong.pauses()
        assert exception_fields(caught.value)["reason"] == "InvalidPasswordError"
        assert SECRET not in str(caught.value)
        with pytest.raises(SpoolUnavailable, match="permission denied"):
            await right.pauses()
        await asyncio.gather(right.close(), wrong.close())
    finally:
        hba.write_text(rules)
        await other.execute("SELECT pg_reload_conf()")
        await other.execute("DROP ROLE careful")


async def test_nothing_is_connected_before_it_is_needed_and_closing_needs_no_server() -> None:
    await open_spool("postgresql://127.0.0.1:1/spool").close()


async def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: Server) -> None:
    postgres_server.sql("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    spool = open_spool(postgres_server.url("latin"))
    with pytest.raises(SpoolError, match=r"LATIN1.*UTF8") as caught:
        await spool.prepare()
    assert not isinstance(caught.value, SpoolUnavailable)
    await spool.close()


async def test_a_commit_is_durable_whatever_the_servers_default(
    postgres_server: Server, other: Beside, url: str
) -> None:
    name = await other.fetchval("SELECT current_database()")
    postgres_server.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    spool = open_spool(url)
    try:
        row = await spool._door.ask(lambda s: s.one("SHOW synchronous_commit"))
        assert row is not None and row[0] == "on"
    finally:
        await spool.close()
        postgres_server.sql(f"ALTER DATABASE {name} RESET synchronous_commit")


# --- migrations ---------------------------------------------------------------------------------------------------------

ONE_OF_SEVERAL = """
import asyncio, sys
from apptrack_ingest.spool.postgres import open_spool
async def main(*urls):
    for url in urls:
        spool = open_spool(url)
        await asyncio.gather(*(spool.check_writable() for _ in range(4)))
        await spool.close()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_that_open_a_new_database_at_once_make_one_schema(postgres_server: Server) -> None:
    urls = [postgres_server.url(postgres_server.make()) for _ in range(3)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_SEVERAL, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n", 60) for process in running))
    assert [process.returncode for process in running] == [0, 0, 0]
    assert [await version(url) for url in urls] == [(len(MIGRATIONS), MIGRATIONS[-1].needs)] * 3


ADDS = Step("ALTER TABLE applications ADD COLUMN colour text NOT NULL DEFAULT 'blue'", needs=len(MIGRATIONS))
BREAKS = Step("ALTER TABLE applications RENAME COLUMN detail TO words", needs=len(MIGRATIONS) + 1)


async def migrated(url: str, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next release does to the database when it is started."""
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, step))
        newer = open_spool(url)
        await newer.prepare()
        await newer.close()


@pytest.fixture
def lasting(postgres_server: Server) -> str:
    """The URL of a database that nobody borrows after this test."""
    return postgres_server.url(postgres_server.make())


async def test_the_release_before_goes_on_and_can_be_started_beside_one_that_only_adds(
    lasting: str, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = open_spool(lasting)
    for n in range(8):
        await put(old, n)  # often enough that its statements are prepared
    before = await old.claim(worker="w", now=1e4, lease=60, limit=2)
    await migrated(lasting, ADDS, monkeypatch)
    taken = await old.claim(worker="w", now=1e4, lease=60, limit=2)
    restarted = open_spool(lasting)
    taken += await restarted.claim(worker="w", now=1e4, lease=60, limit=10)
    assert len({claim.application_id for claim in (*before, *taken)}) == 8
    assert len(await old.find(Filter())) == len(await restarted.find(Filter())) == 8
    await asyncio.gather(old.close(), restarted.close())
    assert await version(lasting) == (len(MIGRATIONS) + 1, len(MIGRATIONS))


async def test_a_schema_that_needs_a_newer_program_is_refused(lasting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrated(lasting, BREAKS, monkeypatch)
    old = open_spool(lasting)
    with pytest.raises(SpoolError, match="run the newer release") as caught:
        await old.prepare()
    assert not isinstance(caught.value, SpoolUnavailable)
    await old.close()


async def test_a_step_that_fails_leaves_nothing_behind(lasting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Step("CREATE TABLE half (n integer); SELECT 1 / 0", needs=1)
    with pytest.raises(SpoolUnavailable, match="PostgreSQL"):
        await migrated(lasting, broken, monkeypatch)
    spool = open_spool(lasting)
    await spool.check_writable()
    tables = await spool._door.ask(lambda s: s.one("SELECT to_regclass('half') IS NULL AS none"))
    assert tables is not None and tables["none"]
    await spool.close()
    assert await version(lasting) == (len(MIGRATIONS), MIGRATIONS[-1].needs)


async def test_the_schema_is_the_same_as_sqlites_but_for_what_each_makes_of_it(lasting: str, tmp_path: Path) -> None:
    """A spool can be copied from one to the other, column by column."""
    here, there = await open_tables(lasting), await open_tables(tmp_path / "spool.sqlite3")
    try:
        tables = agreed(await here.columns(), await there.columns())
        assert {table.name for table in tables} > {
            "messages",
            "applications",
            "reports",
            "attempts",
            "actions",
            "marks",
        }
    finally:
        await here.close()
        await there.close()
