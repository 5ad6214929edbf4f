"""Group commit: what waits together is committed together, and nobody suffers for another."""

import asyncio
import errno
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.spool.sqlite.commit import MOST_AT_ONCE, MOST_BYTES, MOST_LATE, GroupCommitter, Operation


class Bench:
    """A committer on a table of numbers that shows its statements and can be held up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statements: list[str] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        connection.close()
        self.committer = GroupCommitter(self.connect)

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=0.05, isolation_level=None, check_same_thread=False)
        connection.set_trace_callback(self.statements.append)
        return connection

    def count(self, start: str) -> int:
        return sum(statement.startswith(start) for statement in self.statements)

    def numbers(self) -> list[int]:
        connection = sqlite3.connect(self.path)
        try:
            return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")]
        finally:
            connection.close()

    def held_up(self, connection: sqlite3.Connection) -> None:
        """An operation that keeps the thread busy until `go_on`."""
        connection.execute("INSERT INTO numbers VALUES (0)")
        self.begun.set()
        assert self.go_on.wait(10)

    async def behind_a_busy_one(self, *operations: Operation[object]) -> list[asyncio.Task[object]]:
        """Starts operations that wait while another is under way."""
        first = asyncio.create_task(self.committer.do(self.held_up))
        assert await asyncio.to_thread(self.begun.wait, 10)
        waiting = [asyncio.create_task(self.committer.do(operation)) for operation in operations]
        await asyncio.sleep(0)
        return [first, *waiting]


def insert(n: int) -> Operation[int]:
    def operation(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (n,))
        return n

    return operation


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "numbers.sqlite3")
    yield bench
    bench.go_on.set()
    await bench.committer.close()


async def test_what_waits_together_shares_one_commit(bench: Bench) -> None:
    tasks = await bench.behind_a_busy_one(*(insert(n) for n in range(1, 11)))
    bench.go_on.set()
    assert await asyncio.gather(*tasks) == [None, *range(1, 11)]
    assert bench.count("COMMIT") == 2
    assert bench.count("SAVEPOINT") == 0


async def test_nothing_is_answered_before_its_commit(bench: Bench) -> None:
    (task,) = await bench.behind_a_busy_one()
    assert bench.numbers() == []
    assert not task.done()
    bench.go_on.set()
    await task
    assert bench.numbers() == [0]


async def test_no_transaction_grows_without_bounds(bench: Bench) -> None:
    tasks = await bench.behind_a_busy_one(*(insert(n) for n in range(1, 2 * MOST_AT_ONCE + 1)))
    bench.go_on.set()
    await asyncio.gather(*tasks)
    assert bench.count("COMMIT") == 3


async def test_an_operation_that_fails_undoes_itself_alone(bench: Bench) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (99)")
        raise LookupError("no such thing")

    tasks = await bench.behind_a_busy_one(insert(1), half_done, insert(1), insert(2))
    bench.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), int, LookupError, sqlite3.IntegrityError, int]
    assert bench.numbers() == [0, 1, 2]
    assert bench.count("COMMIT") == 2
    assert bench.count("SAVEPOINT") == 4


async def test_one_that_fails_with_nobody_beside_it_leaves_nothing(bench: Bench) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (99)")
        raise LookupError("no such thing")

    with pytest.raises(LookupError):
        await bench.committer.do(half_done)
    assert await bench.committer.do(insert(1)) == 1
    assert bench.numbers() == [1]


async def test_a_fault_of_the_database_takes_no_other_operation_along(bench: Bench) -> None:
    def too_large(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (99)")
        raise sqlite3.OperationalError("database or disk is full")

    tasks = await bench.behind_a_busy_one(insert(1), too_large, insert(2))
    bench.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), int, SpoolUnavailable, int]
    assert bench.numbers() == [0, 1, 2]


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), MemoryError()])
async def test_other_faults_of_the_machine_are_the_spools_too(bench: Bench, fault: Exception) -> None:
    def unlucky(_: sqlite3.Connection) -> None:
        raise fault

    with pytest.raises(SpoolUnavailable):
        await bench.committer.do(unlucky)
    assert await bench.committer.do(insert(1)) == 1


async def test_a_lock_is_waited_for_once_and_not_again_for_each(bench: Bench) -> None:
    other = sqlite3.connect(bench.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    results = await asyncio.gather(*(bench.committer.do(insert(n)) for n in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {SpoolUnavailable}
    # The first may have been taken alone, before the others stood behind it.
    assert bench.count("BEGIN") <= 2
    other.execute("ROLLBACK")
    other.close()
    assert await bench.committer.do(insert(1)) == 1


async def test_a_withdrawn_operation_is_not_begun(bench: Bench) -> None:
    first, second, third = await bench.behind_a_busy_one(insert(1), insert(2))
    second.cancel()
    bench.go_on.set()
    await asyncio.gather(first, third)
    assert second.cancelled()
    assert bench.numbers() == [0, 2]


async def test_all_withdrawn_leaves_nothing_to_do(bench: Bench) -> None:
    first, second = await bench.behind_a_busy_one(insert(1))
    second.cancel()
    bench.go_on.set()
    await first
    assert await bench.committer.do(insert(2)) == 2
    assert bench.numbers() == [0, 2]


async def test_one_under_way_is_committed_though_nobody_waits_for_it_any_more(bench: Bench) -> None:
    (task,) = await bench.behind_a_busy_one()
    task.cancel()
    bench.go_on.set()
    await bench.committer.do(insert(1))
    assert task.cancelled()
    assert bench.numbers() == [0, 1]


async def test_closing_commits_what_waits_and_takes_no_more(bench: Bench) -> None:
    tasks = await bench.behind_a_busy_one(insert(1), insert(2))
    closing = asyncio.create_task(bench.committer.close())
    await asyncio.sleep(0)
    with pytest.raises(SpoolUnavailable):
        await bench.committer.do(insert(3))
    bench.go_on.set()
    await closing
    await asyncio.gather(*tasks)
    assert bench.numbers() == [0, 1, 2]
    await bench.committer.close()


async def test_the_thread_outlives_whatever_goes_wrong(tmp_path: Path) -> None:
    calls = 0

    def connect() -> sqlite3.Connection:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("nobody foresaw this")
        return sqlite3.connect(tmp_path / "spool.sqlite3", isolation_level=None, check_same_thread=False)

    committer = GroupCommitter(connect)
    with pytest.raises(SpoolUnavailable):
        await asyncio.wait_for(committer.do(lambda c: None), 10)
    assert await asyncio.wait_for(committer.do(lambda c: c.execute("SELECT 1").fetchone()[0]), 10) == 1
    await committer.close()


# --- together -----------------------------------------------------------------------------------------------------


class Numbers:
    """Inserts numbers together, and remembers what it was asked."""

    light = 1000

    def __init__(self) -> None:
        self.prepared: list[list[int]] = []
        self.runs: list[list[int]] = []
        self.endings = self.completions = 0
        self.faults: list[BaseException] = []
        self.fails: Exception | None = None
        self.fault: Exception | None = None
        self.too_many = 0

    def prepare(self, items: Sequence[int]) -> None:
        self.prepared.append(list(items))
        if self.fails is not None and 13 in items:
            raise self.fails

    def run(self, connection: sqlite3.Connection, items: Sequence[int]) -> list[int]:
        self.runs.append(list(items))
        connection.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in items])
        return [10 * n for n in items]

    def complete(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE numbers SET n = n + 1000 WHERE n BETWEEN 900 AND 999")
        if self.fault is not None:
            raise self.fault

    def completed(self) -> None:
        self.completions += 1

    def incomplete(self, error: BaseException) -> bool:
        self.faults.append(error)
        self.too_many -= 1
        if self.too_many == 0:
            self.fault = None
        return self.too_many >= 0

    def ended(self, *, kept: bool) -> None:
        self.endings += 1


@pytest.fixture
async def numbers(bench: Bench) -> Numbers:
    """Puts a committer that does numbers together in the bench's place."""
    await bench.committer.close()
    numbers = Numbers()
    bench.committer = GroupCommitter(bench.connect, together=numbers)
    return numbers


async def added(bench: Bench, *items: int, weight: int = 1) -> list[object]:
    """Adds items that wait together behind another; returns what each was answered."""
    first = asyncio.create_task(bench.committer.do(bench.held_up))
    assert await asyncio.to_thread(bench.begun.wait, 10)
    waiting = [asyncio.ensure_future(bench.committer.add(item, weight)) for item in items]
    await asyncio.sleep(0)
    bench.go_on.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_items_are_done_together_in_one_commit(bench: Bench, numbers: Numbers) -> None:
    assert await added(bench, 1, 2, 3) == [10, 20, 30]
    assert (numbers.prepared, numbers.runs) == ([[1, 2, 3]], [[1, 2, 3]])
    assert bench.count("COMMIT") == 2
    assert numbers.endings == 2


async def test_an_item_at_fault_fails_alone(bench: Bench, numbers: Numbers) -> None:
    results = await added(bench, 1, 0, 2)
    assert results[::2] == [10, 20]
    assert isinstance(results[1], sqlite3.IntegrityError)
    assert bench.numbers() == [0, 1, 2]
    assert bench.count("COMMIT") == 2


async def test_what_was_left_for_later_is_done_before_operations_and_not_for_items_alone(
    bench: Bench, numbers: Numbers
) -> None:
    assert await bench.committer.add(901, 1) == 9010
    assert (bench.numbers(), numbers.completions) == ([901], 0)
    assert await bench.committer.do(lambda c: [n for (n,) in c.execute("SELECT n FROM numbers")]) == [1901]
    assert (bench.numbers(), numbers.completions) == ([1901], 1)


async def test_it_is_done_again_where_an_operation_was_at_fault(bench: Bench, numbers: Numbers) -> None:
    def at_fault(connection: sqlite3.Connection) -> None:
        raise LookupError("no such thing")

    tasks = await bench.behind_a_busy_one(at_fault, insert(2))
    put = bench.committer.add(901, 1)
    bench.go_on.set()
    results = await asyncio.gather(*tasks, put, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), LookupError, int, int]
    assert bench.numbers() == [0, 2, 1901]


@pytest.mark.parametrize(
    "fault",
    [sqlite3.OperationalError("database or disk is full"), sqlite3.IntegrityError("NOT NULL constraint failed")],
)
async def test_what_cannot_be_done_of_it_takes_no_operation_along(
    bench: Bench, numbers: Numbers, fault: Exception
) -> None:
    await bench.committer.add(901, 1)
    numbers.fault = fault
    tasks = await bench.behind_a_busy_one(insert(2), insert(3))
    bench.statements.clear()
    bench.go_on.set()
    await asyncio.gather(*tasks)
    assert bench.numbers() == [0, 2, 3, 901]
    assert (numbers.faults, numbers.completions) == ([fault, fault], 0)
    assert bench.count("COMMIT") == 2, "what is not at fault shares its commits"
    numbers.fault = None
    assert await bench.committer.do(insert(4)) == 4
    assert (bench.numbers(), numbers.completions) == ([0, 2, 3, 4, 1901], 1)


async def test_less_of_it_is_tried_where_all_is_too_much(bench: Bench, numbers: Numbers) -> None:
    await bench.committer.add(901, 1)
    numbers.fault, numbers.too_many = sqlite3.OperationalError("database or disk is full"), 3
    assert await bench.committer.do(insert(2)) == 2
    assert (bench.numbers(), len(numbers.faults), numbers.completions) == ([2, 1901], 3, 1)


async def test_an_item_that_cannot_be_prepared_fails_alone(bench: Bench, numbers: Numbers) -> None:
    numbers.fails = OSError(28, "No space left on device")
    results = await added(bench, 1, 13, 2)
    assert results[::2] == [10, 20]
    assert isinstance(results[1], SpoolUnavailable)
    assert bench.numbers() == [0, 1, 2]


async def test_preparing_holds_up_no_other_process(bench: Bench, numbers: Numbers) -> None:
    numbers.fails = OSError(5, "Input/output error")
    with pytest.raises(SpoolUnavailable):
        await bench.committer.add(13, 1)
    assert bench.count("BEGIN") == 0


async def test_no_transaction_takes_more_bytes_than_it_should(bench: Bench, numbers: Numbers) -> None:
    assert await added(bench, 1, 2, 3, 4, 5, weight=MOST_BYTES // 2) == [10, 20, 30, 40, 50]
    assert numbers.runs == [[1, 2], [3, 4], [5]]


async def test_a_loop_that_has_ended_meanwhile_harms_nobody(bench: Bench) -> None:
    def ends() -> None:
        loop = asyncio.new_event_loop()
        loop.create_task(bench.committer.do(bench.held_up))  # noqa: RUF006 - left behind on purpose
        loop.run_until_complete(asyncio.to_thread(bench.begun.wait, 10))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    await asyncio.to_thread(ends)
    bench.go_on.set()
    assert await bench.committer.do(insert(1)) == 1
    assert bench.numbers() == [0, 1]


class Line:
    """A line to stand in, which moves when it is told to."""

    def __init__(self) -> None:
        self.standing, self.moves = threading.Event(), threading.Event()
        self.waited = False

    @contextmanager
    def turn(self) -> Iterator[bool]:
        self.standing.set()
        assert self.moves.wait(10)
        yield self.waited

    def committed(self, connection: sqlite3.Connection, operations: int) -> None:
        pass


@pytest.fixture
async def line(bench: Bench) -> AsyncIterator[tuple[Line, Numbers]]:
    """Puts a committer in the bench's place that does numbers together and has neighbours."""
    await bench.committer.close()
    line, numbers = Line(), Numbers()
    bench.committer = GroupCommitter(bench.connect, together=numbers, around=line)
    yield line, numbers
    line.moves.set()


async def in_line(bench: Bench, line: Line) -> asyncio.Future[object]:
    """One who stands in it."""
    first = bench.committer.add(1, 10)
    assert await asyncio.to_thread(line.standing.wait, 10)
    return first


async def test_what_comes_while_a_transaction_waits_for_its_turn_joins_it(
    bench: Bench, line: tuple[Line, Numbers]
) -> None:
    waits, numbers = line
    answers = [
        await in_line(bench, waits),
        bench.committer.add(2, 999),
        asyncio.create_task(bench.committer.do(insert(3))),
    ]
    answers.append(bench.committer.add(4, 10))
    answers.pop().cancel()
    await asyncio.sleep(0)
    waits.moves.set()
    assert await asyncio.gather(*answers) == [10, 20, 3]
    assert bench.count("COMMIT") == 1 and bench.numbers() == [1, 2, 3]
    assert numbers.prepared == [[1], [2]] and numbers.endings == 1


async def test_what_is_to_be_written_first_comes_with_the_next_one(bench: Bench, line: tuple[Line, Numbers]) -> None:
    waits, numbers = line
    answers = [await in_line(bench, waits), bench.committer.add(2, 10), bench.committer.add(3, 1000)]
    answers.append(bench.committer.add(4, 10))
    waits.moves.set()
    assert await asyncio.gather(*answers) == [10, 20, 30, 40]
    assert bench.count("COMMIT") == 2 and numbers.prepared == [[1], [2], [3, 4]]


async def test_where_there_was_somebody_to_wait_for_what_takes_a_while_to_write_joins_too(
    bench: Bench, line: tuple[Line, Numbers]
) -> None:
    waits, numbers = line
    waits.waited = True
    answers = [await in_line(bench, waits), bench.committer.add(2, MOST_LATE - 1), bench.committer.add(3, MOST_LATE)]
    waits.moves.set()
    assert await asyncio.gather(*answers) == [10, 20, 30]
    assert bench.count("COMMIT") == 2 and numbers.prepared == [[1], [2], [3]]


async def test_one_that_came_late_and_fails_undoes_itself_alone(bench: Bench, line: tuple[Line, Numbers]) -> None:
    waits, _ = line
    answers = [await in_line(bench, waits), bench.committer.add(1, 10), bench.committer.add(2, 10)]
    waits.moves.set()
    first, second, third = await asyncio.gather(*answers, return_exceptions=True)
    assert (first, third) == (10, 20) and isinstance(second, sqlite3.IntegrityError)
    assert bench.numbers() == [1, 2]


async def test_a_fault_with_one_that_came_late_takes_no_other_along(bench: Bench, line: tuple[Line, Numbers]) -> None:
    waits, numbers = line
    numbers.fails = OSError(errno.ENOSPC, "full")
    answers = [await in_line(bench, waits), bench.committer.add(13, 10), bench.committer.add(2, 10)]
    waits.moves.set()
    first, second, third = await asyncio.gather(*answers, return_exceptions=True)
    assert (first, third) == (10, 20) and isinstance(second, SpoolUnavailable) and second.code == "ENOSPC"
    assert bench.numbers() == [1, 2] and numbers.endings == 1


async def test_a_heavy_one_left_for_later_is_committed_at_the_end(bench: Bench, line: tuple[Line, Numbers]) -> None:
    waits, _ = line
    answers = [await in_line(bench, waits), bench.committer.add(2, 1000)]
    ending = asyncio.create_task(bench.committer.close())
    await asyncio.sleep(0)
    waits.moves.set()
    await ending
    assert await asyncio.gather(*answers) == [10, 20]
