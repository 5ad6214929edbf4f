"""One random history of applications, workers that die and stand still, and ATSs that go away, in no time at all.

The rules are the product's own (`lifecycle`, `Restraint` with its breaker and quotas); the spool, the workers' loops, the
ATSs and the clock are models in a few lines each, driven by a heap of events. Everything follows from the seed. What must
hold is asserted where it could break, and `check_end` says what must have become of each application.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from apptrack_ingest.handoff import Again, Done, Outcome
from apptrack_ingest.lifecycle import Event, Rate, Schedule, after, is_crash_loop, next_attempt, parse_schedule
from apptrack_ingest.model import Accepted, State
from apptrack_ingest.worker.breaker import Caution
from apptrack_ingest.worker.restraint import Restraint

LEASE = 60.0
LOOK = 1.0
"""The longest between two looks of a worker at the spool: a hint may be lost."""
TIMEOUT = 30.0
SLOWEST = 6.0
"""More than any answer of an ATS takes that gives one."""

SCHEDULES = [parse_schedule(text) for text in ("10s*3, 1m*5", "1m, 5m*2, 15m, 1h*6, 4h*15", "5s, 1m, 2h*3")]
CAUTIONS = [
    Caution(5, parse_schedule("10s, 30s, 1m, 2m, 5m")),
    Caution(2, parse_schedule("5s, 1m")),
    Caution(0, parse_schedule("10s")),
]
RATES: list[tuple[Rate, ...]] = [(), (), (Rate(3, 10.0),), (Rate(2, 1.0), Rate(10, 300.0))]

DONE = Done(Accepted())
REFUSED = Again("retry-later", "not reached", None, "ats")
HANGING = Again("timeout", "no answer")
ERROR = Again("exception", "500")
NOT_YET = Again("retry-later", "the vacancy is not open yet", None, "application")
WANTED = Again("retry-later", "something about this one, and the handler does not say so")


@dataclass(eq=False, slots=True)
class App:
    """One application, as the spool has it. `odd_until` is when the ATS takes it at last, `deadly` how many calls kill the
    worker that makes them, `line` what waits of the same applicant, oldest first."""

    id: int
    account: str
    applicant: int
    due: float
    odd_until: float = 0.0
    odd: Again = NOT_YET
    deadly: int = 0
    state: State = State.RECEIVED
    first: float | None = None
    attempt: int = 0
    crashes: int = 0
    token: int = 0
    holder: "Worker | None" = None
    last_call: float = -1.0
    line: list["App"] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """An account: its settings, and how its ATS behaves."""

    name: str
    schedule: Schedule
    caution: Caution
    rates: tuple[Rate, ...]
    most: int
    outages: list[tuple[float, float, str]]
    held: int = 0
    """How many of its applications the workers hold together."""
    calls: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    """When each life of a worker called it."""
    callers: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """With which application."""

    def trouble(self, now: float) -> str:
        return next((kind for begin, end, kind in self.outages if begin <= now < end), "")


class Worker:
    """One worker process; `life` counts its restarts, so that what belonged to an earlier one is known."""

    def __init__(self, number: int, places: int) -> None:
        self.number, self.places, self.life = number, places, 0
        self.alive, self.stands_until, self.wakes_at = True, 0.0, -1.0
        self.restraints: dict[str, Restraint] = {}
        self.jobs: dict[tuple[int, int], App] = {}
        self.alone = False


class History:
    """A random history; `run` plays it to its end."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now, self._order = 0.0, 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.calls = 0
        self._called: set[tuple[int, int]] = set()
        r = self.random
        self.crowd = r.random() < 0.002  # dear: one costs as much as a hundred others
        self.accounts = {name: self._account(name) for name in ("a", "b")[: r.randint(1, 2)]}
        self.apps = [self._app(number) for number in range(40 if self.crowd else r.choice((1, 1, 2, 2, 3, 8)))]
        self.waiting = {app.id: app for app in self.apps}
        self.heads = self._lines()
        self.workers = [Worker(number, r.choice((1, 3, 8))) for number in range(r.choice((1, 1, 1, 2, 3)))]
        for worker in self.workers:
            self._born(worker)
        self.stood_still = False
        if not self.crowd:
            self._trouble()

    def _trouble(self) -> None:
        r = self.random
        for _ in range(r.choice((0, 0, 1, 3))):
            worker, at = r.choice(self.workers), r.uniform(0, 600)
            self._at(at, lambda w=worker: self._kill(w) if w.alive else None)
        self.stood_still = r.random() < 0.3
        if self.stood_still:
            worker, at, rest = r.choice(self.workers), r.uniform(0, 600), r.uniform(1, 4 * LEASE)
            self._at(at, lambda w=worker, s=rest: self._stand_still(w, s))

    # -- what there is

    def _account(self, name: str) -> Account:
        r = self.random
        if self.crowd:
            outage = (0.0, r.uniform(600, 7200), r.choice(("refused", "hanging")))
            return Account(name, r.choice(SCHEDULES), r.choice(CAUTIONS[:2]), (), r.randint(1, 3), [outage])
        outages, begin = [], 0.0
        for _ in range(r.choice((0, 1, 1, 2, 4))):
            begin += r.choice((0.0, r.uniform(0, 120)))
            end = begin + r.choice((10, 60, 600, 7200, 9 * 86400) if r.random() < 0.2 else (5, 30, 300)) * r.random()
            outages.append((begin, end, r.choice(("refused", "hanging", "busy", "erratic"))))
            begin = end
        return Account(name, r.choice(SCHEDULES), r.choice(CAUTIONS), r.choice(RATES), r.randint(1, 6), outages)

    def _app(self, number: int) -> App:
        r = self.random
        applicant = number if self.crowd else r.randint(1, 20)
        app = App(number, r.choice(list(self.accounts)), applicant, r.choice((0.0, r.uniform(0, 900))))
        if self.crowd:
            return app
        if r.random() < 0.15:
            app.odd_until, app.odd = r.uniform(0, 5000), r.choice((NOT_YET, WANTED))
        if r.random() < 0.04:
            app.deadly = r.randint(1, 6)
        return app

    def _lines(self) -> dict[int, App]:
        """Lines the applications up by applicant; returns the first of each line, which alone may be claimed. Kept up to
        date rather than found anew, since every look at the spool asks for it."""
        lines: dict[tuple[str, int], list[App]] = {}
        for app in self.apps:
            app.line = lines.setdefault((app.account, app.applicant), [])
            app.line.append(app)
        return {line[0].id: line[0] for line in lines.values()}

    # -- time

    def _at(self, time: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, act))

    def run(self) -> "History":
        """Plays until nothing waits any more; time is given for a hundred days."""
        while self.waiting and self._events:
            self.now, _, act = heapq.heappop(self._events)
            assert self.now < 100 * 86400, f"stuck: {list(self.waiting.values())}"
            act()
        return self

    # -- the workers' loop

    def _born(self, worker: Worker) -> None:
        worker.life, worker.alive, worker.alone = worker.life + 1, True, False
        worker.jobs = {}
        worker.restraints = {a.name: Restraint(a.most, a.rates, a.caution) for a in self.accounts.values()}
        self._wake(worker, self.now)

    def _wake(self, worker: Worker, at: float) -> None:
        worker.wakes_at = at
        self._at(at, lambda: self._look(worker, at))

    def _look(self, worker: Worker, planned: float) -> None:
        if not worker.alive or planned != worker.wakes_at:
            return
        if self.now < worker.stands_until:
            self._wake(worker, worker.stands_until)
            return
        while not worker.alone and worker.alive and self._claim_one(worker):
            pass
        if worker.alive:
            self._wake(worker, self._next_look(worker))

    def _next_look(self, worker: Worker) -> float:
        """Like the worker's own, but without the idle looks between."""
        now = self.now
        times = [app.due for app in self.waiting.values() if app.due > now and app.holder is None]
        times += [t for one in worker.restraints.values() if (t := one.opens_at(now)) is not None]
        return min(times, default=now + 3600.0) + self.random.uniform(0.001, LOOK)

    def _claim_one(self, worker: Worker) -> bool:
        app = self._claimable(worker)
        if app is None:
            return False
        restraint, now = worker.restraints[app.account], self.now
        probes_at = restraint.breaker.probes_at(now)
        assert probes_at is None or (probes_at <= now and not restraint.under_way), "claimed while open, and no probe"
        assert restraint.under_way < self.accounts[app.account].most
        assert app.holder is None and app.state is State.RECEIVED
        app.token, app.attempt, app.holder = app.token + 1, app.attempt + 1, worker
        self.accounts[app.account].held += 1
        app.first = now if app.first is None else app.first
        key = (app.id, app.token)
        worker.jobs[key], worker.alone = app, app.crashes > 0
        restraint.claimed(key)
        self._read(worker, key)
        return True

    def _claimable(self, worker: Worker) -> App | None:
        """Fair between accounts, oldest due first, one of an applicant at a time, solo work with nothing beside it."""
        jobs, now = worker.jobs, self.now
        if len(jobs) >= worker.places:
            return None
        able = [a for a in self.heads.values() if a.due <= now and a.holder is None and not (a.crashes and jobs)]
        if not able:
            return None
        accounts, restraints = self.accounts, worker.restraints
        with_room = {name for name in {app.account for app in able} if restraints[name].room(now) > 0}
        able = [app for app in able if app.account in with_room]
        return min(able, key=lambda app: (accounts[app.account].held, app.due, app.id), default=None)

    def _read(self, worker: Worker, key: tuple[int, int]) -> None:
        """Reads the mail, which takes its time, and then calls; one in fifty is recognised, and needs no call."""
        life = worker.life
        needs_call = self.random.random() > 0.02
        if seconds := self.random.choice((0.0, 0.0, 3.0)):
            self._at(self.now + seconds, lambda: self._call(worker, life, key, needs_call))
        else:
            self._call(worker, life, key, needs_call)

    def _call(self, worker: Worker, life: int, key: tuple[int, int], needs_call: bool) -> None:
        if (
            worker.life != life
            or not worker.alive
            or self._put_off(worker, lambda: self._call(worker, life, key, needs_call))
        ):
            return
        if not needs_call:
            self._end(worker, life, key, None)
            return
        app = worker.jobs[key]
        account = self.accounts[app.account]
        assert key not in self._called, "called twice under one fencing token"
        self._called.add(key)
        worker.restraints[app.account].calling(key, self.now)
        self._note_call(worker, account, app)
        app.last_call = self.now
        if app.deadly:
            app.deadly -= 1
            self._kill(worker)
            return
        seconds, outcome = self._answer(account, app)
        self._at(self.now + seconds, lambda: self._end(worker, life, key, outcome))

    def _put_off(self, worker: Worker, act: Callable[[], None]) -> bool:
        if self.now < worker.stands_until:
            self._at(worker.stands_until, act)
            return True
        return False

    def _note_call(self, worker: Worker, account: Account, app: App) -> None:
        self.calls += 1
        life = (worker.number, worker.life)
        made = account.calls.setdefault(life, [])
        made.append(self.now)
        account.callers.setdefault(life, []).append(app.id)
        for rate in account.rates:
            within = len(made) - bisect_right(made, self.now - rate.seconds)
            assert within <= rate.count, f"{within} calls in {rate}"

    def _answer(self, account: Account, app: App) -> tuple[float, Outcome]:
        r, kind = self.random, account.trouble(self.now)
        if kind == "refused":
            return 0.01, REFUSED
        if kind == "hanging":
            return TIMEOUT, HANGING
        if kind == "busy":
            return 0.1, Again("retry-later", "429", r.uniform(0, 400), "ats")
        if kind == "erratic" and r.random() < 0.5:
            return r.uniform(0, 5), ERROR
        return r.uniform(0.01, 5), app.odd if self.now < app.odd_until else DONE

    # -- how an attempt ends

    def _end(self, worker: Worker, life: int, key: tuple[int, int], outcome: Outcome | None) -> None:
        if (
            worker.life != life
            or not worker.alive
            or self._put_off(worker, lambda: self._end(worker, life, key, outcome))
        ):
            return
        app = worker.jobs.pop(key)
        worker.alone = False
        jitter = self.random.random()
        if outcome is not None:
            worker.restraints[app.account].answered(key, outcome, self.now, jitter)
        worker.restraints[app.account].ended(key)
        if app.token == key[1] and app.holder is worker:
            self._settle(app, outcome)
        self._wake(worker, self.now)

    def _settle(self, app: App, outcome: Outcome | None) -> None:
        assert app.first is not None
        self._let_go(app)
        app.crashes = 0
        if not isinstance(outcome, Again):
            self._move(app, Event.RECOGNISE if outcome is None else Event.DELIVER)
            return
        schedule, wished = self.accounts[app.account].schedule, outcome.after
        due = next_attempt(
            schedule, attempt=app.attempt, first=app.first, now=self.now, jitter=self.random.random(), wished=wished
        )
        if due is None:
            assert self.now - app.first >= schedule.window
            assert self.now - app.last_call <= TIMEOUT + 4 * LEASE, "given up without a last try"
            self._move(app, Event.EXHAUST)
        else:
            assert due > self.now
            app.due = due

    def _let_go(self, app: App) -> None:
        app.holder = None
        self.accounts[app.account].held -= 1

    def _move(self, app: App, event: Event) -> None:
        app.state = after(app.state, event)
        del self.waiting[app.id], self.heads[app.id], app.line[0]
        if app.line:
            self.heads[app.line[0].id] = app.line[0]

    # -- what goes wrong

    def _kill(self, worker: Worker) -> None:
        worker.alive = False
        for app in worker.jobs.values():
            self._leave(app, worker)
        self._at(self.now + self.random.uniform(0.1, 30), lambda: self._born(worker))

    def _stand_still(self, worker: Worker, seconds: float) -> None:
        """The process is stopped, or cut off from the spool: it cannot renew, and goes on later as if nothing had been."""
        if not worker.alive:
            return
        worker.stands_until = self.now + seconds
        if seconds > LEASE:
            for app in worker.jobs.values():
                self._leave(app, worker)

    def _leave(self, app: App, worker: Worker) -> None:
        """Nobody renews the lease any more: it is reaped when it has run out."""
        if app.holder is worker:
            token = app.token
            self._at(self.now + self.random.uniform(LEASE / 3, LEASE) + LOOK, lambda: self._reap(app, token))

    def _reap(self, app: App, token: int) -> None:
        if app.token != token or app.holder is None:
            return
        self._let_go(app)
        app.token, app.crashes, app.due = app.token + 1, app.crashes + 1, self.now
        if is_crash_loop(app.crashes):
            self._move(app, Event.HOLD)

    # -- the end

    def check_end(self) -> None:
        """Nothing waits for ever, nothing is lost, and an ATS that is away is left in peace."""
        assert not self.waiting
        for app in self.apps:
            assert app.state in (State.DELIVERED, State.DUPLICATE, State.FAILED, State.HELD)
        for account in self.accounts.values():
            for begin, end, kind in account.outages:
                if account.caution.failures and kind in ("refused", "hanging") and not self.stood_still:
                    self._check_peace(account, begin + SLOWEST, end)

    @staticmethod
    def _check_peace(account: Account, begin: float, end: float) -> None:
        """Once so many different applications got no verdict, a life of a worker makes only the calls that it has begun by
        then, or begins until it hears of them, and one probe a wait. Told from the calls alone, as the ATS sees them."""
        waits = account.caution.wait.waits
        for life, made in account.calls.items():
            seen: set[int] = set()
            for at in range(bisect_left(made, begin), bisect_left(made, end)):
                seen.add(account.callers[life][at])
                if len(seen) < account.caution.failures:
                    continue
                calls, span = bisect_left(made, end) - at - 1, end - made[at]
                probes = len(waits) + 1 + max(0.0, span - sum(waits)) / waits[-1]
                if span < sum(waits):
                    probes = sum(sum(waits[:n]) <= span for n in range(1, len(waits) + 1))
                assert calls <= 2 * account.most + probes, (calls, probes)
                break
