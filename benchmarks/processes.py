"""What processes cost, read from /proc: CPU of a whole tree with the children it has buried, and its memory."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ports import free_port  # noqa: F401 - what every peer starts with

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
PATIENCE = 60.0


def _stats() -> Iterator[tuple[int, int, float]]:
    """Of every process: its id, its parent's, and CPU seconds of it and of its buried children (proc(5), stat)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            yield int(entry.name), int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) * TICK


def tree(*roots: int) -> dict[int, float]:
    """The living processes below these, they included, with the CPU seconds of each and of its buried children."""
    children, seconds = defaultdict(list), {}
    for pid, parent, spent in _stats():
        children[parent].append(pid)
        seconds[pid] = spent
    found, ahead = {}, list(roots)
    while ahead:
        pid = ahead.pop()
        if pid in seconds:
            found[pid] = seconds[pid]
            ahead += children[pid]
    return found


def cpu_seconds(*roots: int) -> float:
    """CPU seconds that the trees below these have taken so far; never less than before while nobody leaves them."""
    return sum(tree(*roots).values())


def memory(root: int) -> dict[int, int]:
    """Resident bytes at the most, of each living process below `root` (proc(5), VmHWM)."""
    return {pid: of(pid, "VmHWM") for pid in tree(root)}


def of(pid: int, name: str) -> int:
    """Bytes of one process: `VmRSS` is what is resident now, `VmHWM` the most that ever was (proc(5), status)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{name}:")), 0)


def wait_for_port(port: int, alive: subprocess.Popen[bytes] | None = None, seconds: float = PATIENCE) -> None:
    """Returns when something listens; raises RuntimeError when it ended before, or never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (alive is None or alive.poll() is None):
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


def stop(process: subprocess.Popen[bytes] | None) -> None:
    """Ends one of our processes, the hard way when it does not go."""
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def machine() -> str:
    """The machine in one line."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory_kib = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    system = os.uname()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, {memory_kib >> 20} GiB of memory, {system.sysname} {system.release}"


def load() -> str:
    """What else goes on: the load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
