"""The worker's restraint on a real spool: an outage, a flood or strangers of one account never cost another anything."""

import asyncio
from collections import Counter
from dataclasses import replace

from worlds import HOUR

from apptrack_ingest import RetryLater
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.lifecycle import parse_rates, parse_schedule
from apptrack_ingest.metrics import exposition
from apptrack_ingest.model import Accepted, Arrival, Envelope, HeldReason, Message, State
from apptrack_ingest.spool.contract import rest_mark
from apptrack_ingest.testing import RecordingHandler, an_email
from apptrack_ingest.worker.breaker import Caution
from apptrack_ingest.worker.restraints import TELL_AGAIN

WEEK = 7 * 24 * HOUR


class Ats:
    """Away until told otherwise; counts its calls, and how many there are at a time."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: Counter[int] = Counter()
        self.inside = self.most = 0
        self.rounds: list[int] = []

    async def handle(self, application):
        self.calls[application.applicant_id] += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            return Accepted()
        finally:
            self.inside -= 1


async def use(world, **desks):
    """Takes up handlers, and what else is given of their desks."""
    world.handlers.update({name: desk.pop("handler") for name, desk in desks.items() if "handler" in desk})
    made = world.desks()
    await world.worker.configure(
        {name: replace(desk, **desks.get(name, {})) for name, desk in made.items()}, world.tools.report_schedule
    )


async def put_strangers(world, account: str | None, count: int) -> None:
    for number in range(count):
        message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.now(), an_email(9000 + number))
        await world.spool.put(message, [Arrival(account, None, False)])


def metric(name: str) -> dict[str, float]:
    text = exposition(None, 0.0)[0].decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(name + "{")]
    return {series: float(value) for series, _, value in lines}


async def test_an_ats_that_is_away_is_left_in_peace_and_other_accounts_do_not_notice(world):
    away, quick = Ats(RetryLater("not reached", about="ats")), RecordingHandler()
    await use(world, acme={"handler": away}, beta={"handler": quick})
    for _ in range(30):
        await world.receive("acme")
    await world.receive("beta")
    await world.work()
    assert (sum(away.calls.values()), len(quick.applications)) == (5, 1)
    assert metric("apptrack_breaker_open")['apptrack_breaker_open{account="acme"}'] == 1
    rows = await world.rows(account="acme")
    assert sorted(row.attempts for row in rows) == [0] * 25 + [1] * 5, "what was never tried counts no attempt"
    await world.receive("beta")
    await world.pass_time(HOUR)
    assert len(quick.applications) == 2
    assert 6 <= sum(away.calls.values()) <= 5 + 3 + 12, (
        "one probe a wait: 10 s, 30 s, 1 m, 2 m, then every five minutes"
    )


async def test_it_comes_back_gently_and_by_itself(world):
    ats = Ats(RetryLater("not reached", about="ats"))
    await use(world, acme={"handler": ats, "concurrency": 8})
    for _ in range(40):
        await world.receive("acme")
    await world.pass_time(HOUR)
    ats.error, ats.calls, ats.most = None, Counter(), 0
    at_a_time = []
    for _ in range(12):
        world.clock.time += 60.0
        for _ in range(20):
            await world.worker.step()
            at_a_time.append(len(world.worker._hand_offs()))
            await world.worker.idle()
    assert {row.state for row in await world.rows(account="acme")} == {State.DELIVERED}
    begun = [count for count in at_a_time if count]
    assert begun[0] == 1 and max(begun) == 6, "the others keep a quarter of the worker's eight places"
    assert begun[:3] == [1, 2, 4]
    assert metric("apptrack_breaker_open")['apptrack_breaker_open{account="acme"}'] == 0


async def test_after_a_long_downtime_the_backlog_is_spread(world):
    """Hundreds are overdue at the start: the ATS gets them at the pace of its own answers."""
    ats = Ats()
    await use(world, acme={"handler": ats})
    for _ in range(60):
        await world.receive("acme")
    world.clock.time += WEEK
    begun = []
    for _ in range(60):
        await world.worker.step()
        begun.append(len(world.worker._hand_offs()))
        await world.worker.idle()
    assert begun[:3] == [1, 2, 5] and ats.most == 4, "one is read ahead"
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_what_ran_out_of_time_while_the_breaker_was_open_is_tried_before_it_is_given_up(world):
    ats = Ats(RetryLater("not reached", about="ats"))
    never = parse_schedule("30d")
    await use(world, acme={"handler": ats, "caution": Caution(2, never)})
    numbers = [await world.receive("acme") for _ in range(3)]
    await world.work()
    assert [ats.calls[number] for number in numbers] == [1, 1, 0]
    ats.error = None
    await world.pass_time(2 * WEEK, step=HOUR)
    assert {row.state for row in await world.rows()} == {State.RECEIVED}, "given up without a last try"
    await world.pass_time(40 * 24 * HOUR, step=HOUR)
    assert {row.state for row in await world.rows()} == {State.DELIVERED}
    assert [ats.calls[number] for number in numbers] == [2, 2, 1]


async def test_retry_after_lets_the_whole_account_rest(world):
    ats = Ats(RetryLater("429", after=600, about="ats"))
    await use(world, acme={"handler": ats})
    for _ in range(5):
        await world.receive("acme")
    await world.work()
    ats.error = None
    await world.pass_time(590)
    assert sum(ats.calls.values()) == 1
    await world.pass_time(HOUR)
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_the_spool_knows_until_when_an_account_rests(world):
    ats = Ats(RetryLater("not reached", about="ats"))
    await use(world, acme={"handler": ats})
    for _ in range(6):
        await world.receive("acme")
    await world.receive("beta")
    await world.work()
    assert 10 <= await world.spool.mark(rest_mark("acme")) - world.clock.time <= 12
    assert await world.spool.mark(rest_mark("beta")) is None
    await world.pass_time(HOUR)
    assert await world.spool.mark(rest_mark("acme")) > world.clock.time
    ats.error = None
    await world.pass_time(HOUR)
    assert {row.state for row in await world.rows()} == {State.DELIVERED}
    assert await world.spool.mark(rest_mark("acme")) == 0.0


async def test_the_spool_knows_that_a_reload_has_ended_a_rest(world):
    ats = Ats(RetryLater("429", after=3000, about="ats"))
    await use(world, acme={"handler": ats})
    for _ in range(3):
        await world.receive("acme")
    await world.work()
    assert await world.spool.mark(rest_mark("acme")) >= world.clock.time + 3000
    ats.error = None
    await use(world, acme={"timeout": 31.0})
    await world.work()
    assert await world.spool.mark(rest_mark("acme")) == 0.0


async def test_a_worker_that_was_started_anew_ends_the_rest_that_another_told_of(world):
    ats = Ats(RetryLater("not there", about="application"))
    await use(world, acme={"handler": ats})
    await world.spool.set_mark(rest_mark("acme"), world.clock.time + 9999)
    await world.receive("acme")
    await world.work()
    assert await world.spool.mark(rest_mark("acme")) > world.clock.time, "that was no verdict"
    ats.error = None
    await world.receive("acme")
    await world.work()
    assert await world.spool.mark(rest_mark("acme")) == 0.0


async def test_what_another_told_is_taken_back_however_long_this_worker_has_been_at_work(world):
    await world.receive("acme")
    await world.work()
    await world.spool.set_mark(rest_mark("acme"), world.clock.time + 9999)
    world.clock.time += TELL_AGAIN + 1
    await world.receive("acme")
    await world.work()
    assert await world.spool.mark(rest_mark("acme")) == 0.0
    await world.spool.set_mark(rest_mark("acme"), world.clock.time + 9999)
    await use(world, acme={"timeout": 31.0})
    await world.receive("acme")
    await world.work()
    assert await world.spool.mark(rest_mark("acme")) == 0.0, "a reload lets it tell at once"


async def test_what_could_not_be_told_of_a_rest_is_told_later(world, monkeypatch):
    await world.spool.set_mark(rest_mark("acme"), world.clock.time + 9999)
    really, refused = world.spool.set_mark, []

    async def away(key, at):
        refused.append(key)
        raise SpoolUnavailable("restarting")

    monkeypatch.setattr(world.spool, "set_mark", away)
    await world.receive("acme")
    await world.work()
    assert refused == [rest_mark("acme")]
    monkeypatch.setattr(world.spool, "set_mark", really)
    await world.receive("acme")
    await world.work()
    assert await world.spool.mark(rest_mark("acme")) == 0.0
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_what_is_about_one_application_alone_opens_nothing(world):
    class Odd(Ats):
        async def handle(self, application):
            if application.applicant_id <= 20:
                raise RetryLater("the vacancy is not open yet", after=3600, about="application")
            return Accepted()

    await use(world, acme={"handler": Odd()})
    for _ in range(25):
        await world.receive("acme")
    await world.work()
    states = Counter(row.state for row in await world.rows())
    assert states == {State.RECEIVED: 20, State.DELIVERED: 5}


async def test_two_slow_accounts_leave_a_place_for_a_third(world):
    """As when two accounts have the same ATS: what waits for it takes no place from those with another."""

    class Hanging(Ats):
        async def handle(self, application):
            self.inside += 1
            await go.wait()
            return Accepted()

    go, first = asyncio.Event(), Ats()
    await use(world, acme={"handler": first}, beta={"handler": first})
    for account in ("acme", "beta") * 10:  # the ramp after a start
        await world.receive(account)
    await world.work()
    slow, quick = Hanging(), RecordingHandler()
    world.handlers.update({"acme": slow, "beta": slow, "gamma": quick})
    world.hashes["gamma"] = "hash-c"
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    for account in ("acme", "beta") * 20:
        await world.receive(account)
    for _ in range(5):
        await world.worker.step()
        await asyncio.sleep(0.01)
    assert len(world.worker._hand_offs()) == 6, "three each of eight places"
    await world.receive("gamma")
    async with asyncio.timeout(10):
        while not quick.applications:
            await world.worker.step()
            await asyncio.sleep(0.01)
    go.set()
    await world.work()
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_an_account_alone_has_all_places(world):
    ats = Ats()
    made = {"acme": replace(world.desks()["acme"], handler=ats, concurrency=8)}
    await world.worker.configure(made, world.tools.report_schedule)
    for _ in range(40):
        await world.receive("acme")
    begun = []
    for _ in range(10):
        await world.worker.step()
        begun.append(len(world.worker._hand_offs()))
        await world.worker.idle()
    assert max(begun) == 8


async def test_the_rate_holds_and_what_is_over_it_waits_uncounted(world):
    ats = Ats()
    await use(world, acme={"handler": ats, "rates": parse_rates("3/1m, 5/h")})
    for _ in range(8):
        await world.receive("acme")
    await world.work()
    assert sum(ats.calls.values()) == 3
    assert metric("apptrack_rate_used_up")['apptrack_rate_used_up{account="acme"}'] == 1
    assert Counter(row.attempts for row in await world.rows()) == {1: 3, 0: 5}
    await world.pass_time(120)
    assert sum(ats.calls.values()) == 5
    await world.pass_time(HOUR)
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_duplicates_use_up_no_rate(world):
    ats = Ats()
    await use(world, acme={"handler": ats, "rates": parse_rates("2/1h")})
    for _ in range(5):
        message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.now(), an_email(7))
        await world.spool.put(message, [Arrival("acme", 7, True)])
    await world.work()
    assert Counter(row.state for row in await world.rows()) == {State.DELIVERED: 1, State.DUPLICATE: 4}


async def test_changed_settings_close_the_breaker_and_forget_no_call(world):
    ats = Ats(RetryLater("not reached", about="ats"))
    await use(world, acme={"handler": ats, "rates": parse_rates("6/1h")})
    for _ in range(10):
        await world.receive("acme")
    await world.work()
    assert sum(ats.calls.values()) == 5
    ats.error = None
    await use(world, acme={"timeout": 31.0, "rates": parse_rates("6/1h")})
    await world.work()
    assert sum(ats.calls.values()) == 6, "open no more, and the rate goes on counting"


async def test_an_account_that_a_reload_took_out_by_mistake_comes_back_with_its_calls_and_places(world):
    class Hanging(Ats):
        async def handle(self, application):
            self.calls[application.applicant_id] += 1
            await go.wait()
            return Accepted()

    go, ats = asyncio.Event(), Hanging()
    await use(world, acme={"handler": ats, "concurrency": 1, "rates": parse_rates("3/1h")})
    both = dict(world.tools.desks)
    for _ in range(6):
        await world.receive("acme")
    await world.worker.step()
    while not ats.calls:
        await asyncio.sleep(0)
    await world.worker.configure({"beta": both["beta"]}, world.tools.report_schedule)
    await world.worker.configure(both, world.tools.report_schedule)
    assert world.worker._restraints.room()["acme"] == 0, "its one place is taken"
    go.set()
    await world.worker.idle()
    await world.worker.configure({"beta": both["beta"]}, world.tools.report_schedule)
    await world.worker.configure(both, world.tools.report_schedule)
    await world.work()
    assert sum(ats.calls.values()) == 3, "the ATS counts, whatever our settings said meanwhile"


async def test_strangers_leave_half_of_the_places_and_a_process(world):
    started = asyncio.Event()
    go = asyncio.Event()
    parse, reading = world.tools.parser.parse, []

    class Slow:
        async def parse(self, raw):
            reading.append(raw)
            started.set()
            await go.wait()
            return await parse(raw)

    world.tools.parser = Slow()
    await put_strangers(world, None, 20)
    for _ in range(3):
        await world.worker.step()
    await started.wait()
    assert (len(world.worker._hand_offs()), len(reading)) == (4, 1)
    number = await world.receive("beta")
    await world.worker.step()
    while len(reading) < 2:
        await asyncio.sleep(0)
    assert b"X-iTrackID: %d\r\n" % number in reading[1]
    go.set()
    await world.work()
    rows = await world.rows()
    assert Counter(row.reason or row.state for row in rows) == {HeldReason.UNTRUSTED: 20, State.DELIVERED: 1}


async def test_a_large_mail_waits_for_memory_before_it_is_loaded(world):
    loaded, go, load = [], asyncio.Event(), world.spool.to_work_on

    async def noted(claim):
        loaded.append(claim.message_id)
        return await load(claim)

    class Waiting(Ats):
        async def handle(self, application):
            await go.wait()
            return Accepted()

    world.spool.to_work_on = noted
    world.tools.memory._total = 10_000
    await use(world, acme={"handler": Waiting()}, beta={"handler": Waiting()})
    for number, account in enumerate(("acme", "beta", "beta"), 1):
        large = an_email(number, text="a" * 6000)
        message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), world.clock.now(), large)
        await world.spool.put(message, [Arrival(account, number, True)])
    for _ in range(5):
        await world.worker.step()
        await asyncio.sleep(0.01)
    assert len(world.worker._hand_offs()) == 2 and len(loaded) == 1, "each is larger than all there is: one at a time"
    go.set()
    await world.work()
    assert len(loaded) == 3
    assert {row.state for row in await world.rows()} == {State.DELIVERED}


async def test_ten_of_one_account_do_not_wait_behind_a_flood_of_another(world):
    order = []

    class Noting:
        def __init__(self, name):
            self.name = name

        async def handle(self, application):
            order.append(self.name)
            return Accepted()

    await use(world, acme={"handler": Noting("acme")}, beta={"handler": Noting("beta")})
    for _ in range(200):
        await world.receive("acme")
    for _ in range(10):
        await world.receive("beta")
    for _ in range(60):
        await world.worker.step()
        await world.worker.idle()
        if order.count("beta") == 10:
            break
    assert order.count("beta") == 10
    assert len(order) <= 60, "they took turns"


class Busy(Ats):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Semaphore(0)
        self.away = False

    async def handle(self, application):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.calls[application.applicant_id] += 1
        try:
            await self.go.acquire()
            if self.away:
                raise RetryLater("not reached", about="ats")
            return Accepted()
        finally:
            self.inside -= 1


async def one_ahead(world) -> Busy:
    """Four calls under way, which is all there may be, and one application read ahead."""
    ats = Busy()
    await use(world, acme={"handler": ats})
    for _ in range(3):
        ats.go.release()
    for _ in range(3):
        await world.receive("acme")
    await world.work()
    for _ in range(8):
        await world.receive("acme")
    await world.worker.step()
    await until(lambda: ats.inside == 4 and len(world.worker._hand_offs()) == 5)
    return ats


async def until(reached) -> None:
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(0.001)


async def test_what_is_next_is_read_ahead_and_handed_over_without_a_look_at_the_spool(world):
    ats = await one_ahead(world)
    ats.go.release()
    await until(lambda: len(ats.calls) == 8)
    assert ats.inside == ats.most == 4
    await until(lambda: len(world.worker._hand_offs()) == 4)
    for _ in range(20):
        ats.go.release()
    await world.work()
    assert {row.state for row in await world.rows()} == {State.DELIVERED} and ats.most == 4


async def test_what_was_only_read_ahead_is_given_back_at_once_at_the_end(world):
    ats = await one_ahead(world)
    draining = asyncio.create_task(world.worker.drain())
    await until(lambda: len(world.worker._hand_offs()) == 4)
    for _ in range(20):
        ats.go.release()
    await draining
    rows = await world.rows()
    assert Counter(row.state for row in rows) == {State.DELIVERED: 7, State.RECEIVED: 4}
    assert {row.attempts for row in rows if row.state is State.RECEIVED} == {0}, "no attempt was made"
    assert sum(ats.calls.values()) == 7


async def test_what_was_only_read_ahead_is_spared_when_the_breaker_opens(world):
    ats = await one_ahead(world)
    await use(world, acme={"handler": ats, "caution": Caution(1, parse_schedule("1h"))})
    await until(lambda: ats.inside == 4)
    ats.away = True
    ats.go.release()
    await until(lambda: metric("apptrack_breaker_open")['apptrack_breaker_open{account="acme"}'] == 1)
    await until(lambda: len(world.worker._hand_offs()) == 3)
    assert sum(ats.calls.values()) == 7, "three before, the one that failed, and the three still under way"
    for _ in range(3):
        ats.go.release()
    await world.worker.idle()
    rows = [row for row in await world.rows() if row.state is State.RECEIVED]
    assert sorted(row.attempts for row in rows) == [0] * 4 + [1] * 4


async def test_what_was_only_read_ahead_goes_to_the_new_handler_after_a_reload(world):
    ats, new = await one_ahead(world), RecordingHandler()
    await use(world, acme={"handler": new})
    await until(lambda: len(world.worker._hand_offs()) == 4)
    for _ in range(4):
        ats.go.release()
    await world.work()
    assert sum(ats.calls.values()) == 7 and len(new.applications) == 4
    assert {row.state for row in await world.rows()} == {State.DELIVERED}
