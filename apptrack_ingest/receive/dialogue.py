"""aiosmtpd's state machine brought to our words, our reading of lines and addresses, without a session's decisions.

What aiosmtpd does for each connection (it looks through all of its methods three times) and each line (a task, two log
records, a regular expression) costs more than the mail itself. So a connection begins as a copy of one that aiosmtpd made,
and its commands, which are coroutines that never wait, are run to their end where the bytes came in, without a task. The
commands that make up nearly every session are methods of ours (`said_…`), which give False where aiosmtpd is to see to it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

from aiosmtpd import smtp as aiosmtpd

from apptrack_ingest.receive import authentication, policy
from apptrack_ingest.receive.authentication import Refused
from apptrack_ingest.receive.commands import COMMANDS_PER_TURN, LONGEST_COMMAND, CommandLines, LineTooLong
from apptrack_ingest.receive.host import Host
from apptrack_ingest.receive.patience import Patience
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.wording import in_our_words

log = logging.getLogger("apptrack_ingest.receive")

LINGER: Final = 1.0
"""Seconds in which a peer that is hung up on can read why: closed at once, with bytes of its own unread (what it pipelined),
the kernel would tell it of a broken connection and drop the words."""

CHUNK: Final = 256 * 1024
"""Bytes read at one go, at most."""

UNKNOWN_AT_MOST: Final = 5
"""The so manieth unknown command ends the session."""

# The commands that wait for somebody else, and so need a task.
_WAITING: Final = frozenset({"AUTH", "STARTTLS"})

Command = Callable[[Any, str | None], Coroutine[Any, Any, None]]
Said = Callable[[Any, str | None], bool]

# aiosmtpd logs every line of every session there, addresses included.
logging.getLogger("mail.log").disabled = True


class Dialogue(Patience, aiosmtpd.SMTP, asyncio.BufferedProtocol):
    """What is said and how it is read, to the last word. A session gives it what it leaves open.

    `_task` is a command that waits; while it is there, or `_busy` says so, no further line is worked.
    """

    # Set by aiosmtpd from the connection on; it declares them as perhaps missing, or not at all.
    transport: Any
    session: Any
    envelope: Any
    _host: Host
    _believed_address: str
    _buffer: memoryview
    _replied: Callable[[int], None]

    _commands_by_name: ClassVar[dict[str, Command]] = {}
    _said_by_name: ClassVar[dict[str, Said]] = {}
    _names: ClassVar[dict[bytes, str]] = {}
    """Those that are commands, as nearly every client writes them."""

    def __init_subclass__(cls) -> None:
        cls._commands_by_name = _by_name(cls, "smtp_")
        cls._said_by_name = _by_name(cls, "said_")
        cls._names = {name.encode(): name for name in cls._commands_by_name}

    def __init__(self, common: dict[str, Any]) -> None:
        """`common` is what `pattern` gave: not aiosmtpd's own constructor, which costs as much as a small mail."""
        self.__dict__.update(common)
        self._lines = CommandLines()
        self._task: asyncio.Task[None] | None = None
        self._asked: asyncio.Future[bytes] | None = None
        self._again: asyncio.Handle | None = None
        self._unknown = 0
        self._ended = self._choked = self._held_back = self._hung_up = False

    @property
    def auth_offered(self) -> bool:
        """Whether AUTH is offered at this moment."""
        raise NotImplementedError

    @property
    def _busy(self) -> bool:
        """Whether something other than a command is under way."""
        raise NotImplementedError

    @property
    def _waiting(self) -> bool:
        """Whether it is the peer's turn to say something."""
        return self._asked is not None or not (self._busy or self._task or self._choked or self._again)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where all sessions' bytes come in, one chunk at a time: a buffer made for each of them, in asyncio's way, takes
        256 KB to read a line of twenty bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came in there."""
        self.data_received(self._buffer[:nbytes].tobytes())

    # --- lines ----------------------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        """Bytes of commands, to be worked as far as they go now; the rest waits, and more is not read for long."""
        if self._lines.is_next(data) and self._asked is None and self._waiting:
            # Nearly always: one command, from a client that waits for its reply.
            if self._may_go_on():
                self._obey(data.rstrip(b"\r\n"))
            return
        self._lines.feed(data)
        self._go_on()
        if (
            not self._held_back
            and self._lines.enough
            and self.transport is not None
            and not self.transport.is_closing()
        ):
            self._held_back = True
            self.transport.pause_reading()

    def _go_on(self) -> None:
        """Work the lines that are there: a few, then others have their turn."""
        for _ in range(COMMANDS_PER_TURN):
            if self._again is not None:
                return
            if self._asked is None and (self._busy or self._task is not None or self._choked):
                return
            if not self._may_go_on():
                return
            if not self._work_one():
                self._read_on()
                return
        self._again = self.loop.call_soon(self._go_on_again)

    def _go_on_again(self) -> None:
        self._again = None
        self._go_on()

    def _work_one(self) -> bool:
        """Work one line; False: there is none."""
        try:
            line = self._lines.next()
        except LineTooLong:
            self._obey_too_long()
            return True
        if line is None:
            if self._ended:
                self.transport.close()
            return False
        if self._asked is not None:
            asked, self._asked = self._asked, None
            asked.set_result(line)
        else:
            self._obey(line)
        return True

    def _take_all(self) -> bytes:
        """All that came behind a command, which is another's to read, or nobody's."""
        taken = self._lines.take_all()
        self._read_on()
        return taken

    def _read_on(self) -> None:
        if self._held_back and self.transport is not None and not self.transport.is_closing():
            self._held_back = False
            self.transport.resume_reading()

    def _obey_too_long(self) -> None:
        if self._asked is not None:
            asked, self._asked = self._asked, None
            asked.set_exception(Refused(policy.AUTH_LINE_TOO_LONG))
        else:
            self._answer(self._refusal_of_line() or policy.LINE_TOO_LONG)

    def _obey(self, line: bytes) -> None:
        """One command's line, without its end."""
        word, _, rest = line.partition(b" ")
        name = self._names.get(word)
        if name is None:
            if not line or not word.isascii():
                self._answer(self._refusal_of_line() or policy.BAD_SYNTAX)
                return
            name = word.decode("ascii").upper()
        if len(line) > LONGEST_COMMAND and len(line) > self._longest(name):
            self._answer(self._refusal_of_line() or policy.LINE_TOO_LONG)
            return
        command = self._commands_by_name.get(name)
        if command is None:
            self._unknown += 1
            self._answer(policy.TOO_MANY_ERRORS if self._unknown >= UNKNOWN_AT_MOST else policy.UNKNOWN_COMMAND)
            return
        self._reset_timeout()
        # Bytes that are no UTF-8 pass as lone surrogates, so that the original ones can be had again.
        self._carry_out(name, command, rest.strip().decode("utf-8", "surrogateescape") if rest else None)

    def _longest(self, name: str) -> int:
        return authentication.LONGEST_LINE - 2 if name == "AUTH" and self.session.extended_smtp else LONGEST_COMMAND

    def _carry_out(self, name: str, command: Command, arg: str | None) -> None:
        try:
            refusal = self._refusal_of_command(name, arg)
            if refusal is not None:
                self._answer(refusal)
                return
            said = self._said_by_name.get(name)
            if said is not None and said(self, arg):
                return
            if name in _WAITING:
                self._task = self.loop.create_task(self._wait_for(command(self, arg)))
            else:
                at_once(command(self, arg))
        except Exception as error:  # noqa: BLE001 - unknown means temporary, whatever it is
            self._failed(error)

    async def _wait_for(self, command: Coroutine[Any, Any, None]) -> None:
        try:
            await command
        except aiosmtpd.TLSSetupException as error:
            # There is no way back to plain text, and none to TLS; its connection may not tell of its own end.
            self._task = None
            if self.transport is not None:
                self.transport.close()
                self.connection_lost(error)
            return
        except Exception as error:  # noqa: BLE001 - unknown means temporary, whatever it is
            self._failed(error)
        self._task = None
        self._go_on()

    def _failed(self, error: Exception) -> None:
        """Unknown means temporary, and the cause is nobody's business (aiosmtpd answers 500 and tells it)."""
        level = logging.INFO if isinstance(error, OSError) else logging.ERROR
        log.log(level, "session error: %s", type(error).__name__)
        self._write(policy.TRY_LATER)

    def _may_go_on(self) -> bool:
        """Asked before each line is worked."""
        raise NotImplementedError

    def _refusal_of_line(self) -> Reply | None:
        """Asked at every line, be it a command or none: whether there were too many."""
        raise NotImplementedError

    def _refusal_of_command(self, name: str, arg: str | None) -> Reply | None:
        """Asked at every command: whether it is refused before it is looked at."""
        raise NotImplementedError

    async def _ask(self, challenge: str) -> bytes:
        """Ask something within a command; the line that answers, Refused when that was too long."""
        self._write(policy.CHALLENGE, f"334 {challenge}")
        asked = self._asked = self.loop.create_future()
        self._go_on()
        line: bytes = await asked
        self._reset_timeout()
        return line

    # --- replies --------------------------------------------------------------------------------------------------

    async def push(self, status: Any) -> None:
        """Send a reply of aiosmtpd's or of our hooks; all that is not from our own table is put into our words."""
        reply = self._host.replies.get(status) or in_our_words(status)
        if reply is policy.TOO_BIG:  # of itself aiosmtpd refuses no size but the one that MAIL declares
            self._host.reception.refused(reply, Limit.MESSAGE_SIZE, self._believed_address)
        self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        """Send a reply, and end the session where it says so."""
        if reply.code == 421:
            self.hang_up(reply)
        else:
            self._write(reply)

    def _write(self, reply: Reply, lines: str | None = None) -> None:
        """Write a reply, many lines in one piece too (else Nagle's algorithm would hold the second one back)."""
        transport = self.transport
        if transport is not None and not self._hung_up and not transport.is_closing():
            transport.write(reply.wire if lines is None else lines.encode() + b"\r\n")
            self._replied(reply.code)

    def pause_writing(self) -> None:
        """The peer does not read its replies: it gets no more of them, for nothing more is worked."""
        self._choked = True

    def resume_writing(self) -> None:
        """It read them."""
        self._choked = False
        self._go_on()

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
        self._take_all()
        if self._ended:
            self.transport.close()
        elif self.transport.can_write_eof() and not self.transport.is_closing():
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


def pattern(host: Host, hooks: object, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """What all sessions of a listener on a loop have in common, of it what aiosmtpd's constructor sets."""
    hostname = host.reception.hostname
    made = aiosmtpd.SMTP(hooks, enable_SMTPUTF8=True, hostname=hostname, ident="ESMTP apptrack-ingest", loop=loop)
    return {
        **vars(made),
        "_buffer": memoryview(bytearray(CHUNK)),
        "_replied": host.reception.hooks.reply,
        "_greeting": policy.GREETING.filled(hostname=hostname),
        "_hello": policy.HELLO.filled(hostname=hostname),
    }


def _by_name(kind: type, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): getattr(kind, name) for name in dir(kind) if name.startswith(prefix)}


def at_once(command: Coroutine[Any, Any, None]) -> None:
    """Run a command that never waits; RuntimeError for one that would."""
    try:
        command.send(None)
    except StopIteration:
        return
    command.close()
    raise RuntimeError("this command waits for something")
