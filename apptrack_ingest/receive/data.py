"""Reads one mail's bytes in bulk as DATA sends them, without doing any input or output itself.

Reading DATA line by line costs five to seven times as much; here each chunk is searched once for the end of the mail.
"""

import asyncio
from collections.abc import Iterable, Iterator
from io import BytesIO, IncrementalNewlineDecoder
from typing import Final

END: Final = b"\r\n.\r\n"
_LINE_DOT: Final = END[:3]
# The longest first, so that a tail is held back whole.
_PARTIAL_ENDS: Final = tuple(END[:length] for length in range(len(END) - 1, 0, -1))

# How far to look for a dot at the beginning of a line once there is any dot: the base64 of attachments holds none, and one
# byte is found ten times as fast as three. In bytes.
_STRIDE: Final = 4096

# The first chunk, and those from this size on, are kept as they came, without a copy; others are gathered first, or a mail
# sent byte by byte would cost an object for each byte. In bytes.
_LARGE: Final = 16 * 1024

_ODD: Final = (("\r", "bare CR in the data"), ("\n", "bare LF in the data"))

SLICE: Final = 256 * 1024
"""Bytes copied at one go: under a millisecond."""


class DataReader:
    """Collects one mail from chunks of any size, until CRLF.CRLF ends it (RFC 5321, 4.1.1.4).

    Nothing else ends a mail: a bare CR or LF is kept as it came and told in `warnings`, because a server that takes
    LF.LF or LF.CRLF for the end lets a sender smuggle a second mail past the server before it. Transparency dots are
    taken away (4.5.2). A mail over `limit` bytes (dots not counted, RFC 1870, 6.4) is read to its end and not kept.

    The cost is linear in the bytes whatever they are (1 ms a MB, sixteen times as much at worst): a chunk of the size a
    transport hands over (256 KB) never holds up the loop.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.finished = False
        self.discarding = False
        # Half as dear as counting, and a tenth where every line is empty.
        self._line_ends = IncrementalNewlineDecoder(None, translate=False)
        self._begun = False
        self._tail = b""
        self._before = 0
        # Not one buffer that grows: what moves it costs 40 ms at 30 MB, at one go.
        self._pieces: list[bytes] = []
        self._small = bytearray()
        self._held = 0

    def feed(self, chunk: bytes) -> bytes | None:
        """Take the next bytes; None while the mail goes on, else what came after its end (the next command, or b"")."""
        if not self._begun and chunk:
            self._begun = True
            if chunk.startswith(b"."):
                # The mail begins at the start of a line: with a CRLF before it, its first line is a line like any other.
                self._tail, self._before = b"\r\n", 2
        data = self._tail + chunk if self._tail else chunk
        # Looked for once: where a line begins with a dot, it is nearly always the one that ends the mail.
        dot = _dotted_line(data)
        end = data.find(END, dot) if dot >= 0 else -1
        if end < 0:
            self._tail = _partial_end(data)
            self._take(data[: len(data) - len(self._tail)], dotted=dot >= 0)
            return None
        self.finished = True
        self._tail = b""
        self._take(data[: end + 2], dotted=dot < end)
        return data[end + len(END) :]

    def discard(self) -> None:
        """Keep nothing of the mail any more, of what comes neither; its end is still found and its size counted."""
        self.discarding = True
        self._pieces.clear()
        self._small.clear()
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes kept in memory now: what a chunk added is the difference, and what `discard` frees is all of it."""
        return self._held

    @property
    def too_big(self) -> bool:
        """Whether the mail is over the limit; its bytes are then gone."""
        return self.size > self.limit

    @property
    def content(self) -> bytes:
        """The mail as its sender wrote it, transparency dots removed; empty when it was too big or discarded.

        Copied at one go: 30 MB take 25 to 60 ms, nearly all of it page faults. On the loop, `whole` is for large mails.
        """
        self._gather()
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    async def whole(self) -> bytes:
        """The same as `content`, copied a slice at a time while others have their turn."""
        self._gather()
        if len(self._pieces) != 1:
            pieces, self._pieces = self._pieces, []
            size = sum(map(len, pieces))
            self._pieces = [b"".join(pieces) if size <= SLICE else await _put_together(size, _given_away(pieces))]
        return self._pieces[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the bytes, in words, for the message's record."""
        seen = self._line_ends.newlines
        if seen is None or seen == "\r\n":
            return ()
        kinds = (seen,) if isinstance(seen, str) else seen
        return tuple(text for end, text in _ODD if end in kinds)

    def _take(self, wire: bytes, *, dotted: bool) -> None:
        """Keep bytes that hold no part of the end; their CRLFs are whole, as a partial one stays in the tail. `dotted`: one
        of their lines begins with a dot."""
        if not wire:
            return
        # It takes note of the kinds of line end there are. Final: nothing is cut between CR and LF.
        self._line_ends.decode(wire.decode("latin-1"), final=True)
        piece = (wire.replace(_LINE_DOT, b"\r\n") if dotted else wire)[self._before :]
        self._before = 0
        self.size += len(piece)
        if self.too_big and not self.discarding:
            self.discard()
        if not self.discarding:
            self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        as_it_came = len(piece) >= _LARGE or not self._held
        self._held += len(piece)
        if as_it_came:
            self._gather()
            self._pieces.append(piece)
            return
        self._small += piece
        if len(self._small) >= _LARGE:
            self._gather()

    def _gather(self) -> None:
        """Put the small chunks that came since the last large one in their place behind it."""
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small.clear()


def _dotted_line(data: bytes) -> int:
    """Where the first CRLF stands that a dot follows; -1: nowhere."""
    dot = data.find(b".")
    while dot >= 0:
        found = data.find(_LINE_DOT, max(dot - 2, 0), dot + _STRIDE)
        if found >= 0:
            return found
        dot = data.find(b".", dot + _STRIDE)
    return -1


def _partial_end(data: bytes) -> bytes:
    """The longest end of `data` that may be the beginning of the mail's end (at most four bytes)."""
    if not data.endswith(_PARTIAL_ENDS):
        return b""
    return next(part for part in _PARTIAL_ENDS if data.endswith(part))


async def joined(*pieces: bytes) -> bytes:
    """The pieces as one, copied a slice at a time: at one go 30 MB would hold up the loop for as much as 60 ms.

    One piece alone is handed back as it is; pieces of a slice altogether are copied without letting others in between.
    """
    if len(pieces) == 1:
        return pieces[0]
    return await _put_together(sum(map(len, pieces)), pieces)


async def _put_together(size: int, pieces: Iterable[bytes]) -> bytes:
    # Made in its final size, from zeros that take no memory before they are written over; BytesIO works in them in place.
    whole = BytesIO(bytes(size))
    copied = 0
    for part in _slices(pieces):
        if copied >= SLICE:
            copied = 0
            await asyncio.sleep(0)
        copied += whole.write(part)
    return whole.getvalue()


def _given_away(pieces: list[bytes]) -> Iterator[bytes]:
    """The pieces, each let go of as soon as the next is wanted: the whole of them would take their room twice."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()


def _slices(pieces: Iterable[bytes]) -> Iterator[memoryview]:
    for piece in pieces:
        for start in range(0, len(piece), SLICE):
            yield memoryview(piece)[start : start + SLICE]
