"""Which way of keeping mail on SQLite is fastest: designs against each other and the spool as built.

Twenty putters in one or two processes keep mails of one size and wait for their commit each time, as intakes do before they
say 250; everything is fsynced (synchronous=FULL). The designs take turns, and what is printed are medians over the rounds:
mails per second, CPU milliseconds a mail (user and system, getrusage), and how long a put took. The first lines are what the
disk and the digests cost by themselves: no design can be faster.

Only designs of one run compare; the machine drifts. A row's first word says where bodies are:

    blobs       in the row's transaction (what the spool did in 0.1)
    files       those above a size in a file each, fsynced with its directory before the rows
    log         those above a size appended to a log, fdatasynced once for the group before the rows
    spool       the spool as it is now (apptrack_ingest.spool.sqlite)
"""

import argparse
import asyncio
import fcntl
import hashlib
import json
import os
import queue
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

PUTTERS = 20
SIZES = (2_000, 60_000, 500_000, 5_000_000)
SEGMENT = 64 << 20
MOST = 128

SCHEMA = """
CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, received_at REAL, sender TEXT, recipients TEXT, peer TEXT,
    helo TEXT, smtputf8 INTEGER, size INTEGER, sha256 TEXT, evidence TEXT, warnings TEXT);
CREATE INDEX messages_kept ON messages (received_at, id);
CREATE TABLE bodies (message_id INTEGER PRIMARY KEY, raw BLOB, place INTEGER, start INTEGER, size INTEGER);
CREATE TABLE applications (id INTEGER PRIMARY KEY AUTOINCREMENT, message_id INTEGER, account TEXT, applicant_id INTEGER,
    state TEXT DEFAULT 'received', trusted INTEGER, trust_note TEXT, received_at REAL, due_at REAL, client_reference TEXT);
CREATE INDEX applications_due ON applications (due_at, id) WHERE state = 'received';
CREATE INDEX applications_by_applicant ON applications (account, applicant_id, id);
CREATE INDEX applications_by_state ON applications (state, id);
CREATE INDEX applications_by_message ON applications (message_id);
CREATE INDEX applications_by_client_reference ON applications (client_reference, id);
CREATE INDEX applications_counts ON applications (account, state);
"""
"""As much of the spool's schema as a put touches."""


@dataclass(frozen=True)
class Design:
    """One way to keep mail."""

    bodies: str = "blobs"
    above: int = 0
    digest: str = "crc32"
    page: int = 4096
    checkpoints: str = "inside"  # or "beside": by a thread of their own
    rows: str = "each"  # or "together": one statement for all rows of a group
    turns: str = (
        "sleep"  # how processes take turns: SQLite's busy handler; "poll": sleeps of 0.5 ms; "queue": a file lock
    )
    zeroed: bool = False  # the log's segments are written once before
    switch: float = 0.005  # the interpreter's switch interval


DESIGNS = {
    "blobs, as in 0.1": Design(digest="sha256"),
    "blobs, crc32": Design(),
    "blobs, 16 KB pages": Design(page=16384),
    "blobs, 64 KB pages": Design(page=65536),
    "blobs, checkpoints beside": Design(checkpoints="beside"),
    "files > 128 KB": Design("files", 131072, checkpoints="beside"),
    "log > 128 KB": Design("log", 131072, checkpoints="beside"),
    "log > 64 KB": Design("log", 65536, checkpoints="beside"),
    "log > 32 KB": Design("log", 32768, checkpoints="beside"),
    "log > 8 KB": Design("log", 8192, checkpoints="beside"),
    "log, all": Design("log", 0, checkpoints="beside"),
    "log > 8 KB, rows together": Design("log", 8192, checkpoints="beside", rows="together"),
    "log > 8 KB, rows together, switch 1 ms": Design("log", 8192, checkpoints="beside", rows="together", switch=0.001),
    "log > 8 KB, rows together, queue": Design("log", 8192, checkpoints="beside", rows="together", turns="queue"),
    "log > 8 KB, rows together, poll": Design("log", 8192, checkpoints="beside", rows="together", turns="poll"),
    "log > 8 KB, rows together, zeroed": Design("log", 8192, checkpoints="beside", rows="together", zeroed=True),
    "log > 8 KB, rows together, inside": Design("log", 8192, rows="together"),
    "log all, rows together": Design("log", 0, checkpoints="beside", rows="together"),
    "log all, rows together, zeroed": Design("log", 0, checkpoints="beside", rows="together", zeroed=True),
}


class Store:
    """A writer thread that commits what waits, by a design."""

    def __init__(self, directory: Path, design: Design) -> None:
        self.design, self.directory = design, directory
        self.jobs: queue.SimpleQueue[tuple[bytes, int, Future[int]] | None] = queue.SimpleQueue()
        self.turn = os.open(directory / "turn", os.O_RDWR | os.O_CREAT, 0o600)
        self.place, self.log, self.end, self.count = os.getpid(), -1, 0, 0
        self.folder = os.open(directory, os.O_RDONLY)
        sys.setswitchinterval(design.switch)
        self.thread = threading.Thread(target=self.run)
        self.over = threading.Event()
        self.wake = threading.Event()
        self.checkpointer = threading.Thread(target=self.checkpoint)

    def start(self) -> None:
        self.thread.start()
        if self.design.checkpoints == "beside":
            self.checkpointer.start()

    async def put(self, raw: bytes, number: int) -> int:
        future: Future[int] = Future()
        self.jobs.put((raw, number, future))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self.jobs.put(None)
        self.thread.join()
        self.over.set()
        self.wake.set()
        if self.checkpointer.is_alive():
            self.checkpointer.join()

    def checkpoint(self) -> None:
        connection = connect(self.directory, self.design)
        wal = self.directory / "db-wal"
        while not self.over.is_set():
            self.wake.wait(0.05)
            if wal.stat().st_size > 4 << 20:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if wal.stat().st_size > 64 << 20:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def run(self) -> None:
        connection = connect(self.directory, self.design)
        while (job := self.jobs.get()) is not None:
            batch = [job]
            with suppress(queue.Empty):
                while len(batch) < MOST:
                    more = self.jobs.get_nowait()
                    if more is None:
                        self.jobs.put(None)
                        break
                    batch.append(more)
            self.commit(connection, batch)
        connection.close()

    def commit(self, connection: sqlite3.Connection, batch: list[tuple[bytes, int, Future[int]]]) -> None:
        mails = [(raw, number, self.digest(raw), *self.keep(raw)) for raw, number, _ in batch]
        if self.design.bodies == "log" and any(mail[3] is not None for mail in mails):
            os.fdatasync(self.log)
        if self.design.turns == "queue":
            fcntl.flock(self.turn, fcntl.LOCK_EX)
        if self.design.turns == "poll":
            begin(connection)
        else:
            connection.execute("BEGIN IMMEDIATE")
        ids = together(connection, mails) if self.design.rows == "together" else [each(connection, m) for m in mails]
        connection.execute("COMMIT")
        if self.design.turns == "queue":
            fcntl.flock(self.turn, fcntl.LOCK_UN)
        for message_id, (_, _, future) in zip(ids, batch, strict=True):
            future.set_result(message_id)

    def digest(self, raw: bytes) -> str:
        return hashlib.sha256(raw).hexdigest() if self.design.digest == "sha256" else str(zlib.crc32(raw))

    def keep(self, raw: bytes) -> tuple[int | None, int]:
        """Puts a body where it belongs; returns its place and start, or no place when it goes with its row."""
        if self.design.bodies == "blobs" or len(raw) <= self.design.above:
            return None, 0
        self.count += 1
        if self.design.bodies == "files":
            file = os.open(self.directory / f"{self.place}-{self.count}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(file, raw)
            os.fsync(file)
            os.close(file)
            os.fsync(self.folder)
            return self.place, self.count
        if self.log < 0 or self.end + len(raw) > SEGMENT:
            self.next_segment()
        start, self.end = self.end, self.end + len(raw)
        os.pwrite(self.log, raw, start)
        return self.place, start

    def next_segment(self) -> None:
        if self.log >= 0:
            os.fdatasync(self.log)
            os.close(self.log)
        spare = self.directory / f"spare-{self.place}"
        name = self.directory / f"log-{self.place}-{self.count}"
        if self.design.zeroed and not spare.exists():
            zero(spare)
        if self.design.zeroed:
            spare.rename(name)
        self.log, self.end = os.open(name, os.O_RDWR | os.O_CREAT, 0o600), 0
        os.fsync(self.folder)


def zero(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(SEGMENT >> 20):
            file.write(bytes(1 << 20))
        os.fsync(file.fileno())


def begin(connection: sqlite3.Connection) -> None:
    """Waits for the lock with short sleeps of one length, where SQLite's grow to 100 ms."""
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            time.sleep(0.0005)
        else:
            return


MESSAGE = (
    "INSERT INTO messages (received_at, sender, recipients, peer, helo, smtputf8, size, sha256, evidence, warnings)"
)
APPLICATION = "INSERT INTO applications (message_id, account, applicant_id, trusted, trust_note, received_at, due_at)"


def each(connection: sqlite3.Connection, mail: tuple[bytes, int, str, int | None, int]) -> int:
    raw, number, digest, place, start = mail
    connection.execute("SAVEPOINT operation")
    cursor = connection.execute(
        f"{MESSAGE} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (1000.0, "a@b.example", '["c@d.example"]', "192.0.2.1", "x.example", 0, len(raw), digest, "[]", "[]"),
    )
    message_id = int(cursor.lastrowid or 0)
    body = raw if place is None else None
    connection.execute("INSERT INTO bodies VALUES (?, ?, ?, ?, ?)", (message_id, body, place, start, len(raw)))
    connection.execute(f"{APPLICATION} VALUES (?, 'acme', ?, 1, '', 1000, 1000)", (message_id, number))
    connection.execute("RELEASE operation")
    return message_id


def together(connection: sqlite3.Connection, mails: list[tuple[bytes, int, str, int | None, int]]) -> range:
    """One statement for all rows of a table: a group costs as many turns of the interpreter's lock as one mail."""
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    first = (last[0] if last else 0) + 1
    rows, places, apps, blobs, at = [], [], [], [], 1
    for message_id, (raw, number, digest, place, start) in enumerate(mails, first):
        rows.append(
            (message_id, 1000.0, "a@b.example", '["c@d.example"]', "192.0.2.1", "x", 0, len(raw), digest, "[]", "[]")
        )
        apps.append((message_id, "acme", number))
        if place is None:
            places.append((message_id, None, at, len(raw)))
            at += len(raw)
            blobs.append(raw)
        else:
            places.append((message_id, place, start, len(raw)))

    columns = ", ".join(f"value ->> {n}" for n in range(11))
    connection.execute(f"INSERT INTO messages SELECT {columns} FROM json_each(?)", (json.dumps(rows),))  # noqa: S608
    connection.execute(
        "INSERT INTO bodies SELECT value ->> 0, iif(value ->> 1 IS NULL, substr(?2, value ->> 2, value ->> 3), NULL),"
        " value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)",
        (json.dumps(places), b"".join(blobs)),
    )
    connection.execute(
        f"{APPLICATION} SELECT value ->> 0, value ->> 1, value ->> 2, 1, '', 1000, 1000 FROM json_each(?)",  # noqa: S608
        (json.dumps(apps),),
    )
    return range(first, first + len(mails))


def connect(directory: Path, design: Design) -> sqlite3.Connection:
    connection = sqlite3.connect(
        directory / "db", timeout=0 if design.turns == "poll" else 20, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = FULL")
    if design.checkpoints == "beside":
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def prepare(directory: Path, design: Design) -> None:
    connection = sqlite3.connect(directory / "db", isolation_level=None)
    connection.execute(f"PRAGMA page_size = {design.page}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(SCHEMA)
    connection.close()


# --- one process of putters ---------------------------------------------------------------------------------------


async def put_all(put: Callable[[bytes, int], Any], size: int, count: int, putters: int) -> list[float]:
    """Puts `count` mails; returns how long each took. Waits for a line first, so that processes begin together."""
    raw, waits, left = os.urandom(size), [], iter(range(count))  # one object: making copies would be measured too

    async def putter() -> None:
        for number in left:
            begun = time.perf_counter()
            await put(raw, number)
            waits.append(time.perf_counter() - begun)

    await asyncio.gather(*(putter() for _ in range(putters)))
    return waits


def put_as(design: str, directory: Path, size: int, count: int, putters: int) -> None:
    """The body of a process: puts, and prints what it took as JSON."""
    if design == "spool":
        put, start, close = the_spool(directory)
    else:
        store = Store(directory, DESIGNS[design])
        put, start, close = store.put, store.start, store.close

    async def main() -> dict[str, object]:
        start()
        await put(b"first", 0)
        print("ready", flush=True)
        sys.stdin.readline()
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.time()
        waits = await put_all(put, size, count, putters)
        after, ended = resource.getrusage(resource.RUSAGE_SELF), time.time()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"begun": begun, "ended": ended, "cpu": cpu, "waits": waits}

    print(json.dumps(asyncio.run(main())))
    close()


def the_spool(directory: Path) -> tuple[Callable[[bytes, int], Any], Callable[[], None], Callable[[], None]]:
    from apptrack_ingest.model import Arrival, Envelope, Message
    from apptrack_ingest.spool.sqlite import open_spool

    spool = open_spool(directory / "data" / "spool.sqlite3")
    envelope = Envelope("a@b.example", ("c@d.example",), "192.0.2.1")

    async def put(raw: bytes, number: int) -> int:
        return await spool.put(Message(envelope, 1000.0, raw), [Arrival("acme", number, True)])

    return put, lambda: None, lambda: None


# --- rounds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What one run took: mails per second, CPU milliseconds a mail, milliseconds of the median and slowest puts."""

    rate: float
    cpu: float
    p50: float
    p99: float
    most: float


def run(design: str, size: int, count: int, processes: int, where: Path | None) -> Figures:
    """One design, once."""
    directory = Path(tempfile.mkdtemp(prefix="spool-benchmark-", dir=where))
    try:
        if design != "spool":
            prepare(directory, DESIGNS[design])
        share = (str(size), str(count // processes), str(max(PUTTERS // processes, 1)))
        command = [sys.executable, __file__, "--process", design, str(directory), *share]
        children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
            for _ in range(processes)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        results = [json.loads(child.communicate()[0]) for child in children]
    finally:
        shutil.rmtree(directory)
    return figures(results, count)


def figures(results: list[dict[str, Any]], count: int) -> Figures:
    waits = sorted(wait for result in results for wait in result["waits"])
    took = max(r["ended"] for r in results) - min(r["begun"] for r in results)
    cpu = sum(r["cpu"] for r in results) / count
    return Figures(
        count / took, cpu * 1e3, waits[len(waits) // 2] * 1e3, waits[int(len(waits) * 0.99)] * 1e3, waits[-1] * 1e3
    )


def count_of(size: int, scale: float) -> int:
    """Mails of a size that make a run of a second or two."""
    return max(int(min(6000, 90_000_000 / size) * scale), PUTTERS * 2)


def primitives(where: Path | None) -> None:
    """What the disk and the digests cost by themselves."""
    directory = Path(tempfile.mkdtemp(prefix="spool-benchmark-", dir=where))
    try:
        for size in SIZES:
            raw, number = os.urandom(size), min(200, SEGMENT // size)
            log = os.open(directory / "log", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            parts = {
                "sha256": lambda n, raw=raw: hashlib.sha256(raw).digest(),
                "crc32": lambda n, raw=raw: zlib.crc32(raw),
                "append + fdatasync": lambda n, raw=raw, log=log: (
                    os.pwrite(log, raw, n * len(raw)),
                    os.fdatasync(log),
                ),
                "file + fsync": lambda n, raw=raw: new_file(directory / f"file-{n}", raw),
            }
            shown = [f"{name} {timed(part, number)}" for name, part in parts.items()]
            os.close(log)
            print(f"{size / 1000:>6.0f} KB  {'   '.join(shown)}")
    finally:
        shutil.rmtree(directory)


def new_file(path: Path, raw: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(file, raw)
    os.fsync(file)
    os.close(file)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def timed(part: Callable[[int], object], number: int) -> str:
    waits, cpu = [], time.process_time()
    for n in range(number):
        begun = time.perf_counter()
        part(n)
        waits.append(time.perf_counter() - begun)
    return f"{median(waits) * 1e3:.2f} ms ({(time.process_time() - cpu) / number * 1e3:.2f} CPU)"


def compare(
    designs: list[str], sizes: list[int], processes: int, rounds: int, scale: float, where: Path | None
) -> None:
    for size in sizes:
        found: dict[str, list[Figures]] = defaultdict(list)
        for _ in range(rounds):
            for design in designs:
                found[design].append(run(design, size, count_of(size, scale), processes, where))
        first = median(f.rate for f in found[designs[0]])
        print(
            f"\n{size / 1000:.0f} KB, {processes} process(es): puts/s, of the first, CPU ms a put, p50 / p99 / slowest ms"
        )
        for design, runs in found.items():
            rate, cpu, p50, p99, most = (
                median(getattr(f, key) for f in runs) for key in ("rate", "cpu", "p50", "p99", "most")
            )
            print(
                f"  {design:<40} {rate:>7.0f} {rate / first:>6.2f}x {cpu:>8.3f} {p50:>8.2f} / {p99:.2f} / {most:.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, action="append", help="writing processes (default 1, then 2)")
    parser.add_argument("--size", type=int, action="append", help="bytes of a mail (default 2 KB, 60 KB, 500 KB, 5 MB)")
    parser.add_argument("--design", action="append", help="one of them, by its name; may be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer mails in a run")
    parser.add_argument("--dir", type=Path, help="where to keep the data (default: the system's temporary directory)")
    parser.add_argument("--process", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.process:
        design, directory, *numbers = given.process
        return put_as(design, Path(directory), *map(int, numbers))
    primitives(given.dir)
    for processes in given.processes or [1, 2]:
        compare(
            given.design or [*DESIGNS, "spool"],
            given.size or list(SIZES),
            processes,
            given.rounds,
            given.scale,
            given.dir,
        )
    return None


if __name__ == "__main__":
    main()
