"""The listening sockets of the intake, the sessions on them, and how they come to an end."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.reception import Delivery, Reception
from apptrack_ingest.receive.session import Session


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
    """The listening sockets of a process and the sessions on them.

    `tls_context` makes the context for STARTTLS, asked anew for each connection so that certificates can change; None
    offers no TLS.
    """

    def __init__(self, reception: Reception, *, tls_context: Callable[[], ssl.SSLContext] | None = None) -> None:
        self.reception = reception
        self._tls_context = tls_context
        self._sessions: set[Session] = set()
        self.draining = False
        own = [reply.filled(hostname=reception.hostname) for reply in (policy.GREETING, policy.HELLO)]
        self.replies: Mapping[str, Reply] = {reply.render(): reply for reply in (*policy.REPLIES.values(), *own)}
        self._servers: list[asyncio.Server] = []
        self._deliveries: set[asyncio.Task[Reply]] = set()
        self._quiet = asyncio.Event()

    async def start(self, host: str, port: int) -> None:
        """Listen on an address as well (port 0: any free one); OSError when it cannot be had."""
        for sock in listening_sockets(host, port):
            await self.serve(sock)

    async def serve(self, sock: socket.socket) -> None:
        """Listen on a socket that is bound already."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Session(self, loop), sock=sock))

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each listening socket."""
        return tuple(sock.getsockname()[:2] for server in self._servers for sock in server.sockets)

    @property
    def open_sessions(self) -> int:
        """How many connections are open."""
        return len(self._sessions)

    def deliver(self, delivery: Delivery) -> asyncio.Task[Reply]:
        """Begin to deliver a mail in a task of its own, which outlives the session if need be."""
        task = asyncio.get_running_loop().create_task(self.reception.receive(delivery))
        self._deliveries.add(task)
        task.add_done_callback(self._delivered)
        return task

    def tls_context(self) -> ssl.SSLContext | None:
        """The context for STARTTLS on a new connection; None: no TLS."""
        return self._tls_context() if self._tls_context else None

    def joined(self, session: Session) -> None:
        """A connection was made."""
        self._sessions.add(session)
        self.reception.hooks.session_opened()

    def left(self, session: Session) -> None:
        """A connection is gone."""
        if session in self._sessions:
            self._sessions.discard(session)
            self.reception.hooks.session_closed()
        self._notice_quiet()

    async def drain(self, timeout: float) -> int:
        """Stop: no new connections, 421 4.3.2 to open sessions, but a mail under way is finished first.

        After `timeout` seconds what is left is cut off; returns how many sessions that were.
        """
        self.draining = True
        for server in self._servers:
            server.close()
        for session in tuple(self._sessions):
            session.drain()
        self._notice_quiet()
        try:
            await asyncio.wait_for(self._quiet.wait(), timeout)
        except TimeoutError:
            return self._cut_off()
        return 0

    def _cut_off(self) -> int:
        left = tuple(self._sessions)
        for session in left:
            session.abort()
        return len(left)

    def _delivered(self, task: asyncio.Task[Reply]) -> None:
        self._deliveries.discard(task)
        self._notice_quiet()

    def _notice_quiet(self) -> None:
        if self.draining and not self._sessions and not self._deliveries:
            self._quiet.set()
