"""Opening the SQLite spool: modes, migrations, several processes at once, and file systems it is refused on."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from apptrack_ingest.errors import SpoolError, SpoolUnavailable
from apptrack_ingest.model import Arrival, Message
from apptrack_ingest.spool import sqlite
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.sqlite import SqliteSpool, filesystem, migrations, open_spool

ONE_OF_SEVERAL = """
import asyncio, pathlib, sys
from apptrack_ingest.spool.sqlite import open_spool
print("ready", flush=True)
sys.stdin.readline()
for n in range(8):
    asyncio.run(open_spool(pathlib.Path(sys.argv[1]) / str(n) / "spool.sqlite3").close())
"""


def schema_of(database: Path) -> tuple[int, set[str]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return migrations.version_of(connection), tables - {"sqlite_sequence"}


# --- files --------------------------------------------------------------------------------------------------------


async def test_directory_and_files_are_for_us_alone(database: Path, mail: Callable[[], Message]) -> None:
    before = os.umask(0)
    try:
        spool = open_spool(database)
        await spool.put(mail(), [Arrival("acme", 7, True)])
    finally:
        os.umask(before)
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in database.parent.glob("spool.sqlite3*")}
    assert files == dict.fromkeys((f"spool.sqlite3{end}" for end in ("", "-wal", "-shm", "-opening", "-turn")), 0o600)
    await spool.close()


async def test_a_commit_survives_the_loss_of_power(database: Path, spool: SqliteSpool) -> None:
    with contextlib.closing(sqlite._connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnavailable, match=r"file/spool\.sqlite3"):
        open_spool(tmp_path / "file" / "spool.sqlite3")


def test_a_file_that_is_no_database_is_left_alone(database: Path) -> None:
    database.parent.mkdir()
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(SpoolUnavailable, match="not a database"):
        open_spool(database)
    assert database.read_bytes() == b"no database" * 1000


async def test_the_work_of_an_earlier_run_is_there(database: Path, mail: Callable[[], Message]) -> None:
    for _ in range(2):
        spool = open_spool(database)
        await spool.put(mail(), [Arrival("acme", 7, True)])
        await spool.close()
    spool = open_spool(database)
    assert len(await spool.find(Filter())) == 2
    await spool.close()


async def test_a_second_handle_in_one_process_takes_nothing_from_the_first(
    database: Path, spool: SqliteSpool, mail: Callable[[], Message]
) -> None:
    await spool.put(mail(), [Arrival("acme", 7, True)])
    await open_spool(database).close()
    # Another process comes and goes. Did it take itself for the last one, it would remove the log we are writing to.
    other = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM marks').fetchall(); c.close()"
    )
    subprocess.run([sys.executable, "-c", other, str(database)], check=True, timeout=60)
    assert database.with_name("spool.sqlite3-wal").exists()
    await spool.put(mail(), [Arrival("acme", 8, True)])
    assert schema_of(database)[0] == len(migrations.MIGRATIONS)
    assert len(await spool.find(Filter())) == 2


# --- migrations ---------------------------------------------------------------------------------------------------


def test_a_new_database_takes_every_step_and_an_up_to_date_one_none(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "new", isolation_level=None)) as connection:
        newest = len(migrations.MIGRATIONS)
        assert migrations.migrate(connection) == (0, newest)
        assert migrations.migrate(connection) == (newest, newest)
    tables = {"messages", "bodies", "applications", "reports", "attempts", "actions", "pauses", "marks"}
    tables |= {"orders", "forgotten", "tallies", "hours", "rerouted"}
    tables |= {"stored", "emptied", "swept", "bodies_directory", "puts"}
    assert schema_of(tmp_path / "new") == (newest, tables)


def test_an_older_database_takes_only_what_it_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", ("CREATE TABLE one (a);\n",))
    with contextlib.closing(sqlite3.connect(tmp_path / "old", isolation_level=None)) as connection:
        migrations.migrate(connection)
        steps = ("CREATE TABLE one (a);\n", "CREATE TABLE two (b);\nCREATE INDEX i ON two (b);\n")
        monkeypatch.setattr(migrations, "MIGRATIONS", steps)
        assert migrations.migrate(connection) == (1, 2)
    assert schema_of(tmp_path / "old") == (2, {"one", "two"})


def test_trust_of_a_message_becomes_its_applications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = "received_at, sender, recipients, peer, helo, smtputf8, trusted, trust_note, size, sha256"
    message = f"INSERT INTO messages ({columns})"
    every_step = migrations.MIGRATIONS
    with contextlib.closing(sqlite3.connect(tmp_path / "old", isolation_level=None)) as connection:
        monkeypatch.setattr(migrations, "MIGRATIONS", every_step[:1])
        migrations.migrate(connection)
        for trusted, note in ((1, "peer on loopback"), (0, "peer not on loopback")):
            connection.execute(f"{message} VALUES (1, '', '[]', '', '', 0, ?, ?, 1, '')", (trusted, note))
            connection.execute("INSERT INTO applications (message_id, received_at) VALUES (last_insert_rowid(), 1)")
        monkeypatch.setattr(migrations, "MIGRATIONS", every_step)
        migrations.migrate(connection)
        found = connection.execute("SELECT trusted, trust_note FROM applications ORDER BY id").fetchall()
    assert found == [(1, "peer on loopback"), (0, "peer not on loopback")]


def test_a_step_that_fails_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", ("CREATE TABLE one (a);\n", "CREATE TABLE two (b);\nNONSENSE;\n"))
    connection = sqlite3.connect(tmp_path / "broken", isolation_level=None)
    with contextlib.closing(connection), pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
        migrations.migrate(connection)
    assert schema_of(tmp_path / "broken") == (1, {"one"})


async def test_a_newer_database_is_refused_and_left_alone(database: Path, spool: SqliteSpool) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SpoolError, match="schema 99") as refused:
        open_spool(database)
    assert not isinstance(refused.value, SpoolUnavailable)
    assert schema_of(database)[0] == 99


def test_several_processes_may_open_a_new_spool_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE_OF_SEVERAL, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [""] * 3
    assert {schema_of(tmp_path / str(n) / "spool.sqlite3")[0] for n in range(8)} == {len(migrations.MIGRATIONS)}


async def test_the_schema_can_be_opened_many_times_at_once_in_one_process(tmp_path: Path) -> None:
    spools = await asyncio.gather(*(asyncio.to_thread(open_spool, tmp_path / "d" / "s.sqlite3") for _ in range(6)))
    for spool in spools:
        await spool.close()


# --- file systems -------------------------------------------------------------------------------------------------

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/export /mnt/mail\\040store nfs4 rw 0 0
//server/share {directory} cifs rw 0 0
/dev/sdb1 {directory}/local xfs rw 0 0
broken
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mounts"
    file.write_text(MOUNTS.format(directory=tmp_path.resolve()))
    return file


def test_a_network_file_system_is_refused(tmp_path: Path, mounts: Path) -> None:
    with pytest.raises(SpoolError, match="cifs"):
        filesystem.refuse_network_filesystem(tmp_path / "data", mounts)
    with pytest.raises(SpoolError, match="nfs4"):
        filesystem.refuse_network_filesystem(Path("/mnt/mail store/data"), mounts)


def test_the_innermost_mount_decides(tmp_path: Path, mounts: Path) -> None:
    filesystem.refuse_network_filesystem(tmp_path / "local" / "data", mounts)
    assert filesystem.filesystem_of(tmp_path / "local", mounts) == "xfs"
    assert filesystem.filesystem_of(tmp_path / "localised", mounts) == "cifs"
    assert filesystem.filesystem_of(Path("/srv"), mounts) == "ext4"


def test_a_link_onto_a_network_file_system_is_followed(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "local").mkdir()
    link = tmp_path / "local" / "link"
    (tmp_path / "remote").mkdir()
    link.symlink_to(tmp_path / "remote")
    assert filesystem.filesystem_of(link, mounts) == "cifs"


def test_where_the_system_does_not_tell_nothing_is_refused(tmp_path: Path) -> None:
    filesystem.refuse_network_filesystem(tmp_path, tmp_path / "no-such-file")


def test_opening_asks_about_the_file_system(database: Path, mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sqlite, "refuse_network_filesystem", lambda path: filesystem.refuse_network_filesystem(path, mounts)
    )
    with pytest.raises(SpoolError, match="use a local disk"):
        open_spool(database)
    assert not database.exists()
