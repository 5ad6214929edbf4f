"""Whichever database the spool is in: one way to open it, and nothing is made by looking."""

import builtins
from pathlib import Path
from typing import Any

import pytest
from postgres import Server, postgres_server

from apptrack_ingest.errors import ConfigError, SpoolUnavailable
from apptrack_ingest.spool.opening import exists, need_driver, open_spool, open_tables

__all__ = ["postgres_server"]

DOWN = "postgresql://jo:Krokus@127.0.0.1:1/spool"


async def test_looking_makes_nothing_and_preparing_does(tmp_path: Path, postgres_server: Server) -> None:
    for where in (tmp_path / "data" / "spool.sqlite3", postgres_server.url(postgres_server.make())):
        assert not await exists(where)
        assert not await exists(where)
        spool = open_spool(where)
        await spool.prepare()
        assert await exists(where)
        await spool.close()


async def test_a_database_that_is_down_is_told_of_when_it_is_needed() -> None:
    spool = open_spool(DOWN)
    for asked in (spool.prepare, lambda: exists(DOWN), lambda: open_tables(DOWN)):
        with pytest.raises(SpoolUnavailable, match="PostgreSQL: ") as caught:
            await asked()
        assert "Krokus" not in str(caught.value)
    await spool.close()


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "asyncpg":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)


@pytest.mark.usefixtures("no_driver")
async def test_a_driver_that_is_missing_is_named(tmp_path: Path) -> None:
    for asked in (open_spool, need_driver):
        with pytest.raises(ConfigError, match=r"pip install 'apptrack-ingest\[postgres\]'") as caught:
            asked(DOWN)
        assert "Krokus" not in str(caught.value)
    with pytest.raises(ConfigError, match="apptrack-ingest"):
        await exists(DOWN)
    await open_spool(tmp_path / "spool.sqlite3").close()
