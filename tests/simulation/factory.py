"""The real worker, hundreds of times: in virtual time, on the model of the spool, killed, stopped and cut off at random."""

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

from contract.spool_model import Model

from apptrack_ingest import Accepted, Application, Rejected, RetryLater
from apptrack_ingest.errors import SpoolUnavailable, Unreadable
from apptrack_ingest.lifecycle import EarlyRule, Rate, parse_schedule
from apptrack_ingest.model import (
    Arrival,
    AttemptKind,
    Envelope,
    HeldReason,
    Message,
    Parsed,
    Report,
    ReportState,
    State,
)
from apptrack_ingest.report.reporter import Confirmed, NotReached, Result
from apptrack_ingest.spool.records import EarlyReport
from apptrack_ingest.worker import Desk, Options, Tools, Worker
from apptrack_ingest.worker.breaker import Caution

START = 1_800_000_000.0
LEASE = 30.0
HORIZON = 4 * 3600.0
SCHEDULE = "10s*3, 1m*5, 10m*6"
WINDOW = parse_schedule(SCHEDULE).window
PLACES, PARSERS, MEMORY = 6, 2, 3000
RATES = [(), (Rate(4, 20.0),), (Rate(2, 5.0), Rate(20, 600.0))]


class Wrongs:
    """What must not be: noted, because what a handler or a parser raises is the worker's to put right."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def unless(self, holds: bool, what: str) -> None:
        if not holds:
            self.found.append(what)


class Told(Model):
    """The model, which also remembers when it announced what, and until when."""

    def __init__(self, clock: float) -> None:
        super().__init__(clock=clock)
        self.announced: dict[int, list[tuple[float, float]]] = {}

    def _announce(self, row: Any, early: EarlyReport, now: float) -> bool:
        told = super()._announce(row, early, now)
        if told:
            self.announced.setdefault(row.id, []).append((now, early.until))
        return told


class LoopClock:
    """The virtual loop's time, as the worker sees it."""

    def now(self) -> float:
        return START + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Access:
    """One worker's way to the spool: slow at times, unavailable now and then (nothing is kept then), and shut for good once
    the worker is dead."""

    def __init__(self, model: Model, random: Random, hints: list[Callable[[], None]], faults: float) -> None:
        self._model, self._random, self._hints, self._faults = model, random, hints, faults
        self.dead = False

    def listen(self, wake: Callable[[], None]) -> None:
        self._hints.append(wake)

    def __getattr__(self, name: str) -> Any:
        async def ask(*args: Any, **named: Any) -> Any:
            await self._answering()
            return getattr(self._model, name)(*args, **named)

        return ask

    async def _answering(self) -> None:
        await asyncio.sleep(self._random.choice((0.0, 0.0, 0.001, 0.1)))
        if self.dead:
            await asyncio.Event().wait()
        if self._random.random() < self._faults:
            raise SpoolUnavailable("restarting")


class Reader:
    """The parser: never more at a time than there are processes, nor the last one for what is not trusted."""

    def __init__(self, random: Random, wrongs: Wrongs) -> None:
        self._random, self._wrongs, self._busy, self._strangers = random, wrongs, 0, 0

    async def parse(self, raw: bytes) -> Parsed:
        number, _, kind = raw.decode().split()[:3]
        strange = kind == "strange"
        self._busy, self._strangers = self._busy + 1, self._strangers + strange
        self._wrongs.unless(self._busy <= PARSERS and self._strangers < PARSERS, "parser")
        try:
            await asyncio.sleep(self._random.choice((0.0, 0.01, 2.0)))
        finally:
            self._busy, self._strangers = self._busy - 1, self._strangers - strange
        if kind == "broken":
            raise Unreadable("deadline")
        return Parsed(int(number), None, raw.decode())


class Idibu:
    """Takes reports, mostly."""

    def __init__(self, random: Random, shown: dict[tuple[str, int], list[Report]]) -> None:
        self._random, self._shown = random, shown

    async def send(self, account: str, report: Report) -> Result:
        await asyncio.sleep(self._random.choice((0.05, 5.0)))
        if self._random.random() < 0.2:
            return NotReached("unreachable", "")
        self._shown.setdefault((account, report.applicant_id), []).append(report)
        return Confirmed()


class Ats:
    """An account's ATS: away at times; it remembers whom it took and who is being handed over by whom."""

    def __init__(self, random: Random, rates: tuple[Rate, ...], wrongs: Wrongs) -> None:
        self.random, self.rates, self.wrongs = random, rates, wrongs
        begin = random.uniform(0, 60)
        self.outages = [(begin, begin + random.choice((0, 30, 300, 1500)), random.choice(("refused", "hangs", "busy")))]
        self.most = random.choice((3, 4))  # from four on one is claimed ahead
        self.taken: set[int] = set()
        self.refused: set[int] = set()

    def handler(self) -> "Handler":
        return Handler(self)


class Handler:
    """What one worker calls; each counts its own calls."""

    def __init__(self, ats: Ats) -> None:
        self.ats = ats
        self.inside: Counter[int] = Counter()
        self.calls: list[float] = []

    async def handle(self, application: Application) -> Accepted | Rejected:
        now, wrongs = LoopClock().now(), self.ats.wrongs
        self.calls.append(now)
        for rate in self.ats.rates:
            wrongs.unless(len(self.calls) - bisect_right(self.calls, now - rate.seconds) <= rate.count, "over the rate")
        self.inside[application.applicant_id] += 1
        wrongs.unless(sum(self.inside.values()) <= self.ats.most, "over the account's places")
        wrongs.unless(self.inside[application.applicant_id] == 1, "one applicant twice at a time in one worker")
        try:
            return await self._answer(application, now - START)
        finally:
            self.inside[application.applicant_id] -= 1

    async def _answer(self, application: Application, now: float) -> Accepted | Rejected:
        random, kind = self.ats.random, next((k for b, e, k in self.ats.outages if b <= now < e), "")
        if kind == "refused":
            raise RetryLater("not reached", about="ats")
        if kind == "hangs":
            await asyncio.sleep(3600)
        if kind == "busy":
            raise RetryLater("429", after=random.uniform(0, 100), about="ats")
        await asyncio.sleep(random.uniform(0, 3))
        if random.random() < 0.1:
            raise ValueError("500")
        if application.applicant_id % 7 == 0:
            self.ats.refused.add(application.applicant_id)
            return Rejected("no")
        self.ats.taken.add(application.applicant_id)
        return Accepted(f"R-{application.applicant_id}")


class Process:
    """A worker process: it can be killed, and is started again."""

    def __init__(self, factory: "Factory", number: int) -> None:
        self.factory, self.name, self.lives = factory, f"host/worker-{number}", 0
        self.begin()

    def begin(self) -> None:
        factory = self.factory
        self.lives += 1
        self.access = Access(factory.model, factory.random, factory.hints, factory.faults)
        self.handlers = {name: ats.handler() for name, ats in factory.atses.items()}
        self.worker = Worker(factory.tools(self))
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.worker.run(self.stop))
        factory.tasks.append(self.task)

    def kill(self) -> None:
        """Nothing of it reaches the spool or an ATS any more; its leases run out by themselves, or are abandoned."""
        self.access.dead = True
        self.task.cancel()
        for job in self.worker._running:
            job.cancel()

    async def drained(self) -> None:
        self.stop.set()
        await self.task


class Factory:
    """A few workers, two accounts, some dozens of applications, and what goes wrong."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.model, self.hints, self.tasks, self.wrongs = Told(clock=START), [], [], Wrongs()
        self.idibu: dict[tuple[str, int], list[Report]] = {}
        self.faults = random.choice((0.0, 0.0, 0.02))
        self.atses = {name: Ats(random, random.choice(RATES), self.wrongs) for name in ("acme", "beta")}
        self.kills = random.choice((0, 1, 3))
        self.caution = random.choice((Caution(3, parse_schedule("5s, 20s, 1m")), Caution(0)))
        window = random.choice((30.0, WINDOW))
        self.early = random.choice((EarlyRule(), EarlyRule(True, None, window), EarlyRule(False, 60.0, window)))

    def tools(self, process: Process) -> Tools:
        schedule = parse_schedule(SCHEDULE)
        desks = {
            name: Desk(
                handler,
                name,
                30.0,
                schedule,
                self.atses[name].most,
                self.atses[name].rates,
                self.caution,
                hash_fingerprint="h",
                early=self.early,
            )
            for name, handler in process.handlers.items()
        }
        return Tools(
            spool=process.access,
            parser=Reader(self.random, self.wrongs),
            reports=Idibu(self.random, self.idibu),
            clock=LoopClock(),
            options=Options(f"{process.name}#{process.lives}", PLACES, 2, LEASE, 10.0, memory=MEMORY, parsers=PARSERS),
            desks=desks,
            report_schedule=schedule,
            jitter=self.random.random,
        )

    async def play(self) -> None:
        self.processes = [Process(self, number) for number in range(self.random.randint(1, 3))]
        trouble = asyncio.create_task(self._trouble())
        sweeping = asyncio.create_task(self._report_waiting())
        await self._receive()
        while not self._over():
            assert asyncio.get_running_loop().time() < HORIZON, (self._waiting(), self._in_work())
            await asyncio.sleep(5.0)
        await trouble
        sweeping.cancel()
        await asyncio.gather(*(process.drained() for process in self.processes))
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()
        self._check()

    async def _receive(self) -> None:
        random = self.random
        for number in range(1, random.choice((5, 20, 40))):
            await asyncio.sleep(random.choice((0.0, 0.0, 1.0, 20.0)))
            kind = "strange" if random.random() < 0.2 else "broken" if random.random() < 0.05 else "good"
            raw = f"{number} x {kind} ".encode() + b"." * random.choice((0, 100, 900, 5000))
            arrival = Arrival(
                random.choice(("acme", "acme", "beta")), number if kind != "strange" else None, kind != "strange"
            )
            message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), LoopClock().now(), raw)
            self.model.put(message, [arrival])
            for wake in self.hints:
                if random.random() < 0.7:
                    wake()

    async def _report_waiting(self) -> None:
        """As the housekeeping does it."""
        while True:
            for account in self.atses:
                self.model.report_waiting(account, self.early, now=LoopClock().now(), limit=10)
            await asyncio.sleep(self.random.choice((5.0, 60.0)))

    async def _trouble(self) -> None:
        for _ in range(self.kills):
            await asyncio.sleep(self.random.uniform(0, 200))
            process = self.random.choice(self.processes)
            process.kill()
            if self.random.random() < 0.5:
                self.model.abandon(process.worker._tools.options.name, now=LoopClock().now())
            await asyncio.sleep(self.random.uniform(0, 20))
            process.begin()

    def _waiting(self) -> list[Any]:
        return [row for row in self.model.applications.values() if row.state is State.RECEIVED]

    def _over(self) -> bool:
        due = [one for one in self.model.reports.values() if one.state is ReportState.DUE]
        return len(self.model.applications) > 0 and not self._waiting() and not due and not self._in_work()

    def _in_work(self) -> list[Any]:
        """What somebody holds: also a report that another took the place of while its worker died, until that is noticed."""
        return [row for row in (*self.model.applications.values(), *self.model.reports.values()) if row.in_work]

    def _check(self) -> None:
        assert not self.wrongs.found, sorted(set(self.wrongs.found))
        assert not self._in_work()
        if not self.kills and not self.faults:
            assert not [one for one in self.model.attempts if one.record.code == "no-verdict"], "a live lease ran out"
        for row in self.model.applications.values():
            raw, ats = self.model.messages[row.message_id].message.raw, self.atses[row.account]
            number, kind = int(raw.split()[0]), raw.split()[2].decode()
            self._check_early(row, kind)
            if kind == "strange":
                assert (row.state, row.reason) == (State.HELD, HeldReason.UNTRUSTED)
                assert number not in ats.taken
            elif row.state is State.DELIVERED:
                assert number in ats.taken and self._told(row) == "success"
            elif row.state is State.REJECTED:
                assert number in ats.refused and self._told(row) == "fail"
            elif row.state is State.FAILED:
                self._check_given_up(row)
            else:
                wanted = HeldReason.UNREADABLE if kind == "broken" else HeldReason.CRASH_LOOP
                assert (row.state, row.reason) == (State.HELD, wanted), row

    def _check_given_up(self, row: Any) -> None:
        """Bad luck may last as long as the schedule, but no shorter, and no answer of the ATS was overlooked."""
        codes = {
            one.record.code
            for one in self.model.attempts
            if one.application_id == row.id and one.record.kind is AttemptKind.HAND_OFF
        }
        assert row.settled_at - row.series_from >= WINDOW, row
        assert not codes & {"delivered", "rejected", "untrusted", "unreadable"}, codes
        assert self._told(row) == "fail"

    def _check_early(self, row: Any, kind: str) -> None:
        """Nothing is told of strangers, nor twice of the same span of time; nothing early is left, and the last of all that
        idibu got is the outcome."""
        told = [one for one in self.model.reports.values() if one.application_id == row.id]
        early = [one for one in told if "not delivered yet" in (one.report.error_message or "")]
        assert not (told and kind == "strange"), told
        assert not (early and not self.early.wanted), early
        times = self.model.announced.get(row.id, [])
        assert all(at >= until for (_, until), (at, _) in pairwise(times)), times
        if row.state is not State.HELD:
            assert self.idibu[row.whose][-1] == told[-1].report, (self.idibu[row.whose], told[-1])

    def _told(self, row: Any) -> str:
        newest = max((one for one in self.model.reports.values() if one.whose == row.whose), key=lambda one: one.id)
        assert newest.state is ReportState.CONFIRMED
        return newest.report.status.value
