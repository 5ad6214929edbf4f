"""The known bombs, in full size, through the processes that read mails: each is read or refused with a reason, in time and
within its memory, and honest mails beside it never notice."""

import asyncio
import io
import zipfile
from collections.abc import Awaitable

import pytest
import pytest_asyncio

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.model import Parsed, Role
from apptrack_ingest.parse.pool import ParserPool

GOOD = b"From: jane@example.org\r\nX-iTrackID: 4\r\n\r\nhello"
ID = b"X-iTrackID: 1\r\n"
HEAD = ID + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
KIBI, MEBI = 1024, 1024 * 1024
UNDER_THE_LIMIT = 130 * KIBI


def header(name: bytes, unit: bytes, size: int) -> bytes:
    return ID + name + b": " + unit * (size // len(unit)) + b"\r\n\r\nx"


def levels(count: int) -> bytes:
    return ID + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(count))


def continuations(count: int, head: bytes) -> bytes:
    return head + b"Content-Type: a/b" + b"".join(b";\r\n name*%d=a" % i for i in range(count)) + b"\r\n\r\nx\r\n"


def docx_with_a_bomb() -> bytes:
    """100 MiB of zeros in some 100 KiB: whoever opened it would notice. Nothing here does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as document:
        document.writestr("word/document.xml", bytes(100 * MEBI))
    return (
        HEAD + b'--b\r\nContent-Type: application/msword; name="cv.docx"\r\n\r\n' + packed.getvalue() + b"\r\n--b--\r\n"
    )


WORD = b"=?utf-8?q?=C3=BC?=\r\n "
BOMBS = {
    "1 MB of encoded words": (lambda: header(b"Subject", WORD, MEBI), "header-block-too-large"),
    "encoded words up to the limit": (lambda: header(b"Subject", WORD, UNDER_THE_LIMIT), None),
    "one reference of encoded words": (lambda: header(b"X-iTrackID-ClientReference", WORD, UNDER_THE_LIMIT), None),
    "500,000 parts": (lambda: HEAD + b"--b\r\n\r\nx\r\n" * 500_000, "too-many-parts"),
    "2,000 levels": (lambda: levels(2_000), "too-deep"),
    "20,000 Received": (lambda: ID + b"Received: by x\r\n" * 20_000 + b"\r\nx", "header-block-too-large"),
    "Received up to the limit": (lambda: ID + b"Received: x\r\n" * 10_000 + b"\r\nx", None),
    "20,000 addresses": (lambda: header(b"From", b"a@b.example,", 20_000 * 12), "header-block-too-large"),
    "addresses up to the limit": (lambda: header(b"From", b"a@b.example,", UNDER_THE_LIMIT), None),
    "subjects up to the limit": (lambda: ID + b"Subject: x\r\n" * 11_000 + b"\r\nx", None),
    "10,000 continuations": (lambda: continuations(10_000, HEAD + b"--b\r\n"), None),
    "10,000 continuations of the mail's own type": (lambda: continuations(10_000, ID), "header-block-too-large"),
    "10 MB of blank lines": (lambda: ID + b"\r\n" + b"\r\n" * (5 * MEBI), None),
    "a zip bomb inside a docx": (docx_with_a_bomb, None),
}


# Each of these lines may be a boundary, and none is one: many seconds.
SLOW = HEAD + b"--b?\n" * 8_000_000
# Read within the deadline, by a child that may take 64 MiB: its text alone takes more.
LARGE = ID + b"Content-Type: text/plain; charset=utf-16-le\r\n\r\n" + b"a\0" * (30 * MEBI)


async def started(**options) -> ParserPool:
    """Two processes, ready to read."""
    pool = ParserPool(**{"deadline": 30.0, "memory_bytes": 1024 * MEBI, "processes": 2} | options)
    await asyncio.gather(pool.parse(GOOD), pool.parse(GOOD))
    return pool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool():
    pool = await started()
    yield pool
    await pool.close()


@pytest.fixture
async def make_pool():
    pools = []

    async def make(**options) -> ParserPool:
        pools.append(await started(**options))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


async def outcome_of(reading: Awaitable[Parsed]) -> Parsed | str:
    try:
        return await reading
    except Unreadable as error:
        return error.code


async def read_until(pool: ParserPool, done: asyncio.Future) -> int:
    """Read honest mails, one at a time, until something else is done, and at least three; how many."""
    count = 0
    while not done.done() or count < 3:
        assert (await pool.parse(GOOD)).applicant_id == 4
        count += 1
    return count


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_bomb_is_read_or_refused_and_mails_beside_it_are_read(pool, name):
    build, code = BOMBS[name]
    raw = build()
    async with asyncio.timeout(25):
        bomb = asyncio.create_task(outcome_of(pool.parse(raw)))
        await read_until(pool, bomb)
        outcome = await bomb
    assert outcome == code if code else isinstance(outcome, Parsed) and outcome.applicant_id == 1


@pytest.mark.parametrize(
    ("raw", "options", "code"),
    [(SLOW, {"deadline": 3.0}, "deadline"), (LARGE, {"memory_bytes": 64 * MEBI}, "memory")],
    ids=["too slow", "too large"],
)
async def test_a_process_killed_for_one_mail_takes_no_other_with_it(make_pool, raw, options, code):
    pool = await make_pool(**options)
    bombs = asyncio.gather(*(outcome_of(pool.parse(raw)) for _ in range(2)))
    others = asyncio.create_task(read_until(pool, bombs))
    assert await bombs == [code, code] and await others >= 3


async def test_a_docx_is_never_opened(make_pool):
    parsed = await (await make_pool(memory_bytes=64 * MEBI)).parse(docx_with_a_bomb())
    assert [(one.name, one.role) for one in parsed.documents] == [("cv.docx", Role.CV)]
