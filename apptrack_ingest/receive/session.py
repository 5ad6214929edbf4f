"""One SMTP session: aiosmtpd's state machine on our own event loop, with its pitfalls stopped up."""

# ruff: noqa: N802 - aiosmtpd finds commands and hooks by names like smtp_DATA and handle_RCPT

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from aiosmtpd import smtp as aiosmtpd

from apptrack_ingest.model import Envelope
from apptrack_ingest.receive import authentication, policy
from apptrack_ingest.receive.authentication import Authentication, Refused
from apptrack_ingest.receive.commands import CommandReader
from apptrack_ingest.receive.deciding import Delivery
from apptrack_ingest.receive.dialogue import Dialogue
from apptrack_ingest.receive.entry import Entry
from apptrack_ingest.receive.host import Host
from apptrack_ingest.receive.incoming import Incoming
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.reception import Reception
from apptrack_ingest.receive.tls import peer_certificate
from apptrack_ingest.trust import Certificate, Connection

log = logging.getLogger("apptrack_ingest.receive")

# What may be said before TLS where it is demanded: all that tells nobody anything.
BEFORE_TLS: Final = frozenset({"EHLO", "HELO", "NOOP", "RSET", "QUIT", "STARTTLS", "HELP"})

_SIZE: Final = re.compile(r"(?i)\sSIZE=([0-9]{1,15})(?:\s|$)")

Command = Callable[[str | None], Awaitable[None]]


class _Decisions:
    """aiosmtpd's hooks where a decision of ours is asked for: MAIL and RCPT."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """Any sender will do; the null sender of a bounce stays `<>` until the envelope is made."""
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return policy.SENDER_OK.render()

    async def handle_RCPT(self, server: Any, _session: Any, envelope: Any, address: str, _options: list[str]) -> str:
        """Only recipients of ours."""
        reply = self._reception.recipient(address, server.connection, len(envelope.rcpt_tos))
        if reply is policy.RECIPIENT_OK:
            envelope.rcpt_tos.append(address)
        return reply.render()


class Session(Dialogue):
    """One connection that was let in; `address` is its peer's, or (`anonymous`) that of a balancer that named nobody: then
    it goes into envelopes and is believed in nothing. DATA is read in bulk and delivered apart from the connection."""

    _reader: CommandReader

    def __init__(
        self, host: Host, entry: Entry, address: str, loop: asyncio.AbstractEventLoop, *, anonymous: bool = False
    ) -> None:
        self._host = host
        self._entry = entry
        self._address = address
        self._believed_address = "" if anonymous else address
        self._limits = host.reception.limits
        tls = host.identity(entry)
        super().__init__(
            _Decisions(host.reception),
            data_size_limit=self._limits.message_size,
            enable_SMTPUTF8=True,
            hostname=host.reception.hostname,
            ident="ESMTP apptrack-ingest",
            tls_context=tls.current() if tls and entry.tls in ("starttls", "required") else None,
            timeout=self._limits.idle_timeout,
            loop=loop,
        )
        # Once more, with a reader of our own: aiosmtpd leaves no other way to give it one.
        asyncio.StreamReaderProtocol.__init__(
            self,
            CommandReader(loop, self._may_go_on),
            client_connected_cb=self._cb_client_connected,
            loop=loop,
        )
        commands: dict[str, Command] = self._smtp_methods
        self._smtp_methods = {name: partial(self._command, name, method) for name, method in commands.items()}
        self._tls: ssl.SSLObject | None = None
        self._certificate: Certificate | None = None
        doorkeeper = host.reception.decider.doorkeeper
        self._auth = Authentication(host.users, self._challenge, doorkeeper, self._believed_address)
        self._commands = 0
        self._over = False
        self._end: asyncio.TimerHandle | None = None
        self._mail: Incoming | None = None
        self._mail_ended: asyncio.Future[asyncio.Task[Reply]] | None = None

    # --- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection, or (a second call) TLS established on it."""
        super().connection_made(transport)
        self._tls = transport.get_extra_info("ssl_object")
        self._certificate = peer_certificate(self._tls) if self._tls else None
        self._auth.user = None
        if self._original_transport is None:
            self._end = self.loop.call_later(self._limits.session_time, self._time_is_over)
            assert self._handler_coroutine is not None
            self._handler_coroutine.add_done_callback(_forget_exception)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; a mail that was complete goes on being delivered."""
        self._drop_mail()
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(error)
        self._host.left(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a mail go to its reader in bulk; all else, and what follows the mail, is for the command reader."""
        if self._hung_up:
            return
        if self._mail is None:
            super().data_received(data)
            return
        rest = self._mail.feed(data)
        if rest is not None:
            self._end_of_mail(self._mail)
            self._reader.put_back(rest)
        elif self._mail.went_on():
            self._reset_timeout(self._limits.data_timeout)

    def _flow(self, open_: bool) -> None:
        """Let bytes come, or none until there is room for them: a wait of ours, for which the peer is not to blame."""
        if self.transport is None or self.transport.is_closing():
            return
        if open_:
            self._reset_timeout(self._limits.data_timeout)
            self.transport.resume_reading()
        else:
            self._reset_timeout(self._limits.data_timeout + self._limits.bytes_wait)
            self.transport.pause_reading()

    def eof_received(self) -> bool | None:
        """The peer will send no more. A mail cut off is dropped; what came whole is still worked and answered."""
        if self._hung_up:
            return False
        if self._mail_ended is not None and not self._mail_ended.done():
            self._mail_ended.cancel()
        asyncio.StreamReaderProtocol.eof_received(self)
        return self._tls is None

    @property
    def connection(self) -> Connection:
        """What is known of the other end by now."""
        return Connection(
            self._believed_address,
            helo=_printable(self.session.host_name),
            user=self._auth.user,
            certificate=self._certificate,
        )

    def hang_up(self, reply: Reply) -> None:
        """Say why and close; of a mail under way nothing is kept."""
        self._drop_mail()
        super().hang_up(reply)

    def _drop_mail(self) -> None:
        if self._mail is not None:
            self._mail.close()
            self._mail = None

    def drain(self) -> None:
        """End the session: now if it waits for a command, else after the one under way."""
        if self._reader.waiting:
            self.hang_up(policy.SHUTTING_DOWN)

    def _may_go_on(self) -> bool:
        """Asked before each line is read: what a peer pipelined behind the end of its session is not worked."""
        if self._hung_up or self.transport is None or self.transport.is_closing():
            return False
        if self._host.draining:
            self.hang_up(policy.SHUTTING_DOWN)
        elif self._over:
            self.hang_up(policy.SESSION_TOO_LONG)
        return not (self._host.draining or self._over)

    def _timeout_cb(self) -> None:
        """The peer was idle too long."""
        self._host.reception.hooks.limited(Limit.IDLE)
        self._hang_up_or_cut(policy.IDLE)

    def _time_is_over(self) -> None:
        """The session lasted too long; where the spool is committing its mail, the answer to that goes out first."""
        self._over = True
        self._host.reception.refused(policy.SESSION_TOO_LONG, Limit.SESSION_TIME, self.connection)
        if self._mail is not None or self._reader.waiting:
            self._hang_up_or_cut(policy.SESSION_TOO_LONG)

    # --- commands -------------------------------------------------------------------------------------------------

    async def _command(self, name: str, method: Command, arg: str | None) -> None:
        """Every command there is comes by here."""
        refusal = self._refusal_of_command(name, arg)
        if refusal is None:
            await method(arg)
        elif refusal.code == 421:
            self.hang_up(refusal)
        else:
            await self._say(refusal)

    def _refusal_of_line(self) -> Reply | None:
        self._commands += 1
        if self._commands <= self._limits.commands:
            return None
        return self._host.reception.refused(policy.TOO_MANY_COMMANDS, Limit.COMMANDS, self.connection)

    def _refusal_of_command(self, name: str, arg: str | None) -> Reply | None:
        if (refusal := self._refusal_of_line()) is not None:
            return refusal
        if self._entry.tls == "required" and self._tls is None and name not in BEFORE_TLS:
            return policy.TLS_REQUIRED
        if name != "MAIL":
            return None
        if self._entry.auth_required and self._auth.user is None:
            return policy.AUTH_REQUIRED
        size = _SIZE.search(arg or "")
        return self._host.reception.refusal_of_mail(self.connection, int(size[1]) if size else 0)

    async def smtp_EHLO(self, hostname: str | None) -> None:
        """RFC 5321, 4.1.1.1."""
        if not hostname:
            await self._say(policy.BAD_ARGUMENTS)
            return
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session.extended_smtp = True
        self.session.host_name = hostname
        await self._say(policy.HELLO, "\r\n".join(self._capabilities()))

    def _capabilities(self) -> list[str]:
        words = [self.hostname, f"SIZE {self._limits.message_size}", "8BITMIME", "SMTPUTF8", "PIPELINING"]
        if self.tls_context and self._tls is None:
            words.append("STARTTLS")
        if self.auth_offered:
            words.append("AUTH " + " ".join(authentication.MECHANISMS))
        words.append("ENHANCEDSTATUSCODES")
        return [f"250-{word}" for word in words] + ["250 HELP"]

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """RFC 3207; a second STARTTLS is out of sequence (aiosmtpd would start TLS within TLS)."""
        if self._tls is not None:
            await self._say(policy.TLS_ACTIVE)
            return
        if self.tls_context and not arg:
            # What was pipelined behind it is void; left in the reader, much of it would keep the handshake from being read.
            self._reader.take_all()
        try:
            await super().smtp_STARTTLS(arg)
        except aiosmtpd.TLSSetupException as error:
            self._host.reception.handshake_failed(error.__cause__ or error, self._address)
            raise
        if self._tls_protocol is not None and self.transport.is_closing():
            # Closed by our side within the handshake, which asyncio reports as a handshake that went well.
            raise aiosmtpd.TLSSetupException

    async def smtp_AUTH(self, arg: str | None) -> None:
        """RFC 4954, under TLS only."""
        reply = self._refusal_of_auth() or await self._auth.attempt(arg or "")
        if reply in (policy.WRONG_CREDENTIALS, policy.TOO_MANY_LOGINS):
            self._host.reception.refused(reply, Limit.CREDENTIALS, self.connection)
        elif reply is policy.AUTH_BUSY:
            self._host.reception.refused(reply, Limit.AUTH_QUEUE, self.connection)
        if reply is policy.TOO_MANY_LOGINS:
            self.hang_up(reply)
        else:
            await self._say(reply)

    @property
    def auth_offered(self) -> bool:
        """Only under TLS, and where there are users."""
        return self._tls is not None and bool(self._host.users)

    def _refusal_of_auth(self) -> Reply | None:
        if not self._host.users:
            return policy.NOT_IMPLEMENTED
        if not self.session.extended_smtp:
            return policy.EHLO_FIRST
        if self._tls is None:
            return policy.TLS_REQUIRED
        if self._auth.user is not None:
            return policy.AUTH_TWICE
        return policy.AUTH_IN_MAIL if self.envelope.mail_from else None

    async def _challenge(self, challenge: str) -> bytes:
        await self._say(policy.CHALLENGE, f"334 {challenge}")
        line = await self._reader.answer()
        self._reset_timeout()
        if line is None:
            raise Refused(policy.AUTH_LINE_TOO_LONG)
        return line

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
        if reply.code == 421:
            self.hang_up(reply)
            return
        if reply.code == 250:
            self._commands = 0
        await self._say(reply)

    def _refusal_of_data(self, arg: str | None) -> Reply | None:
        if not self.envelope.rcpt_tos:
            return policy.RECIPIENT_FIRST
        if arg:
            return policy.BAD_ARGUMENTS
        return self._host.reception.refusal_of_data(self.connection)

    async def _read_mail(self) -> Reply:
        """Read to the end of the mail and wait for its delivery, which nothing that happens here can cancel."""
        self._reset_timeout(self._limits.data_timeout)
        self._mail_ended = self.loop.create_future()
        doorkeeper = self._host.reception.decider.doorkeeper
        share = self._host.budget.share(doorkeeper.network(self._believed_address) if doorkeeper else None)
        self._mail = Incoming(self._limits.message_size, share, self._limits.bytes_wait, self._flow)
        early = self._reader.take_all()
        if early:
            self.data_received(early)
        if self._reader.at_eof():
            self.eof_received()
        delivery = await self._mail_ended
        return await asyncio.shield(delivery)

    def _end_of_mail(self, mail: Incoming) -> None:
        """Hand the mail on at once, whatever becomes of the connection; no timer runs while the spool commits."""
        assert self._mail_ended is not None
        self._mail = None
        self._timeout_handle.cancel()
        delivery = self._host.deliver(self._delivery(mail), mail.whole, mail.release)
        self._mail_ended.set_result(delivery)

    def _delivery(self, mail: Incoming) -> Delivery:
        envelope, session, reader = self.envelope, self.session, mail.reader
        return Delivery(
            envelope=Envelope(
                sender="" if envelope.mail_from == policy.NULL_SENDER else envelope.mail_from,
                recipients=tuple(envelope.rcpt_tos),
                peer=self._address,
                helo=_printable(session.host_name),
                smtputf8=envelope.smtp_utf8,
            ),
            connection=self.connection,
            protocol=self._protocol(),
            content=b"",
            warnings=reader.warnings,
            too_big=reader.too_big,
            no_room=mail.no_room,
        )

    def _protocol(self) -> str:
        """The protocol's registered name for `with` (RFC 3848; RFC 6531, 4.3)."""
        if not self.session.extended_smtp:
            return "SMTP"
        secured = ("S" if self._tls else "") + ("A" if self._auth.user is not None else "")
        return ("UTF8SMTP" if self.envelope.smtp_utf8 else "ESMTP") + secured


def _forget_exception(task: asyncio.Task[None]) -> None:
    """A session that ended by a broken connection is no error worth a traceback."""
    if not task.cancelled():
        task.exception()


def _printable(helo: str | None) -> str:
    """What the peer called itself, fit to be stored: bytes that are no UTF-8 and control characters replaced."""
    return "".join(char if char.isprintable() else "?" for char in (helo or ""))[:255]
