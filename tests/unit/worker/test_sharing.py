"""What jobs share: memory that no account and no large mail can take from the others for ever, and turns at the parser."""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from apptrack_ingest.worker.sharing import Calls, Memory, TurnedAway, Turns


class Jobs:
    """Jobs that hold what they were given until they are told to let go; `inside` are those that hold."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self._go: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def add(self, name: str, wanted: AbstractAsyncContextManager[None]) -> None:
        self._go[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._work(name, wanted))
        await settle()

    async def _work(self, name: str, wanted: AbstractAsyncContextManager[None]) -> None:
        async with wanted:
            self.inside.append(name)
            try:
                await self._go[name].wait()
            finally:
                self.inside.remove(name)

    async def end(self, name: str) -> None:
        self._go[name].set()
        await self._tasks[name]
        await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)
        await settle()

    def fault(self, name: str) -> BaseException | None:
        return self._tasks[name].exception()

    async def end_all(self) -> None:
        while self.inside:
            await self.end(self.inside[0])


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


async def test_one_account_holds_half_and_the_others_go_on(jobs):
    memory = Memory(100)
    for name, account, amount in (("a1", "a", 30), ("a2", "a", 30), ("b1", "b", 40), ("c1", "c", 40)):
        await jobs.add(name, memory.held(account, amount, believed=True))
    assert jobs.inside == ["a1", "b1"], "c1 has no room, a2 is over its half"
    await jobs.end("a1")
    assert jobs.inside == ["b1", "a2"]
    await jobs.end("b1")
    assert jobs.inside == ["a2", "c1"]
    await jobs.end_all()


async def test_what_is_larger_than_the_budget_goes_alone_and_is_not_overtaken(jobs):
    memory = Memory(100)
    await jobs.add("small", memory.held("a", 10, believed=True))
    await jobs.add("giant", memory.held("b", 500, believed=True))
    await jobs.add("late", memory.held("c", 10, believed=True))
    assert jobs.inside == ["small"], "it has the next turn; nobody slips past it for ever"
    await jobs.end("small")
    assert jobs.inside == ["giant"]
    await jobs.end("giant")
    assert jobs.inside == ["late"]
    await jobs.end_all()


async def test_small_mails_do_not_wait_behind_large_ones(jobs):
    """One account's large mail is with a slow handler, another's waits for it: a third account's CV of usual size goes."""
    memory = Memory(1600)
    await jobs.add("large", memory.held("a", 1400, believed=True))
    await jobs.add("next", memory.held("b", 1400, believed=True))
    await jobs.add("small", memory.held("c", 40, believed=True))
    assert jobs.inside == ["large", "small"]
    await jobs.add("more", memory.held("c", 40, believed=True))
    await jobs.add("other", memory.held("d", 40, believed=True))
    assert jobs.inside == ["large", "small", "other"], "one account has half of what is kept for small ones"
    await jobs.end("small")
    assert jobs.inside == ["large", "other", "more"]
    await jobs.end("large")
    assert jobs.inside == ["other", "more", "next"], "small ones beside it keep no large one waiting"
    await jobs.end_all()
    await jobs.add("last", memory.held("a", 1600, believed=True))
    assert jobs.inside == ["last"]
    await jobs.end_all()
    assert memory._in_all() == 0


async def test_all_strangers_together_are_one_account(jobs):
    memory = Memory(100)
    await jobs.add("s1", memory.held("a", 40, believed=False))
    await jobs.add("s2", memory.held("b", 40, believed=False))
    await jobs.add("ours", memory.held("a", 50, believed=True))
    assert jobs.inside == ["s1", "ours"]
    await jobs.end_all()


async def test_who_is_cancelled_leaves_nothing_behind(jobs):
    memory = Memory(100)
    await jobs.add("first", memory.held("a", 100, believed=True))
    await jobs.add("gone", memory.held("b", 100, believed=True))
    await jobs.add("next", memory.held("c", 100, believed=True))
    await jobs.cancel("gone")
    await jobs.cancel("first")
    assert jobs.inside == ["next"]
    await jobs.end_all()


async def test_who_is_cancelled_in_the_moment_of_its_turn_leaves_nothing_behind(jobs):
    turns = Turns(1)
    await jobs.add("first", turns.turn("a", believed=True))
    await jobs.add("gone", turns.turn("a", believed=True))
    jobs._go["first"].set()
    await jobs._tasks["first"]  # the turn is given, and not yet taken
    await jobs.cancel("gone")
    await jobs.add("next", turns.turn("a", believed=True))
    assert jobs.inside == ["next"]
    await jobs.end_all()


async def test_who_fails_within_gives_its_part_back(monkeypatch):
    shown: list[int] = []
    monkeypatch.setattr("apptrack_ingest.metrics.bytes_in_work", shown.append)
    memory = Memory(1000)
    for _ in range(2):
        with pytest.raises(ValueError, match="within"):
            async with memory.held("a", 600, believed=True):
                raise ValueError("within")
    assert shown == [600, 0, 600, 0]


async def test_who_need_not_wait_holds_its_part_at_once():
    """Without giving way to others: the loop has to turn for those alone who wait."""
    calls, order = Calls(), []
    calls.configure({"a": 1})
    asyncio.get_running_loop().call_soon(order.append, "the loop turned")
    async with calls.turn("a"):
        order.append("called")
    await asyncio.sleep(0)
    assert order == ["called", "the loop turned"]


async def test_strangers_never_take_the_last_process(jobs):
    turns = Turns(2)
    for name in ("s1", "s2"):
        await jobs.add(name, turns.turn("a", believed=False))
    assert jobs.inside == ["s1"]
    await jobs.add("ours", turns.turn("a", believed=True))
    assert jobs.inside == ["s1", "ours"]
    await jobs.end("ours")
    assert jobs.inside == ["s1"]
    await jobs.end("s1")
    assert jobs.inside == ["s2"]
    await jobs.end_all()


async def test_trusted_mail_comes_first_where_there_is_one_process(jobs):
    turns = Turns(1)
    await jobs.add("s1", turns.turn("a", believed=False))
    await jobs.add("s2", turns.turn("a", believed=False))
    await jobs.add("ours", turns.turn("b", believed=True))
    await jobs.end("s1")
    assert jobs.inside == ["ours"]
    await jobs.end("ours")
    assert jobs.inside == ["s2"]
    await jobs.end_all()


async def test_the_account_with_the_fewest_turns_comes_next(jobs):
    turns = Turns(2)
    for name in ("a1", "a2", "a3"):
        await jobs.add(name, turns.turn("a", believed=True))
    await jobs.add("b1", turns.turn("b", believed=True))
    await jobs.end("a1")
    assert jobs.inside == ["a2", "b1"]
    await jobs.end("a2")
    assert jobs.inside == ["b1", "a3"]
    await jobs.end_all()


async def test_an_account_has_as_many_calls_as_it_may_and_the_next_begins_when_one_ends(jobs):
    calls = Calls()
    calls.configure({"a": 2, "b": 1})
    for name in ("a1", "a2", "a3", "b1", "a4"):
        await jobs.add(name, calls.turn(name[0]))
    assert jobs.inside == ["a1", "a2", "b1"]
    await jobs.end("a1")
    assert jobs.inside == ["a2", "b1", "a3"]
    calls.configure({"a": 3})
    await settle()
    assert jobs.inside == ["a2", "b1", "a3", "a4"], "a reload counts at once"
    await jobs.end_all()


async def test_whose_place_was_taken_away_still_comes_to_an_end(jobs):
    """A reload may leave an account nothing, or take it out, while something of it waits."""
    calls = Calls()
    calls.configure({"a": 2})
    for name in ("a1", "a2", "a3"):
        await jobs.add(name, calls.turn("a"))
    calls.configure({"a": 0})
    await jobs.end("a1")
    assert jobs.inside == ["a2"]
    await jobs.end("a2")
    assert jobs.inside == ["a3"]
    await jobs.end_all()


async def test_who_waits_for_an_account_is_turned_away_and_the_others_wait_on(jobs):
    calls = Calls()
    calls.configure({"a": 1, "b": 1})
    for name in ("a1", "a2", "b1", "b2"):
        await jobs.add(name, calls.turn(name[0]))
    calls.turn_away("a")
    await settle()
    assert isinstance(jobs.fault("a2"), TurnedAway)
    await jobs.end("b1")
    assert jobs.inside == ["a1", "b2"]
    await jobs.end_all()


async def test_at_the_end_nobody_waits_for_a_call(jobs):
    calls = Calls()
    calls.configure({"a": 1, "b": 1})
    for name in ("a1", "a2"):
        await jobs.add(name, calls.turn("a"))
    calls.end()
    await settle()
    assert isinstance(jobs.fault("a2"), TurnedAway)
    await jobs.add("a3", calls.turn("a"))
    assert isinstance(jobs.fault("a3"), TurnedAway)
    await jobs.add("b1", calls.turn("b"))
    assert jobs.inside == ["a1", "b1"], "what need not wait goes on"
    await jobs.end_all()
