"""Passes a new connection on to another intake on the same sockets, when that one has far fewer."""

import mmap
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from apptrack_ingest import logs

log = logs.get("receive")

BEAT: Final = 0.25
"""Seconds between two signs of life that an intake gives its neighbours."""

STALE: Final = 1.0
"""Seconds after which an intake that gave no sign of life is passed nothing: what it was passed would wait."""

TIMES, AT_LEAST = 4, 3
"""How many times, and how many, more connections than another an intake has that passes one on. Intakes that are busy with
short connections have up to some times as many as each other all the time, and to pass these on costs more than it gives."""

BOARD_BYTES: Final = 16
"""What each intake has on the board: two numbers of eight bytes."""


class Neighbours:
    """The intakes on the same sockets, as one of them (`number`, from 1 on) knows them.

    All see one board, `board`, the descriptor of memory that they share: how many connections each has, and when it last
    gave a sign of life. Each writes its own part, and counts what it passes on for the other, which corrects it with its
    next word: a guess that is off for a moment does no harm. `ways` lead to the `inboxes`, both by the intakes' numbers:
    sockets of datagrams, each a connection's descriptor (SCM_RIGHTS, unix(7)) with the number of the place it came in by.
    Whoever opened the inboxes keeps them open, so nothing is lost with an intake that ends; and what is in the inbox of
    one that gives no sign of life is taken by another. `clock` gives seconds that only go on, the same in all processes
    of the machine.
    """

    def __init__(
        self,
        board: int,
        number: int,
        inboxes: Mapping[int, socket.socket],
        ways: Mapping[int, socket.socket],
        clock: Callable[[], float],
    ) -> None:
        self._board = mmap.mmap(board, 0)
        self._words = memoryview(self._board).cast("d")
        self._mine = 2 * (number - 1)
        self._ways = {2 * (other - 1): way for other, way in ways.items() if other != number}
        self._inboxes = {2 * (owner - 1): inbox for owner, inbox in inboxes.items()}
        self._sockets = (*inboxes.values(), *ways.values())
        self._clock = clock
        self.inbox = inboxes[number]
        for one in self._sockets:
            one.setblocking(False)
            one.set_inheritable(False)

    def count(self, connections: int) -> None:
        """This intake has so many connections now."""
        self._words[self._mine] = connections

    def alive(self, connections: int) -> None:
        """This intake turns, takes what it is passed, and has so many connections."""
        self.count(connections)
        self._words[self._mine + 1] = self._clock()

    def away(self) -> None:
        """This intake is to be passed nothing more."""
        self._words[self._mine + 1] = -STALE

    def pass_on(self, connection: Callable[[], int], place: int, connections: int) -> bool:
        """Whether the connection of this descriptor, which came in at `place`, is another intake's now, for this one has
        `connections` and that one far fewer; if so, the caller closes its own descriptor without a word."""
        if connections < AT_LEAST:
            return False
        words = self._words
        for theirs, way in self._ways.items():
            they_have = words[theirs]
            if connections >= TIMES * they_have and connections - they_have >= AT_LEAST and self._turns(theirs):
                with suppress(OSError):  # its inbox is full, or too many are on their way: then it stays here
                    socket.send_fds(way, [place.to_bytes(2, "big")], [connection()])
                    words[theirs] = they_have + 1
                    return True
        return False

    def _turns(self, theirs: int) -> bool:
        return self._clock() - self._words[theirs + 1] < STALE

    def arrivals(self) -> Iterator[tuple[int, socket.socket]]:
        """The connections that were passed to this intake, each with the place it came in by; until there is none."""
        return self._taken_from(self.inbox)

    def left_behind(self) -> Iterator[tuple[int, socket.socket]]:
        """The same of those that were passed to intakes that give no sign of life now, so that none waits for them."""
        for theirs in self._ways:
            if not self._turns(theirs):
                yield from self._taken_from(self._inboxes[theirs])

    def _taken_from(self, inbox: socket.socket) -> Iterator[tuple[int, socket.socket]]:
        while True:
            try:
                place, descriptors, _, _ = socket.recv_fds(inbox, 2, 1)
            except OSError:
                return
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
                yield int.from_bytes(place, "big"), socket.socket(fileno=descriptor)
            if not descriptors:
                self.away()  # until the next sign of life
                log.warning("a connection passed on to this intake was closed: it has no descriptor left")

    def close(self) -> None:
        """Lets go of the board, the inboxes and the ways."""
        self.away()
        self._words.release()
        self._board.close()
        for one in self._sockets:
            one.close()
