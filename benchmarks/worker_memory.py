"""What a worker process takes in memory while large mails go through it: `python benchmarks/worker_memory.py [--spool URL]`.

For each handler and size it fills a spool with mails, runs `serve --only worker` on it until all are handed over, and prints
the most that the worker's own process had resident (its parsers are processes apart), and what it kept afterwards.
The goal is 200 MB whatever arrives.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import processes
from endpoint import serving
from mails import ID, template

from apptrack_ingest.model import Arrival, Envelope, Message, State
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.sqlite import open_spool

GOAL = 200_000_000
CASES = [("no-op", 60_000, 200), ("no-op", 25_000_000, 12), ("no-op", 50_000_000, 6)]
CASES += [
    (handler, size, count) for handler in ("folder", "webhook") for size, count in ((25_000_000, 8), (50_000_000, 4))
]
PATIENCE = 300.0


def configuration(directory: Path, handler: str, url: str, more: str) -> Path:
    """Everything at its default but what is needed to run; two accounts, so that there is something to share."""
    settings = {
        "no-op": ("ats:Noop", ""),
        "folder": ("folder", f'path = "{directory / "candidates"}"'),
        "webhook": ("webhook", f'url = "{url}"\ntimeout = 120'),
    }
    name, own = settings[handler]
    account = f'reporting = false\nhandler = "{name}"\nhandler_timeout = "2m"'
    path = directory / "apptrack-ingest.toml"
    text = f'data_dir = "{directory / "data"}"\n[web]\nport = 0\n[worker]\n{more}\n'
    for each in ("a", "b"):
        text += f'[accounts.{each}]\nrecipients = ["{each}.example"]\n{account}\n[accounts.{each}.handler_settings]\n{own}\n'
    path.write_text(text, encoding="utf-8")
    return path


async def fill(directory: Path, size: int, count: int) -> None:
    """Puts mails of the size into the spool, in turn for both accounts."""
    spool, mail = open_spool(directory / "data" / "spool.sqlite3"), template(size).replace(b"\n", b"\r\n")
    for number in range(count):
        raw = mail.replace(ID, b"%d" % (40_000_001 + number))
        account = "ab"[number % 2]
        message = Message(Envelope("", (f"x@{account}.example",), "127.0.0.1"), time.time(), raw)
        await spool.put(message, [Arrival(account, 40_000_001 + number, True)])
    await spool.close()


async def waiting(directory: Path) -> int:
    spool = open_spool(directory / "data" / "spool.sqlite3")
    try:
        return len(await spool.find(Filter(states=(State.RECEIVED,), limit=1000)))
    finally:
        await spool.close()


def run(directory: Path, path: Path) -> tuple[int, int]:
    """The worker's resident bytes at most, and when all is done."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "apptrack_ingest", "serve", "--config", str(path), "--only", "worker"]
    log = (directory / "log").open("wb")
    worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603
    try:
        deadline = time.monotonic() + PATIENCE
        while asyncio.run(waiting(directory)) and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
        most = processes.of(worker.pid, "VmHWM")
        if worker.poll() is not None or asyncio.run(waiting(directory)):
            raise SystemExit((directory / "log").read_text()[-3000:])
        return most, processes.of(worker.pid, "VmRSS")
    finally:
        worker.terminate()
        worker.wait()
        log.close()


def main() -> None:
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", default="", help="lines for [worker]")
    parser.add_argument("--only", default="", help="only this handler")
    given = parser.parse_args()
    print(f"{'handler':8} {'mails':>14} {'most':>8} {'afterwards':>11}")
    for handler, size, count in CASES:
        if given.only in ("", handler):
            with serving() as ats, tempfile.TemporaryDirectory() as place:
                directory = Path(place)
                path = configuration(directory, handler, ats.url, given.settings)
                asyncio.run(fill(directory, size, count))
                most, after = run(directory, path)
                print(
                    f"{handler:8} {count:4} x {size / 1e6:5.2f} MB {most / 1e6:5.0f} MB {after / 1e6:8.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
