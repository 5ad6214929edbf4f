"""SMTP sessions over real sockets: the protocol, DATA, and everything a peer may do to us."""

import asyncio
import dataclasses
import inspect
import logging
import re
import smtplib
import socket
from email.message import EmailMessage

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.commands import COMMANDS_PER_TURN
from apptrack_ingest.receive.session import Session
from apptrack_ingest.receive.wording import INSTEAD_OF, in_our_words

REPLY = re.compile(r"\d{3}[ -](\d\.\d+\.\d+ )?")


# --- the protocol -------------------------------------------------------------------------------------------------


async def test_a_plain_session(client, intake, mail):
    assert await client.deliver(mail) == "250 2.6.0 Queued as 1"
    assert await client.say("QUIT") == "221 2.0.0 Bye"
    assert await client.ended()
    assert intake.spool.body == mail
    assert intake.replies == ["220", "250", "250", "250", "354", "250", "221"]
    assert intake.received == ["north"]
    assert len(intake.accepted) == 1


async def test_ehlo_announces_what_we_can(client):
    lines = (await client.say("EHLO client.example")).splitlines()
    assert lines == [
        "250-mx.test.example",
        "250-SIZE 31457280",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-PIPELINING",
        "250-ENHANCEDSTATUSCODES",
        "250 HELP",
    ]


@pytest.mark.parametrize(
    ("before", "command", "reply"),
    [
        ([], "HELO client.example", "250 mx.test.example"),
        ([], "HELO", "501 5.5.4"),
        ([], "EHLO", "501 5.5.4"),
        ([], "MAIL FROM:<a@b.example>", "503 5.5.1"),
        ([], "RCPT TO:<jobs@north.example>", "503 5.5.1"),
        ([], "DATA", "503 5.5.1"),
        ([], "", "500 5.5.2"),
        ([], b"\xff\xfe", "500 5.5.2"),
        ([], "X" * 999, "500 5.5.1"),
        ([], "NOOP " + "x" * 996, "500 5.5.2"),
        ([], "NOOP " + "x" * 100_000, "500 5.5.2"),
        ([], "FOO <ann@example.org>", "500 5.5.1 Command not recognised"),
        ([], " NOOP", "500 5.5.1 Command not recognised"),
        ([], "noop", "250 2.0.0"),
        ([], "NOOP hi", "250 2.0.0"),
        ([], "RSET", "250 2.0.0"),
        ([], "RSET x", "501 5.5.4"),
        ([], "QUIT x", "501 5.5.4"),
        ([], "HELP", "214 2.0.0"),
        ([], "VRFY jobs@north.example", "252 2.5.0"),
        ([], b"VRFY \xff", "252 2.5.0"),
        ([], "VRFY", "501 5.5.4"),
        ([], "EXPN list", "502 5.5.1"),
        ([], "AUTH PLAIN AGEAYg==", "502 5.5.1"),
        ([], "STARTTLS", "454 4.7.0"),
        (["EHLO x"], "MAIL", "501 5.5.4"),
        (["EHLO x"], "MAIL TO:<a@b.example>", "501 5.5.4"),
        (["EHLO x"], "MAIL FROM:<>", "250 2.1.0"),
        (["EHLO x"], "MAIL FROM:<a@b.example> BODY=8BITMIME SMTPUTF8 SIZE=31457280", "250 2.1.0"),
        (["EHLO x"], "MAIL FROM:<a@b.example> SIZE=31457281", "552 5.3.4"),
        (["EHLO x"], "MAIL FROM:<a@b.example> SIZE=x", "501 5.5.4"),
        (["EHLO x"], "MAIL FROM:<a@b.example> SIZE=²", "501 5.5.4"),
        (["EHLO x"], "MAIL FROM:<a@b.example> BODY=BINARYMIME", "501 5.5.4"),
        (["EHLO x"], "MAIL FROM:<a@b.example> SMTPUTF8=1", "501 5.5.4"),
        (["EHLO x"], "MAIL FROM:<a@b.example> RET=FULL", "555 5.5.4"),
        (["EHLO x"], "MAIL FROM:<a b@c>", "553 5.1.3"),
        (["EHLO x"], b"MAIL FROM:<a\xff@b.example>", "553 5.1.3"),
        (["HELO x"], "MAIL FROM:<a@b.example> SIZE=1", "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<>"], "MAIL FROM:<a@b.example>", "503 5.5.1"),
        (["EHLO x", "MAIL FROM:<>"], "DATA", "503 5.5.1"),
        (["EHLO x", "MAIL FROM:<>"], "RCPT", "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<>"], "RCPT TO:<>", "553 5.1.3"),
        (["EHLO x", "MAIL FROM:<>"], "RCPT TO:<jobs@north.example> NOTIFY=NEVER", "555 5.5.4"),
        (["EHLO x", "MAIL FROM:<>"], "RCPT TO:<nobody@north.example>", "550 5.1.1"),
        (["EHLO x", "MAIL FROM:<>"], "RCPT TO:<JOBS@North.Example>", "250 2.1.5"),
        (["EHLO x", "MAIL FROM:<>"], "RCPT TO:<postmaster>", "250 2.1.5"),
        (["EHLO x", "MAIL FROM:<>"], "RCPT TO:<Postmaster@south.example>", "250 2.1.5"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<postmaster>"], "DATA now", "501 5.5.4"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<postmaster>", "RSET"], "DATA", "503 5.5.1"),
        (["EHLO x", "MAIL FROM:<>", "RCPT TO:<postmaster>", "EHLO x"], "DATA", "503 5.5.1"),
    ],
)
async def test_commands_and_their_replies(client, before, command, reply):
    for line in before:
        assert (await client.say(line))[0] == "2"
    assert (await client.say(command)).startswith(reply)
    assert (await client.say("NOOP")) == "250 2.0.0 OK"
    assert all(REPLY.match(line) for line in client.heard)


async def test_too_many_unknown_commands_end_the_session(client):
    for _ in range(4):
        assert await client.say("GET / HTTP/1.1") == "500 5.5.1 Command not recognised"
    assert await client.say("Host: x") == "421 4.7.0 Too many unrecognised commands, closing"
    assert await client.ended()


async def test_more_recipients_than_allowed_are_put_off(make_intake, mail):
    intake = await make_intake(recipients=2)
    client = await intake.connect()
    await client.say("EHLO x")
    await client.say("MAIL FROM:<>")
    replies = [await client.say(f"RCPT TO:<x{number}@south.example>") for number in range(3)]
    assert [reply[:9] for reply in replies] == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]
    await client.say("DATA")
    client.send(mail + b".\r\n")
    assert (await client.reply()).startswith("250 2.6.0")
    assert intake.spool.message.envelope.recipients == ("x0@south.example", "x1@south.example")


async def test_the_sender_is_answered_before_the_mail_is_told_of(make_intake):
    intake, told = await make_intake(), []
    intake.reception.hooks = dataclasses.replace(
        intake.reception.hooks, spooled=lambda mail: told.append(intake.replies[-1])
    )
    client = await intake.connect()
    await client.deliver()
    assert (told, intake.replies[-2:]) == (["250"], ["354", "250"])


def test_every_reply_the_library_can_give_is_put_into_our_words():
    """Should a new aiosmtpd say something else, this test finds it."""
    ours = {"250 OK", "221 Bye"}
    commands = [SMTP._handle_client, SMTP.check_helo_needed, SMTP.smtp_QUIT, SMTP.smtp_NOOP, SMTP.smtp_STARTTLS]
    commands += [SMTP.smtp_HELO, SMTP.smtp_MAIL, SMTP.smtp_RCPT, SMTP.smtp_RSET, SMTP.smtp_EXPN]
    source = "".join(inspect.getsource(command) for command in commands)
    said = ours | set(re.findall(r"""['"](\d{3} [^'"{]+)""", source))
    # Named after us, or for what is switched off: strict ASCII, TLS demanded, certificates checked, limits by command.
    never = (
        "220 ",
        "250 ",
        "421 4.7.0 ",
        "500 Error: (",
        "500 Error: Cannot",
        "500 Error: strict",
        "501 Error: SMTPUTF8 d",
    )
    never += ("530 ", "554 Command refused")
    known = [status for status in said if any(status.startswith(beginning) for beginning, _ in INSTEAD_OF)]
    unknown = [status for status in said if status not in known]
    assert len(known) > 15
    assert [status for status in unknown if not status.startswith(never)] == []


def test_a_reply_nobody_foresaw_is_temporary_and_not_passed_on():
    assert in_our_words("599 secret") is policy.TRY_LATER


# --- what comes in as DATA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"X-iTrackID: 1\r\n\r\n" + bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n",
        b"A: b\r\n\r\n" + b"x" * 5000 + b"\r\n",
        b"A: b\r\n\r\nREF\xe9-1 \xf0\x9f\x98\x80\r\n\r\n\r\n",
    ],
)
async def test_bytes_are_kept_exactly(client, intake, body):
    assert (await client.deliver(body)).startswith("250")
    assert intake.spool.body == body


async def test_transparency_dots_are_taken_away(client, intake):
    await client.envelope()
    client.send(b"A: b\r\n\r\n..\r\n...x\r\n.y\r\na.\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    assert intake.spool.body == b"A: b\r\n\r\n.\r\n..x\r\ny\r\na.\r\n"


async def test_a_bare_lf_never_ends_a_mail(client, intake):
    await client.envelope()
    client.send(b"A: b\r\n\r\none\n.\nMAIL FROM:<evil@example.org>\r\n\n.\r\n.\r\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    assert await client.say("NOOP") == "250 2.0.0 OK"
    assert intake.spool.message.warnings == ("bare CR in the data", "bare LF in the data")
    assert b"evil" in intake.spool.body


@pytest.mark.parametrize("edge", range(1, 7))
async def test_the_end_split_at_every_offset_with_the_next_command_behind(client, intake, mail, edge):
    await client.envelope()
    wire = mail + b".\r\n" + b"NOOP\r\n"
    place = len(mail) - 3 + edge
    client.send(wire[:place])
    await client.writer.drain()
    await asyncio.sleep(0)
    client.send(wire[place:])
    assert (await client.reply()).startswith("250 2.6.0")
    assert await client.reply() == "250 2.0.0 OK"
    assert intake.spool.body == mail


async def test_everything_pipelined_in_one_write(client, intake, mail):
    one = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<no@where.example>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\n"
    client.send(b"EHLO x\r\n" + (one + mail + b".\r\n") * 3 + b"QUIT\r\n")
    replies = [await client.reply() for _ in range(17)]
    assert [reply[:3] for reply in replies] == ["250", *["250", "550", "250", "354", "250"] * 3, "221"]
    assert await client.ended()
    assert len(intake.spool.kept) == 3
    assert all(message.raw.endswith(mail) for message, _ in intake.spool.kept)


async def test_a_mail_over_the_limit_is_refused_at_its_end_and_the_session_goes_on(make_intake, mail):
    intake = await make_intake(message_size=1000)
    client = await intake.connect()
    assert await client.deliver(b"x" * 998 + b"\r\n" + b"y\r\n") == "552 5.3.4 Message too big"
    assert intake.spool.put_calls == 0
    await client.transaction()
    client.send(b"z" * 998 + b"\r\n.\r\n")
    assert (await client.reply()).startswith("250")


async def test_several_recipients_make_one_message_and_an_application_each(client, intake, mail):
    assert (await client.deliver(mail, "jobs@north.example", "a@south.example", "b@south.example"))[:3] == "250"
    ((_, arrivals),) = intake.spool.kept
    assert [arrival.account for arrival in arrivals] == ["north", "south"]
    assert intake.received == ["north", "south"]


async def test_the_envelope_is_kept_as_given(client, intake, mail):
    await client.say("EHLO cli\u00e9nt.ex\x07ample")
    await client.say("MAIL FROM:<jürgen@bücher.example> SMTPUTF8 BODY=8BITMIME")
    await client.say("RCPT TO:<Jobs@NORTH.example>")
    await client.say("DATA")
    client.send(mail + b".\r\n")
    assert (await client.reply())[:3] == "250"
    envelope = intake.spool.message.envelope
    assert (envelope.sender, envelope.recipients) == ("jürgen@bücher.example", ("Jobs@NORTH.example",))
    assert (envelope.peer, envelope.helo, envelope.smtputf8) == ("127.0.0.1", "cli\u00e9nt.ex?ample", True)
    assert b" with UTF8SMTP id " in intake.spool.message.raw


async def test_the_null_sender_of_a_bounce_is_an_empty_one(client, intake, mail):
    await client.envelope(sender="")
    client.send(mail + b".\r\n")
    assert (await client.reply())[:3] == "250"
    assert intake.spool.message.envelope.sender == ""


async def test_a_sender_beyond_utf8_in_helo_is_stored_safely(client, intake, mail):
    await client.say(b"HELO \xff\xfe")
    await client.transaction()
    client.send(mail + b".\r\n")
    assert (await client.reply())[:3] == "250"
    assert intake.spool.message.envelope.helo == "??"
    assert b" with SMTP id " in intake.spool.message.raw


# --- faults of ours -----------------------------------------------------------------------------------------------


async def test_a_put_that_fails_is_451_and_the_next_mail_passes(client, intake, mail):
    intake.spool.error = SpoolUnavailable("disk full at /secret")
    assert await client.deliver(mail) == "451 4.3.0 Temporary failure here, try again later"
    assert intake.received == []
    intake.spool.error = None
    await client.transaction()
    client.send(mail + b".\r\n")
    assert await client.reply() == "250 2.6.0 Queued as 1"


async def test_a_slow_put_is_451_and_never_a_late_250(make_intake, mail):
    intake = await make_intake(put_timeout=0.05)
    client = await intake.connect()
    intake.spool.gate = asyncio.Event()
    assert (await client.deliver(mail)).startswith("451 4.3.0")
    intake.spool.gate.set()
    await asyncio.wait_for(intake.spool.committed.wait(), 10)
    assert await client.say("NOOP") == "250 2.0.0 OK"
    assert len(intake.spool.kept) == 1


async def test_an_exception_anywhere_is_451_and_its_text_stays_here(client, intake, monkeypatch, caplog):
    def broken(*args):
        raise ValueError("hash=c0ffee ann@example.org")

    monkeypatch.setattr(intake.reception, "recipient", broken)
    await client.say("EHLO x")
    await client.say("MAIL FROM:<>")
    with caplog.at_level(logging.DEBUG):
        assert await client.say("RCPT TO:<jobs@north.example>") == "451 4.3.0 Temporary failure here, try again later"
    assert "ValueError" in caplog.text
    assert "c0ffee" not in caplog.text
    assert not any("c0ffee" in line or line.startswith("500") for line in client.heard)


async def test_nothing_of_a_session_is_logged(client, intake, mail, caplog):
    with caplog.at_level(logging.DEBUG):
        await client.deliver(mail)
        await client.say("FOO bar")
        await client.say("QUIT")
    assert "example.org" not in caplog.text
    assert "north.example" not in caplog.text


# --- peers that come and go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [True, False])
async def test_a_client_that_leaves_within_data_leaves_nothing(client, intake, mail, half):
    await client.envelope()
    client.send(mail)
    await client.writer.drain()
    if half:
        client.writer.write_eof()
        assert await client.ended()
    else:
        client.writer.close()
    await intake.sessions_over()
    assert intake.spool.put_calls == 0


async def test_a_client_that_resets_within_data_leaves_nothing(client, intake, mail):
    await client.envelope()
    client.send(mail)
    await client.writer.drain()
    client.reset()
    await intake.sessions_over()
    assert intake.spool.put_calls == 0


async def test_a_half_close_right_after_the_end_costs_nothing(client, intake, mail):
    intake.spool.gate = asyncio.Event()
    await client.envelope()
    client.send(mail + b".\r\n")
    client.writer.write_eof()
    await asyncio.wait_for(intake.spool.asked.wait(), 10)
    intake.spool.gate.set()
    assert await client.reply() == "250 2.6.0 Queued as 1"
    assert await client.ended()
    assert intake.spool.put_calls == len(intake.spool.kept) == 1


async def test_a_client_gone_during_the_commit_costs_nothing(client, intake, mail):
    intake.spool.gate = asyncio.Event()
    await client.envelope()
    client.send(mail + b".\r\n")
    await asyncio.wait_for(intake.spool.asked.wait(), 10)
    client.reset()
    await intake.sessions_over()
    intake.spool.gate.set()
    assert await intake.listener.drain(10) == 0
    assert intake.spool.put_calls == len(intake.spool.kept) == 1
    assert intake.received == ["north"]


async def test_a_whole_session_half_closed_at_once_is_still_worked(client, intake, mail):
    client.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\n" + mail + b".\r\nQUIT\r\n")
    client.writer.write_eof()
    assert [(await client.reply())[:3] for _ in range(6)] == ["250", "250", "250", "354", "250", "221"]
    assert await client.ended()
    assert intake.spool.body == mail


async def test_a_mail_cut_off_before_we_even_read_it_leaves_nothing(client, intake, mail):
    turns = 3 * COMMANDS_PER_TURN
    start = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\n"
    client.send(b"NOOP\r\n" * turns + start + mail)
    client.writer.write_eof()
    assert [(await client.reply())[:3] for _ in range(turns + 4)][turns:] == ["250", "250", "250", "354"]
    assert await client.ended()
    await intake.sessions_over()
    assert intake.spool.put_calls == 0


@pytest.mark.parametrize("line", [b"NOOP", b"NOOP " + b"x" * 5000, b""])
async def test_an_end_of_file_within_a_command_ends_the_session(client, intake, line):
    client.send(line)
    client.writer.write_eof()
    assert await client.ended()
    await intake.sessions_over()


async def test_idle_between_commands(make_intake):
    intake = await make_intake(idle_timeout=0.05)
    client = await intake.connect()
    assert await client.reply() == "421 4.4.2 Idle too long, closing"
    assert await client.ended()


async def test_idle_within_data_has_its_own_time(make_intake, mail):
    intake = await make_intake(data_timeout=0.05)
    client = await intake.connect()
    await client.envelope()
    client.send(mail)
    assert await client.reply() == "421 4.4.2 Idle too long, closing"
    assert await client.ended()
    assert intake.spool.put_calls == 0


async def test_the_commit_is_no_idleness(client, intake, mail):
    intake.spool.gate = asyncio.Event()
    await client.envelope()
    client.send(mail + b".\r\n")
    await asyncio.wait_for(intake.spool.asked.wait(), 10)
    session = intake.session
    assert session._silent_until == float("inf")
    session._look_at_silence()
    intake.spool.gate.set()
    assert (await client.reply()).startswith("250 2.6.0")
    assert session._timeout_handle.when() <= session._silent_until < float("inf")


async def test_a_peer_that_never_reads_is_cut_off(make_intake):
    intake = await make_intake(idle_timeout=0.2)
    client = await intake.connect()
    intake.session.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.writer.transport.pause_reading()
    client.send(b"HELP\r\n" * 100_000)
    await intake.sessions_over()
    assert len(intake.replies) < 100_000


async def test_a_flood_of_pipelined_commands_takes_turns_with_others(make_intake):
    intake = await make_intake(commands=3000)
    flood, other = await intake.connect(), await intake.connect()
    flood.send(b"EHLO x\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<nobody@north.example>\r\n" * 2000)
    assert await other.say("NOOP") == "250 2.0.0 OK"
    assert intake.replies.count("550") < 2000
    await flood.reply()
    await flood.reply()
    for _ in range(2000):
        assert (await flood.reply()).startswith("550 5.1.1")
    assert COMMANDS_PER_TURN < 100


async def test_nothing_is_shared_between_sessions_nor_grows(intake):
    before = len(SMTP.command_size_limits)
    for _ in range(3):
        client = await intake.connect()
        await client.say("EHLO x")
        await client.say("FOO bar")
    assert len(Session.command_size_limits) == 0
    assert len(SMTP.command_size_limits) == before


async def test_our_name_is_never_looked_up(make_intake, monkeypatch):
    monkeypatch.setattr(socket, "getfqdn", lambda *args: pytest.fail("looked up"))
    client = await (await make_intake()).connect()
    assert (await client.say("HELO x")) == "250 mx.test.example"


COMMANDS = [b"EHLO x", b"HELO x", b"MAIL FROM:<>", b"MAIL FROM:<a@b>", b"RCPT TO:<postmaster>", b"RCPT TO:<x@y>"]
COMMANDS += [b"DATA", b".", b"RSET", b"NOOP", b"VRFY x", b"STARTTLS", b"AUTH PLAIN", b"BDAT 1", b"\x16\x03\x01"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.sampled_from(COMMANDS),
            st.binary(max_size=30),
        ),
        max_size=12,
    )
)
def test_whatever_a_peer_sends_every_reply_is_one_of_ours(new_intake, lines):
    """Each example with a loop of its own: hypothesis calls plain functions only."""
    ours = {reply.render() for reply in policy.REPLIES.values()}
    replies = asyncio.run(_converse(new_intake, b"".join(line + b"\r\n" for line in lines)))
    for line in replies:
        assert line in ours or line.startswith(("250 mx.test.example", "250-", "250 HELP", "250 2.6.0 Queued as "))
        assert REPLY.match(line)


async def _converse(new_intake, wire: bytes) -> list[str]:
    """Everything we answer to these bytes and an end of file, the greeting apart."""
    problems: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    intake = new_intake()
    await intake.listener.start("127.0.0.1", 0)
    client = await intake.connect(wire)
    client.writer.write_eof()
    answer = await asyncio.wait_for(client.reader.read(), 10)
    client.writer.close()
    await intake.listener.drain(10)
    assert problems == []
    return answer.decode().splitlines()


# --- TLS ----------------------------------------------------------------------------------------------------------


async def test_bulk_data_after_starttls(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls())
    client = await intake.connect_tls(client_tls)
    lines = (await client.say("EHLO client.example")).splitlines()
    assert not any("STARTTLS" in line or "AUTH" in line for line in lines)
    await client.transaction()
    big = b"A: b\r\n\r\n" + b"0123456789\r\n..dots\r\n" * 100_000
    client.send(big + b".\r\nQUIT\r\n")
    assert (await client.reply()).startswith("250 2.6.0")
    assert await client.reply() == "221 2.0.0 Bye"
    assert intake.spool.body == big.replace(b"\r\n..", b"\r\n.")
    assert b" with ESMTPS id " in intake.spool.message.raw


async def test_tls_within_tls_is_refused(make_intake, identity, client_tls):
    client = await (await make_intake(tls=identity.tls())).connect_tls(client_tls)
    assert await client.say("STARTTLS") == "503 5.5.1 TLS is active already"
    assert await client.say("NOOP") == "250 2.0.0 OK"


async def test_what_came_in_the_clear_is_forgotten_after_starttls(make_intake, identity, client_tls):
    """Neither the envelope (RFC 3207, 4.2) nor commands injected behind STARTTLS survive."""
    intake = await make_intake(tls=identity.tls())
    client = await intake.connect()
    await client.say("EHLO x")
    await client.say("MAIL FROM:<>")
    assert (await client.say(b"STARTTLS\r\nRCPT TO:<postmaster>")).startswith("220")
    await client.writer.start_tls(client_tls, server_hostname="127.0.0.1")
    assert await client.say("RCPT TO:<postmaster>") == "503 5.5.1 Say EHLO or HELO first"


@pytest.mark.parametrize("way", ["garbage", "gone", "silent"])
async def test_a_handshake_that_fails_ends_the_session(make_intake, identity, way):
    intake = await make_intake(tls=identity.tls(), idle_timeout=0.2)
    client = await intake.connect()
    await client.say("EHLO x")
    assert (await client.say("STARTTLS")).startswith("220")
    if way == "garbage":
        client.send(b"EHLO x\r\n" * 10)
    elif way == "gone":
        client.writer.close()
    await intake.sessions_over()


@pytest.mark.parametrize("gone", [True, False])
async def test_a_tls_client_that_ends_right_after_the_mail_costs_nothing(
    make_intake, identity, client_tls, mail, gone, caplog
):
    intake = await make_intake(tls=identity.tls())
    client = await intake.connect_tls(client_tls)
    await client.envelope()
    client.send(mail + b".\r\n")
    if gone:
        client.writer.close()
    await asyncio.wait_for(intake.spool.committed.wait(), 10)
    client.writer.close()
    await intake.sessions_over()
    assert intake.spool.put_calls == 1
    assert caplog.records == []


# --- real clients -------------------------------------------------------------------------------------------------


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "Ann <ann@example.org>", "jobs@north.example", "CV"
    made["X-iTrackID"] = "33139609"
    made.set_content(".\n..\nHello\n" * 2000)
    made.add_attachment(bytes(range(256)) * 500, maintype="application", subtype="pdf", filename="cv.pdf")
    return made


def send_by_smtplib(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as server:
        server.send_message(message())
        server.send_message(message())
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            server.send_message(message(), to_addrs=["who@ever.example"])


async def test_smtplib(intake):
    await asyncio.to_thread(send_by_smtplib, intake.port)
    assert len(intake.spool.kept) == 2
    first = intake.spool.kept[0][0].raw
    assert b"\r\n.\r\n..\r\nHello\r\n" in first


async def test_aiosmtplib_with_starttls(make_intake, identity, client_tls):
    intake = await make_intake(tls=identity.tls())
    async with aiosmtplib.SMTP(
        hostname="127.0.0.1", port=intake.port, start_tls=True, tls_context=client_tls, timeout=10
    ) as server:
        _, answer = await server.send_message(message())
    assert answer == "2.6.0 Queued as 1"
    assert intake.spool.kept[0][1][0].applicant_id == 33139609
