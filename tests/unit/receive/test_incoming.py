"""One mail on its way in: what it takes of the bytes in flight, how it waits for more, and that all of it comes back."""

import asyncio
import gc
import weakref

import pytest

from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.data import SLICE
from apptrack_ingest.receive.incoming import Incoming

PATIENCE = 10.0


@pytest.fixture
def budget() -> Budget:
    return Budget(100)


class Mail:
    """A mail that remembers what it asked of its connection."""

    def __init__(self, budget: Budget, patience: float = PATIENCE, limit: int = 1000) -> None:
        self.asked: list[bool] = []
        self.incoming = Incoming(limit, budget.share(), patience, self.asked.append)

    def feed(self, data: bytes) -> bytes | None:
        return self.incoming.feed(data)

    @property
    def content(self) -> bytes:
        return self.incoming.reader.content


async def turns() -> None:
    """All that is due happens."""
    for _ in range(5):
        await asyncio.sleep(0)


async def asks(mail: Mail, *flow: bool) -> None:
    """Wait until the mail has asked for this, one after the other."""
    async with asyncio.timeout(PATIENCE):
        while mail.asked != list(flow):
            await asyncio.sleep(0.001)


def test_it_takes_what_it_keeps_and_gives_all_of_it_back(budget):
    mail = Mail(budget)
    assert mail.feed(b"x" * 30) is None and budget.in_use == 30
    assert mail.feed(b"y" * 20 + b"\r\n") is None and budget.in_use == 50, "what may be the end is not kept yet"
    assert mail.feed(b"z\r\n.\r\nNOOP\r\n") == b"NOOP\r\n"
    assert mail.content == b"x" * 30 + b"y" * 20 + b"\r\nz\r\n"
    assert budget.in_use > 0, "until the mail is committed"
    mail.incoming.close()
    mail.incoming.close()
    assert budget.in_use == 0 and mail.asked == []


def test_a_mail_too_big_gives_back_at_once(budget):
    mail = Mail(budget, limit=60)
    mail.feed(b"x" * 50)
    assert budget.in_use == 50
    mail.feed(b"x" * 50)
    assert budget.in_use == 0 and mail.incoming.reader.too_big
    assert mail.feed(b"\r\n.\r\n") == b""
    assert mail.content == b"" and not mail.incoming.no_room


async def test_it_stops_the_flow_until_there_is_room(budget):
    other, mail = Mail(budget), Mail(budget)
    other.feed(b"x" * 90)
    mail.feed(b"y" * 20)
    await turns()
    assert (mail.asked, budget.in_use) == ([False], 90)
    other.incoming.close()
    await asks(mail, False, True)
    assert budget.in_use == 20
    assert mail.feed(b"\r\n.\r\n") == b"" and mail.content == b"y" * 20 + b"\r\n"
    mail.incoming.close()
    assert budget.in_use == 0


@pytest.mark.parametrize("patience", [0.0, 0.01])
async def test_where_no_room_comes_it_is_read_to_its_end_and_not_kept(budget, patience):
    other, mail = Mail(budget), Mail(budget, patience)
    other.feed(b"x" * 90)
    mail.feed(b"y" * 5)
    mail.feed(b"y" * 20)
    await asks(mail, False, True)
    assert mail.incoming.no_room and budget.in_use == 90
    for _ in range(10):
        assert mail.feed(b"y" * 50) is None
    assert budget.in_use == 90 and mail.incoming.reader.held == 0
    assert mail.feed(b"\r\n.\r\nQUIT\r\n") == b"QUIT\r\n"
    assert mail.content == b"" and mail.asked == [False, True]
    mail.incoming.close()
    assert other.feed(b"\r\n.\r\n") == b"" and len(other.content) == 92


async def test_the_end_that_comes_while_it_waits_ends_the_wait(budget):
    """What the kernel had read already may hold it; nothing of the mail is lost."""
    other, mail = Mail(budget), Mail(budget)
    other.feed(b"x" * 90)
    mail.feed(b"y" * 20)
    await turns()
    assert mail.feed(b"\r\n.\r\n") == b""
    assert mail.asked == [False, True] and not mail.incoming.no_room
    assert mail.content == b"y" * 20 + b"\r\n"
    await turns()
    assert budget.in_use == 90 and not budget._waiting


async def test_more_that_comes_while_it_waits_is_kept_and_accounted_for_later(budget):
    other, mail = Mail(budget), Mail(budget)
    other.feed(b"x" * 90)
    mail.feed(b"y" * 20)
    await turns()
    mail.feed(b"z" * 20)
    assert mail.asked == [False]
    other.incoming.close()
    await asks(mail, False, True)
    mail.feed(b"!")
    assert budget.in_use == 41
    mail.incoming.close()


async def test_a_connection_lost_while_it_waits_leaves_nothing(budget):
    other, mail, third = Mail(budget), Mail(budget), Mail(budget)
    other.feed(b"x" * 60)
    mail.feed(b"y" * 90)
    await turns()
    third.feed(b"z" * 30)
    await turns()
    assert third.asked == [False], "first come, first served"
    mail.incoming.close()
    await asks(third, False, True)
    assert budget.in_use == 90 and not budget._waiting
    other.incoming.close()
    third.incoming.close()
    assert budget.in_use == 0


async def test_mails_that_have_all_the_bytes_and_want_more_come_through_one_by_one(budget):
    mails = [Mail(budget) for _ in range(4)]
    for mail in mails:
        mail.feed(b"x" * 25)
    for mail in mails:
        mail.feed(b"y" * 25)
    await turns()
    for number, mail in enumerate(mails):
        await asks(mail, False, True)
        # Two of these were room enough for one more at the end of the one before.
        assert [other.asked for other in mails[number + 2 :]] == [[False]] * len(mails[number + 2 :])
        assert mail.feed(b"\r\n.\r\n") == b"" and len(mail.content) == 52
        mail.incoming.close()
    assert budget.in_use == 0


async def test_few_bytes_that_may_be_the_end_are_no_progress(budget):
    mail = Mail(Budget(10_000), limit=10_000)
    for piece in (b"x" * 1000, b"\r", b"\n", b".", b"x" * 20):
        mail.feed(piece)
        assert not mail.incoming.went_on()
    mail.feed(b"xx")
    assert mail.incoming.went_on() and not mail.incoming.went_on()
    mail.feed(b"x" * 5000)
    assert mail.incoming.went_on()


async def test_a_mail_that_is_read_and_not_kept_goes_on_too(budget):
    mail = Mail(budget, limit=10)
    mail.feed(b"x" * 2000)
    assert mail.incoming.reader.too_big and mail.incoming.went_on()


async def test_one_that_waits_for_room_is_not_told_to_hurry(budget):
    other, mail = Mail(budget), Mail(budget, limit=10_000)
    other.feed(b"x" * 90)
    mail.feed(b"y" * 2000)
    assert not mail.incoming.went_on()
    mail.incoming.close()


async def test_what_came_with_the_end_is_accounted_for_as_well(budget):
    mail, late, vain = Mail(budget), Mail(budget), Mail(budget, patience=0.0)
    mail.feed(b"x" * 58 + b"\r\n.\r\n")
    assert len(await mail.incoming.whole()) == 60 == budget.in_use
    vain.feed(b"y" * 30)
    vain.feed(b"y" * 30 + b"\r\n.\r\n")
    assert await vain.incoming.whole() is None and vain.incoming.no_room
    assert budget.in_use == 60 and vain.incoming.reader.held == 0
    late.feed(b"z" * 60 + b"\r\n.\r\n")
    waits = asyncio.create_task(late.incoming.whole())
    await turns()
    assert not waits.done()
    mail.incoming.release()
    assert await waits == b"z" * 60 + b"\r\n" and budget.in_use == 62


async def test_large_mails_are_copied_one_at_a_time_and_small_ones_wait_for_nobody():
    budget = Budget(10 * SLICE)
    small, large = Mail(budget, limit=10 * SLICE), Mail(budget, limit=10 * SLICE)
    for mail, more in ((small, 0), (large, 1)):
        mail.feed(b"x" * 100_000)
        mail.feed(b"x" * (SLICE - 100_002 + more) + b"\r\n.\r\n")
    async with budget.copying:
        assert len(await small.incoming.whole()) == SLICE
        waits = asyncio.create_task(large.incoming.whole())
        await turns()
        assert not waits.done()
    assert len(await waits) == SLICE + 1


async def test_a_mail_too_big_only_by_its_last_bytes_gives_back_what_it_held(budget):
    mail = Mail(budget, limit=60)
    mail.feed(b"x" * 50)
    mail.feed(b"x" * 50 + b"\r\n.\r\n")
    assert await mail.incoming.whole() == b"" and budget.in_use == 0


def test_what_gives_the_bytes_back_keeps_none_of_them(budget):
    mail = Mail(budget)
    mail.feed(b"x" * 50)
    release, gone = mail.incoming.release, weakref.ref(mail.incoming.reader)
    del mail
    gc.collect()
    assert gone() is None and budget.in_use == 50
    release()
    assert budget.in_use == 0
