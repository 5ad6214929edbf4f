"""The listening sockets of the intake, the sessions on them, and how they come to an end."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from apptrack_ingest import logs
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.admission import Admission
from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.deciding import Delivery
from apptrack_ingest.receive.entry import Entry
from apptrack_ingest.receive.host import Connected
from apptrack_ingest.receive.neighbours import BEAT, Neighbours
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.reception import Held, Reception
from apptrack_ingest.receive.tls import Tls
from apptrack_ingest.receive.users import Users

__all__ = ["Entry", "Listener", "listening_sockets"]

log = logs.get("receive")

BYTES_IN_FLIGHT = 32_000_000
"""Bytes of all mails under way where nothing else is said."""


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Bound sockets for every address the name stands for; OSError when one cannot be had.

    Made for IPPROTO_TCP by name: with protocol 0 asyncio leaves Nagle's algorithm on (46 ms a mail instead of 5).
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            sockets.append(_bound(family, address))
    except OSError:
        for made in sockets:
            made.close()
        raise
    return sockets


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


class Listener:
    """The listening sockets of a process and the connections on them.

    `tls` is the certificate for all addresses that bring none of their own; `users` may AUTH, under TLS; `budget` holds
    the bytes of all mails under way; with `neighbours`, other intakes on the same sockets in the same order, connections are
    passed on and taken in.
    """

    def __init__(
        self,
        reception: Reception,
        *,
        tls: Tls | None = None,
        users: Users | None = None,
        budget: Budget | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.reception = reception
        self.users = users if users is not None else Users({})
        self.budget = budget or Budget(BYTES_IN_FLIGHT)
        self.draining = False
        self._tls = tls
        self._neighbours = neighbours
        self._beat: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._shared: list[Entry] = []
        self._admitted: dict[Connected, str] = {}
        self._open: set[Connected] = set()
        self._too_late: set[Connected] = set()
        own = [reply.filled(hostname=reception.hostname) for reply in (policy.GREETING, policy.HELLO)]
        self.replies: Mapping[str, Reply] = {reply.render(): reply for reply in (*policy.REPLIES.values(), *own)}
        self.common: dict[str, Any] = {}
        self._servers: list[asyncio.Server] = []
        self._deliveries: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()

    async def start(self, host: str, port: int, entry: Entry | None = None) -> None:
        """Listen on an address as well (port 0: any free one); OSError when it cannot be had."""
        for sock in listening_sockets(host, port):
            await self.serve(sock, entry)

    async def serve(self, sock: socket.socket, entry: Entry | None = None, *, shared: bool = False) -> None:
        """Listen on a socket that is bound already; ValueError where TLS is demanded and there is no certificate. What comes
        by one that is `shared` with the neighbours may be passed on to them."""
        entry = entry or Entry()
        if entry.tls in ("required", "implicit") and self.identity(entry) is None:
            sock.close()
            raise ValueError(f"tls = {entry.tls} needs a certificate")
        loop = asyncio.get_running_loop()
        onward = partial(self._pass_on, len(self._shared)) if shared and self._neighbours is not None else None
        if shared:
            self._shared.append(entry)
        made = await loop.create_server(
            lambda: Admission(self, entry, loop, onward), sock=sock, backlog=socket.SOMAXCONN
        )
        self._servers.append(made)

    def meet_neighbours(self) -> None:
        """From now on take in what they pass on, and be counted by them; after `serve` for every socket."""
        if self._neighbours is not None:
            asyncio.get_running_loop().add_reader(self._neighbours.inbox, self._take_own, self._neighbours)
            self._give_sign(self._neighbours)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each listening socket."""
        return tuple(sock.getsockname()[:2] for server in self._servers for sock in server.sockets)

    @property
    def open_sessions(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def deliver(
        self,
        made: Callable[[bytes | None], Delivery],
        content: Callable[[], Awaitable[bytes | None]],
        release: Callable[[], None],
        answer: Callable[[Reply], None],
    ) -> asyncio.Task[None]:
        """Begin to deliver a mail, `made` of the bytes that `content` gives (None: there is no room for them), in a task of
        its own, which outlives the session if need be; `release` is called once when nothing holds these bytes any more, and
        `answer` with what became of it, unless the task is cancelled."""

        async def whole() -> Delivery:
            # In no variable here: what is on its way into the spool is in memory once, and not twice.
            return made(await content())

        async def received() -> None:
            held = Held(release)
            try:
                reply, afterwards = await self.reception.receive(whole(), held)
            finally:
                held.let_go()
            try:
                answer(reply)
            finally:
                afterwards()

        task = asyncio.get_running_loop().create_task(received())
        self._deliveries.add(task)
        task.add_done_callback(self._delivered)
        return task

    def identity(self, entry: Entry) -> Tls | None:
        """Certificate and key for connections that come in there; None: no TLS."""
        return entry.identity or self._tls

    def joined(self, connection: Connected) -> None:
        """A connection was made."""
        self._open.add(connection)
        self._count()
        if self.draining:
            self._too_late.add(connection)
        self.reception.hooks.session_opened()

    def admit(self, connection: Connected, address: str) -> Limit | None:
        """Whether a peer, known by its address now, may come in; the limit that it met if not."""
        doorkeeper = self.reception.decider.doorkeeper
        met = doorkeeper.enter(address) if doorkeeper is not None else None
        if met is None:
            self._admitted[connection] = address
        return met

    def became(self, before: Connected, after: Connected) -> None:
        """It was let in, and is a session now."""
        self._admitted[after] = self._admitted.pop(before)
        self._open.discard(before)
        self._open.add(after)

    def left(self, connection: Connected) -> None:
        """A connection is gone."""
        if connection in self._open:
            self._open.discard(connection)
            self._count()
            self._too_late.discard(connection)
            self.reception.hooks.session_closed()
        address = self._admitted.pop(connection, None)
        if address is not None and self.reception.decider.doorkeeper is not None:
            self.reception.decider.doorkeeper.leave(address)
        self._notice_quiet()

    async def drain(self, timeout: float) -> int:
        """Stop: 421 4.3.2 to open sessions and to all who come now, but a mail under way is finished first.

        After `timeout` seconds what is left is cut off; returns how many sessions that were. Who came too late is waited
        for by nobody.
        """
        self.draining = True
        if self._neighbours is not None:
            self._neighbours.away()
        for connection in self._open - self._too_late:
            connection.drain()
        self._notice_quiet()
        try:
            await asyncio.wait_for(self._quiet.wait(), timeout)
        except TimeoutError:
            return self._cut_off()
        finally:
            for server in self._servers:
                server.close()
            self._leave_neighbours()
            for connection in tuple(self._too_late):
                connection.drain()
        return 0

    def _cut_off(self) -> int:
        left = self._open - self._too_late
        for connection in left:
            connection.abort()
        return len(left)

    # --- the neighbours -------------------------------------------------------------------------------------------

    def _pass_on(self, place: int, transport: asyncio.BaseTransport) -> bool:
        """Whether a connection that was just made is another intake's now."""
        if self._neighbours is None or self.draining:
            return False
        return self._neighbours.pass_on(
            lambda: int(transport.get_extra_info("socket").fileno()), place, len(self._open)
        )

    def _take_own(self, neighbours: Neighbours) -> None:
        self._take_in(neighbours.arrivals())

    def _take_in(self, arrivals: Iterable[tuple[int, socket.socket]]) -> None:
        for place, sock in arrivals:
            if place >= len(self._shared):  # it, or we, began with other settings
                log.warning("a connection passed on came in by a listener that this intake does not have: closed")
                sock.close()
                continue
            task = asyncio.get_running_loop().create_task(self._made_of(sock, self._shared[place]))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _made_of(self, sock: socket.socket, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: Admission(self, entry, loop), sock)
        except OSError:  # gone on the way
            sock.close()

    def _count(self) -> None:
        if self._neighbours is not None:
            self._neighbours.count(len(self._open))

    def _give_sign(self, neighbours: Neighbours) -> None:
        if not self.draining:
            neighbours.alive(len(self._open))
            self._take_in(neighbours.left_behind())
            self._beat = asyncio.get_running_loop().call_later(BEAT, self._give_sign, neighbours)

    def _leave_neighbours(self) -> None:
        if self._neighbours is not None:
            asyncio.get_running_loop().remove_reader(self._neighbours.inbox)
            self._take_own(self._neighbours)  # to be told that we go
            self._neighbours.close()
            self._neighbours = None
        if self._beat is not None:
            self._beat.cancel()

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        self._notice_quiet()

    def _notice_quiet(self) -> None:
        if self.draining and not self._open - self._too_late and not self._deliveries:
            self._quiet.set()
