"""aiosmtpd's state machine brought to our words and our reading of addresses, without a session's decisions."""

import asyncio
import contextlib
import logging
from typing import Any, Final

from aiosmtpd import smtp as aiosmtpd

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.commands import LONGEST_COMMAND, CommandReader, CommandSizes
from apptrack_ingest.receive.host import Host
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.wording import in_our_words
from apptrack_ingest.trust import Connection

log = logging.getLogger("apptrack_ingest.receive")

LINGER: Final = 1.0
"""Seconds in which a peer that is hung up on can read why: closed at once, with bytes of its own unread (what it pipelined),
the kernel would tell it of a broken connection and drop the words."""

# aiosmtpd logs every line of every session there, addresses included.
logging.getLogger("mail.log").disabled = True


class Dialogue(aiosmtpd.SMTP):
    """What is said and how it is read, to the last word. A session gives it what it leaves open."""

    # Set by aiosmtpd from the connection on; it declares them as perhaps missing, or not at all.
    transport: Any
    session: Any
    envelope: Any
    _reader: CommandReader
    _timeout_handle: Any
    _host: Host
    _hung_up = False

    command_size_limit = LONGEST_COMMAND
    command_size_limits = CommandSizes()

    @property
    def auth_offered(self) -> bool:
        """Whether AUTH is offered at this moment."""
        raise NotImplementedError

    @property
    def connection(self) -> Connection:
        """What is known of the other end by now."""
        raise NotImplementedError

    # --- replies --------------------------------------------------------------------------------------------------

    async def push(self, status: Any) -> None:
        """Send a reply of aiosmtpd's or of our hooks; all that is not from our own table is put into our words."""
        reply = self._host.replies.get(status) or in_our_words(status)
        if reply in (policy.BAD_SYNTAX, policy.LINE_TOO_LONG):
            reply = self._refusal_of_line() or reply
        if reply.code == 421:
            self.hang_up(reply)
            await forever()  # aiosmtpd would close the connection next
        if reply is policy.TOO_BIG:  # of itself aiosmtpd refuses no size but the one that MAIL declares
            self._host.reception.refused(reply, Limit.MESSAGE_SIZE, self.connection)
        await self._say(reply)

    async def handle_exception(self, error: Exception) -> str:
        """Unknown means temporary, and the cause is nobody's business (aiosmtpd answers 500 and tells it)."""
        if not isinstance(error, aiosmtpd.TLSSetupException):  # which is told, seldom enough, where it comes from
            level = logging.INFO if isinstance(error, OSError) else logging.ERROR
            log.log(level, "session error: %s", type(error).__name__)
        return policy.TRY_LATER.render()

    async def _say(self, reply: Reply, lines: str | None = None) -> None:
        self._write(reply, lines)
        await self._writer.drain()

    def _write(self, reply: Reply, lines: str | None = None) -> None:
        """Write a reply, many lines in one piece too (else Nagle's algorithm would hold the second one back)."""
        if self.transport is not None and not self.transport.is_closing() and not self._hung_up:
            self.transport.write((lines or reply.render()).encode() + b"\r\n")
            self._host.reception.hooks.reply(str(reply.code))

    def _refusal_of_line(self) -> Reply | None:
        """Asked at every line, be it a command or none: whether there were too many."""
        raise NotImplementedError

    # --- the end --------------------------------------------------------------------------------------------------

    def hang_up(self, reply: Reply) -> None:
        """Say why and close, as soon as the peer has read it and closed as well, or a second later; nothing that it says
        meanwhile is worked."""
        if self._hung_up or self.transport is None or self.transport.is_closing():
            return
        self._write(reply)
        self._hung_up = True
        self._timeout_handle.cancel()
        self._timeout_handle = self.loop.call_later(LINGER, self._end_linger)
        self._reader.take_all()
        if self._reader.at_eof():
            self.transport.close()
        elif self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer was faster
                self.transport.write_eof()

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self.transport is not None:
            self.transport.abort()

    def _hang_up_or_cut(self, reply: Reply) -> None:
        """A peer that does not even read its replies is not waited for any longer."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            self.hang_up(reply)

    def _end_linger(self) -> None:
        """Under TLS there is a farewell to be answered; a peer that does not is cut off."""
        self._timeout_handle = self.loop.call_later(LINGER, self.abort)
        self.transport.close()

    # --- syntax ---------------------------------------------------------------------------------------------------

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """The address and parameters of MAIL or RCPT; aiosmtpd's own parser takes comments and lone surrogates."""
        return policy.parse_path(arg) or (None, None)

    def _getparams(self, params: Any) -> dict[str, str | bool] | None:
        """ESMTP parameters; None when one is not ASCII (a digit of another script breaks aiosmtpd's SIZE)."""
        if not all(param.isascii() for param in params):
            return None
        found: dict[str, str | bool] | None = super()._getparams(params)
        if found is not None and self.auth_offered:
            # MAIL's AUTH parameter must be taken where AUTH is offered, and believed from nobody (RFC 4954, section 5).
            found.pop("AUTH", None)
        return found


async def forever() -> None:
    """Waits until cancelled: what a session that was hung up on does until its connection is gone."""
    await asyncio.get_running_loop().create_future()
