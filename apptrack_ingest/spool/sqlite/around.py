"""What goes on around a writer's transactions: taking turns with other processes, checkpoints, and bytes to be removed."""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from apptrack_ingest import logs
from apptrack_ingest.spool.sqlite import bodies
from apptrack_ingest.spool.sqlite.checkpoints import Checkpoints
from apptrack_ingest.spool.sqlite.connection import Connection
from apptrack_ingest.spool.sqlite.gate import Gate

log = logs.get("spool")


class Around:
    """The writer's `Surroundings` on a database that several processes write."""

    def __init__(self, database: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._gate = Gate(Path(f"{database}-turn"))
        self._checkpoints = Checkpoints(connect)

    def turn(self) -> AbstractContextManager[bool]:
        return self._gate.passed()

    def committed(self, connection: sqlite3.Connection, operations: int) -> None:
        """Counts towards the next checkpoint; where bodies were erased, removes their bytes before anybody is answered."""
        self._checkpoints.wrote(operations)
        if isinstance(connection, Connection) and connection.emptied:
            connection.emptied = False
            removed(lambda: bodies.clear(connection))

    def close(self) -> None:
        self._checkpoints.close()
        self._gate.close()


def removed(remove: Callable[[], object]) -> None:
    """Removes bytes that no row speaks of any more. A fault loses nothing, and the next sweep tries again: told, not
    raised, for what the caller had done is committed."""
    try:
        remove()
    except (sqlite3.Error, OSError) as error:
        log.warning("erased bytes could not be removed yet", error=f"{type(error).__name__}: {error}")
