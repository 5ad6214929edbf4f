"""Wake-up hints between processes on one machine: an empty datagram to every socket in a directory; losing one is fine."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

SETTLED = 1_000_000_000
"""Nanoseconds after which a directory's time tells for certain whether it has changed since."""


class Hints:
    """Sends hints to all who listen on the same directory, and hears theirs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sender: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._listed: tuple[int | None, list[str]] = (None, [])
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self, wake: Callable[[], None]) -> None:
        """Calls `wake` in the running loop whenever a hint comes in."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._path = self._directory / f"{os.getpid()}-{uuid4().hex[:8]}"
        listener = self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with _reachable(self._directory) as directory:
            listener.bind(f"{directory}/{self._path.name}")

        def heard() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.recv(1)
                    wake()

        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener.fileno(), heard)

    def send(self) -> None:
        """Tells everybody, from any thread and without waiting; a full queue has its hint already, and the name of a dead
        listener is removed."""
        # No fault here may reach the caller, whose commit is made: a hint may be lost, be it for want of a descriptor.
        with contextlib.suppress(OSError):
            names = self._names()
            sender = self._sender
            if sender is None:
                sender = self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            with _reachable(self._directory) as directory:
                for name in names:
                    _send_to(sender, f"{directory}/{name}")

    def _names(self) -> list[str]:
        """Who listens. The directory is read only when it has changed, for that gives up the interpreter's lock at each
        name, and is asked for at every commit."""
        changed = os.stat(self._directory).st_mtime_ns  # noqa: PTH116 - thousands of times a second
        listed_at, names = self._listed
        if changed != listed_at:
            names = os.listdir(self._directory)  # noqa: PTH208 - only names are wanted
            # What comes within one tick of the file system's clock leaves the same time.
            self._listed = (changed if abs(time.time_ns() - changed) > SETTLED else None, names)
        return names

    def close(self) -> None:
        """Stops hearing and sending."""
        if self._listener is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._sender is not None:
            self._sender.close()
        self._listener = self._path = self._sender = None


def _send_to(sender: socket.socket, path: str) -> None:
    try:
        sender.sendto(b"!", path)
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
    except OSError:
        pass  # full, or gone in between: a hint may be lost


@contextlib.contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """A short name for a directory: a socket's address may have 107 bytes only (unix(7))."""
    if len(str(directory)) < 60:
        yield str(directory)
        return
    number = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
