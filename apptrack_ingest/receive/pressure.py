"""Says when the spool has no room for another mail: its disk near full, or too much waiting already."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apptrack_ingest import logs
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.spool.contract import Load

log = logs.get("receive")

ROOM_EVERY = 0.2
"""Seconds for which the disk's free room is believed without asking again."""

UNTRUSTED_FLOORS = 2
"""So many times `free_bytes` must stay free after untrusted mail: a stranger may fill the disk, but not down to where
everybody else's mail is put off."""

LOAD_PATIENCE = 30.0
"""Seconds to wait for the spool to tell its load."""

CALM = 10.0
"""Seconds without a shortage after which it is over for the log: room that comes and goes makes no flood of lines."""

_TRUSTED: Final = Load(1, 0, 0)
_NOT_KNOWN: Final = -1.0
_ENDLESS: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Floors:
    """What must stay free on the spool's disk, in bytes and inodes, and how much may wait in the spool: applications
    without an outcome (`backlog`), and messages kept for untrusted applications with their bytes. 0: no such limit."""

    free_bytes: int = 0
    free_inodes: int = 0
    backlog: int = 0
    untrusted_messages: int = 0
    untrusted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """What is free on a disk for us (not for root alone); `free_inodes` is None where the file system counts none."""

    free_bytes: int
    free_inodes: int | None


def room_of(path: Path) -> Room:
    """The room on the disk that holds this path; OSError when it cannot be told."""
    found = os.statvfs(path)
    # Btrfs and others make inodes as they need them and say 0 of 0.
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def shortages(floors: Floors, room: Room | None, load: Load) -> tuple[Limit, ...]:
    """What there is too little of for any mail; `room` is None where the spool is on no disk of ours."""
    found = []
    if room is not None and room.free_bytes < floors.free_bytes:
        found.append(Limit.DISK_BYTES)
    if room is not None and room.free_inodes is not None and room.free_inodes < floors.free_inodes:
        found.append(Limit.DISK_INODES)
    if 0 < floors.backlog <= load.waiting:
        found.append(Limit.BACKLOG)
    return tuple(found)


def untrusted_shortage(floors: Floors, load: Load, size: int = 0) -> Limit | None:
    """Whether there is too little room for one more message, of this many bytes, that is kept as untrusted."""
    full = 0 < floors.untrusted_messages <= load.untrusted_messages
    too_large = 0 < floors.untrusted_bytes < load.untrusted_bytes + max(size, 1)
    return Limit.UNTRUSTED_BACKLOG if full or too_large else None


class Pressure:
    """Knows at any moment, without waiting, whether the spool has room; recovers by itself.

    `load` asks the spool and is called by `refresh`, which `watch` runs every `every` seconds; what is put meanwhile is
    added. `room` tells the disk's free room (None: the spool is on no disk of ours). `clock` gives seconds.
    """

    def __init__(
        self,
        floors: Floors,
        load: Callable[[], Awaitable[Load]],
        room: Callable[[], Room] | None,
        *,
        clock: Callable[[], float],
        every: float = 5.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._floors = floors
        self._ask_load = load
        self._ask_room = room
        self._clock = clock
        self._every = every
        self._sleep = sleep
        self._load = self._put = Load(0, 0, 0)
        self._room: Room | None = None
        self._room_at = float("-inf")
        self._put_bytes = 0
        self._short_at: dict[Limit, float] = {}
        # Bytes over the floor, and places in the backlog.
        self._spare_bytes = self._spare_places = _NOT_KNOWN
        self._blind = False

    def configure(self, floors: Floors) -> None:
        """Use these from now on (a reload)."""
        self._floors = floors
        self._spare_bytes = _NOT_KNOWN

    @property
    def load(self) -> Load:
        """What weighs on the spool: as it said last, and what was put since."""
        return _sum(self._load, self._put)

    def put(self, trusted: bool, size: int) -> None:
        """A message of so many bytes was put into the spool."""
        self._put = _sum(self._put, _TRUSTED if trusted else Load(1, 1, size))
        self._put_bytes += size
        self._spare_bytes -= size
        self._spare_places -= 1

    def shortages(self) -> tuple[Limit, ...]:
        """What there is too little of now, for a mail of any size: while this is not empty, we are not ready."""
        found = shortages(self._floors, self._room_now(), self.load)
        self._tell(found)
        self._note_spare()
        return found

    def _note_spare(self) -> None:
        """Take note of what may be used up before all need be looked at again; while a shortage is told, it is each time."""
        room, floors = self._room, self._floors
        if self._short_at:
            self._spare_bytes = _NOT_KNOWN
            return
        self._spare_bytes = _ENDLESS if room is None else room.free_bytes - floors.free_bytes
        self._spare_places = floors.backlog - self.load.waiting if floors.backlog > 0 else _ENDLESS

    def shortage(self, expected_bytes: int = 0) -> Limit | None:
        """What there is too little of for one more mail of this size, if anything; cheap enough for every MAIL and DATA."""
        if self._is_plenty(expected_bytes):
            return None
        found = self.shortages()
        if found or self._room is None:
            return found[0] if found else None
        return Limit.DISK_BYTES if self._room.free_bytes - expected_bytes < self._floors.free_bytes else None

    def _is_plenty(self, expected_bytes: int) -> bool:
        """Whether what was left when all was looked at, less what was put since, is known to be enough still."""
        if self._spare_bytes < expected_bytes or self._spare_places <= 0:
            return False
        return self._ask_room is None or 0 <= self._clock() - self._room_at < ROOM_EVERY

    def untrusted_shortage(self, size: int = 0) -> Limit | None:
        """Whether there is too little room for one more message, of this many bytes, that is kept as untrusted."""
        room = self._room_now()
        if room is not None and room.free_bytes - size < UNTRUSTED_FLOORS * self._floors.free_bytes:
            return Limit.DISK_BYTES
        return untrusted_shortage(self._floors, self.load, size)

    async def refresh(self) -> None:
        """Ask the spool for its load; when it cannot tell, what is known goes on counting. Never raises but when
        cancelled."""
        before = self._put
        try:
            async with asyncio.timeout(LOAD_PATIENCE):
                load = await self._ask_load()
        except Exception as error:  # noqa: BLE001 - whatever ails the spool, the intake goes on watching
            self._tell_blind(error)
        else:
            # What was put while the spool was asked may be in its answer or not: counted twice rather than never.
            self._load, self._put = load, _difference(self._put, before)
            self._tell_blind(None)
        self.shortages()

    async def watch(self) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await self._sleep(self._every)

    def _room_now(self) -> Room | None:
        """The disk's room, asked for at most every ROOM_EVERY seconds, less what was put since."""
        if self._ask_room is None:
            return None
        now = self._clock()
        if not 0 <= now - self._room_at < ROOM_EVERY:
            self._room, self._room_at = _asked(self._ask_room), now
            self._spare_bytes = _NOT_KNOWN
        elif self._put_bytes and self._room is not None:
            self._room = Room(self._room.free_bytes - self._put_bytes, self._room.free_inodes)
        self._put_bytes = 0
        return self._room

    def _tell(self, found: tuple[Limit, ...]) -> None:
        """Say once that a shortage began, and once that it is over."""
        now = self._clock()
        for limit in found:
            if limit not in self._short_at:
                log.warning("no room: mail is put off", limit=str(limit))
            self._short_at[limit] = now
        for limit, last in tuple(self._short_at.items()):
            if limit not in found and not 0 <= now - last < CALM:
                del self._short_at[limit]
                log.info("room again: mail is taken", limit=str(limit))

    def _tell_blind(self, error: Exception | None) -> None:
        if (error is not None) == self._blind:
            return
        self._blind = error is not None
        if error is not None:
            log.warning("the spool does not tell its load", **logs.exception_fields(error))
        else:
            log.info("the spool tells its load again")


def _asked(room: Callable[[], Room]) -> Room:
    """A disk that cannot be asked takes no mail either."""
    try:
        return room()
    except OSError:
        return Room(0, None)


def _sum(one: Load, other: Load) -> Load:
    return Load(
        one.waiting + other.waiting,
        one.untrusted_messages + other.untrusted_messages,
        one.untrusted_bytes + other.untrusted_bytes,
    )


def _difference(one: Load, other: Load) -> Load:
    return Load(
        one.waiting - other.waiting,
        one.untrusted_messages - other.untrusted_messages,
        one.untrusted_bytes - other.untrusted_bytes,
    )
