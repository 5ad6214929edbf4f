"""The reader: questions are answered in their order, together where they came together, each for itself."""

import asyncio
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.spool.sqlite import SqliteSpool
from apptrack_ingest.spool.sqlite.reading import Question, Reader


class Bench:
    """A reader of an empty database, and how often it connected."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        self.reader = Reader(self.connect)

    def connect(self) -> sqlite3.Connection:
        self.connections += 1
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "empty.sqlite3")
    yield bench
    await bench.reader.close()


def one(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT 1").fetchone()[0])


async def test_what_was_asked_meanwhile_is_answered_with_one_wake_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), list[int]()

    def held_up(_: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(10)

    first = bench.reader.ask(held_up)
    assert await asyncio.to_thread(begun.wait, 10)

    def number(n: int) -> Question[int]:
        def question(connection: sqlite3.Connection) -> int:
            order.append(n)
            return one(connection)

        return question

    others = [bench.reader.ask(number(n)) for n in range(5)]
    loop, wake_ups = asyncio.get_running_loop(), list[object]()
    wake = loop.call_soon_threadsafe

    def counted(*given: Any) -> asyncio.Handle:
        wake_ups.append(given)
        return wake(*given)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    go_on.set()
    assert await asyncio.gather(first, *others) == [None, 1, 1, 1, 1, 1]
    assert order == [0, 1, 2, 3, 4]
    assert len(wake_ups) == 2


async def test_a_fault_is_for_who_asked_and_the_database_is_opened_anew_after_its_own(bench: Bench) -> None:
    def wrong(_: sqlite3.Connection) -> None:
        raise LookupError("no such thing")

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT * FROM nothing")

    asked = [bench.reader.ask(question) for question in (wrong, broken, one)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(result) for result in results] == [LookupError, SpoolUnavailable, int]
    assert bench.connections == 2


async def test_nothing_can_be_written(bench: Bench) -> None:
    with pytest.raises(SpoolUnavailable, match="readonly"):
        await bench.reader.ask(lambda c: c.execute("CREATE TABLE numbers (n INTEGER)"))


async def test_a_withdrawn_question_is_not_asked(bench: Bench) -> None:
    asked, go_on = threading.Event(), threading.Event()
    first = bench.reader.ask(lambda _: go_on.wait(10))
    bench.reader.ask(lambda _: asked.set()).cancel()
    go_on.set()
    assert await first
    assert await bench.reader.ask(one) == 1
    assert not asked.is_set()


async def test_an_answer_is_not_kept(bench: Bench) -> None:
    class Mail:
        pass

    mail = await bench.reader.ask(lambda _: Mail())
    kept = weakref.ref(mail)
    del mail
    async with asyncio.timeout(10):
        while kept() is not None:  # and nobody asks again
            await asyncio.sleep(0.01)


async def test_closing_answers_what_waits_and_takes_no_more(bench: Bench) -> None:
    asked = bench.reader.ask(one)
    await bench.reader.close()
    assert await asked == 1
    with pytest.raises(SpoolUnavailable, match="closed"):
        bench.reader.ask(one)


async def test_what_undoes_an_operation_stays_in_memory(spool: SqliteSpool) -> None:
    assert await spool._writer.do(lambda c: c.execute("PRAGMA temp_store").fetchone()[0]) == 2
