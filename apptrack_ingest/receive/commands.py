"""Reads a session's command lines: fairly, within limits, and no longer than the session may go on."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from apptrack_ingest.receive import authentication

COMMANDS_PER_TURN: Final = 16
"""So many commands of a pipelined burst are answered before other sessions get their turn."""

LONGEST_COMMAND: Final = 1000
"""Bytes in a command's line, without its end; twice what RFC 5321, 4.5.3.1.4 asks for."""


class CommandReader(asyncio.StreamReader):
    """Hands out command lines: takes turns within a pipelined burst, asks whether to go on, and tells who waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, may_go_on: Callable[[], bool]) -> None:
        super().__init__(limit=authentication.LONGEST_LINE, loop=loop)
        self.waiting = False
        self._may_go_on = may_go_on
        self._commands = 0

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """The next line. The peer's end of file ends the session as a cancellation, aiosmtpd's way out of its loop."""
        self._commands += 1
        if self._commands % COMMANDS_PER_TURN == 0:
            await asyncio.sleep(0)
        if not self._may_go_on():
            # Until the connection is gone, which cancels the session: an exception would make aiosmtpd close it at once.
            await asyncio.get_running_loop().create_future()
        self.waiting = True
        try:
            return await super().readuntil(separator)
        except asyncio.IncompleteReadError:
            raise asyncio.CancelledError from None
        finally:
            self.waiting = False

    async def answer(self) -> bytes | None:
        """The next line without its end, as the answer to a challenge; None when it was too long (and is gone)."""
        fits = True
        while True:
            try:
                line = await self.readuntil()
            except asyncio.LimitOverrunError as error:
                await self.read(error.consumed)
                fits = False
            else:
                return line.rstrip(b"\r\n") if fits else None

    def take_all(self) -> bytes:
        """Everything that came and was not read, without waiting; StreamReader has no public word for it."""
        taken = bytes(self._buffer)  # type: ignore[attr-defined]
        self._buffer.clear()  # type: ignore[attr-defined]
        self._maybe_resume_transport()  # type: ignore[attr-defined]
        return taken

    def put_back(self, data: bytes) -> None:
        """Let this be read next; nobody is waiting for it now, and the end of the stream may have come already."""
        self._buffer[:0] = data  # type: ignore[attr-defined]


class CommandSizes(dict[str, int]):
    """The length limit of every command; aiosmtpd's own mapping is shared by all sessions and grows with each EHLO."""

    def __missing__(self, command: str) -> int:
        return authentication.LONGEST_LINE - 2 if command == "AUTH" else LONGEST_COMMAND

    def __setitem__(self, command: str, size: int) -> None:
        """Nothing is kept: not one entry per EHLO, nor one per word a peer makes up."""
