"""Cuts the command lines out of what a session's peer sends, within limits, without doing any input or output itself."""

from typing import Final

from apptrack_ingest.receive import authentication

COMMANDS_PER_TURN: Final = 16
"""So many commands of a pipelined burst are answered before other sessions get their turn."""

LONGEST_COMMAND: Final = 1000
"""Bytes in a command's line, without its end; twice what RFC 5321, 4.5.3.1.4 asks for."""

_ENOUGH: Final = 2 * authentication.LONGEST_LINE


class LineTooLong(Exception):
    """A line came that is longer than any may be; it is gone."""


class CommandLines:
    """What came and was not worked yet. Only LF ends a line; of one that is too long nothing is kept."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._passing_over = False

    def is_next(self, data: bytes) -> bool:
        """Whether what came now is one whole line, which no limit forbids, and all that there is to be worked."""
        return (
            data.find(b"\n") == len(data) - 1 < LONGEST_COMMAND
            and not self._buffer
            and not self._passing_over
            and data != b""
        )

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._buffer += data

    @property
    def enough(self) -> bool:
        """Whether no more should be read before some of it was worked."""
        return len(self._buffer) > _ENOUGH

    def next(self) -> bytes | None:
        """The next line without its end, None while there is no whole one; LineTooLong once for one too long."""
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._wait_for_the_end()
            return None
        too_long = self._passing_over or end > authentication.LONGEST_LINE
        line = b"" if too_long else bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched, self._passing_over = 0, False
        if too_long:
            raise LineTooLong
        return line.rstrip(b"\r")

    def _wait_for_the_end(self) -> None:
        """Remember what was searched already, and drop a line that will be too long whatever comes."""
        self._searched = len(self._buffer)
        if self._passing_over or self._searched > authentication.LONGEST_LINE:
            self._passing_over, self._searched = True, 0
            self._buffer.clear()

    def take_all(self) -> bytes:
        """Everything that came and was not worked."""
        taken = bytes(self._buffer)
        self._buffer.clear()
        self._searched, self._passing_over = 0, False
        return taken

    def put_back(self, data: bytes) -> None:
        """Let this be the next."""
        self._buffer[:0] = data
        self._searched = 0
