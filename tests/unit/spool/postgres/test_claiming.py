"""Claims and outcomes of several at once, at the very moments where they could miss each other."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Envelope, Message, Report, ReportState, ReportStatus, State
from apptrack_ingest.spool.contract import Action, Claim, Filter, ReportSettlement, Settlement
from apptrack_ingest.spool.postgres import (
    Options,
    PostgresSpool,
    counts,
    hand_off,
    messages,
    open_spool,
    people,
    reports,
)
from apptrack_ingest.spool.postgres.door import Record, Statements

T = 1000.0
DELIVERED = Settlement(Event.DELIVER, "delivered")
Put = Callable[..., Awaitable[int]]


@asynccontextmanager
async def beside(url: str, kind: type[Statements] = Statements) -> AsyncIterator[Statements]:
    """A transaction of another process, open until the block ends."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield kind(connection)
    finally:
        await connection.close()


async def take(statements: Statements, *, limit: int = 10, room: dict[str, int] | None = None) -> list[int]:
    claims = await hand_off.claim(
        statements, worker="beside", now=T, lease=60.0, limit=limit, room=room or {}, solo=False
    )
    return [claim.application_id for claim in claims]


async def claim(spool: PostgresSpool, *, limit: int = 10, **options: object) -> list[Claim]:
    return await spool.claim(worker="w", now=T, lease=60.0, limit=limit, **options)  # type: ignore[arg-type]


def ids(claims: list[Claim]) -> list[int]:
    return [each.application_id for each in claims]


# --- one application of an applicant at a time ------------------------------------------------------------------------


async def test_an_older_one_set_going_while_the_younger_is_being_taken_waits(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    older = await put(spool)
    (claimed,) = await claim(spool)
    await spool.settle(claimed, Settlement(Event.EXHAUST, "timeout"), now=T)
    younger = await put(spool)
    async with beside(url) as another:
        assert await take(another) == [younger]
        await spool.act(older, Action(Event.RETRY, "jo"), now=T)
        assert await claim(spool) == []  # the row is free and its successor's claim is not to be seen yet
    assert await claim(spool) == []


class Distracted(Statements):
    """Lets something happen between its look at what waits and its locks."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def all(self, sql: str, **values: object) -> list[Record]:
        rows = await super().all(sql, **values)
        if sql == hand_off._CLAIMABLE and self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        return rows


async def test_what_was_taken_between_look_and_lock_is_not_taken_again(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    older = await put(spool)
    (first,) = await claim(spool)
    await spool.settle(first, Settlement(Event.EXHAUST, "timeout"), now=T)
    younger = await put(spool)

    async def older_is_taken() -> None:
        await spool.act(older, Action(Event.RETRY, "jo"), now=T)
        assert ids(await claim(spool)) == [older]

    async with beside(url, Distracted) as another:
        assert isinstance(another, Distracted)
        another.meanwhile = older_is_taken
        assert await take(another) == []
    assert (await spool.story(younger)).summary.attempts == 0


async def test_what_another_holds_is_replaced_by_what_stands_behind_it(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    numbers = [await put(spool, n) for n in range(8)]
    async with beside(url) as another:
        assert await take(another, limit=4) == numbers[:4]
        assert ids(await claim(spool, limit=2)) == numbers[4:6]
        assert ids(await claim(spool, limit=9)) == numbers[6:]


async def test_no_more_is_hidden_from_others_than_is_taken(spool: PostgresSpool, put: Put, url: str) -> None:
    slow = [await put(spool, n, "slow") for n in range(6)]
    quick = [await put(spool, n, "quick") for n in range(4)]
    async with beside(url) as another:
        assert await take(another, limit=3, room={"slow": 1}) == [slow[0], *quick[:2]]
        assert sorted(ids(await claim(spool, limit=10, room={"slow": 2}))) == [*slow[1:3], *quick[2:]]


async def test_room_that_one_held_by_another_did_not_use_is_used_by_the_next(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    numbers = [await put(spool, n) for n in range(4)]
    async with beside(url) as another:
        assert await take(another, limit=1) == numbers[:1]
        assert ids(await claim(spool, room={"acme": 1})) == [numbers[1]]
        assert ids(await claim(spool, room={"acme": 2})) == numbers[2:]


async def test_a_flood_for_one_account_hides_no_other(spool: PostgresSpool, put: Put) -> None:
    mail = Message(Envelope("", (), "192.0.2.1"), T - 10, b"")
    await spool.put(mail, [Arrival("flood", n, True) for n in range(500)])
    quick = [await put(spool, n, "quick") for n in range(10)]
    assert ids(await claim(spool, limit=10, room={"flood": 0, "quick": 10})) == quick
    assert len(await claim(spool, limit=10, room={"flood": 4})) == 4


CLAIMER = """
import asyncio, json, sys
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.spool.contract import Settlement
from apptrack_ingest.spool.postgres import open_spool

async def main(url, name):
    spool, seen = open_spool(url), []
    await spool.check_writable()
    print("ready", flush=True)
    sys.stdin.readline()
    idle = 0
    while idle < 3:
        claims = await spool.claim(worker=name, now=1e4, lease=60, limit=3, room={"a": 2})
        idle = 0 if claims else idle + 1
        for claim in claims:
            applicant = [claim.account, claim.applicant_id]
            seen.append(["begin", claim.application_id, *applicant, asyncio.get_running_loop().time()])
        for claim in claims:
            ended = asyncio.get_running_loop().time()
            await spool.settle(claim, Settlement(Event.DELIVER, "delivered"), now=1e4)
            seen.append(["end", claim.application_id, claim.account, claim.applicant_id, ended])
        if not claims:
            await asyncio.sleep(0.05)
    await spool.close()
    print(json.dumps(seen))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_side_by_side_take_each_once_and_each_applicants_one_after_the_other(
    spool: PostgresSpool, url: str
) -> None:
    for n in range(40):
        mail = Message(Envelope("", (), "192.0.2.1"), T + n, b"")
        await spool.put(mail, [Arrival("a", n % 4, True), Arrival("b", n % 3, True), Arrival(None, None, True)])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, url, f"w{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n", 60) for process in running))
    seen = [event for output, _ in outputs for event in json.loads(output)]
    begun = Counter(number for what, number, *_ in seen if what == "begin")
    assert sorted(begun) == sorted(s.application_id for s in await spool.find(Filter(limit=1000)))
    assert set(begun.values()) == {1}
    assert min(sum(1 for what, *_ in json.loads(output) if what == "begin") for output, _ in outputs) > 0
    for applicant in {(account, number) for _, _, account, number, _ in seen if number is not None}:
        # The clock is the machine's (monotonic), the same in all processes.
        events = sorted((at, what, number) for what, number, *of, at in seen if tuple(of) == applicant)
        order = [number for _, _, number in events]
        assert order[::2] == order[1::2] == sorted(order[::2]), events


# --- an applicant's line ----------------------------------------------------------------------------------------------


async def test_one_that_comes_while_the_one_before_is_settled_is_not_left_waiting(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    await put(spool)
    (claimed,) = await claim(spool)
    async with beside(url) as another:
        await hand_off.settle(another, claimed, DELIVERED, now=T)
        coming = asyncio.create_task(put(spool))
        await waits_for_a_lock(another)
    number = await coming
    assert ids(await claim(spool)) == [number]


async def test_the_one_before_is_settled_while_another_comes_and_lets_it_go_on(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    await put(spool)
    (claimed,) = await claim(spool)
    async with beside(url) as another:
        message = Message(Envelope("", (), "192.0.2.1"), T, b"")
        message_id = await messages.put(another, message, [Arrival("acme", 7, True)])
        settled = asyncio.create_task(spool.settle(claimed, DELIVERED, now=T))
        await waits_for_a_lock(another)
    await settled
    assert [each.message_id for each in await claim(spool)] == [message_id]


async def test_two_that_leave_a_line_at_once_leave_the_third_in_front(spool: PostgresSpool, put: Put, url: str) -> None:
    first, second, third = [await put(spool) for _ in range(3)]
    async with beside(url) as another:
        await people.act(another, second, Action(Event.HOLD, "jo"), now=T)
        taken = asyncio.create_task(spool.act(first, Action(Event.HOLD, "jo"), now=T))
        await waits_for_a_lock(another)
    await taken
    assert ids(await claim(spool)) == [third]


async def test_nobody_waits_for_the_count_of_another(spool: PostgresSpool, put: Put, url: str) -> None:
    await put(spool, None, "acme")
    async with beside(url) as another:
        message = Message(Envelope("", (), "192.0.2.1"), T, b"")
        await messages.put(another, message, [Arrival("acme", None, True)])
        await put(spool, None, "acme")
        assert (await spool.load()).waiting == 2
    assert (await spool.load()).waiting == 3


async def test_hours_that_begin_at_once_lose_nobody(spool: PostgresSpool, put: Put, url: str) -> None:
    """The older id is of the later hour, and is committed last."""
    await spool.prepare()
    async with beside(url) as another:
        await messages.put(another, Message(Envelope("", (), "192.0.2.1"), 2 * 3600.0, b""), [Arrival("a", 1, True)])
        mail = Message(Envelope("", (), "192.0.2.1"), 3600.0, b"")
        coming = asyncio.create_task(spool.put(mail, [Arrival("a", 2, True)]))
        await waits_for_a_lock(another)
    await coming
    assert [each.received_at for each in await spool.find(Filter(since=3600.0))] == [3600.0, 7200.0]


async def test_changes_are_summed_up_once_by_whoever_reads(spool: PostgresSpool, put: Put, url: str) -> None:
    mail = Message(Envelope("", (), "192.0.2.1"), T, b"")
    await spool.put(mail, [Arrival("acme", n, n % 2 == 0) for n in range(counts.AT_LEAST)])
    before = await spool.backlog()
    loads = [await spool.load(), await spool.load()]
    assert {(load.waiting, load.untrusted_messages) for load in loads} == {(counts.AT_LEAST, 1)}
    async with beside(url) as another:
        left = await another.one("SELECT count(*) FROM tally_changes")
    assert left is not None and left[0] == 0
    assert replace(await spool.backlog(), size_bytes=0) == replace(before, size_bytes=0)


# --- several claimers -------------------------------------------------------------------------------------------------


async def test_claimers_side_by_side_keep_their_shares_and_the_turns(spool: PostgresSpool, url: str) -> None:
    mail = Message(Envelope("", (), "192.0.2.1"), T - 10, b"")
    await spool.put(mail, [Arrival("flood", n, True) for n in range(60)])
    await spool.put(mail, [Arrival("strange", None, False) for _ in range(20)])
    await spool.put(mail, [Arrival("blue", n, True) for n in range(6)])
    share = {"limit": 6, "room": {"flood": 3}, "untrusted": 1}
    several = open_spool(url, options=Options(connections=6))
    claimed = await asyncio.gather(*(claim(several, **share) for _ in range(6)))
    await several.close()
    taken = [each.application_id for claims in claimed for each in claims]
    assert len(taken) == len(set(taken))
    for claims in claimed:
        of = Counter(each.account for each in claims)
        assert (len(claims) <= 6, of["flood"] <= 3, of["strange"] <= 1) == (True, True, True)
    # All of blue's were taken in the first rounds, however many of the flood waited longer.
    every = Counter(each.account for claims in claimed for each in claims)
    assert every["blue"] == 6
    assert every["flood"] <= 18


# --- outcomes at once -------------------------------------------------------------------------------------------------


def report(applicant_id: int = 7) -> Report:
    return Report(applicant_id, ReportStatus.SUCCESS, T)


async def open_reports(spool: PostgresSpool) -> list[ReportState]:
    stories = [await spool.story(summary.application_id) for summary in await spool.find(Filter())]
    return sorted(each.state for story in stories for each in story.reports)


async def test_two_outcomes_of_one_applicant_at_once_leave_one_report_to_be_sent(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    first = await put(spool)
    (claimed,) = await claim(spool)
    second = await put(spool)
    async with beside(url) as another:
        await people.act(another, second, Action(Event.HOLD, "jo", report=report()), now=T)
        settled = asyncio.create_task(spool.settle(claimed, Settlement(Event.DELIVER, "d", report=report()), now=T))
        await waits_for_a_lock(another)
        assert not settled.done()
    await settled
    assert await open_reports(spool) == [ReportState.DUE, ReportState.SUPERSEDED]
    assert (await spool.story(first)).reports[0].state is ReportState.DUE


async def waits_for_a_lock(statements: Statements) -> None:
    """Returns when somebody waits for one."""
    async with asyncio.timeout(10):
        while not await statements.one("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)


async def test_a_report_being_claimed_is_superseded_but_never_sent_beside_its_successor(
    spool: PostgresSpool, put: Put, url: str
) -> None:
    await put(spool)
    (claimed,) = await claim(spool)
    await spool.settle(claimed, Settlement(Event.REJECT, "no", report=report()), now=T)
    await put(spool)
    (claimed,) = await claim(spool)
    async with beside(url) as another:
        wanted = {"now": T, "lease": 60.0, "limit": 5, "accounts": ["acme"]}
        (sending,) = await reports.claim(another, worker="beside", **wanted)  # type: ignore[arg-type]
        settled = asyncio.create_task(spool.settle(claimed, Settlement(Event.DELIVER, "d", report=report()), now=T))
        await waits_for_a_lock(another)
    await settled
    assert await spool.claim_reports(worker="w", **wanted) == []  # type: ignore[arg-type]
    confirmed = ReportSettlement(ReportState.CONFIRMED, "confirmed")
    assert await spool.settle_report(sending, confirmed, now=T) is ReportState.SUPERSEDED
    assert len(await spool.claim_reports(worker="w", **wanted)) == 1  # type: ignore[arg-type]


async def test_a_lease_that_is_being_settled_is_not_reaped(spool: PostgresSpool, put: Put, url: str) -> None:
    application_id = await put(spool)
    (claimed,) = await claim(spool)
    async with beside(url) as another:
        await hand_off.settle(another, claimed, DELIVERED, now=T + 60)
        assert await spool.reap(now=T + 60, reports_for=()) == []
    assert await spool.reap(now=T + 60, reports_for=()) == []
    assert (await spool.story(application_id)).summary.state is State.DELIVERED


@pytest.mark.parametrize("first", ["person", "retention"])
async def test_what_a_person_sets_going_is_not_erased_at_the_same_time(
    spool: PostgresSpool, put: Put, url: str, first: str
) -> None:
    application_id = await put(spool)
    (claimed,) = await claim(spool)
    await spool.settle(claimed, DELIVERED, now=T)
    again = Action(Event.AGAIN, "jo")
    async with beside(url) as another:
        if first == "person":
            await people.act(another, application_id, again, now=T)
            assert await spool.erase_finished(before=T + 10, limit=10) == 0
        else:
            assert await messages.erase_finished(another, before=T + 10, limit=10, now=T) == 1
            acting = asyncio.create_task(spool.act(application_id, again, now=T))
            await waits_for_a_lock(another)
    if first == "retention":
        with pytest.raises(Exception, match="erased by retention"):
            await acting
    story = await spool.story(application_id)
    assert (story.erased, story.summary.state is State.RECEIVED) == (first == "retention", first == "person")


class Interrupted(Statements):
    """Lets something happen right behind its first statement, the look with the lock."""

    meanwhile: Callable[[], Awaitable[object]]

    async def all(self, sql: str, **values: object) -> list[Record]:
        if sql == messages._LOCK_ERASABLE:
            await self.meanwhile()
            rows = await super().all("SELECT id FROM messages FOR UPDATE SKIP LOCKED")
            assert len(rows) == 1, "as found by a look that began before"
            return rows
        return await super().all(sql, **values)


async def test_retention_looks_again_behind_its_lock(spool: PostgresSpool, put: Put, url: str) -> None:
    application_id = await put(spool)
    (claimed,) = await claim(spool)
    await spool.settle(claimed, DELIVERED, now=T)
    async with beside(url, Interrupted) as another:
        assert isinstance(another, Interrupted)
        another.meanwhile = lambda: spool.act(application_id, Action(Event.AGAIN, "jo"), now=T)
        assert await messages.erase_finished(another, before=T + 10, limit=10, now=T) == 0
    assert not (await spool.story(application_id)).erased
