"""A spool of before keeps its pause when pauses get a stage and an actor."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from apptrack_ingest.model import Stage
from apptrack_ingest.spool.records import Pause
from apptrack_ingest.spool.sqlite import migrations, pauses


def test_a_pause_over_the_hash_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = migrations.MIGRATIONS
    with contextlib.closing(sqlite3.connect(tmp_path / "old", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        monkeypatch.setattr(migrations, "MIGRATIONS", every[: every.index(migrations.PEOPLES_DECISIONS)])
        migrations.migrate(connection)
        connection.execute("INSERT INTO pauses VALUES ('acme', 'unauthorized', 10.0, 910.0, 'f1')")
        connection.execute("INSERT INTO messages VALUES (1, 1.0, '', '[]', '', '', 0, 1, 'x', '[]', NULL, '[]')")
        connection.execute("INSERT INTO applications (id, message_id, received_at) VALUES (1, 1, 1.0)")
        connection.execute("INSERT INTO actions VALUES (1, 1, 10.0, 'jo', 'hold', 'wait')")
        monkeypatch.setattr(migrations, "MIGRATIONS", every)
        migrations.migrate(connection)
        assert pauses.pauses(connection) == [Pause("acme", Stage.REPORT, "unauthorized", 10.0, 910.0, "f1", actor="")]
        (action,) = connection.execute("SELECT actor, action, note, order_id FROM actions").fetchall()
        assert tuple(action) == ("jo", "hold", "wait", None)
