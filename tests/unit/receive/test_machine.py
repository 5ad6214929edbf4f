"""A session against a model of the protocol: whatever order things are said in, cut however, each reply is the model's."""

import asyncio
import itertools
import re
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.policy import REPLIES, Reply
from apptrack_ingest.receive.pressure import Floors
from apptrack_ingest.receive.rates import Caps, Doorkeeper

from .conftest import PATIENCE, Clock, Disk, new_intake

COMMANDS, RECIPIENTS, SIZE, BLOCK, RECEIVED = 12, 2, 2000, 200, 2

# What MAIL and RCPT come to where the sequence is right; parameters need EHLO.
MAILS = {
    b"MAIL FROM:<ann@example.org>": policy.SENDER_OK,
    b"mail from:<>": policy.SENDER_OK,
    b"MAIL FROM:<ann@example.org> SIZE=100": policy.SENDER_OK,
    b"MAIL FROM:<ann@example.org> SIZE=2001": policy.TOO_BIG,
    b"MAIL FROM:<ann@example.org> RET=FULL": policy.UNKNOWN_PARAMETER,
    b"MAIL FROM:<ann@example.org> BODY=BINARYMIME": policy.BAD_ARGUMENTS,
    b"MAIL FROM:<a b@c>": policy.BAD_ADDRESS,
    b"MAIL": policy.BAD_ARGUMENTS,
    b"MAIL TO:<ann@example.org>": policy.BAD_ARGUMENTS,
}
RCPTS = {
    b"RCPT TO:<jobs@north.example>": policy.RECIPIENT_OK,
    b"RCPT TO:<postmaster>": policy.RECIPIENT_OK,
    b"Rcpt To:<x@south.example>": policy.RECIPIENT_OK,
    b"RCPT TO:<who@ever.example>": policy.UNKNOWN_RECIPIENT,
    b"RCPT TO:<jobs@north.example> NOTIFY=NEVER": policy.UNKNOWN_PARAMETER,
    b"RCPT TO:<>": policy.BAD_ADDRESS,
    b"RCPT": policy.BAD_ARGUMENTS,
}
# What has nothing to do with the sequence.
OTHERS = {
    b"NOOP": policy.OK,
    b"NOOP hello": policy.OK,
    b"HELP": policy.HELP,
    b"VRFY ann": policy.CANNOT_VERIFY,
    b"VRFY": policy.BAD_ARGUMENTS,
    b"EXPN list": policy.NOT_IMPLEMENTED,
    b"AUTH PLAIN AGEAYg==": policy.NOT_IMPLEMENTED,
    b"STARTTLS": policy.TLS_UNAVAILABLE,
    b"QUIT now": policy.BAD_ARGUMENTS,
    b"RSET now": policy.BAD_ARGUMENTS,
    b"HELO": policy.BAD_ARGUMENTS,
    b"EHLO": policy.BAD_ARGUMENTS,
    b"": policy.BAD_SYNTAX,
    b"\xff\xfe": policy.BAD_SYNTAX,
    b"NOOP " + b"x" * 1000: policy.LINE_TOO_LONG,
}
SEQUENCE = (b"EHLO client.example", b"HELO client.example", b"DATA", b"DATA now", b"RSET", b"QUIT", b"BDAT 1 LAST")
MAIL_LINES = (
    b".",
    b"..",
    b".stuffed",
    b"X-iTrackID: 1",
    b"Received: x",
    b"A: " + b"y" * 190,
    b"z" * 900,
    b"lone\nLF",
    b"\r",
)

WORDS = {b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"QUIT"} | {line.partition(b" ")[0] for line in OTHERS}

TRANSACTION = (b"EHLO client.example", b"MAIL FROM:<ann@example.org>", b"RCPT TO:<postmaster>", b"DATA")

lines = st.one_of(
    st.sampled_from((*MAILS, *RCPTS)),
    st.sampled_from((*TRANSACTION, b".")),
    st.sampled_from((*SEQUENCE, *MAIL_LINES)),
    st.sampled_from(tuple(OTHERS)),
)

mails = st.one_of(
    st.lists(st.sampled_from(MAIL_LINES[1:]), max_size=6),
    st.lists(st.sampled_from((b"Received: x", b"X-iTrackID: 1")), max_size=6),
)


class Model:
    """What a session has to answer, line by line; `None`: nothing (yet). Lines end by CRLF."""

    def __init__(self, world: "Sessions") -> None:
        self.world = world
        self.over = False
        self.greeted = self.extended = self.sender = False
        self.recipients = self.commands = self.unknown = 0
        self.mail: list[bytes] | None = None

    def answer(self, line: bytes) -> Reply | None:
        if self.mail is not None:
            return self._mail_line(line)
        reply = self._command(line)
        self.over = reply in (policy.BYE, policy.TOO_MANY_ERRORS, policy.TOO_MANY_COMMANDS)
        return reply

    def _command(self, line: bytes) -> Reply:
        word = line.partition(b" ")[0].upper()
        if OTHERS.get(line) in (policy.BAD_SYNTAX, policy.LINE_TOO_LONG):
            return self._count() or OTHERS[line]
        if word not in WORDS:
            self.unknown += 1
            return policy.TOO_MANY_ERRORS if self.unknown == 5 else policy.UNKNOWN_COMMAND
        return self._count() or OTHERS.get(line) or self._in_sequence(word, line)

    def _count(self) -> Reply | None:
        self.commands += 1
        return policy.TOO_MANY_COMMANDS if self.commands > COMMANDS else None

    def _in_sequence(self, word: bytes, line: bytes) -> Reply:
        match word:
            case b"EHLO" | b"HELO":
                self._reset()
                self.greeted, self.extended = True, word == b"EHLO"
                return policy.HELLO
            case b"RSET":
                self._reset()
                return policy.OK
            case b"QUIT":
                return policy.BYE
            case b"MAIL" if not self.world.room:
                return policy.NO_ROOM
            case _ if not self.greeted:
                return policy.HELO_FIRST
            case b"MAIL":
                return self._sender(line)
            case b"RCPT":
                return self._recipient(line)
        return self._data(line)

    def _reset(self) -> None:
        self.sender, self.recipients = False, 0

    def _sender(self, line: bytes) -> Reply:
        reply = MAILS[line]
        if reply is policy.BAD_ADDRESS or b"FROM:" not in line.upper():
            return reply
        if b" " in line[5:] and not self.extended:
            return policy.BAD_ARGUMENTS
        if self.sender:
            return policy.MAIL_TWICE
        self.sender = reply is policy.SENDER_OK
        return reply

    def _recipient(self, line: bytes) -> Reply:
        if not self.sender:
            return policy.MAIL_FIRST
        reply = RCPTS[line]
        if b" NOTIFY" in line and not self.extended:
            return policy.BAD_ARGUMENTS
        if reply is policy.RECIPIENT_OK:
            if self.recipients == RECIPIENTS:
                return policy.TOO_MANY_RECIPIENTS
            self.recipients += 1
        return reply

    def _data(self, line: bytes) -> Reply:
        if not self.recipients:
            return policy.RECIPIENT_FIRST
        if line != b"DATA":
            return policy.BAD_ARGUMENTS
        if not self.world.room:
            return policy.NO_ROOM
        self.mail = []
        return policy.START_DATA

    def _mail_line(self, line: bytes) -> Reply | None:
        assert self.mail is not None
        if line != b".":
            self.mail.append(line.removeprefix(b"."))
            return None
        content = b"".join(line + b"\r\n" for line in self.mail)
        self.mail = None
        self._reset()
        reply = self._judged(content)
        if reply is policy.QUEUED:
            self.commands = 0
            self.world.expected.append(content)
        return reply

    def _judged(self, content: bytes) -> Reply:
        if len(content) > SIZE:
            return policy.TOO_BIG
        lines = itertools.takewhile(lambda line: line.strip(b"\r"), content.split(b"\n")[:-1])
        block = b"".join(line + b"\n" for line in lines)
        if len(block) > BLOCK:
            return policy.HEADERS_TOO_BIG
        if block.count(b"Received: x") > RECEIVED:
            return policy.LOOP
        if not self.world.room:
            return policy.NO_ROOM
        return policy.TRY_LATER if self.world.failing else policy.QUEUED


class Sessions(RuleBasedStateMachine):
    """One connection after the other to one intake, whose spool may fail and whose disk may fill up between them."""

    seen: ClassVar[set[Reply]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.problems: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self.failing, self.room = False, True
        self.expected: list[bytes] = []
        self.connections = 0

    def run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, PATIENCE))

    @initialize()
    def begin(self) -> None:
        self.disk, self.budget = Disk(Floors(free_bytes=1000)), Budget(10**6)
        self.door = Doorkeeper(Caps(), lambda _: True, Clock())
        self.intake = self.run(self._started())
        self.connect()

    async def _started(self):
        intake = new_intake(
            pressure=self.disk.pressure,
            doorkeeper=self.door,
            budget=self.budget,
            commands=COMMANDS,
            recipients=RECIPIENTS,
            message_size=SIZE,
            header_block=BLOCK,
            received_headers=RECEIVED,
        )
        await intake.listener.start("127.0.0.1", 0)
        return intake

    def connect(self) -> None:
        self.model = Model(self)
        self.client = self.run(self.intake.connect())
        self.connections += 1

    # --- what may happen ------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.model.over)
    @rule(said=st.lists(lines, min_size=1, max_size=8), piece=st.sampled_from([1, 3, 10, 100, 10_000]))
    def say(self, said: list[bytes], piece: int) -> None:
        """Lines, all at once or in pieces; what stands behind the last word to us is read by nobody (QUIT has to be the last
        of what a client sends: RFC 2920, 3.1)."""
        wire, expected = b"", []
        for line in said:
            wire += line + b"\r\n"
            expected += self._answers(line)
            if expected[-1:] == [policy.BYE]:
                break
        self.run(self._say(wire, piece, expected))

    @precondition(lambda self: not self.model.over)
    @rule(mail=mails, piece=st.sampled_from([1, 100, 10_000]))
    def say_a_whole_mail(self, mail: list[bytes], piece: int) -> None:
        self.say([*TRANSACTION, *mail, b"."], piece)

    @precondition(lambda self: not self.model.over)
    @rule(recipients=st.lists(st.sampled_from(tuple(RCPTS)), min_size=1, max_size=5))
    def say_an_envelope(self, recipients: list[bytes]) -> None:
        self.say([*TRANSACTION[:2], *recipients], 10_000)

    def _answers(self, line: bytes) -> list[Reply]:
        """Outside of a mail a bare LF ends a line too, and CRs before it are not looked at."""
        read = [line] if self.model.mail is not None else [part.rstrip(b"\r") for part in line.split(b"\n")]
        replies = [self.model.answer(each) for each in read if not self.model.over]
        found = [reply for reply in replies if reply is not None]
        self.seen.update(found)
        return found

    async def _say(self, wire: bytes, piece: int, expected: list[Reply]) -> None:
        for start in range(0, len(wire), piece):
            self.client.send(wire[start : start + piece])
            await asyncio.sleep(0)
        for reply in expected:
            heard = (await self.client.reply()).partition("\n")[0].replace("250-", "250 ", 1)
            filled = reply.filled(hostname="mx.test.example", id=r"\d+").render()
            assert re.fullmatch(filled if reply is policy.QUEUED else re.escape(filled), heard), (
                f"{heard}, not {filled}"
            )

    @rule()
    def the_spool_fails_or_works_again(self) -> None:
        self.failing = not self.failing
        self.intake.spool.error = SpoolUnavailable("no") if self.failing else None

    @rule()
    def the_disk_fills_up_or_is_cleared(self) -> None:
        self.room = not self.room
        self.disk.free(10**9 if self.room else 0)

    @rule(how=st.sampled_from(["close", "reset", "half"]))
    def leave(self, how: str) -> None:
        """In the middle of whatever it was; then another connection."""
        self.run(self._leave(how))
        self.connect()

    async def _leave(self, how: str) -> None:
        if how == "half":
            self.client.writer.write_eof()
            assert await self.client.ended()
        elif how == "reset":
            self.client.reset()
        self.client.writer.close()
        await self.intake.sessions_over(self.connections)

    # --- what always holds ----------------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "model") and self.model.over)
    @rule()
    def a_session_that_is_over_is_closed(self) -> None:
        assert self.run(self.client.ended())
        self.leave("close")

    @invariant()
    def what_was_answered_250_is_kept_as_it_was_sent(self) -> None:
        if hasattr(self, "model"):
            kept = [message.raw.partition(b"+0000\r\n")[2] for message, _ in self.intake.spool.kept]
            assert kept == self.expected

    @invariant()
    def no_exception_reaches_the_loop(self) -> None:
        assert self.problems == []

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.run(self._leave("close"))
            assert self.run(self.intake.listener.drain(PATIENCE)) == 0
            assert (self.budget.in_use, self.door.connections) == (0, 0)
            self.loop.run_until_complete(asyncio.sleep(0))
            assert not asyncio.all_tasks(self.loop)
            assert set(self.intake.replies) <= {str(reply.code) for reply in REPLIES.values()}
        self.no_exception_reaches_the_loop()
        self.loop.close()


def test_every_reply_is_the_models():
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=100,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    said = {policy.HELLO, policy.BYE, policy.OK, policy.START_DATA, policy.QUEUED, policy.TRY_LATER, policy.NO_ROOM}
    said |= {policy.TOO_BIG, policy.HEADERS_TOO_BIG, policy.LOOP, policy.TOO_MANY_RECIPIENTS, policy.TOO_MANY_ERRORS}
    assert {*MAILS.values(), *RCPTS.values(), *OTHERS.values(), *said, policy.TOO_MANY_COMMANDS} <= Sessions.seen
