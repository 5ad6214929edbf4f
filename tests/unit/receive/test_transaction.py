"""MAIL and RCPT that are said plainly come to what aiosmtpd, whose way through them is longer, makes of the same."""

import pytest

from apptrack_ingest.receive import transaction
from apptrack_ingest.receive.session import Session


@pytest.fixture
def asked(monkeypatch):
    """The commands that were left to aiosmtpd."""
    found = []

    def counted(name):
        original = Session._commands_by_name[name]

        async def command(self, arg):
            found.append(arg)
            await original(self, arg)

        return command

    for name in ("MAIL", "RCPT"):
        monkeypatch.setitem(Session._commands_by_name, name, counted(name))
    return found


async def outcome(intake, mail: str, rcpt: str, hello: str = "EHLO") -> tuple:
    client = await intake.connect()
    await client.say(f"{hello} client.example")
    replies = await client.say(mail), await client.say(rcpt)
    (session,) = intake.listener._open
    kept = dict(vars(session.envelope))
    await client.say("QUIT")
    await intake.sessions_over(intake.opened)
    return replies, kept


@pytest.mark.parametrize("command", ["MAIL FROM:", "mail from:"])
@pytest.mark.parametrize(
    "rest",
    [
        "<ann@example.org>",
        "<ann+x=y@sub.example.org> SIZE=1000",
        "<ANN@example.org> BODY=8BITMIME",
        "<ann@example.org> size=1000 body=7bit",
    ],
)
@pytest.mark.parametrize("recipient", ["<jobs@north.example>", "<Jobs@North.example>", "<nobody@nowhere.example>"])
async def test_both_ways_come_to_the_same(intake, asked, command, rest, recipient):
    short = await outcome(intake, command + rest, "RCPT TO:" + recipient)
    assert asked == []
    long = await outcome(intake, f"{command} {rest}", f"RCPT TO: {recipient}")
    assert len(asked) == 2
    assert short == long


async def test_so_they_do_for_a_client_that_says_helo(intake, asked):
    recipient = "<jobs@north.example>"
    short = await outcome(intake, "MAIL FROM:<ann@example.org>", "RCPT TO:" + recipient, "HELO")
    assert asked == []
    long = await outcome(intake, "MAIL FROM: <ann@example.org>", "RCPT TO: " + recipient, "HELO")
    assert short == long


async def test_parameters_are_for_those_who_say_ehlo(intake, asked):
    client = await intake.connect()
    await client.say("HELO client.example")
    assert (await client.say("MAIL FROM:<ann@example.org> SIZE=1000")).startswith("501 ")
    assert len(asked) == 1


async def test_a_second_hello_begins_anew(intake):
    client = await intake.connect()
    await client.say("EHLO one.example")
    await client.say("MAIL FROM:<ann@example.org>")
    assert await client.say("HELO two.example") == "250 mx.test.example"
    assert intake.session.connection.helo == "two.example"
    assert (await client.say("RCPT TO:<jobs@north.example>")).startswith("503 ")


@pytest.mark.parametrize("command", ["HELO", "EHLO", "QUIT now"])
async def test_too_few_arguments_and_too_many(intake, command):
    client = await intake.connect()
    assert await client.say(command) == "501 5.5.4 Syntax error in the command's arguments"


async def test_data_needs_a_hello(intake):
    client = await intake.connect()
    assert await client.say("DATA") == "503 5.5.1 Say EHLO or HELO first"


@pytest.mark.parametrize(
    ("mail", "reply"),
    [
        ("MAIL FROM:<ann@example.org> SIZE=999999999999", "552 5.3.4 Message too big"),
        ("MAIL FROM:<ann@example.org> SMTPUTF8", "250 2.1.0 Sender OK"),
        ("MAIL FROM:<>", "250 2.1.0 Sender OK"),
        ("MAIL FROM:<ann@example.org> BODY=9BIT", "501 5.5.4 Syntax error in the command's arguments"),
    ],
)
async def test_what_is_not_plain_is_aiosmtpds(intake, asked, mail, reply):
    client = await intake.connect()
    await client.say("EHLO client.example")
    assert await client.say(mail) == reply
    assert len(asked) == 1


async def test_out_of_order_nothing_is_plain(intake, asked):
    client = await intake.connect()
    assert (await client.say("MAIL FROM:<ann@example.org>")).startswith("503 ")
    await client.say("EHLO client.example")
    assert (await client.say("RCPT TO:<jobs@north.example>")).startswith("503 ")
    assert (await client.say("MAIL FROM:<ann@example.org>")).startswith("250 ")
    assert (await client.say("MAIL FROM:<eve@example.org>")).startswith("503 ")
    assert len(asked) == 3
    assert intake.session.envelope.mail_from == "ann@example.org"


def test_plain_is_what_may_be_said_without_a_second_look():
    for odd in (
        "FROM:<ann@exam ple.org>",
        'FROM:<"a b"@example.org>',
        "FROM:<ann@example.org>x",
        "FROM:<jürgen@x.example>",
    ):
        assert transaction._PLAIN_MAIL.fullmatch(odd) is None
