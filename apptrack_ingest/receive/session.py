"""One SMTP session: aiosmtpd's state machine on our own event loop, with its pitfalls stopped up."""

# ruff: noqa: N802 - aiosmtpd finds commands and hooks by names like smtp_DATA and handle_RCPT

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from aiosmtpd import smtp as aiosmtpd

from apptrack_ingest.model import Envelope
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.data import DataReader
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.reception import Delivery, Reception

log = logging.getLogger("apptrack_ingest.receive")

# aiosmtpd logs every line of every session there, addresses included.
logging.getLogger("mail.log").disabled = True

# So many commands of a pipelined burst are answered before other sessions get their turn.
COMMANDS_PER_TURN: Final = 16

# aiosmtpd's own replies, by how they begin (the first match counts), and what we say instead: its texts lack enhanced
# codes and some repeat what the peer sent.
INSTEAD_OF: Final[tuple[tuple[str, Reply], ...]] = (
    ("220 Ready to start TLS", policy.START_TLS),
    ("221 Bye", policy.BYE),
    ("250 OK", policy.OK),
    ("454 TLS not available", policy.TLS_UNAVAILABLE),
    ("500 Command line too long", policy.LINE_TOO_LONG),
    ("500 Error: bad syntax", policy.BAD_SYNTAX),
    ("500 Error: command ", policy.UNKNOWN_COMMAND),
    ("501 ", policy.BAD_ARGUMENTS),
    ("502 5.5.1 Too many unrecognized commands", policy.TOO_MANY_ERRORS),
    ("502 EXPN not implemented", policy.NOT_IMPLEMENTED),
    ("503 Error: send ", policy.HELO_FIRST),
    ("503 Error: nested MAIL command", policy.MAIL_TWICE),
    ("503 Error: need MAIL command", policy.MAIL_FIRST),
    ("552 Error: message size exceeds", policy.TOO_BIG),
    ("553 5.1.3 Error: malformed address", policy.BAD_ADDRESS),
    ("555 ", policy.UNKNOWN_PARAMETER),
)


def in_our_words(status: str) -> Reply:
    """Our reply for one of aiosmtpd's; one that nobody foresaw is a temporary fault and stays here."""
    for beginning, reply in INSTEAD_OF:
        if status.startswith(beginning):
            return reply
    log.error("unforeseen reply of the protocol: %s", status[:3])
    return policy.TRY_LATER


class _CommandReader(asyncio.StreamReader):
    """Hands out command lines: takes turns within a pipelined burst, asks whether to go on, and tells who waits."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop, may_go_on: Callable[[], bool]) -> None:
        super().__init__(limit=limit, loop=loop)
        self.waiting = False
        self._may_go_on = may_go_on
        self._commands = 0

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """The next line. The peer's end of file ends the session as a cancellation, aiosmtpd's way out of its loop."""
        self._commands += 1
        if self._commands % COMMANDS_PER_TURN == 0:
            await asyncio.sleep(0)
        if not self._may_go_on():
            raise asyncio.CancelledError
        self.waiting = True
        try:
            return await super().readuntil(separator)
        except asyncio.IncompleteReadError:
            raise asyncio.CancelledError from None
        finally:
            self.waiting = False

    def take_all(self) -> bytes:
        """Everything that came and was not read, without waiting; StreamReader has no public word for it."""
        taken = bytes(self._buffer)  # type: ignore[attr-defined]
        self._buffer.clear()  # type: ignore[attr-defined]
        self._maybe_resume_transport()  # type: ignore[attr-defined]
        return taken

    def put_back(self, data: bytes) -> None:
        """Let this be read next; nobody is waiting for it now, and the end of the stream may have come already."""
        self._buffer[:0] = data  # type: ignore[attr-defined]


class _OneSizeForAll(dict[str, int]):
    """The length limit of every command; aiosmtpd's own mapping is shared by all sessions and grows with each EHLO."""

    def __missing__(self, command: str) -> int:
        return Session.command_size_limit

    def __setitem__(self, command: str, size: int) -> None:
        """Nothing is kept: not one entry per EHLO, nor one per word a peer makes up."""


class _Decisions:
    """aiosmtpd's hooks where a decision of ours is asked for: MAIL and RCPT."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Any sender will do; the null sender of a bounce stays `<>` until the envelope is made."""
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return policy.SENDER_OK.render()

    async def handle_RCPT(self, _server: Any, session: Any, envelope: Any, address: str, _options: list[str]) -> str:
        """Only recipients of ours."""
        reply = self._reception.recipient(address, _peer_host(session.peer), len(envelope.rcpt_tos))
        if reply is policy.RECIPIENT_OK:
            envelope.rcpt_tos.append(address)
        return reply.render()


class Host(Protocol):
    """What a session needs from the listener it came in by; `replies` are those of our table, by their lines."""

    reception: Reception
    replies: Mapping[str, Reply]
    draining: bool

    def tls_context(self) -> ssl.SSLContext | None:
        """The context for STARTTLS on a new connection; None: no TLS."""

    def joined(self, session: "Session") -> None:
        """A connection was made."""

    def left(self, session: "Session") -> None:
        """The connection is gone."""

    def deliver(self, delivery: Delivery) -> asyncio.Task[Reply]:
        """Begin to deliver a mail, in a task that outlives the session if need be."""


class Session(aiosmtpd.SMTP):
    """One connection. aiosmtpd reads the commands; DATA is read in bulk and delivered apart from the connection."""

    # Set by aiosmtpd from the connection on; it declares them as perhaps missing, or not at all.
    transport: Any
    session: Any
    envelope: Any
    _reader: _CommandReader
    _timeout_handle: Any

    command_size_limit = 1000
    command_size_limits = _OneSizeForAll()

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._limits = host.reception.limits
        super().__init__(
            _Decisions(host.reception),
            data_size_limit=self._limits.message_size,
            enable_SMTPUTF8=True,
            hostname=host.reception.hostname,
            ident="ESMTP apptrack-ingest",
            tls_context=host.tls_context(),
            timeout=self._limits.idle_timeout,
            loop=loop,
        )
        # Once more, with a reader of our own: aiosmtpd leaves no other way to give it one.
        asyncio.StreamReaderProtocol.__init__(
            self,
            _CommandReader(self.line_length_limit, loop, self._may_go_on),
            client_connected_cb=self._cb_client_connected,
            loop=loop,
        )
        self._mail: DataReader | None = None
        self._mail_ended: asyncio.Future[asyncio.Task[Reply]] | None = None

    # --- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection, or (a second call) TLS established on it."""
        super().connection_made(transport)
        if self._original_transport is None:
            self._host.joined(self)
            assert self._handler_coroutine is not None
            self._handler_coroutine.add_done_callback(_forget_exception)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; a mail that was complete goes on being delivered."""
        self._mail = None
        super().connection_lost(error)
        self._host.left(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a mail go to its reader in bulk; all else, and what follows the mail, is for the command reader."""
        if self._mail is None:
            super().data_received(data)
            return
        self._reset_timeout(self._limits.data_timeout)
        rest = self._mail.feed(data)
        if rest is not None:
            self._end_of_mail(self._mail)
            self._reader.put_back(rest)

    def eof_received(self) -> bool | None:
        """The peer will send no more. A mail cut off is dropped; what came whole is still worked and answered."""
        if self._mail_ended is not None and not self._mail_ended.done():
            self._mail_ended.cancel()
        asyncio.StreamReaderProtocol.eof_received(self)
        return self.session.ssl is None

    def hang_up(self, reply: Reply) -> None:
        """Say why and close, once the peer has read what was said before."""
        self._write(reply)
        if self.transport is not None:
            self.transport.close()

    def drain(self) -> None:
        """End the session: now if it waits for a command, else after the one under way."""
        if self._reader.waiting:
            self.hang_up(policy.SHUTTING_DOWN)

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self.transport is not None:
            self.transport.abort()

    def _may_go_on(self) -> bool:
        if self._host.draining:
            self.hang_up(policy.SHUTTING_DOWN)
        return not self._host.draining

    def _timeout_cb(self) -> None:
        """The peer was idle too long; one that does not even read its replies is not waited for any longer."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            self.hang_up(policy.IDLE)

    # --- replies --------------------------------------------------------------------------------------------------

    async def push(self, status: Any) -> None:
        """Send a reply of aiosmtpd's or of our hooks; all that is not from our own table is put into our words."""
        await self._say(self._host.replies.get(status) or in_our_words(status))

    async def handle_exception(self, error: Exception) -> str:
        """Unknown means temporary, and the cause is nobody's business (aiosmtpd answers 500 and tells it)."""
        level = logging.INFO if isinstance(error, OSError | aiosmtpd.TLSSetupException) else logging.ERROR
        log.log(level, "session error: %s", type(error).__name__)
        return policy.TRY_LATER.render()

    async def _say(self, reply: Reply, lines: str | None = None) -> None:
        self._write(reply, lines)
        await self._writer.drain()

    def _write(self, reply: Reply, lines: str | None = None) -> None:
        """Write a reply, many lines in one piece too (else Nagle's algorithm would hold the second one back)."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write((lines or reply.render()).encode() + b"\r\n")
            self._host.reception.hooks.reply(str(reply.code))

    # --- commands -------------------------------------------------------------------------------------------------

    async def smtp_EHLO(self, hostname: str | None) -> None:
        """RFC 5321, 4.1.1.1. AUTH is not offered: there is nobody to authenticate yet."""
        if not hostname:
            await self._say(policy.BAD_ARGUMENTS)
            return
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session.extended_smtp = True
        self.session.host_name = hostname
        await self._say(policy.HELLO, "\r\n".join(self._capabilities()))

    def _capabilities(self) -> list[str]:
        words = [self.hostname, f"SIZE {self._limits.message_size}", "8BITMIME", "SMTPUTF8", "PIPELINING"]
        if self.tls_context and not self._tls_protocol:
            words.append("STARTTLS")
        words.append("ENHANCEDSTATUSCODES")
        return [f"250-{word}" for word in words] + ["250 HELP"]

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """RFC 3207; a second STARTTLS is out of sequence (aiosmtpd would start TLS within TLS)."""
        if self._tls_protocol is not None:
            await self._say(policy.TLS_ACTIVE)
            return
        await super().smtp_STARTTLS(arg)
        if self._tls_protocol is not None and self.transport.is_closing():
            # Closed by our side within the handshake, which asyncio reports as a handshake that went well.
            raise aiosmtpd.TLSSetupException

    async def smtp_AUTH(self, arg: str | None) -> None:
        """Not offered."""
        await self._say(policy.NOT_IMPLEMENTED)

    async def smtp_HELP(self, arg: str | None) -> None:
        """The commands there are."""
        await self._say(policy.HELP)

    async def smtp_VRFY(self, arg: str | None) -> None:
        """RFC 5321, 3.5.3: whether an address exists is told at RCPT only."""
        reply = policy.CANNOT_VERIFY if arg else policy.BAD_ARGUMENTS
        await self._say(reply)

    async def smtp_DATA(self, arg: str | None) -> None:
        """RFC 5321, 4.1.1.4: read the mail in bulk and answer what became of it."""
        if await self.check_helo_needed():
            return
        refusal = self._refusal_of_data(arg)
        if refusal is not None:
            await self._say(refusal)
            return
        await self._say(policy.START_DATA)
        reply = await self._read_mail()
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        self._reset_timeout()
        await self._say(reply)

    def _refusal_of_data(self, arg: str | None) -> Reply | None:
        if not self.envelope.rcpt_tos:
            return policy.RECIPIENT_FIRST
        return policy.BAD_ARGUMENTS if arg else None

    async def _read_mail(self) -> Reply:
        """Read to the end of the mail and wait for its delivery, which nothing that happens here can cancel."""
        self._reset_timeout(self._limits.data_timeout)
        self._mail_ended = self.loop.create_future()
        self._mail = DataReader(self._limits.message_size)
        early = self._reader.take_all()
        if early:
            self.data_received(early)
        if self._reader.at_eof():
            self.eof_received()
        delivery = await self._mail_ended
        return await asyncio.shield(delivery)

    def _end_of_mail(self, mail: DataReader) -> None:
        """Hand the mail on at once, whatever becomes of the connection; no timer runs while the spool commits."""
        assert self._mail_ended is not None
        self._mail = None
        self._timeout_handle.cancel()
        self._mail_ended.set_result(self._host.deliver(self._delivery(mail)))

    def _delivery(self, mail: DataReader) -> Delivery:
        envelope, session = self.envelope, self.session
        return Delivery(
            envelope=Envelope(
                sender="" if envelope.mail_from == policy.NULL_SENDER else envelope.mail_from,
                recipients=tuple(envelope.rcpt_tos),
                peer=_peer_host(session.peer),
                helo=_printable(session.host_name),
                smtputf8=envelope.smtp_utf8,
            ),
            protocol=self._protocol(),
            content=mail.content,
            warnings=mail.warnings,
            too_big=mail.too_big,
        )

    def _protocol(self) -> str:
        """The protocol's registered name for `with` (RFC 3848; RFC 6531, 4.3)."""
        if not self.session.extended_smtp:
            return "SMTP"
        return ("UTF8SMTP" if self.envelope.smtp_utf8 else "ESMTP") + ("S" if self._tls_protocol else "")

    # --- syntax ---------------------------------------------------------------------------------------------------

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """The address and parameters of MAIL or RCPT; aiosmtpd's own parser takes comments and lone surrogates."""
        return policy.parse_path(arg) or (None, None)

    def _getparams(self, params: Any) -> dict[str, str | bool] | None:
        """ESMTP parameters; None when one is not ASCII (a digit of another script breaks aiosmtpd's SIZE)."""
        if not all(param.isascii() for param in params):
            return None
        found: dict[str, str | bool] | None = super()._getparams(params)
        return found


def _forget_exception(task: asyncio.Task[None]) -> None:
    """A session that ended by a broken connection is no error worth a traceback."""
    if not task.cancelled():
        task.exception()


def _peer_host(peer: Any) -> str:
    """The peer's IP address, "" where there is none (it was gone before we looked)."""
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def _printable(helo: str | None) -> str:
    """What the peer called itself, fit to be stored: bytes that are no UTF-8 and control characters replaced."""
    return "".join(char if char.isprintable() else "?" for char in (helo or ""))[:255]
