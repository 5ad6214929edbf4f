"""Names are looked up in as many threads as hand-offs and reports could wait in, on the loop that the worker runs on."""

import subprocess
import sys

COUNTED = """
import asyncio, uvloop
from pathlib import Path
from apptrack_ingest.service.worker_role import THREADS, enough_threads
from apptrack_ingest.settings import Settings

async def look_up() -> None:
    found = Settings()
    enough_threads(found)
    await asyncio.get_running_loop().getaddrinfo("localhost", 25)
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    slow = (names.count("libuv-worker") + 1) // 2  # so many of them look names up, the others are never blocked by that
    print(slow, THREADS * (found.worker.concurrency + found.worker.report_concurrency))

uvloop.run(look_up())
"""


def test_there_are_enough_of_them() -> None:
    run = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True, timeout=60)
    slow, wanted = map(int, run.stdout.split())
    assert slow == wanted == 48
