"""Messages that come together: as many rows as there are, whatever a statement is made for."""

import contextlib
from pathlib import Path

import pytest

from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.spool.sqlite import entering, make_fit, messages
from apptrack_ingest.spool.sqlite.connection import connect


@pytest.mark.parametrize("number", [1, 2, 3, 5, 20, 33])
def test_a_group_leaves_its_own_rows_and_no_others(tmp_path: Path, number: int) -> None:
    database = tmp_path / "data" / "spool.sqlite3"
    make_fit(database)
    arrivals = [Arrival("acme", 7, True, "dkim"), Arrival(None, None, False)]
    group = [(Message(Envelope("", ("x",), "192.0.2.1"), 1000.0, b"%d" % n), arrivals, n, None) for n in range(number)]
    with contextlib.closing(connect(database, 1.0)) as connection:
        ids = messages.put_all(connection, group)
        assert ids == list(range(1, number + 1))
        entering.enter_all(connection)
        kept = connection.execute("SELECT m.id, m.crc32, p.raw FROM messages m JOIN puts p ON p.id = m.id")
        assert [tuple(row) for row in kept] == [(n + 1, n, b"%d" % n) for n in range(number)]
        made = connection.execute("SELECT message_id, account, applicant_id, trusted, trust_note FROM applications")
        both = (("acme", 7, 1, "dkim"), (None, None, 0, ""))
        assert [tuple(row) for row in made] == [(i, *each) for i in ids for each in both]
        for table in ("messages", "puts"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == number
