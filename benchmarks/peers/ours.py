"""apptrack-ingest itself, as `serve` starts it, with nothing set that a user would not set."""

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from apptrack_ingest.spool.sqlite.entering import ENTERED
from peers import RECIPIENT, Peer

HANDLERS = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
"""Where the handlers of the benchmarks are found."""

CONFIGURATION = """
data_dir = {data_dir}
{top}
[smtp]
port = {port}
hostname = "mx.bench.example"
{smtp}
[web]
port = 0
[trust]
networks = ["127.0.0.0/8"]
[idibu]
base_url = "{endpoint}"
{worker}
[accounts.bench]
recipients = ["{recipient}"]
handler = "{handler}"
{account}
[accounts.bench.handler_settings]
{handler_settings}
"""


class Ours(Peer):
    """`only` runs one role alone; the words given for a section are added to it as TOML."""

    def __init__(
        self,
        name: str = "apptrack-ingest, SQLite",
        *,
        only: str | None = None,
        handler: str = "folder",
        endpoint: str = "http://127.0.0.1:9",
        **sections: str,
    ) -> None:
        super().__init__()
        self.name = name
        self._only, self._handler, self._endpoint, self._sections = only, handler, endpoint, sections

    def launch(self) -> None:
        config = self.home / "apptrack-ingest.toml"
        config.write_text(self._configuration())
        only = ["--only", self._only] if self._only else []
        command = (sys.executable, "-m", "apptrack_ingest", "serve", "--config", config, *only)
        self.spawn(*command, env={**os.environ, "PYTHONPATH": HANDLERS})

    def _configuration(self) -> str:
        reporting = 'hash = "bench"\n' if self._endpoint.split(":")[-1] != "9" else "reporting = false\n"
        default = f"path = {json.dumps(str(self.home / 'candidates'))}\n" if self._handler == "folder" else ""
        return CONFIGURATION.format(
            data_dir=json.dumps(str(self.home / "data")),
            port=self.port,
            endpoint=self._endpoint,
            recipient=RECIPIENT,
            handler=self._handler,
            top=self._sections.get("top", ""),
            smtp=self._sections.get("smtp", ""),
            worker=self._sections.get("worker", ""),
            account=reporting + self._sections.get("account", ""),
            handler_settings=self._sections.get("handler_settings", default),
        )

    @property
    def database(self) -> Path:
        """The spool's file."""
        return self.home / "data" / "spool.sqlite3"

    def kept(self) -> int | None:
        not_entered = f"SELECT count(*) FROM puts WHERE id > {ENTERED}"  # noqa: S608 - our own constant
        [(number,)] = self._rows(f"SELECT (SELECT count(*) FROM applications) + ({not_entered})")  # noqa: S608
        return int(number)

    def states(self) -> dict[str, int]:
        """How many applications are in each state, as the ledger has it."""
        return self._counts("applications")

    def reports(self) -> dict[str, int]:
        """How many reports are in each state."""
        return self._counts("reports")

    def delivered_at(self) -> list[float]:
        """When each hand-off ended (epoch seconds)."""
        return [float(row[0]) for row in self._rows("SELECT delivered_at FROM applications WHERE delivered_at > 0")]

    def hand_offs(self) -> list[float]:
        """Of each application handed off, the seconds from the end of DATA to the handler's verdict."""
        return [
            float(row[0])
            for row in self._rows("SELECT delivered_at - received_at FROM applications WHERE delivered_at > 0")
        ]

    def _counts(self, table: str) -> dict[str, int]:
        return dict(self._rows(f"SELECT state, count(*) FROM {table} GROUP BY state"))  # noqa: S608

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
