"""Shows what an intake takes of memory while many sessions send large mails at once, and that all of them end in 250.

Run `python benchmarks/memory.py [--sessions 100] [--size 10000000] [--processes 1]`. A real intake on loopback, its spool in
a directory of its own; the senders declare SIZE, and then do not (`grows`). Resident memory as the kernel counts it (VmHWM):
before, at its peak, and how it falls. The bound is 150 MB for each process.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from processes import free_port

BOUND = 150  # MB of resident memory, each process
PATIENCE = 600.0  # seconds for everything

HEADER = b"From: Ann <ann@example.org>\r\nX-iTrackID: %d\r\nSubject: CV\r\n\r\n"
LINE = b"x" * 76 + b"\r\n"


def megabytes(pid: int, what: str) -> float:
    """VmRSS or VmHWM of a process (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(what))


def intakes_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that take mail: it alone, or its children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = [int(pid) for pid in children if "--supervised-by" in Path(f"/proc/{pid}/cmdline").read_text()]
    return found or [process.pid]


@contextlib.contextmanager
def intake(processes: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A real intake for one account, and its port."""
    with tempfile.TemporaryDirectory(prefix="apptrack-memory-", dir="/var/tmp") as home:
        port = free_port()
        config = Path(home) / "memory.toml"
        config.write_text(
            f"data_dir = {json.dumps(home + '/data')}\nintake_processes = {processes}\n[smtp]\nport = {port}\n"
            f"[web]\nport = 0\n[log]\nlevel = 'warning'\n[accounts.acme]\nrecipients = ['acme.example']\n"
            f"[accounts.acme.handler_settings]\npath = {json.dumps(home + '/out')}\n"
        )
        command = [sys.executable, "-m", "apptrack_ingest", "serve", "--only", "intake", "--config", str(config)]
        process = subprocess.Popen(command)  # noqa: S603 - our own program
        try:
            wait_for(port)
            yield process, port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            if peer.recv(3) == b"220":
                return
        if time.monotonic() > deadline:
            raise SystemExit("the intake does not answer")
        time.sleep(0.1)


async def reply(reader: asyncio.StreamReader) -> str:
    """The last line of the next reply."""
    while (line := await reader.readline())[3:4] == b"-":
        pass
    return line.decode().strip()


async def send(port: int, number: int, body: bytes, declare: bool) -> str:
    """One mail in one session; the answer to its end, or the refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    header = HEADER % (10_000 + number)
    size = f" SIZE={len(header) + len(body)}" if declare else ""
    said = await reply(reader)
    for line in ("EHLO memory.example", f"MAIL FROM:<a@b.example>{size}", "RCPT TO:<jobs@acme.example>", "DATA"):
        writer.write(line.encode() + b"\r\n")
        said = await reply(reader)
        if said[0] not in "23":
            return said
    writer.write(header)
    for start in range(0, len(body), 65_536):
        writer.write(memoryview(body)[start : start + 65_536])
        await writer.drain()
    writer.write(b".\r\n")
    said = await reply(reader)
    writer.close()
    return said


async def siege(port: int, sessions: int, size: int, declare: bool) -> tuple[Counter[str], float]:
    """All of them at once; how often each reply came, and the seconds it took."""
    body = LINE * (size // len(LINE))
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        said = await asyncio.gather(*(send(port, number, body, declare) for number in range(sessions)))
    return Counter(one[:9] for one in said), time.monotonic() - began


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--sessions", type=int, default=100)
    options.add_argument("--size", type=int, default=10_000_000)
    options.add_argument("--processes", type=int, default=1)
    given = options.parse_args()
    for declare in (True, False):
        with intake(given.processes) as (process, port):
            before = [megabytes(pid, "VmRSS") for pid in intakes_of(process)]
            said, seconds = asyncio.run(siege(port, given.sessions, given.size, declare))
            pids = intakes_of(process)
            peaks = [megabytes(pid, "VmHWM") for pid in pids]
            after = [megabytes(pid, "VmRSS") for pid in pids]
        print(
            f"{given.sessions} sessions of {given.size / 1e6:.0f} MB, {'declared' if declare else 'grows'}:"
            f" {dict(said)} in {seconds:.0f} s; resident MB before {shown(before)}, peak {shown(peaks)},"
            f" after {shown(after)} (bound {BOUND})"
        )


def shown(values: list[float]) -> str:
    return " ".join(f"{value:.0f}" for value in values)


if __name__ == "__main__":
    main()
