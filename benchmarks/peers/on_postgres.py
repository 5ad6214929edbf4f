"""apptrack-ingest with its spool in PostgreSQL, on a server of its own that the tests know how to start."""

import sys
from pathlib import Path

from peers import Missing
from peers.ours import Ours

TESTS = Path(__file__).parents[2] / "tests"


class OursOnPostgres(Ours):
    """Its processes are ours and the server's; all other settings are the same."""

    def launch(self) -> None:
        if str(TESTS) not in sys.path:
            sys.path.append(str(TESTS))
        from postgres import Server, programs  # the tests'

        found = programs()
        if found is None:
            raise Missing("PostgreSQL is not installed (apt-get install postgresql)")
        self.server = Server(found)
        self.server.start()
        self.name_of_database = self.server.make()
        self._sections["top"] = f'spool = "{self.server.url(self.name_of_database)}"\n{self._sections.get("top", "")}'
        super().launch()

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "server"):
            self.server.remove()

    @property
    def roots(self) -> tuple[int, ...]:
        pid = int((self.server.data / "postmaster.pid").read_text().splitlines()[0])
        return (*super().roots, pid)

    def kept(self) -> int | None:
        return sum(self.states().values())

    def _counts(self, table: str) -> dict[str, int]:
        lines = self.server.sql(f"SELECT state, count(*) FROM {table} GROUP BY state", self.name_of_database).split()  # noqa: S608
        return {state: int(count) for state, count in (line.split("|") for line in lines)}
