"""What goes on around the rows of a put: its body on the disk before them, and a hint after them."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from apptrack_ingest import logs
from apptrack_ingest.model import Arrival, Message
from apptrack_ingest.spool.sqlite import entering, messages
from apptrack_ingest.spool.sqlite.bodies import LARGE
from apptrack_ingest.spool.sqlite.segments import Appender, Place

log = logs.get("spool")


@dataclass(slots=True)
class Put:
    """A message to keep; its checksum and, for a large one, where its body is, once that is known."""

    message: Message
    arrivals: Sequence[Arrival]
    crc32: int | None = None
    place: Place | None = None


class Puts:
    """The writer's `Together` for puts: one sync for all large bodies, then one statement for all rows, which are entered
    in the ledger before anything else is done with it. `stuck` is why that last could not be done ("": it could).
    """

    light = LARGE

    def __init__(self, directory: Path, hint: Callable[[], None]) -> None:
        self._appender = Appender(directory)
        self._hint = hint
        self.stuck = ""
        self._at_once = entering.MOST_AT_ONCE
        self._kept = False

    def prepare(self, items: Sequence[Put]) -> None:
        """Brings large bodies to the disk, unless an earlier try did. Raises OSError, MemoryError."""
        large = [put for put in items if put.place is None and len(put.message.raw) >= LARGE]
        if large:
            places = self._appender.append([put.message.raw for put in large])
            for put, place in zip(large, places, strict=True):
                put.place = place
        for put in items:
            if put.crc32 is None:
                put.crc32 = zlib.crc32(put.message.raw)

    def run(self, connection: Connection, items: Sequence[Put]) -> list[int]:
        """Inserts the rows; returns the messages' ids."""
        self._kept = True
        return messages.put_all(connection, [(put.message, put.arrivals, put.crc32, put.place) for put in items])

    def complete(self, connection: Connection) -> None:
        """Enters the oldest mails that are not in the ledger yet."""
        entering.enter(connection, self._at_once)

    def completed(self) -> None:
        """That was committed."""
        self.stuck = ""
        self._at_once = min(entering.MOST_AT_ONCE, 8 * self._at_once)

    def incomplete(self, error: BaseException) -> bool:
        """That could not be committed by itself: told once. Whether to try it again with less of it: a disk that is nearly
        full may have room for a few."""
        told, self.stuck = self.stuck, f"{type(error).__name__}: {error}"
        if told != self.stuck:
            log.error("mails that came in cannot be entered in the ledger", error=self.stuck)
        less, self._at_once = self._at_once > 1, max(1, self._at_once // 8)
        return less

    def ended(self, *, kept: bool) -> None:
        """Lets go of full segments, and tells whoever waits for work. What no row will ever speak of is left for the sweep,
        which must not wait for the next large mail: it may be long in coming."""
        if kept:
            self._appender.release()
        else:
            self._appender.close()
        if self._kept:
            self._kept = False
            self._hint()

    def close(self) -> None:
        """Lets go of the segment."""
        self._appender.close()
