"""When there is no room in the spool: each floor and cap, at its edge, told once, and over by itself."""

import asyncio
import dataclasses
import logging
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apptrack_ingest.receive import pressure
from apptrack_ingest.receive.pressure import CALM, ROOM_EVERY, Floors, Pressure, Room, room_of, shortages
from apptrack_ingest.receive.pressure import untrusted_shortage as untrusted
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.spool.contract import Load

FLOORS = Floors(free_bytes=1000, free_inodes=10, backlog=5, untrusted_messages=3, untrusted_bytes=300)
ROOM = Room(1000, 10)
NOTHING = Load(0, 0, 0)


class World:
    """A disk, a spool and a clock that say what a test tells them, and remember how often they were asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.room: Room | OSError = Room(10_000, 100)
        self.load: Load | Exception = NOTHING
        self.room_asked = self.load_asked = 0
        self.gate: asyncio.Event | None = None
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def ask_room(self) -> Room:
        self.room_asked += 1
        if isinstance(self.room, OSError):
            raise self.room
        return self.room

    async def ask_load(self) -> Load:
        self.load_asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.load, Exception):
            raise self.load
        return self.load

    async def sleep(self, seconds: float) -> None:
        """Time passes at once; the third sleep is the last."""
        self.slept.append(seconds)
        self.now += seconds
        if len(self.slept) == 3:
            raise asyncio.CancelledError


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def watcher(world) -> Pressure:
    return Pressure(FLOORS, world.ask_load, world.ask_room, clock=world.clock, every=5.0, sleep=world.sleep)


@pytest.fixture
def told(caplog):
    """What the log was told: (level, event, limit)."""
    caplog.set_level(logging.INFO)
    return lambda: [(record.msg["level"], record.msg["event"], record.msg.get("limit")) for record in caplog.records]


BEGINS, ENDS = "no room: mail is put off", "room again: mail is taken"


# --- pure -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "load", "found"),
    [
        (ROOM, NOTHING, ()),
        (Room(999, 10), NOTHING, (Limit.DISK_BYTES,)),
        (Room(1000, 9), NOTHING, (Limit.DISK_INODES,)),
        (Room(1000, None), NOTHING, ()),
        (ROOM, Load(4, 0, 0), ()),
        (ROOM, Load(5, 0, 0), (Limit.BACKLOG,)),
        (ROOM, Load(0, 99, 9999), ()),
        (Room(0, 0), Load(9, 0, 0), (Limit.DISK_BYTES, Limit.DISK_INODES, Limit.BACKLOG)),
        (None, Load(9, 0, 0), (Limit.BACKLOG,)),
    ],
)
def test_what_is_short(room, load, found):
    assert shortages(FLOORS, room, load) == found
    assert shortages(Floors(), room, load) == ()


@pytest.mark.parametrize(
    ("load", "size", "full"),
    [
        (Load(9, 2, 200), 100, False),
        (Load(9, 2, 200), 101, True),
        (Load(0, 3, 0), 0, True),
        (Load(0, 0, 299), 0, False),
        (Load(0, 0, 300), 0, True),
    ],
)
def test_what_is_short_for_untrusted_mail(load, size, full):
    assert untrusted(FLOORS, load, size) is (Limit.UNTRUSTED_BACKLOG if full else None)
    assert untrusted(Floors(), load, size) is None


def test_the_room_of_a_real_disk(tmp_path):
    room = room_of(tmp_path)
    assert 0 < room.free_bytes < 2**60
    with pytest.raises(OSError, match="missing"):
        room_of(tmp_path / "missing")


@pytest.mark.parametrize(("counted", "free", "expected"), [(0, 0, None), (100, 0, 0), (100, 7, 7)])
def test_a_file_system_that_counts_no_inodes_has_no_floor_of_them(monkeypatch, tmp_path, counted, free, expected):
    fields = dict.fromkeys(("f_bsize", "f_blocks", "f_bfree", "f_ffree", "f_flag", "f_namemax"), 0)
    found = {**fields, "f_bavail": 3, "f_frsize": 4096, "f_files": counted, "f_favail": free}
    order = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_flag")
    answer = os.statvfs_result([*(found[name] for name in order), 255])
    monkeypatch.setattr(pressure.os, "statvfs", lambda _: answer)
    assert room_of(tmp_path) == Room(3 * 4096, expected)


# --- over time --------------------------------------------------------------------------------------------------------


def test_a_mail_must_leave_the_floor_free(watcher):
    assert watcher.shortage(9000) is None
    assert watcher.shortage(9001) is Limit.DISK_BYTES
    assert watcher.shortages() == ()


def test_the_disk_is_asked_no_more_than_five_times_a_second(watcher, world):
    assert watcher.shortage() is None
    world.room = Room(0, 0)
    world.now += ROOM_EVERY * 0.9
    assert watcher.shortage() is None
    assert world.room_asked == 1
    world.now += ROOM_EVERY * 0.2
    assert watcher.shortage() is Limit.DISK_BYTES
    assert world.room_asked == 2
    world.room = ROOM
    world.now -= 3600
    assert watcher.shortage() is None, "a clock that goes back blinds nobody"


def test_what_was_put_since_is_taken_off(watcher, world):
    assert watcher.shortage(5000) is None
    watcher.put(True, 4001)
    assert watcher.shortage(5000) is Limit.DISK_BYTES
    assert watcher.shortage(4999) is None
    assert watcher.shortage(4999) is None, "but once"
    world.now += ROOM_EVERY
    assert watcher.shortage(5000) is None, "the disk knows better"


def test_a_disk_that_cannot_be_asked_takes_no_mail(watcher, world):
    world.room = FileNotFoundError()
    assert watcher.shortage() is Limit.DISK_BYTES
    world.room = ROOM
    world.now += ROOM_EVERY
    assert watcher.shortage() is None


def test_without_a_disk_of_ours_there_is_only_the_load(world):
    remote = Pressure(FLOORS, world.ask_load, None, clock=world.clock)
    assert remote.shortage(10**12) is None
    for _ in range(5):
        remote.put(True, 10)
    assert remote.shortage() is Limit.BACKLOG


async def test_the_backlog_counts_what_was_put_and_recovers_by_itself(watcher, world):
    world.load = Load(3, 0, 0)
    await watcher.refresh()
    watcher.put(True, 10)
    assert watcher.shortage() is None
    watcher.put(True, 10)
    assert watcher.shortage() is Limit.BACKLOG
    await watcher.refresh()
    assert watcher.shortage() is None
    assert watcher.load == Load(3, 0, 0)


async def test_untrusted_mail_counts_for_both(watcher):
    watcher.put(True, 1000)
    assert watcher.untrusted_shortage(300) is None
    watcher.put(False, 1)
    assert watcher.untrusted_shortage(300) is Limit.UNTRUSTED_BACKLOG
    assert watcher.load == Load(2, 1, 1)


async def test_untrusted_mail_stops_earlier_than_other_mail(watcher, world):
    world.room = Room(2 * FLOORS.free_bytes + 100, 100)
    assert watcher.untrusted_shortage(100) is None
    assert watcher.untrusted_shortage(101) is Limit.DISK_BYTES
    assert watcher.shortage(101) is None
    watcher.put(False, 1)
    assert watcher.untrusted_shortage(100) is Limit.DISK_BYTES


async def test_what_is_put_while_the_spool_is_asked_is_not_forgotten(watcher, world):
    watcher.put(True, 10)
    world.load, world.gate = Load(1, 0, 0), asyncio.Event()
    asked = asyncio.create_task(watcher.refresh())
    await asyncio.sleep(0)
    watcher.put(False, 20)
    world.gate.set()
    await asked
    assert watcher.load == Load(2, 1, 20)


async def test_a_spool_that_does_not_answer_is_asked_again_and_its_last_word_stands(watcher, world, told, caplog):
    world.load = Load(5, 0, 0)
    await watcher.refresh()
    caplog.clear()
    world.load = RuntimeError("secret")
    await watcher.refresh()
    watcher.put(True, 1)
    await watcher.refresh()
    assert watcher.load == Load(6, 0, 0)
    assert watcher.shortage() is Limit.BACKLOG
    world.load = NOTHING
    await watcher.refresh()
    assert told() == [
        ("warning", "the spool does not tell its load", None),
        ("info", "the spool tells its load again", None),
    ]
    assert "secret" not in caplog.text
    assert watcher.load == NOTHING


async def test_a_spool_that_never_answers_does_not_stop_the_watch(watcher, world, monkeypatch):
    monkeypatch.setattr(pressure, "LOAD_PATIENCE", 0.001)
    world.gate = asyncio.Event()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(watcher.watch(), 10)
    assert world.load_asked == 3 and world.slept == [5.0] * 3


async def test_the_watch_ends_when_it_is_cancelled(watcher, world):
    world.gate = asyncio.Event()
    watch = asyncio.create_task(watcher.watch())
    await asyncio.sleep(0)
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch


def test_a_shortage_is_told_when_it_begins_and_when_it_is_over(watcher, world, told):
    for room in (Room(0, 100), Room(5000, 100), Room(0, 100), Room(5000, 100), Room(5000, 100)):
        world.room = room
        world.now += ROOM_EVERY * 2
        watcher.shortage()
    assert told() == [("warning", BEGINS, "disk-bytes")]
    world.now += CALM
    watcher.shortage()
    watcher.shortage()
    assert told() == [("warning", BEGINS, "disk-bytes"), ("info", ENDS, "disk-bytes")]


async def test_the_watch_tells_the_end_of_a_shortage_though_no_mail_comes(watcher, world, told):
    world.room = Room(0, 0)
    watcher.shortage()
    world.room = ROOM
    with pytest.raises(asyncio.CancelledError):
        await watcher.watch()
    assert told() == [
        ("warning", BEGINS, "disk-bytes"),
        ("warning", BEGINS, "disk-inodes"),
        ("info", ENDS, "disk-bytes"),
        ("info", ENDS, "disk-inodes"),
    ]


def test_a_large_mail_that_finds_no_room_is_no_shortage_for_the_log(watcher, told):
    assert watcher.shortage(9001) is Limit.DISK_BYTES
    assert told() == []


def test_a_reload_changes_the_floors(watcher):
    watcher.configure(dataclasses.replace(FLOORS, free_bytes=10_001))
    assert watcher.shortage() is Limit.DISK_BYTES


class _Wary(Pressure):
    """Looks at everything, every time."""

    def _is_plenty(self, expected_bytes: int) -> bool:
        return False


_STEPS = st.one_of(
    st.tuples(st.just("shortage"), st.integers(0, 1200)),
    st.tuples(st.just("untrusted"), st.integers(0, 400)),
    st.tuples(st.just("put"), st.booleans(), st.integers(0, 500)),
    st.tuples(st.just("later"), st.sampled_from([0.05, ROOM_EVERY, 1.0, CALM, -1.0])),
    st.tuples(st.just("room"), st.integers(0, 4000), st.sampled_from([None, 9, 100])),
    st.tuples(st.just("floors"), st.integers(0, 2000), st.integers(0, 8)),
    st.tuples(st.just("load"), st.integers(0, 6)),
)


@given(st.booleans(), st.lists(_STEPS, max_size=60))
@example(True, [("room", 3000, 9), ("later", 1.0), ("shortage", 0), ("shortage", 0)])
@example(True, [("shortage", 0), ("room", 500, 100), ("later", 1.0), ("untrusted", 0), ("shortage", 0)])
async def test_what_is_remembered_is_what_would_be_found(on_disk, steps):
    world = World()
    world.room = Room(3000, 100)
    ask_room = world.ask_room if on_disk else None
    made = [kind(FLOORS, world.ask_load, ask_room, clock=world.clock) for kind in (Pressure, _Wary)]
    for name, *values in steps:
        if name == "later":
            world.now += values[0]
        elif name == "room":
            world.room = Room(*values)
        for one in made:
            if name == "put":
                one.put(*values)
            elif name == "floors":
                one.configure(dataclasses.replace(FLOORS, free_bytes=values[0], backlog=values[1]))
            elif name == "load":
                world.load = Load(values[0], 0, 0)
                await one.refresh()
        size = values[0] if name in ("shortage", "untrusted") else 0
        ask = Pressure.untrusted_shortage if name == "untrusted" else Pressure.shortage
        if name in ("shortage", "untrusted", "put"):
            assert ask(made[0], size) is ask(made[1], size)
        assert made[0].load == made[1].load and made[0]._short_at.keys() == made[1]._short_at.keys()
