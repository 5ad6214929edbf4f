"""The thread between supervisor and child: the child says it is ready and alive, and notices when its parent is gone."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

BEAT = 5.0
"""Seconds between two signs of life of a child's event loop."""


class ChildLink:
    """The child's end; without a supervisor (`fd` None) it says nothing and never loses its parent."""

    def __init__(self, fd: int | None) -> None:
        self._socket = socket.socket(fileno=fd) if fd is not None else None
        self._beats: asyncio.Task[None] | None = None

    def ready(self, **details: Any) -> None:
        """Everything is up; `details` (addresses) go to the supervisor."""
        self._say({"ready": details})

    def start(self, parent_gone: Callable[[], None]) -> None:
        """Begins to beat, and calls `parent_gone` once the supervisor has ended."""
        if self._socket is None:
            return
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()

        def readable() -> None:
            assert self._socket is not None
            with contextlib.suppress(BlockingIOError, ConnectionError):
                if self._socket.recv(1):
                    return
            loop.remove_reader(self._socket.fileno())
            parent_gone()

        loop.add_reader(self._socket.fileno(), readable)
        self._beats = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            self._say({"beat": True})
            await asyncio.sleep(BEAT)

    def _say(self, what: dict[str, Any]) -> None:
        if self._socket is not None:
            # A supervisor that does not read is its own trouble; one that is gone is noticed by reading.
            with contextlib.suppress(OSError):
                self._socket.send(json.dumps(what).encode() + b"\n")

    def stop(self) -> None:
        """Says nothing more."""
        if self._beats is not None:
            self._beats.cancel()
        if self._socket is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
