"""One random history of applications, workers that die and stand still, and ATSs that go away, in no time at all.

The rules are the product's own (`lifecycle`, `Restraint` with its breaker and quotas); the spool, the workers' loops, the
ATSs and the clock are models in a few lines each, driven by a heap of events. Everything follows from the seed. What must
hold is asserted where it could break, and `check_end` says what must have become of each application.
"""

from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush

from simulation.dealings import Dealings, Line
from simulation.parts import (
    CAUTIONS,
    DONE,
    ERROR,
    HANGING,
    LEASE,
    LOOK,
    NEVER,
    NOT_YET,
    RATES,
    REFUSED,
    SCHEDULES,
    SLOWEST,
    TIMEOUT,
    WAKES_AT,
    WANTED,
    Account,
    App,
    Dice,
    Worker,
)

from apptrack_ingest.handoff import Again, Outcome
from apptrack_ingest.lifecycle import Event, after, is_crash_loop, next_attempt
from apptrack_ingest.model import State


class History:
    """A random history; `run` plays it to its end."""

    def __init__(self, seed: int) -> None:
        self.random = Dice(seed)
        self.now, self._order = 0.0, 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.calls = 0
        self._called: set[tuple[int, int]] = set()
        r = self.random
        self.crowd = r.random() < 0.002  # dear: one costs as much as a hundred others
        self.rush = not self.crowd and r.random() < 0.01  # so many at once that some are claimed ahead
        self.accounts = {name: self._account(name) for name in "ab"[: 1 if self.rush else r.randint(1, 2)]}
        many = 40 if self.crowd else 16 if self.rush else r.choice((1, 1, 2, 2, 3, 8))
        self.apps = [self._app(number) for number in range(many)]
        self.waiting = {app.id: app for app in self.apps}
        self.heads = self._lines()
        self.workers = [
            Worker(number, r.choice((8, 12) if self.rush else (1, 3, 8))) for number in range(r.choice((1, 1, 1, 2, 3)))
        ]
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
        if self.rush:
            return Account(name, r.choice(SCHEDULES), r.choice(CAUTIONS), (), r.randint(4, 6), [])
        outages, begin = [], 0.0
        for _ in range(r.choice((0, 1, 1, 2, 4))):
            begin += r.choice((0.0, r.uniform(0, 120)))
            end = begin + r.choice((10, 60, 600, 7200, 9 * 86400) if r.random() < 0.2 else (5, 30, 300)) * r.random()
            outages.append((begin, end, r.choice(("refused", "hanging", "busy", "erratic"))))
            begin = end
        return Account(name, r.choice(SCHEDULES), r.choice(CAUTIONS), r.choice(RATES), r.randint(1, 6), outages)

    def _app(self, number: int) -> App:
        r = self.random
        applicant = number if self.crowd or self.rush else r.randint(1, 20)
        app = App(
            number,
            r.choice("ab"[: len(self.accounts)]),
            applicant,
            r.choice((0.0, 0.0 if self.rush else r.uniform(0, 900))),
        )
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
        heappush(self._events, (time, self._order, act))

    def run(self) -> "History":
        """Plays until nothing waits any more; time is given for a hundred days."""
        events, workers = self._events, self.workers
        while self.waiting:
            worker = workers[0] if len(workers) == 1 else min(workers, key=WAKES_AT)
            if events and events[0][0] <= worker.wakes_at:
                self.now, _, act = heappop(events)
                act()
            else:
                self.now = worker.wakes_at
                self._look(worker)
            assert self.now < 100 * 86400, f"stuck: {list(self.waiting.values())}"
        events.clear()  # what refers back to here: nothing is left for the garbage collection
        return self

    # -- the workers' loop

    def _born(self, worker: Worker) -> None:
        worker.life, worker.alive, worker.alone = worker.life + 1, True, False
        worker.jobs, worker.dealings, worker.line = {}, {}, None
        worker.wakes_at = self.now

    def _dealings(self, worker: Worker, name: str) -> Dealings:
        """Of this life of the worker with the account; begun where there is work of it, for many a life never sees any."""
        if name not in worker.dealings:
            account = self.accounts[name]
            if worker.line is None:
                worker.line = Line({one.name: one.most for one in self.accounts.values()})
            worker.dealings[name] = Dealings(name, account.most, account.rates, account.caution, worker.line)
            account.dealings.append(worker.dealings[name])
        return worker.dealings[name]

    def _look(self, worker: Worker) -> None:
        if self.now < worker.stands_until:
            worker.wakes_at = worker.stands_until
            return
        while worker.alive and not worker.alone and (app := self._claimable(worker)):
            self._claim(worker, app)
        worker.wakes_at = self._next_look(worker) if worker.alive else NEVER

    def _next_look(self, worker: Worker) -> float:
        """Like the worker's own, but without the idle looks between: what is due before its account opens waits for that,
        and where nothing is due in an account, its opening needs no look."""
        now, next_at = self.now, NEVER
        first: dict[str, float] = {}
        for app in self.heads.values():
            if app.holder is None and app.due < first.get(app.account, NEVER):
                first[app.account] = app.due
        for name, due in first.items():
            if due < next_at:
                one = worker.dealings.get(name)
                opens_at = one.restraint.opens_at(now) if one else None
                at = due if opens_at is None or opens_at < due else opens_at
                if now < at < next_at:
                    next_at = at
        return (next_at if next_at < NEVER else now + 3600.0) + 0.001 + LOOK * self.random.random()

    def _claim(self, worker: Worker, app: App) -> None:
        now = self.now
        assert app.holder is None and app.state is State.RECEIVED
        app.token, app.attempt, app.holder = app.token + 1, app.attempt + 1, worker
        self.accounts[app.account].held += 1
        app.first = now if app.first is None else app.first
        key = (app.id, app.token)
        worker.jobs[key], worker.alone = app, app.crashes > 0
        worker.dealings[app.account].claimed(key, now)
        self._read(worker, key)

    def _claimable(self, worker: Worker) -> App | None:
        """Fair between accounts, oldest due first, one of an applicant at a time, solo work with nothing beside it."""
        now, jobs = self.now, worker.jobs
        if len(jobs) >= worker.places:
            return None
        able = [a for a in self.heads.values() if a.due <= now and a.holder is None and not (a.crashes and jobs)]
        if len(able) > 1:
            accounts = self.accounts
            able.sort(key=lambda app: (accounts[app.account].held, app.due, app.id))
        full = ""
        for app in able:
            if app.account != full:
                if self._dealings(worker, app.account).restraint.room(now):
                    return app
                full = app.account
        return None

    def _read(self, worker: Worker, key: tuple[int, int]) -> None:
        """Reads the mail, which takes its time, and then calls; one in fifty is recognised, and needs no call."""
        life = worker.life
        needs_call = self.random.random() > 0.02
        if seconds := self.random.choice((0.0, 0.0, 3.0)):
            self._at(self.now + seconds, lambda: self._call(worker, life, key, needs_call))
        else:
            self._call(worker, life, key, needs_call)

    def _call(self, worker: Worker, life: int, key: tuple[int, int], needs_call: bool) -> None:
        if worker.life != life or not worker.alive:
            return
        if self.now < worker.stands_until:
            self._at(worker.stands_until, lambda: self._call(worker, life, key, needs_call))
            return
        if not needs_call:
            self._end(worker, life, key, None)
            return
        worker.dealings[worker.jobs[key].account].turn(key, lambda: self._turn(worker, life, key))

    def _turn(self, worker: Worker, life: int, key: tuple[int, int]) -> None:
        if worker.life != life or not worker.alive:
            return
        app = worker.jobs[key]
        account = self.accounts[app.account]
        assert key not in self._called, "called twice under one fencing token"
        self._called.add(key)
        worker.dealings[app.account].calling(key, self.now)
        self.calls += 1
        app.last_call = self.now
        if app.deadly:
            app.deadly -= 1
            self._kill(worker)
            return
        seconds, outcome = self._answer(account, app)
        self._at(self.now + seconds, lambda: self._end(worker, life, key, outcome))

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
        if worker.life != life or not worker.alive:
            return
        if self.now < worker.stands_until:
            self._at(worker.stands_until, lambda: self._end(worker, life, key, outcome))
            return
        app = worker.jobs.pop(key)
        worker.alone = False
        for other in worker.dealings[app.account].ended(key, outcome, self.now, self.random.random()):
            self._give_back(worker, other)
        if app.token == key[1] and app.holder is worker:
            self._settle(app, outcome)
        worker.wakes_at = self.now

    def _give_back(self, worker: Worker, key: tuple[int, int]) -> None:
        """What was claimed ahead and not handed over: no attempt."""
        app = worker.jobs.pop(key)
        if app.token == key[1] and app.holder is worker:
            self._let_go(app)
            app.attempt -= 1
            app.first = app.first if app.attempt else None

    def _settle(self, app: App, outcome: Outcome | None) -> None:
        assert app.first is not None
        self._let_go(app)
        app.crashes = 0
        if not isinstance(outcome, Again):
            self._move(app, Event.RECOGNISE if outcome is None else Event.DELIVER)
            return
        account, wished = self.accounts[app.account], outcome.after
        waits, now = account.schedule.waits, self.now
        due = next_attempt(
            account.schedule,
            attempt=app.attempt,
            first=app.first,
            now=now,
            jitter=self.random.random(),
            wished=wished,
        )
        if wished is None:
            least = waits[app.attempt - 1] if app.attempt < len(waits) else waits[-1]
            self._check_due(app, account.window, now, least, 1.2 * least, due)
        else:
            self._check_due(app, account.window, now, max(1.0, wished), 1.1 * max(1.0, wished), due)
        if due is None:
            assert self.now - app.last_call <= TIMEOUT + 4 * LEASE, "given up without a last try"
            self._move(app, Event.EXHAUST)
        else:
            app.due = due

    @staticmethod
    def _check_due(app: App, window: float, now: float, least: float, most: float, due: float | None) -> None:
        """The next attempt is as far away as the schedule or the ATS says, with some more at random, and never beyond the
        window; one gives up when that is over, and only then."""
        assert app.first is not None
        assert (due is None) == (now - app.first >= window), "given up too early or too late"
        if due is not None:
            end = app.first + window
            assert due >= now + least - 1e-3 or due >= end - 1e-3, "due too early"
            assert due <= now + most + 1e-3 and (due <= end + 1e-3 or due <= now + 1.0), "due too late"

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
        worker.alive, worker.wakes_at = False, NEVER
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
        assert is_crash_loop(app.crashes) == (app.crashes > 3), "an attempt and three alone"
        if app.crashes > 3:
            self._move(app, Event.HOLD)
        for worker in self.workers:
            if worker.alive and worker.wakes_at > self.now + LOOK:
                worker.wakes_at = self.now + self.random.uniform(0.001, LOOK)

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
        then, or begins until it hears of them, and one probe a wait. Told from the calls alone, as the ATS
        sees them."""
        waits = account.caution.wait.waits
        for made, callers in ((one.calls, one.callers) for one in account.dealings):
            seen: set[int] = set()
            for at in range(bisect_left(made, begin), bisect_left(made, end)):
                seen.add(callers[at])
                if len(seen) < account.caution.failures:
                    continue
                calls, span = bisect_left(made, end) - at - 1, end - made[at]
                probes = len(waits) + 1 + max(0.0, span - sum(waits)) / waits[-1]
                if span < sum(waits):
                    probes = sum(sum(waits[:n]) <= span for n in range(1, len(waits) + 1))
                assert calls <= 2 * account.most + probes, (calls, probes)
                break
