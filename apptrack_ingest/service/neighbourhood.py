"""What several intakes need to pass connections on to one another: opened by the supervisor, and told to each of them."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from apptrack_ingest.receive.neighbours import BOARD_BYTES, Neighbours


class Neighbourhood:
    """The board and the inboxes of so many intakes, kept open while any of them may come back."""

    def __init__(self, board: int, inboxes: Sequence[tuple[socket.socket, socket.socket]]) -> None:
        self._board = board
        self._inboxes = inboxes

    def descriptors(self, number: int) -> list[int]:
        """What intake `number` (from 1 on) inherits: the board, its inbox, and the ways to all inboxes."""
        return [self._board, self._inboxes[number - 1][0].fileno(), *(way.fileno() for _, way in self._inboxes)]

    def as_words(self, number: int) -> str:
        """How the supervisor tells intake `number` of them: `2:5,8,7,9`."""
        return f"{number}:{','.join(map(str, self.descriptors(number)))}"

    def close(self) -> None:
        """Closes all; what is in an inbox is cut off."""
        os.close(self._board)
        for both in self._inboxes:
            for one in both:
                one.close()


def opened(of: int) -> Neighbourhood | None:
    """For `of` intakes; None where the system has no memory to share: each then keeps what it takes."""
    if not hasattr(os, "memfd_create"):
        return None
    with suppress(OSError):
        board = os.memfd_create("apptrack-ingest-intakes")
        os.ftruncate(board, BOARD_BYTES * of)
        return Neighbourhood(board, [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(of)])
    return None


def from_words(words: str, clock: Callable[[], float]) -> Neighbours | None:
    """The neighbours that the supervisor told of; None where it told of none."""
    number, _, descriptors = words.partition(":")
    if not descriptors:
        return None
    board, inbox, *ways = map(int, descriptors.split(","))
    others = {other: socket.socket(fileno=way) for other, way in enumerate(ways, start=1)}
    others.pop(int(number)).close()
    found = Neighbours(board, int(number), socket.socket(fileno=inbox), others, clock)
    os.close(board)  # the memory stays
    return found
