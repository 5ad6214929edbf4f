"""Ports for servers that tests start: no other test gets them, and no outgoing connection takes them."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Where the system takes the ports of outgoing connections, and of those who ask for any port (ip(7)). One that is found
free there can be an outgoing connection's a moment later, and then nobody can listen on it: a server that starts, or
starts again, fails in a busy run."""

LOWEST, HIGHEST, ENOUGH = 10_000, 65_535, 2_000


def free_port() -> int:
    """A port of loopback that nobody has; it stays the caller's while its server starts, stops and starts again."""
    choice = _choice(*map(int, OUTGOING.read_text().split()))
    with (Path(tempfile.gettempdir()) / f"apptrack-ingest-ports-{os.getuid()}").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # one counter for all runs side by side
        file.seek(0)
        last = file.read()
        after = int(last) + 1 if last.isdigit() else random.choice(choice)
        port = _next_free(choice, after)
        file.truncate(0)
        file.write(str(port))
    return port


def free_ports(count: int) -> list[int]:
    """So many ports, all different."""
    return [free_port() for _ in range(count)]


def _choice(low: int, high: int) -> range:
    """The larger of the ranges below and above these two, if it is large enough, else all."""
    largest = max(range(LOWEST, low), range(high + 1, HIGHEST + 1), key=len)
    return largest if len(largest) >= ENOUGH else range(LOWEST, HIGHEST + 1)


def _next_free(choice: range, after: int) -> int:
    start = after - choice.start
    for step in range(len(choice)):
        port = choice[(start + step) % len(choice)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen()
            except OSError:
                continue
        return port
    raise OSError(f"no port of loopback is free from {choice.start} to {choice.stop - 1}")
