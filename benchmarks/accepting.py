"""How fast mail is accepted, at what CPU, and how long a sender waits for its 250: ours beside the peers."""

import atexit
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import load
import processes
import tables
from load import Sent
from peers import Missing, Peer
from peers.files import Files
from peers.haraka import Haraka
from peers.mailbox import Mailbox
from peers.on_postgres import OursOnPostgres
from peers.ours import Ours
from peers.postfix import Postfix
from peers.sink import Sink

MAILS = {2_000: 12_000, 60_000: 2_000, 500_000: 500, 5_000_000: 60}
"""How many of each size are sent for one measurement: about a second of the fastest, or more, for what a virtual machine's
neighbours take from it comes and goes."""

WARM = 40
"""Mails sent before, that start what a system starts at need."""

HOME = Path("/var/tmp")  # noqa: S108 - a directory with a random name is made below it
"""On a disk, and readable to Postfix's own users, as /tmp need not be."""

REFERENCE = Postfix.name


def systems() -> dict[str, Callable[[], Peer]]:
    """What is compared, by name."""
    makes: list[Callable[[], Peer]] = [Sink, Postfix, Files, Mailbox, Haraka, one_intake, two_intakes, on_postgres]
    return {make().name: make for make in makes}


def one_intake() -> Peer:
    """Ours as it is by default."""
    return Ours("apptrack-ingest, SQLite", only="intake")


def two_intakes() -> Peer:
    """Ours with a second intake process."""
    return Ours("apptrack-ingest, SQLite, 2 intakes", only="intake", top="intake_processes = 2")


def on_postgres() -> Peer:
    """Ours with its spool in PostgreSQL; the server's CPU counts as ours."""
    return OursOnPostgres("apptrack-ingest, PostgreSQL, 2 intakes", only="intake", top="intake_processes = 2")


@dataclass(slots=True)
class Measured:
    """One measurement of one system."""

    per_second: float
    cpu: float
    sent: Sent


@contextmanager
def directory() -> Iterator[Path]:
    """A new directory, emptied of its bytes at the end, and removed when the program ends: after many files were removed,
    ext4 without a journal makes new ones slowly for five minutes (`recently_deleted` in the kernel's fs/ext4/ialloc.c),
    for which whoever is measured next would pay."""
    home = Path(tempfile.mkdtemp(prefix="benchmark-", dir=HOME))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    try:
        yield home
    finally:
        for path in home.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with suppress(OSError):
                    os.truncate(path, 0)


@contextmanager
def started(peer: Peer, home: Path | None = None) -> Iterator[Peer]:
    """A peer that listens, in that directory or a new one, stopped at the end."""
    with nullcontext(home) if home else directory() as place:
        try:
            peer.start(place)
            yield peer
        finally:
            peer.stop()


def measure(peer: Peer, send: Callable[[Peer, int], Sent], many: int) -> Measured:
    """Sends `many` mails to a peer of its own. Raises RuntimeError when one that was answered 250 was not kept."""
    with started(peer):
        send(peer, WARM if many > WARM else 2)
        os.sync()  # what others left to be written is not to be paid for here
        before, kept = processes.cpu_seconds(*peer.roots), peer.kept()
        sent = send(peer, many)
        cpu, now = processes.cpu_seconds(*peer.roots) - before, peer.kept()
        if kept is not None and now is not None and now - kept != many:
            raise RuntimeError(f"{peer.name}: {many} mails were answered 250, {now - kept} are there")
        return Measured(many / sent.seconds, cpu / many, sent)


def chosen(names: Sequence[str] = ()) -> dict[str, Callable[[], Peer]]:
    """The systems with one of these words in their name; all of them without a word."""
    return {name: make for name, make in systems().items() if not names or any(word in name.lower() for word in names)}


def alternate(
    taking_turns: dict[str, Callable[[], Peer]], send: Callable[[Peer, int], Sent], many: int, rounds: int
) -> dict[str, list[Measured]]:
    """All systems after one another, `rounds` times. Those that cannot be started here are left out, and named."""
    results: dict[str, list[Measured]] = defaultdict(list)
    for _ in range(rounds):
        for name, make in list(taking_turns.items()):
            try:
                results[name].append(measure(make(), send, many))
            except Missing as missing:
                print(f"NOT MEASURED: {name}: {missing}\n", flush=True)
                del taking_turns[name]
    return results


def throughput(taking_turns: dict[str, Callable[[], Peer]], sizes: Sequence[int], rounds: int, share: float) -> None:
    """Mails a second from smtp-source, with a connection each, and over connections that are used again."""
    for size in sizes:
        many = max(10, int(MAILS[size] * share))
        for reuse in (False, True):
            results = alternate(
                taking_turns,
                lambda peer, number, size=size, reuse=reuse: load.smtp_source(peer.port, size, number, reuse=reuse),
                many,
                rounds,
            )
            how = "connections used again" if reuse else "a connection each"
            tables.title(f"Accepted, {tables.SIZES[size]}, {how}: {rounds} rounds of {many} mails, 20 sessions")
            _throughput_table(results)


def _throughput_table(results: dict[str, list[Measured]]) -> None:
    rows = []
    for name, runs in results.items():
        rates, cpu = [run.per_second for run in runs], [run.cpu for run in runs]
        postfix, aiosmtpd = results.get(REFERENCE, []), results.get(Files.name, [])
        rows.append(
            (
                name,
                tables.rate(tables.middle(rates)),
                _times(rates, [run.per_second for run in postfix]),
                _times(rates, [run.per_second for run in aiosmtpd]),
                tables.milliseconds(tables.middle(cpu)),
                _times(cpu, [run.cpu for run in postfix]),
            )
        )
    head = ("", "mails a second", "times Postfix", "times aiosmtpd", "CPU ms a mail", "times Postfix's")
    tables.table(head, rows)


def _times(values: Sequence[float], reference: Sequence[float]) -> str:
    """The median of the ratios of runs that followed one another; nothing where the reference was not measured."""
    if not reference:
        return ""
    return tables.times(tables.middle([value / other for value, other in zip(values, reference, strict=True)]))


def latency(taking_turns: dict[str, Callable[[], Peer]], rounds: int, share: float, size: int = 60_000) -> None:
    """How long a sender waits, with 20 busy sessions, and at 50 mails a second."""
    for words, rate, mails in (("20 busy sessions", 0.0, 2_000), ("50 mails a second", 50.0, 1_000)):
        many = max(20, int(mails * share))
        results = alternate(
            taking_turns, lambda peer, number, rate=rate: load.own(peer.port, size, number, rate=rate), many, rounds
        )
        tables.title(f"Milliseconds to the 250, {tables.SIZES[size]}, {words}: {rounds} rounds of {many} mails")
        rows = [(name, *_latencies(runs)) for name, runs in results.items()]
        head = ("", "from the connection, p50", "p99", "from the first byte of DATA, p50", "p99", "mails a second")
        tables.table(head, rows)


def _latencies(runs: list[Measured]) -> tuple[str, ...]:
    found = [
        tables.milliseconds(tables.middle([tables.percentile(values(run), percent) for run in runs]))
        for values in (lambda run: run.sent.whole, lambda run: run.sent.data)
        for percent in (50, 99)
    ]
    return (*found, tables.rate(tables.middle([run.per_second for run in runs])))
