"""Whole sessions byte by byte: however they are cut into segments, and whatever looks like the end of a mail and is none."""

import asyncio
import itertools

import pytest

MAIL = b"From: Ann <ann@example.org>\r\nX-iTrackID: 33139609\r\n\r\n..stuffed\r\n...twice\r\n.x\r\nend.\r\n"
READ = b"From: Ann <ann@example.org>\r\nX-iTrackID: 33139609\r\n\r\n.stuffed\r\n..twice\r\nx\r\nend.\r\n"
ENVELOPE = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\n"
ANSWERS = ["250", "250", "354", "250"]


async def send(client, *segments: bytes) -> None:
    """Each segment by itself: on loopback what was written is there to be read, and was when we have our second turn."""
    for segment in segments:
        client.send(segment)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def converse(client, *segments: bytes) -> list[str]:
    """Say the segments, each read by the other side before the next is sent, then an end of file; the codes heard."""
    await send(client, *segments)
    client.writer.write_eof()
    codes = []
    while reply := await client.reply():
        codes.append(reply[:3])
    return codes


def contents(intake) -> list[bytes]:
    """What was kept, below our own Received header."""
    return [message.raw.partition(b"+0000\r\n")[2] for message, _ in intake.spool.kept]


def cut(wire: bytes, *places: int) -> list[bytes]:
    return [wire[start:end] for start, end in itertools.pairwise((0, *places, len(wire)))]


# --- pipelining ---------------------------------------------------------------------------------------------------

SESSION = b"EHLO x\r\n" + (ENVELOPE + MAIL + b".\r\n") * 2 + b"NOOP\r\nQUIT\r\n"


async def test_two_mails_in_one_session_cut_in_two_at_every_offset(intake):
    """The bytes left over behind a mail are the next commands, and the next mail."""
    for count, place in enumerate(range(len(SESSION) + 1), start=1):
        client = await intake.connect()
        assert await converse(client, *cut(SESSION, place)) == ["250", *ANSWERS * 2, "250", "221"]
        assert len(intake.spool.kept) == 2 * count
    assert set(contents(intake)) == {READ}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_two_mails_in_segments_of_a_few_bytes(intake, size):
    client = await intake.connect()
    assert await converse(client, *cut(SESSION, *range(size, len(SESSION), size))) == [
        "250",
        *ANSWERS * 2,
        "250",
        "221",
    ]
    assert contents(intake) == [READ, READ]


async def test_a_hundred_mails_in_one_segment(intake):
    client = await intake.connect()
    codes = await converse(client, b"HELO x\r\n" + (ENVELOPE + MAIL + b".\r\n") * 100 + b"QUIT\r\n")
    assert codes == ["250", *ANSWERS * 100, "221"]
    assert contents(intake) == [READ] * 100


async def test_what_is_pipelined_behind_a_refused_data_is_commands_and_no_mail(intake):
    """RFC 2920, 3.1: a client waits for the 354; one that does not is told of each of its lines."""
    client = await intake.connect()
    refused = ENVELOPE.replace(b"jobs@north", b"nobody@north") + b"From: x\r\n.\r\n"
    codes = await converse(client, b"EHLO x\r\n" + refused + b"RSET\r\n" + ENVELOPE + MAIL + b".\r\nQUIT\r\n")
    assert codes == ["250", "250", "550", "503", "500", "500", "250", *ANSWERS, "221"]
    assert contents(intake) == [READ]


@pytest.mark.parametrize("left", [b"", b"NOOP\r\n", ENVELOPE])
async def test_the_end_of_a_mail_cut_in_three_at_every_pair_of_offsets(intake, left):
    """...end.CRLF.CRLF and what is left over behind it."""
    wire, first = MAIL + b".\r\n" + left, len(MAIL) - 3
    for one, other in itertools.combinations(range(first, first + 9), 2):
        client = await intake.connect()
        await client.envelope()
        codes = await converse(client, *cut(wire, one, other))
        assert codes == ["250", *{b"": [], b"NOOP\r\n": ["250"], ENVELOPE: ["250", "250", "354"]}[left]]
    assert set(contents(intake)) == {READ}


# --- dots ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b"..\r\n", b".\r\n"),
        (b"...\r\n", b"..\r\n"),
        (b".a\r\n", b"a\r\n"),
        (b"..a\r\n", b".a\r\n"),
        (b". \r\n", b" \r\n"),
        (b"a.\r\n", b"a.\r\n"),
        (b"a\r\n..\r\n..\r\n", b"a\r\n.\r\n.\r\n"),
        (b"a\r\n.\r.\r\n", b"a\r\n\r.\r\n"),
        (b"a\n..\r\n", b"a\n..\r\n"),
        (b"a\n.\n..\n", b"a\n.\n..\n"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_dot_that_begins_a_line_is_taken_away_once(intake, wire, content, size):
    """RFC 5321, 4.5.2. A line begins after CRLF alone."""
    client = await intake.connect()
    await client.envelope()
    end = wire + (b"" if wire.endswith(b"\r\n") or not wire else b"\r\n") + b".\r\n"
    assert await converse(client, *cut(end, *range(size, len(end), size))) == ["250"]
    assert contents(intake) == [content + (b"" if content.endswith(b"\r\n") or not content else b"\r\n")]


# --- what looks like an end ---------------------------------------------------------------------------------------

END = b"\r\n.\r\n"
LINE_ENDS = (
    b"",
    b"\n",
    b"\r",
    b"\r\n",
    b"\r\r\n",
    b"\n\r",
    b"\r\n\x00",
    b"\x00\r\n",
    b"\r\x00\n",
    b"\n\n",
    b"\r\r",
    b"\xc2\x85",
)
"""Everything that some server takes, or took, for the end of a line (the advisories on SMTP smuggling of 2023 and after)."""

MIDDLES = (b".", b".\x00", b"\x00.", b". ", b"..")
SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<jobs@north.example>\r\nDATA\r\nX-iTrackID: 666\r\n\r\nevil"

NO_ENDS = [
    before + middle + after
    for before, middle, after in itertools.product(LINE_ENDS, MIDDLES, LINE_ENDS)
    if END not in before + middle + after + b"MAIL"
]


def test_the_set_holds_what_the_advisories_name():
    named = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n\x00.\r\n"]
    assert set(named) | {b"\n\r.\n", b"\r\r\n.\r\r\n", b"\r\n.\x00\r\n", b"\n\n.\r\n"} <= set(NO_ENDS)
    assert END not in NO_ENDS


async def smuggle(client, spool, middle: bytes, byte_by_byte: bool) -> None:
    """One mail with what looks like its end in the middle, and a second mail behind that."""
    await client.transaction()
    before, after = b"A: b\r\n\r\none" + middle, SMUGGLED + END
    places = range(len(before) - len(middle), len(before) + 1) if byte_by_byte else ()
    await send(client, *cut(before + after + b"NOOP\r\n", *places))
    assert (await client.reply())[:9] == "250 2.6.0", middle
    assert await client.reply() == "250 2.0.0 OK", middle
    read = (before + after).removesuffix(b".\r\n").replace(b"\r\n.", b"\r\n")
    assert spool.message.raw.endswith(b"+0000\r\n" + read), middle
    assert spool.message.envelope.sender == "ann@example.org"
    spool.kept.clear()


@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["at once", "byte by byte"])
async def test_only_crlf_dot_crlf_ends_a_mail(intake, byte_by_byte):
    """Whatever else looks like an end is content, and so is what follows: never a second mail."""
    client = await intake.connect()
    await client.say("EHLO x")
    for middle in NO_ENDS:
        await smuggle(client, intake.spool, middle, byte_by_byte)
    assert intake.replies.count("354") == len(NO_ENDS)


async def test_a_real_end_hidden_among_false_ones_is_the_end(intake):
    """CR CRLF . CRLF CR holds one; who reads CR CRLF as one line's end would not see it."""
    for before, after in itertools.product((b"\r", b"\n", b"\x00", b"\r\n.\n"), (b"", b"\r", b"\n")):
        client = await intake.connect()
        await client.envelope()
        codes = await converse(client, b"one" + before + END + after + b"NOOP\r\n")
        # What is left over is commands: an empty line, or a bare CR before a word, is none.
        assert codes[0] == "250" and set(codes[1:]) <= {"250", "500"}, (before, after)
        assert contents(intake)[-1] == (b"one" + before + b"\r\n").replace(b"\r\n.", b"\r\n")


@pytest.mark.parametrize("middle", [middle for middle in NO_ENDS if middle.strip(b"\x00. \xc2\x85")][::7])
async def test_where_bare_line_ends_are_refused_the_mail_is_refused_whole(make_intake, middle):
    intake = await make_intake(refuse_bare_line_ends=True)
    client = await intake.connect()
    await client.envelope()
    wire = b"A: b\r\n\r\none" + middle + SMUGGLED + END
    bare = wire.replace(b"\r\n", b"").count(b"\r") + wire.replace(b"\r\n", b"").count(b"\n")
    codes = await converse(client, wire + b"NOOP\r\n")
    assert codes == ["554" if bare else "250", "250"]
    assert len(intake.spool.kept) == (0 if bare else 1)
