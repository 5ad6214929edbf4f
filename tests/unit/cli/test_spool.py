"""`spool copy`, `spool check` and `spool backup` as a person calls them, on real databases."""

import asyncio
import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from filled import BODIES, fill
from postgres import Server, postgres_server

from apptrack_ingest.cli import main
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.service import lock
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.opening import Where, open_spool, open_tables
from apptrack_ingest.spool.sqlite import bodies

__all__ = ["postgres_server"]


@pytest.fixture
def url(postgres_server: Server) -> Iterator[str]:
    with postgres_server.lent() as lent:
        yield lent


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a filled spool."""
    fill_at(tmp_path / "data" / "spool.sqlite3")
    return tmp_path / "data"


def fill_at(where: Where) -> None:
    async def filled() -> None:
        spool = open_spool(where)
        await fill(spool)
        await spool.close()

    asyncio.run(filled())


def damage(where: Where, statement: str) -> None:
    async def damaged() -> None:
        tables = await open_tables(where)
        await tables.run(statement)
        await tables.close()

    asyncio.run(damaged())


def configuration(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "c.toml"
    file.write_text("\n".join([f"data_dir = {json.dumps(str(tmp_path / 'data'))}", *lines]))
    return file


def run(config: Path, *words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [*map(str, words), "--config", str(config)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def applications(where: Where) -> list[int]:
    async def asked() -> list[int]:
        spool = open_spool(where)
        try:
            return sorted(row.application_id for row in await spool.find(Filter(limit=1000)))
        finally:
            await spool.close()

    return asyncio.run(asked())


# --- copy ----------------------------------------------------------------------------------------------------------------


def test_a_spool_goes_to_postgresql_is_used_there_and_comes_back(tmp_path: Path, data: Path, url: str) -> None:
    said = run(configuration(tmp_path), "spool", "copy", "--to", url).stdout
    assert f"{len(BODIES)} mails" in said and "never serve from both" in said
    there = configuration(tmp_path, f"spool = {json.dumps(url)}")
    run(there, "hold", "6", "--reason", "done there")
    listed = json.loads(run(there, "list", "--json").stdout)["applications"]
    assert sorted(row["application_id"] for row in listed) == applications(data / "spool.sqlite3")
    back = tmp_path / "back" / "spool.sqlite3"
    done = json.loads(run(there, "spool", "copy", "--to", back, "--json").stdout)
    assert done["bodies"] == len(BODIES) and done["rows"]["actions"] == 2
    assert applications(back) == applications(url)
    assert stat.S_IMODE(back.stat().st_mode) == 0o600
    run(configuration(tmp_path), "spool", "copy", "--to", url, code=4)


def test_the_targets_password_may_stay_off_the_command_line(tmp_path: Path, data: Path, url: str) -> None:
    secret = tmp_path / "target"
    secret.write_text(f"{url}\n")
    run(configuration(tmp_path), "spool", "copy", "--to-file", secret)
    assert applications(url) == applications(data / "spool.sqlite3")


def test_the_source_may_be_another(tmp_path: Path, data: Path) -> None:
    data.rename(tmp_path / "elsewhere")
    target = tmp_path / "new" / "spool.sqlite3"
    run(configuration(tmp_path), "spool", "copy", "--from", tmp_path / "elsewhere", "--to", target)
    assert applications(target)


@pytest.mark.parametrize("role", ["worker", "intake"])
@pytest.mark.parametrize("used", ["source", "target"])
def test_a_spool_that_is_served_is_not_copied(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, role: str, used: str
) -> None:
    target = tmp_path / "new"
    held = lock.take(data if used == "source" else target, role)
    try:
        said = run(configuration(tmp_path), "spool", "copy", "--to", target / "spool.sqlite3", code=1)
    finally:
        os.close(held)
    assert f"runs the {role}" in said.stderr
    run(configuration(tmp_path), "spool", "copy", "--to", target / "spool.sqlite3")


def test_a_database_that_is_served_is_not_copied_to(tmp_path: Path, data: Path, url: str) -> None:
    async def while_connected() -> Result:
        spool = open_spool(url)
        await spool.check_writable()
        try:
            config = configuration(tmp_path)
            return await asyncio.to_thread(run, config, "spool", "copy", "--to", url, code=4)
        finally:
            await spool.close()

    assert "stop every `serve` first" in asyncio.run(while_connected()).stderr
    run(configuration(tmp_path), "spool", "copy", "--to", url)


def test_what_cannot_be_copied_is_named(tmp_path: Path, data: Path) -> None:
    config = configuration(tmp_path)
    assert "the same spool" in run(config, "spool", "copy", "--to", data / "spool.sqlite3", code=4).stderr
    assert "the same spool" in run(config, "spool", "copy", "--to", data, code=4).stderr
    nothing = run(config, "spool", "copy", "--from", tmp_path / "none", "--to", tmp_path / "x.sqlite3", code=3)
    assert "there is no spool at" in nothing.stderr and not (tmp_path / "x.sqlite3").exists()
    assert "say where to" in run(config, "spool", "copy", code=2).stderr
    for bad in ("postgresql://jo:Krokus@[x/y", "mysql://jo:Krokus@x/y", "postgresql://jo:Krokus@x/y?sslmode=perhaps"):
        said = run(config, "spool", "copy", "--to", bad, code=78).output
        assert "--to" in said and "Krokus" not in said
    down = run(config, "spool", "copy", "--to", "postgresql://jo:Krokus@127.0.0.1:1/y", code=69).output
    assert "PostgreSQL" in down and "Krokus" not in down


def test_what_is_damaged_is_left_out_when_told_to(tmp_path: Path, data: Path) -> None:
    config, target = configuration(tmp_path), tmp_path / "new" / "spool.sqlite3"
    damage(data / "spool.sqlite3", "DELETE FROM puts WHERE id IN (4, 6)")
    assert "with --leave-damaged" in run(config, "spool", "copy", "--to", target, code=1).stderr
    said = run(config, "spool", "copy", "--to", target, "--leave-damaged").stdout
    assert f"{len(BODIES) - 2} mails" in said and "the mails of 2 applications (4, 6) are missing" in said
    assert "Set data_dir = its directory" in said
    again = json.loads(run(config, "spool", "copy", "--to", tmp_path / "b", "--leave-damaged", "--json").stdout)
    assert again["damaged"] == [4, 6] and again["bodies"] == len(BODIES) - 2
    assert "Make it spool.sqlite3" in run(config, "spool", "copy", "--to", tmp_path / "c", "--leave-damaged").stdout
    assert applications(target) == applications(data / "spool.sqlite3")


# --- check ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Where]:
    """A configuration whose spool is filled, and where that is."""
    if request.param == "sqlite":
        request.getfixturevalue("data")
        return configuration(tmp_path), tmp_path / "data" / "spool.sqlite3"
    url = request.getfixturevalue("url")
    fill_at(url)
    return configuration(tmp_path, f"spool = {json.dumps(url)}"), url


def test_check_tells_a_line_for_each_finding(config: tuple[Path, Where]) -> None:
    file, where = config
    assert (
        run(file, "spool", "check").stdout == f"{len(BODIES)} mails and all that is known of them are as they must be\n"
    )
    assert json.loads(run(file, "spool", "check", "--json").stdout) == {"findings": [], "mails": len(BODIES)}
    damage(where, "UPDATE messages SET size = 17 WHERE id IN (3, 4)")
    wanted = [f"message {n}: it has {len(BODIES[n - 1])} bytes, and 17 were received (application {n})" for n in (3, 4)]
    assert run(file, "spool", "check", code=1).stdout.splitlines() == wanted
    assert json.loads(run(file, "spool", "check", "--json", code=1).stdout)["findings"] == wanted


def test_check_mends_what_is_derived_and_nothing_else(config: tuple[Path, Where]) -> None:
    file, where = config
    damage(where, "UPDATE messages SET finished_at = 1.5 WHERE id = 6")
    (told,) = run(file, "spool", "check", code=1).stdout.splitlines()
    assert "`apptrack-ingest spool check --mend`" in told
    run(file, "spool", "check", "--mend")
    damage(where, "UPDATE messages SET size = 17 WHERE id = 4")
    assert "17 were received" in run(file, "spool", "check", "--mend", code=1).stdout


def test_looking_makes_no_spool(tmp_path: Path, postgres_server: Server) -> None:
    url = postgres_server.url(postgres_server.make())
    for lines in ([], [f"spool = {json.dumps(url)}"]):
        for words in (["spool", "check"], ["list"]):
            said = run(configuration(tmp_path, *lines), *words, code=3)
            assert "there is no spool at" in said.stderr
    assert not (tmp_path / "data").exists()
    made = run(configuration(tmp_path, f"spool = {json.dumps(url)}"), "migrate").stdout
    assert "is up to date" in made
    run(configuration(tmp_path, f"spool = {json.dumps(url)}"), "list")


# --- backup --------------------------------------------------------------------------------------------------------------


def test_a_backup_is_one_file_that_is_whole(tmp_path: Path, data: Path) -> None:
    file = tmp_path / "backup.sqlite3"
    before = os.umask(0)
    try:
        assert f"{len(BODIES)} mails" in run(configuration(tmp_path), "spool", "backup", file).stdout
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.glob("backup*")] == ["backup.sqlite3"]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    restored = tmp_path / "restored"
    restored.mkdir()
    file.rename(restored / "spool.sqlite3")
    assert applications(restored / "spool.sqlite3") == applications(data / "spool.sqlite3")

    async def raws() -> list[bytes]:
        spool = open_spool(restored / "spool.sqlite3")
        try:
            return [await spool.raw(n) for n in range(1, len(BODIES) + 1)]
        finally:
            await spool.close()

    assert asyncio.run(raws()) == BODIES


def test_a_backup_replaces_nothing_unasked_and_leaves_nothing_half_done(tmp_path: Path, data: Path) -> None:
    config, file = configuration(tmp_path), tmp_path / "backup.sqlite3"
    file.write_text("an earlier one")
    assert "is there already" in run(config, "spool", "backup", file, code=4).stderr
    assert file.read_text() == "an earlier one"
    run(config, "spool", "backup", file, "--force")
    assert file.stat().st_size > 10_000
    assert "check that its directory" in run(config, "spool", "backup", tmp_path / "no" / "b", code=69).stderr


def test_a_backup_of_a_damaged_spool_is_made_and_says_what_is_damaged(tmp_path: Path, data: Path) -> None:
    config, file = configuration(tmp_path), tmp_path / "restored" / "spool.sqlite3"
    file.parent.mkdir()
    damage(data / "spool.sqlite3", "DELETE FROM puts WHERE id = 4")
    done = run(config, "spool", "backup", file, code=5)
    assert f"{len(BODIES)} applications and {len(BODIES) - 1} mails" in done.stdout
    assert "the mail of application 4 is missing or damaged in the spool itself" in done.stderr
    assert applications(file) == applications(data / "spool.sqlite3")


def test_what_is_damaged_replaces_no_earlier_backup(tmp_path: Path, data: Path) -> None:
    config, file = configuration(tmp_path), tmp_path / "backup.sqlite3"
    run(config, "spool", "backup", file)
    whole = file.read_bytes()
    damage(data / "spool.sqlite3", "DELETE FROM puts WHERE id = 4")
    damage(data / "spool.sqlite3", "UPDATE puts SET raw = x'00' WHERE id = 6")
    for _ in range(2):
        done = run(config, "spool", "backup", file, "--force", code=5)
        assert done.stdout.startswith(f"{file}.damaged: ")
        assert "the mails of 2 applications (4, 6) are missing or damaged" in done.stderr
        assert f"{file} is left as it was" in done.stderr
    assert file.read_bytes() == whole
    assert applications(Path(f"{file}.damaged")) == applications(data / "spool.sqlite3")
    damage(data / "spool.sqlite3", "UPDATE messages SET erased_at = 1 WHERE id IN (4, 6)")
    run(config, "spool", "backup", file, "--force")
    assert file.read_bytes() != whole


def test_a_backup_names_what_is_damaged_of_old_mails_without_a_checksum(tmp_path: Path, data: Path) -> None:
    config, file = configuration(tmp_path), tmp_path / "backup.sqlite3"
    damage(data / "spool.sqlite3", "UPDATE messages SET crc32 = NULL")
    run(config, "spool", "backup", file)
    damage(data / "spool.sqlite3", "UPDATE messages SET size = 17 WHERE id = 4")
    assert "the mail of application 4 is" in run(config, "spool", "backup", file, "--force", code=5).stderr


def test_the_applications_of_a_damaged_mail_are_named(tmp_path: Path) -> None:
    where = tmp_path / "data" / "spool.sqlite3"

    async def put() -> None:
        spool = open_spool(where)
        for raw in (b"one", b"two"):
            message = Message(Envelope("", ("cv@acme.example",), "192.0.2.1"), 1e9, raw)
            await spool.put(message, [Arrival("acme", 1, True), Arrival("beta", 1, True)])
        await spool.close()

    asyncio.run(put())
    damage(where, "UPDATE puts SET raw = x'00' WHERE id = 2")
    config = configuration(tmp_path)
    assert "(application 3, 4)" in run(config, "spool", "check", code=1).stdout
    assert "applications (3, 4)" in run(config, "spool", "backup", tmp_path / "b", code=5).stderr
    copied = json.loads(run(config, "spool", "copy", "--to", tmp_path / "c", "--leave-damaged", "--json").stdout)
    assert copied["damaged"] == [3, 4]


def test_a_backup_that_lost_something_of_its_own_is_not_kept(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = bodies.gather

    def losing(copy: sqlite3.Connection, live: sqlite3.Connection) -> bodies.Gathered:
        gathered = gather(copy, live)
        copy.execute("DELETE FROM puts WHERE id = 4")
        return gathered

    monkeypatch.setattr(bodies, "gather", losing)
    said = run(configuration(tmp_path), "spool", "backup", tmp_path / "broken", code=1).stderr
    assert "1 bodies are missing" in said and "`apptrack-ingest spool check` tells" in said
    assert list(tmp_path.glob("broken*")) == []


def test_postgresql_has_its_own_tools_for_a_backup(tmp_path: Path) -> None:
    config = configuration(tmp_path, 'spool = "postgresql://jo:Krokus@127.0.0.1:1/spool"')
    said = run(config, "spool", "backup", tmp_path / "b", code=1).output
    assert "pg_dump" in said and "Krokus" not in said and "127.0.0.1:1/spool" in said
