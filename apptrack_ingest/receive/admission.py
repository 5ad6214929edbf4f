"""Leads a connection from its first byte to its session: PROXY header, then TLS, where the address it came in by asks."""

import asyncio
import contextlib
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, cast

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.dialogue import LINGER
from apptrack_ingest.receive.entry import Entry
from apptrack_ingest.receive.host import Host
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.proxy import MalformedHeader, ProxyHeader
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.session import Session
from apptrack_ingest.receive.tls import beneath

HANDSHAKE_TIMEOUT: Final = 30.0
"""Seconds that a TLS handshake may take."""


class Admission(asyncio.BufferedProtocol):
    """One connection before its session. Nothing is read beyond the PROXY header: what follows is the session's, or a
    TLS handshake. `onward` passes it on, before anything is read or said, to another intake if that is better."""

    def __init__(
        self,
        host: Host,
        entry: Entry,
        loop: asyncio.AbstractEventLoop,
        onward: Callable[[asyncio.BaseTransport], bool] | None = None,
    ) -> None:
        self._onward = onward
        self._host = host
        self._entry = entry
        self._loop = loop
        self._address = ""
        self._anonymous = False
        self._header = ProxyHeader()
        self._buffer = bytearray()
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None

    # --- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection."""
        self._transport = cast(asyncio.Transport, transport)
        if self._onward is not None and self._onward(transport):
            self._refused = True  # not ours to count, neither now nor when our descriptor is closed
            self.abort()
            return
        peer = transport.get_extra_info("peername")
        self._address = _address(peer)
        self._host.joined(self)
        if peer is None:  # reset before we looked, as some balancers' health checks are: nobody is there to be refused
            self.abort()
        elif self._host.draining:
            self._refuse(policy.SHUTTING_DOWN)
        elif not self._entry.proxy_from:
            self._let_in(self._address)
        elif _listed(self._address, self._entry.proxy_from):
            self._timer = self._loop.call_later(self._entry.proxy_timeout, self._refuse, policy.PROXY_REQUIRED)
        else:
            self._turn_away()

    def _turn_away(self) -> None:
        """Not of those who may come in here at all: counted like any other peer, and not waited for."""
        met = self._host.admit(self, self._address)
        self._refuse(policy.PROXY_REQUIRED if met is None else policy.TOO_MANY_CONNECTIONS, met)
        self._transport.close()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Room for as many bytes as may be read now."""
        self._buffer = bytearray(4096 if self._refused else self._header.wanted)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the PROXY header; those of a refused peer are nothing to us."""
        if self._refused:
            return
        try:
            self._header.feed(bytes(self._buffer[:nbytes]))
        except MalformedHeader:
            self._refuse(policy.PROXY_REQUIRED)
            return
        if self._header.wanted == 0:
            self._stop_timer()
            self._anonymous = self._header.client is None
            self._let_in(_plain(self._header.client) if self._header.client else self._address)

    def eof_received(self) -> bool | None:
        """The peer will send no more, which is too little."""
        if not self._refused:
            self._refuse(policy.PROXY_REQUIRED)
        return None

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone before it was let in."""
        self._stop_timer()
        if self._handshake is not None:
            self._handshake.cancel()
        elif not self._refused:
            self._host.reception.hooks.ungreeted()
        self._host.left(self)

    def drain(self) -> None:
        """End the connection; nothing was said yet, so nothing is lost."""
        if self._handshake is not None:
            self.abort()
            return
        if not self._refused:
            self._refuse(policy.SHUTTING_DOWN)
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._transport.abort()

    # --- in or out ------------------------------------------------------------------------------------------------

    def _let_in(self, address: str) -> None:
        """The peer is known, nothing was said to it yet."""
        self._address = address
        if self._host.draining:
            self._refuse(policy.SHUTTING_DOWN)
        elif (met := self._host.admit(self, "" if self._anonymous else address)) is not None:
            self._refuse(policy.TOO_MANY_CONNECTIONS, met)
        elif self._entry.tls == "implicit":
            self._begin_tls()
        else:
            session = self._session()
            self._transport.set_protocol(session)
            session.connection_made(self._transport)

    def _session(self) -> Session:
        session = Session(self._host, self._entry, self._address, self._loop, anonymous=self._anonymous)
        self._host.became(self, session)
        return session

    def _refuse(self, reply: Reply, limit: Limit | None = None) -> None:
        """Say why (in the clear, which a peer that expects TLS could not read), and close when the peer had time to read."""
        self._refused = True
        self._stop_timer()
        if reply is policy.PROXY_REQUIRED:
            limit = Limit.PROXY
        if reply is not policy.SHUTTING_DOWN:
            self._host.reception.refused(reply, limit, self._address)
        if self._entry.tls != "implicit" and not self._transport.is_closing():
            self._transport.write(reply.render().encode() + b"\r\n")
            self._host.reception.hooks.reply(reply.code)
        if not self._transport.is_closing():  # not even now: the peer may be faster
            with contextlib.suppress(OSError):
                self._transport.write_eof()
        if reply is policy.TOO_MANY_CONNECTIONS or self._host.draining:
            # To linger would hold the very connections that there are too many of, or the end up.
            self._transport.close()
            return
        self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- TLS ------------------------------------------------------------------------------------------------------

    def _begin_tls(self) -> None:
        """Begin the handshake at once: not one byte of it may come to us. (The loop's own `start_tls` comes too late: uvloop
        reads from the moment that a connection is made, whether it was told to pause or not.)"""
        tls = self._host.identity(self._entry)
        assert tls is not None
        inner, there = _UntilThere(), self._loop.create_future()
        timeout = min(HANDSHAKE_TIMEOUT, self._host.reception.limits.idle_timeout)
        between = SSLProtocol(
            self._loop,
            inner,
            tls.current(),
            there,
            server_side=True,
            ssl_handshake_timeout=timeout,  # type: ignore[arg-type] # a float will do
        )
        self._transport.set_protocol(between)
        between.connection_made(beneath(self._transport))
        self._handshake = self._loop.create_task(self._greet(inner, there))

    async def _greet(self, inner: "_UntilThere", there: asyncio.Future[None]) -> None:
        """Begin the session when TLS is there."""
        try:
            await there
        except OSError as error:
            self._host.reception.handshake_failed(error, self._address)
        finally:
            if inner.transport is None or inner.lost:
                self.abort()
                self._host.left(self)
        if inner.transport is not None and not inner.lost:
            session = self._session()
            inner.transport.set_protocol(session)
            session.connection_made(inner.transport)
            inner.hand_over(session)


class _UntilThere(asyncio.Protocol):
    """Keeps what comes between the end of a TLS handshake and the session's beginning, a turn of the loop later."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._data: list[bytes] = []
        self._ended = False
        self._session: Session | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection under TLS."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A client that speaks before it is greeted."""
        self._data.append(data)

    def eof_received(self) -> None:
        """One that goes at once."""
        self._ended = True

    def connection_lost(self, error: Exception | None) -> None:
        """Gone; the session does not hear of it when it took over within the same turn."""
        self.lost = True
        if self._session is not None:
            self._session.connection_lost(error)

    def hand_over(self, session: Session) -> None:
        """Tell the session what it missed."""
        self._session = session
        for data in self._data:
            session.data_received(data)
        if self._ended:
            session.eof_received()


# --- addresses ----------------------------------------------------------------------------------------------------


def _address(peername: Any) -> str:
    """The peer's IP address, "" where there is none (it was gone before we looked)."""
    return _plain(str(peername[0])) if isinstance(peername, tuple) and peername else ""


@lru_cache(1024)
def _plain(address: str) -> str:
    """An IPv4 address in its own form where it comes mapped into IPv6, as sockets for both kinds give it."""
    found = ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)


def _listed(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return bool(address) and any(ip_address(address) in network for network in networks)
