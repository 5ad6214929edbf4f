"""AUTH in a session, step by step (RFC 4954)."""

import logging
from base64 import b64encode

import pytest

from apptrack_ingest.receive.listener import Entry
from apptrack_ingest.receive.rates import Caps, Doorkeeper, Limit

from .conftest import BusyUsers, Clock


def b64(data: bytes) -> str:
    return b64encode(data).decode()


RIGHT = b64(b"\0ann\0pass word")
WRONG = b64(b"\0ann\0secret-guess")
SUCCESS = "235 2.7.0 Authentication successful"
INVALID = "535 5.7.8 Authentication credentials invalid"
NO_BASE64 = "501 5.5.2 Not the base64 or the fields that this mechanism asks for"
USERNAME, PASSWORD = "334 " + b64(b"Username:"), "334 " + b64(b"Password:")


@pytest.fixture
async def intake(make_intake, identity, users):
    return await make_intake(tls=identity.tls(), users=users)


@pytest.fixture
async def client(intake, client_tls):
    client = await intake.connect_tls(client_tls)
    assert "250-AUTH PLAIN LOGIN" in (await client.say("EHLO x")).splitlines()
    return client


@pytest.mark.parametrize(
    "steps",
    [
        [(f"AUTH PLAIN {RIGHT}", SUCCESS)],
        [(f"auth plain {RIGHT}", SUCCESS)],
        [("AUTH PLAIN", "334 "), (RIGHT, SUCCESS)],
        [(f"AUTH PLAIN {b64(b'ann' + bytes(1) + b'ann' + bytes(1) + b'pass word')}", SUCCESS)],
        [("AUTH LOGIN", USERNAME), (b64(b"ann"), PASSWORD), (b64(b"pass word"), SUCCESS)],
        [(f"AUTH Login {b64(b'ann')}", PASSWORD), (b64(b"pass word"), SUCCESS)],
        [("AUTH LOGIN =", PASSWORD), (b64(b"pass word"), INVALID)],
        [(f"AUTH PLAIN {WRONG}", INVALID)],
        [(f"AUTH PLAIN {b64(bytes(1) + b'nobody' + bytes(1) + b'pass word')}", INVALID)],
        [(f"AUTH PLAIN {b64(b'bob' + bytes(1) + b'ann' + bytes(1) + b'pass word')}", INVALID)],
        [("AUTH LOGIN", USERNAME), ("", PASSWORD), ("", INVALID)],
        [("AUTH", "501 5.5.4 Syntax error in the command's arguments")],
        [("AUTH PLAIN a b", "501 5.5.4 Syntax error in the command's arguments")],
        [("AUTH CRAM-MD5", "504 5.5.4 Authentication mechanism not supported")],
        [("AUTH \u00fc", "504 5.5.4 Authentication mechanism not supported")],
        [(b"AUTH PLAIN \xff\xfe", NO_BASE64)],
        [("AUTH PLAIN ====", NO_BASE64)],
        [("AUTH PLAIN =", NO_BASE64)],
        [(f"AUTH PLAIN {b64(b'no parts')}", NO_BASE64)],
        [(f"AUTH PLAIN {b64(bytes(1) + b'ann' + bytes(1) + b'x' + bytes(1))}", NO_BASE64)],
        [(f"AUTH PLAIN {b64(bytes(1) + bytes([255]) + bytes(1) + b'x')}", NO_BASE64)],
        [("AUTH PLAIN", "334 "), ("*", "501 5.7.0 Authentication cancelled")],
        [("AUTH LOGIN", USERNAME), (b64(b"ann"), PASSWORD), ("*", "501 5.7.0 Authentication cancelled")],
        [("AUTH PLAIN", "334 "), ("NOOP?", NO_BASE64)],
        [("AUTH PLAIN", "334 "), ("A" * 12_286, NO_BASE64)],
        [("AUTH PLAIN", "334 "), ("A" * 12_300, "500 5.5.6 Authentication exchange line is too long")],
        [("AUTH PLAIN", "334 "), ("A" * 100_000, "500 5.5.6 Authentication exchange line is too long")],
        [("AUTH PLAIN " + "A" * 12_275, NO_BASE64)],
        [("AUTH PLAIN " + "A" * 12_300, "500 5.5.2 Command line too long")],
    ],
)
async def test_the_conversation_and_its_replies(client, steps):
    for line, reply in steps:
        assert await client.say(line) == reply
    assert await client.say("NOOP") == "250 2.0.0 OK"


async def test_a_user_that_proved_itself_goes_with_the_mail(client, intake, mail):
    assert await client.say(f"AUTH PLAIN {RIGHT}") == SUCCESS
    assert (await client.deliver(mail)).startswith("250 2.6.0")
    assert intake.judge.connection.user == "ann"
    assert b" with ESMTPSA id " in intake.spool.message.raw


async def test_utf8_and_auth_have_a_name_together(client, intake, mail):
    assert await client.say(f"AUTH PLAIN {RIGHT}") == SUCCESS
    await client.say("MAIL FROM:<> SMTPUTF8")
    await client.say("RCPT TO:<jobs@north.example>")
    await client.say("DATA")
    client.send(mail + b".\r\n")
    await client.reply()
    assert b" with UTF8SMTPSA id " in intake.spool.message.raw


async def test_nobody_goes_with_the_mail_of_one_who_failed(client, intake, mail):
    assert await client.say(f"AUTH PLAIN {WRONG}") == INVALID
    assert (await client.deliver(mail)).startswith("250 2.6.0")
    assert intake.judge.connection.user is None
    assert b" with ESMTPS id " in intake.spool.message.raw


async def test_the_third_wrong_password_ends_the_session(client):
    assert await client.say(f"AUTH PLAIN {WRONG}") == INVALID
    assert await client.say("AUTH PLAIN ====") == NO_BASE64
    assert await client.say(f"AUTH PLAIN {WRONG}") == INVALID
    client.send(f"AUTH PLAIN {WRONG}\r\nAUTH PLAIN {RIGHT}\r\nNOOP\r\n".encode())
    assert await client.reply() == "421 4.7.0 Too many failed logins, closing"
    assert await client.ended()


async def test_once_is_enough(client):
    assert await client.say(f"AUTH PLAIN {RIGHT}") == SUCCESS
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "503 5.5.1 Authenticated already"
    lines = (await client.say("EHLO x")).splitlines()
    assert "250-AUTH PLAIN LOGIN" in lines
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "503 5.5.1 Authenticated already"


async def test_not_within_a_mail(client):
    await client.say("MAIL FROM:<>")
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "503 5.5.1 No AUTH while a mail is being given"
    await client.say("RSET")
    assert await client.say(f"AUTH PLAIN {RIGHT}") == SUCCESS


async def test_only_after_ehlo(intake, client_tls):
    client = await intake.connect_tls(client_tls)
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "503 5.5.1 Say EHLO first"
    await client.say("HELO x")
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "503 5.5.1 Say EHLO first"


async def test_only_under_tls(intake):
    client = await intake.connect()
    assert "AUTH" not in await client.say("EHLO x")
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "530 5.7.0 Must issue a STARTTLS command first"
    assert (await client.say("MAIL FROM:<> AUTH=<>")).startswith("555 5.5.4")


async def test_only_where_there_are_users(make_intake, identity, client_tls):
    client = await (await make_intake(tls=identity.tls())).connect_tls(client_tls)
    assert "AUTH" not in await client.say("EHLO x")
    assert await client.say(f"AUTH PLAIN {RIGHT}") == "502 5.5.1 Command not implemented"


async def test_the_auth_parameter_of_mail_is_taken_and_believed_from_nobody(client, intake, mail):
    assert (await client.say("MAIL FROM:<> AUTH=<> SIZE=10")).startswith("250 ")
    await client.say("RSET")
    assert (await client.say("MAIL FROM:<a@b.example> AUTH=boss+40north.example")).startswith("250 ")
    await client.say("RCPT TO:<jobs@north.example>")
    await client.say("DATA")
    client.send(mail + b".\r\n")
    assert (await client.reply()).startswith("250 ")
    assert intake.judge.connection.user is None


async def test_no_mail_without_auth_where_it_is_demanded(make_intake, identity, client_tls, users, mail):
    intake = await make_intake(tls=identity.tls(), users=users, entry=Entry(auth_required=True))
    clear = await intake.connect()
    await clear.say("EHLO x")
    assert await clear.say("MAIL FROM:<>") == "530 5.7.0 Authentication required"
    client = await intake.connect_tls(client_tls)
    await client.say("EHLO x")
    assert await client.say("MAIL FROM:<>") == "530 5.7.0 Authentication required"
    assert await client.say(f"AUTH PLAIN {RIGHT}") == SUCCESS
    assert (await client.deliver(mail)).startswith("250 ")


async def test_auth_under_implicit_tls(make_intake, identity, client_tls, users):
    intake = await make_intake(tls=identity.tls(), users=users, entry=Entry(tls="implicit"))
    client = await intake.connect(ssl=client_tls)
    assert "250-AUTH PLAIN LOGIN" in (await client.say("EHLO x")).splitlines()
    assert await client.say(f"AUTH PLAIN {RIGHT}") == SUCCESS


async def test_idle_within_the_conversation(make_intake, identity, client_tls, users):
    intake = await make_intake(tls=identity.tls(), users=users, idle_timeout=1)
    client = await intake.connect_tls(client_tls)
    await client.say("EHLO x")
    assert await client.say("AUTH PLAIN") == "334 "
    assert await client.reply() == "421 4.4.2 Idle too long, closing"
    assert await client.ended()


@pytest.mark.parametrize("line", ["AUTH PLAIN", f"AUTH PLAIN {WRONG}"])
async def test_a_client_that_leaves_in_the_middle(client, intake, line):
    client.send(line.encode() + b"\r\n")
    await client.writer.drain()
    client.reset()
    await intake.sessions_over()


async def test_neither_name_nor_password_is_logged(client, caplog):
    with caplog.at_level(logging.DEBUG):
        await client.say(f"AUTH PLAIN {WRONG}")
        await client.say(f"AUTH PLAIN {b64(b'secret-guess')}")
        await client.say(f"AUTH PLAIN {RIGHT}")
    assert "refused" in caplog.text
    for secret in ("secret-guess", "pass word", "ann", WRONG, RIGHT):
        assert secret not in caplog.text
    assert not any("guess" in line for line in client.heard)


async def test_a_fault_of_ours_is_temporary(client, intake, monkeypatch, caplog):
    async def broken(user, password):
        raise MemoryError(password)

    monkeypatch.setattr(intake.listener.users, "check", broken)
    assert (await client.say(f"AUTH PLAIN {RIGHT}")).startswith("451 4.3.0")
    assert "MemoryError" in caplog.text
    assert "pass word" not in caplog.text


async def test_wrong_passwords_of_one_network_are_looked_at_no_longer(make_intake, identity, client_tls, users):
    """In session after session; whoever else guesses is another matter."""
    clock = Clock()
    keeper = Doorkeeper(Caps(wrong_logins_per_minute=4), lambda _: True, clock)
    intake = await make_intake(tls=identity.tls(), users=users, doorkeeper=keeper)

    async def say(*lines: str) -> list[str]:
        client = await intake.connect_tls(client_tls)
        await client.say("EHLO x")
        return [(await client.say(f"AUTH PLAIN {line}"))[:9] for line in lines]

    assert await say(WRONG, WRONG) == ["535 5.7.8"] * 2
    assert await say(WRONG, RIGHT) == ["535 5.7.8", "235 2.7.0"]
    assert await say(WRONG, RIGHT) == ["535 5.7.8", "421 4.7.0"]
    assert intake.limited == [Limit.CREDENTIALS] * 5
    clock.now += 15
    assert await say(RIGHT) == ["235 2.7.0"]


async def test_a_password_that_could_not_be_looked_at_is_not_counted(make_intake, identity, client_tls):
    keeper = Doorkeeper(Caps(wrong_logins_per_minute=1), lambda _: False, Clock())
    intake = await make_intake(tls=identity.tls(), users=BusyUsers(), doorkeeper=keeper)
    client = await intake.connect_tls(client_tls)
    await client.say("EHLO x")
    for _ in range(5):
        assert await client.say(f"AUTH PLAIN {RIGHT}") == "454 4.7.0 Temporary authentication failure"
    intake.listener.users.busy = False
    assert await client.say(f"AUTH PLAIN {RIGHT}") == SUCCESS
    assert intake.limited == [Limit.AUTH_QUEUE] * 5
