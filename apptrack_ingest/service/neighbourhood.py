"""What several intakes need to pass connections on to one another: opened by the supervisor, and told to each of them."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from apptrack_ingest import logs
from apptrack_ingest.receive.neighbours import BOARD_BYTES, Neighbours

log = logs.get("supervisor")


class Neighbourhood:
    """The board and the inboxes of so many intakes, kept open while any of them may come back."""

    def __init__(self, board: int, inboxes: Sequence[tuple[socket.socket, socket.socket]]) -> None:
        self._board = board
        self._inboxes = inboxes

    @property
    def descriptors(self) -> list[int]:
        """What every intake inherits: the board, and of each inbox both ends."""
        return [self._board, *(end.fileno() for both in self._inboxes for end in both)]

    def as_words(self, number: int) -> str:
        """How the supervisor tells intake `number` (from 1 on) of them: `2:5,6,7,8,9`."""
        return f"{number}:{','.join(map(str, self.descriptors))}"

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
    with ExitStack() as unfinished:
        try:
            board = os.memfd_create("apptrack-ingest-intakes")
            unfinished.callback(os.close, board)
            os.ftruncate(board, BOARD_BYTES * of)
            inboxes = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(of)]
        except OSError as error:
            log.warning("intakes cannot pass connections on to one another; each keeps what it takes", error=str(error))
            return None
        unfinished.pop_all()
    return Neighbourhood(board, inboxes)


def from_words(words: str, clock: Callable[[], float]) -> Neighbours | None:
    """The neighbours that the supervisor told of; None where it told of none."""
    number, _, descriptors = words.partition(":")
    if not descriptors:
        return None
    board, *ends = map(int, descriptors.split(","))
    sockets = [socket.socket(fileno=end) for end in ends]
    inboxes, ways = dict(enumerate(sockets[::2], start=1)), dict(enumerate(sockets[1::2], start=1))
    found = Neighbours(board, int(number), inboxes, ways, clock)
    os.close(board)  # the memory stays
    return found
