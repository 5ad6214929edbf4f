"""One SMTP session: aiosmtpd's state machine on our own event loop, with its pitfalls stopped up."""

# ruff: noqa: N802 - aiosmtpd finds commands and hooks by names like smtp_DATA and handle_RCPT

import asyncio
import logging
import re
import ssl
from collections.abc import Callable
from typing import Final

from aiosmtpd import smtp as aiosmtpd

from apptrack_ingest.model import Envelope
from apptrack_ingest.receive import authentication, policy
from apptrack_ingest.receive.authentication import Authentication
from apptrack_ingest.receive.budget import Share
from apptrack_ingest.receive.deciding import Delivery
from apptrack_ingest.receive.dialogue import CHUNK, pattern
from apptrack_ingest.receive.entry import Entry
from apptrack_ingest.receive.hooks import Decisions
from apptrack_ingest.receive.host import Host
from apptrack_ingest.receive.incoming import Incoming
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.tls import beneath, peer_certificate
from apptrack_ingest.receive.transaction import Transaction
from apptrack_ingest.trust import Certificate, Connection

log = logging.getLogger("apptrack_ingest.receive")

# What may be said before TLS where it is demanded: all that tells nobody anything.
BEFORE_TLS: Final = frozenset({"EHLO", "HELO", "NOOP", "RSET", "QUIT", "STARTTLS", "HELP"})

_SIZE: Final = re.compile(r"(?i)\sSIZE=([0-9]{1,15})(?:\s|$)")


class Session(Transaction):
    """One connection that was let in; `address` is its peer's, or (`anonymous`) that of a balancer that named nobody: then
    it goes into envelopes and is believed in nothing. DATA is read in bulk and delivered apart from the connection."""

    def __init__(
        self, host: Host, entry: Entry, address: str, loop: asyncio.AbstractEventLoop, *, anonymous: bool = False
    ) -> None:
        self._host = host
        if not host.common:
            host.common.update(pattern(host, Decisions(), loop))
        super().__init__(host.common)
        self._entry = entry
        self._address = address
        self._believed_address = "" if anonymous else address
        self._limits = host.reception.limits
        self.data_size_limit = self._limits.message_size
        self._timeout_duration = self._limits.idle_timeout
        self._shortest_silence = min(self._limits.idle_timeout, self._limits.data_timeout)
        tls = host.identity(entry)
        self.tls_context = tls.current() if tls and entry.tls in ("starttls", "required") else None
        self._tls: ssl.SSLObject | None = None
        self._certificate: Certificate | None = None
        doorkeeper = host.reception.decider.doorkeeper
        self._auth = Authentication(host.users, doorkeeper, self._believed_address)
        self._commands = self._declared = 0
        self._over = False
        self._room: Share | None = None
        self._mail: Incoming | None = None
        self._delivery: asyncio.Task[None] | None = None

    # --- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection, or (a second call) TLS established on it, of which nothing said before is known any more
        (RFC 3207, section 4.2)."""
        first = self._original_transport is None
        self.transport = transport
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session = self._create_session()
        if first:
            self._ends_at = self.loop.time() + self._limits.session_time
        self._reset_timeout()
        self._tls = transport.get_extra_info("ssl_object")
        self._certificate = peer_certificate(self._tls) if self._tls else None
        self._auth.user = None
        if first:
            self._write(self._greeting)
        else:
            self._lines.take_all()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; a mail that was complete goes on being delivered."""
        self._drop_mail()
        for timer in (self._timeout_handle, self._again):
            if timer is not None:
                timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._original_transport is not None:
            # aiosmtpd put TLS between it and us; it does not hear of the end by itself.
            self._original_transport.close()
        self.transport = None
        self._host.left(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes come in: half as many where room for them is asked for only when they are there."""
        grows = self._mail is not None and not self._mail.reserved
        return self._buffer[: CHUNK // 2] if grows else self._buffer

    def data_received(self, data: bytes) -> None:
        """Bytes of a mail go to its reader in bulk; all else, and what follows the mail, are commands."""
        if self._hung_up:
            return
        if self._mail is None:
            self._hear(data)
            return
        rest = self._mail.feed(data)
        if rest is not None:
            self._end_of_mail(self._mail)
            self._lines.put_back(rest)
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
        self._ended = True
        if self._hung_up or self.transport is None:
            return False
        if self._mail is not None or self._asked is not None:
            self.transport.close()
        else:
            self._go_on()
        return self._tls is None

    @property
    def connection(self) -> Connection:
        """What is known of the other end by now."""
        helo, user = _printable(self.session.host_name), self._auth.user
        return Connection(self._believed_address, helo=helo, user=user, certificate=self._certificate)

    @property
    def _busy(self) -> bool:
        return self._mail is not None or self._delivery is not None

    def hang_up(self, reply: Reply) -> None:
        """Say why and close; of a mail under way nothing is kept."""
        self._drop_mail()
        super().hang_up(reply)

    def _drop_mail(self) -> None:
        if self._mail is not None:
            self._mail.close()
            self._mail = None
        if self._room is not None and self._task is not None:
            self._task.cancel()
            self._room = None

    def drain(self) -> None:
        """End the session: now if it waits for a command or for room, else after the one under way."""
        if self._waiting or self._room is not None:
            self.hang_up(policy.SHUTTING_DOWN)

    def _may_go_on(self) -> bool:
        """Asked before each line is read: what a peer pipelined behind the end of its session is not worked."""
        if self._hung_up or self.transport is None or self.transport.is_closing():
            return False
        if not (self._host.draining or self._over):
            return True
        self.hang_up(policy.SHUTTING_DOWN if self._host.draining else policy.SESSION_TOO_LONG)
        return False

    def _timeout_cb(self) -> None:
        """The peer was idle too long."""
        self._host.reception.hooks.limited(Limit.IDLE)
        self._hang_up_or_cut(policy.IDLE)

    def _time_is_over(self) -> None:
        """The session lasted too long; where the spool is committing its mail, the answer to that goes out first."""
        self._over = True
        self._host.reception.refused(policy.SESSION_TOO_LONG, Limit.SESSION_TIME, self._believed_address)
        if self._mail is not None or self._waiting or self._room is not None:
            self._hang_up_or_cut(policy.SESSION_TOO_LONG)

    # --- commands -------------------------------------------------------------------------------------------------

    def _refusal_of_line(self) -> Reply | None:
        self._commands += 1
        return self._too_many_commands() if self._commands > self._limits.commands else None

    def _too_many_commands(self) -> Reply:
        return self._host.reception.refused(policy.TOO_MANY_COMMANDS, Limit.COMMANDS, self._believed_address)

    def _refusal_of_command(self, name: str, arg: str | None) -> Reply | None:
        self._commands += 1
        if self._commands > self._limits.commands:
            return self._too_many_commands()
        if self._entry.tls == "required" and self._tls is None and name not in BEFORE_TLS:
            return policy.TLS_REQUIRED
        if name != "MAIL":
            return None
        if self._entry.auth_required and self._auth.user is None:
            return policy.AUTH_REQUIRED
        size = _SIZE.search(arg or "")
        self._declared = int(size[1]) if size else 0
        return self._host.reception.refusal_of_mail(self._believed_address, self._declared)

    def said_EHLO(self, hostname: str | None) -> bool:
        """RFC 5321, 4.1.1.1."""
        if not hostname:
            self._write(policy.BAD_ARGUMENTS)
            return True
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session.extended_smtp = True
        self.session.host_name = hostname
        self._write(policy.HELLO, "\r\n".join(self._capabilities()))
        return True

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
            self._write(policy.TLS_ACTIVE)
            return
        if self.tls_context and not arg:
            # What was pipelined behind it is void; left there, much of it would keep the handshake from being read.
            self._take_all()
            self.transport = beneath(self.transport)
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
        reply = self._refusal_of_auth() or await self._auth.attempt(arg or "", self._ask)
        if reply in (policy.WRONG_CREDENTIALS, policy.TOO_MANY_LOGINS):
            self._host.reception.refused(reply, Limit.CREDENTIALS, self._believed_address)
        elif reply is policy.AUTH_BUSY:
            self._host.reception.refused(reply, Limit.AUTH_QUEUE, self._believed_address)
        if reply is policy.TOO_MANY_LOGINS:
            self.hang_up(reply)
        else:
            self._write(reply)

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

    async def smtp_HELP(self, arg: str | None) -> None:
        """The commands there are."""
        self._write(policy.HELP)

    async def smtp_VRFY(self, arg: str | None) -> None:
        """RFC 5321, 3.5.3: whether an address exists is told at RCPT only."""
        self._write(policy.CANNOT_VERIFY if arg else policy.BAD_ARGUMENTS)

    # --- the mail -------------------------------------------------------------------------------------------------

    def said_DATA(self, arg: str | None) -> bool:
        """RFC 5321, 4.1.1.4: read the mail in bulk and answer what became of it."""
        refusal = self._refusal_of_data(arg)
        if refusal is not None:
            self._write(refusal)
            return True
        doorkeeper = self._host.reception.decider.doorkeeper
        share = self._host.budget.share(doorkeeper.network(self._believed_address) if doorkeeper else None)
        room = min(self._declared, self._limits.message_size)
        if room and not share.take(room):
            self._room, self._task = share, self.loop.create_task(self._wait_for(self._begin_with_room(share, room)))
        else:
            self._begin_mail(share, room)
        return True

    def _refusal_of_data(self, arg: str | None) -> Reply | None:
        if not self.session.host_name:
            return policy.HELO_FIRST
        if not self.envelope.rcpt_tos:
            return policy.RECIPIENT_FIRST
        if arg:
            return policy.BAD_ARGUMENTS
        return self._host.reception.refusal_of_data(self._believed_address)

    async def _begin_with_room(self, share: Share, room: int) -> None:
        """Let a mail begin as soon as there is room for all of it as declared (RFC 1870), for a while that every client
        waits (two minutes: RFC 5321, 4.5.3.2.4); begun, it would hold what it has while it waits for the rest."""
        self._be_patient()
        found = await share.wait(room, self._limits.bytes_wait)
        self._room = None
        if found:
            self._begin_mail(share, room)
        else:
            self._reset_timeout()
            self._answer(self._host.reception.refused(policy.NO_ROOM, Limit.BYTES_IN_FLIGHT, self._believed_address))

    def _begin_mail(self, share: Share, reserved: int) -> None:
        """All that comes from here on, and what came already, is the mail's."""
        self._write(policy.START_DATA)
        self._reset_timeout(self._limits.data_timeout)
        limits = self._limits
        self._mail = Incoming(limits.message_size, share, limits.bytes_wait, self._flow, reserved)
        early = self._take_all()
        if early:
            self.data_received(early)
        if self._ended:
            self.eof_received()

    def _end_of_mail(self, mail: Incoming) -> None:
        """Hand the mail on at once, whatever becomes of the connection; no timer runs while the spool commits."""
        self._mail = None
        self._be_patient()
        self._delivery = self._host.deliver(self._delivered(mail), mail.whole, mail.release, self._answer_mail)

    def _answer_mail(self, reply: Reply) -> None:
        """Nothing that happened to the connection meanwhile could cancel the delivery."""
        self._delivery = None
        if self.transport is None:
            return
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        self._reset_timeout()
        if reply.code == 250:
            self._commands = 0
        self._answer(reply)
        self._go_on()

    def _delivered(self, mail: Incoming) -> Callable[[bytes | None], Delivery]:
        """What makes the delivery of the mail's bytes, by what is known now."""
        said, connection, protocol, reader = self.envelope, self.connection, self._protocol(), mail.reader
        envelope = Envelope(
            sender="" if said.mail_from == policy.NULL_SENDER else said.mail_from,
            recipients=tuple(said.rcpt_tos),
            peer=self._address,
            helo=connection.helo,
            smtputf8=said.smtp_utf8,
        )
        warnings, too_big, no_room = reader.warnings, reader.too_big, mail.no_room
        return lambda content: Delivery(
            envelope, connection, protocol, content or b"", warnings, too_big, no_room or content is None
        )

    def _protocol(self) -> str:
        """The protocol's registered name for `with` (RFC 3848; RFC 6531, 4.3)."""
        if not self.session.extended_smtp:
            return "SMTP"
        secured = ("S" if self._tls else "") + ("A" if self._auth.user is not None else "")
        return ("UTF8SMTP" if self.envelope.smtp_utf8 else "ESMTP") + secured


def _printable(helo: str | None) -> str:
    """What the peer called itself, fit to be stored: bytes that are no UTF-8 and control characters replaced."""
    if helo is None or helo.isprintable():
        return (helo or "")[:255]
    return "".join(char if char.isprintable() else "?" for char in helo)[:255]
