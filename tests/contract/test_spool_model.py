"""Asks every database what it asks the model (spool_model.py), in histories that hypothesis thinks of, and wants the same.

Two handles stand for two processes. A step's details come from its seed, so that a short list of steps is a dense history;
one that fails is told call by call. MODEL_EXAMPLES sets how many histories are tried, and has one that fails shortened,
which takes minutes; without it there are as many as a few seconds allow.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from contract.spool_model import Model
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from apptrack_ingest.errors import LeaseLost, NotAllowed, NotFound
from apptrack_ingest.lifecycle import BY_A_PERSON, TRANSITIONS, EarlyRule, Event
from apptrack_ingest.model import (
    Arrival,
    Envelope,
    HeldReason,
    Message,
    Report,
    ReportState,
    ReportStatus,
    Stage,
    State,
)
from apptrack_ingest.spool.contract import (
    Action,
    Claim,
    EarlyReport,
    Facts,
    Filter,
    Order,
    OrderRecord,
    Pause,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Spool,
)

T = TypeVar("T")
Database = Callable[[Path], AbstractAsyncContextManager[Callable[[], Awaitable[Spool]]]]

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "25"))
PHASES = [phase for phase in Phase if phase is not Phase.shrink or "MODEL_EXAMPLES" in os.environ]
LENGTH = 40
"""The most steps of a history."""
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where a file costs no waiting for a disk: what is asked here is not whether a commit lasts."""

LEASE = 50.0
ACCOUNTS = ("acme", "blue")
WORKERS = ("w1", "w2")
OUTCOMES = (*sorted(set(Event) - BY_A_PERSON), Event.DELIVER, Event.POSTPONE, Event.HOLD, Event.RETRY)
REASONS = (HeldReason.UNTRUSTED, HeldReason.UNTRUSTED, HeldReason.UNREADABLE)
REFUSALS = (LeaseLost, NotAllowed, NotFound)

# --- details ------------------------------------------------------------------------------------------------------


class Chance(Random):
    """Chooses a step's details."""

    def maybe(self, value: T) -> T | None:
        return value if self.random() < 0.5 else None

    def some(self, values: tuple[T, ...]) -> list[T]:
        return self.sample(values, self.randint(0, len(values)))

    def seldom(self) -> bool:
        return self.random() < 0.2

    def at(self) -> float:
        return float(self.randint(1000, 1400))

    def applicant(self) -> int | None:
        return self.choice([1, 1, 2, None])

    def arrivals(self) -> list[Arrival]:
        accounts = ("acme", "acme", "blue", None)
        return [
            Arrival(self.choice(accounts), self.applicant(), self.random() < 0.7, "by address")
            for _ in range(self.randint(1, 4))
        ]

    def facts(self) -> Facts:
        return Facts(
            client_reference=self.maybe("REF-1"),
            candidate_name=self.maybe("Jürgen Groß"),
            candidate_email=self.maybe("jg@X.example"),
            portal_name=self.maybe("Seek"),
            content_digest=self.choice(["v1:aa", "v1:bb"]),
            warnings=self.choice([(), ("one",)]),
        )

    def report(self) -> Report:
        status = self.choice(list(ReportStatus))
        return Report(self.randint(1, 2), status, 1000.0, remote_id=self.maybe("ats-1"), error_message=self.maybe("no"))

    def settlement(self, now: float) -> Settlement:
        event = self.choice(OUTCOMES)
        return Settlement(
            event,
            "code",
            self.choice(["", "words"]),
            facts=self.maybe(self.facts()),
            applicant_id=self.applicant() if self.seldom() else None,
            remote_id=self.maybe("ats-1"),
            reason=self.choice(REASONS) if event is Event.HOLD else None,
            due_at=self.maybe(now + self.randint(-10, 40)),
            report=self.maybe(self.report()),
            counts=not self.seldom(),
            trust=(self.random() < 0.5, "by signature") if self.seldom() else None,
            early=EarlyReport(self.report(), now + self.randint(1, 60)) if self.seldom() else None,
        )

    def early_rule(self) -> EarlyRule:
        return EarlyRule(self.random() < 0.5, self.maybe(float(self.randint(1, 60))), float(self.randint(1, 90)))

    def report_settlement(self, now: float) -> ReportSettlement:
        return ReportSettlement(
            self.choice(list(ReportState)),
            "code",
            self.choice(["", "words"]),
            due_at=self.maybe(now + self.randint(-10, 40)),
            refused=self.random() < 0.5,
            counts=not self.seldom(),
        )

    def filter(self) -> Filter:
        given = {
            "states": tuple(self.some((State.RECEIVED, State.DELIVERED, State.HELD))),
            "reasons": tuple(self.some((HeldReason.UNTRUSTED, HeldReason.CRASH_LOOP))),
            "report_states": tuple(self.some((ReportState.DUE, ReportState.FAILED))),
            "account": self.choice([*ACCOUNTS, ""]),
            "applicant_id": self.randint(1, 2),
            "client_reference": "REF-1",
            "candidate": self.choice(["GROSS", "x.example", "%"]),
            "portal": "Seek",
            "since": self.at(),
            "until": self.at(),
            "unread": True,
            "before_id": self.randint(0, 20),
            "after_id": self.randint(0, 20),
            "oldest_first": True,
        }
        chosen = self.sample(sorted(given), self.randint(0, 3))
        return Filter(**{name: given[name] for name in chosen}, limit=self.randint(1, 5))


# --- steps --------------------------------------------------------------------------------------------------------


async def asked(spool: Spool, method: str, *arguments: Any, **options: Any) -> Any:
    """The spool's answer; `put` gives something to wait for that is made in the running loop."""
    return await getattr(spool, method)(*arguments, **options)


class Same(RuleBasedStateMachine):
    """One history, lived through by a database and by the model at once."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.closing = AsyncExitStack()
        self.handles: list[Spool] = self.runner.run(self._open(database))
        self.model = Model(clock=5000.0)  # as conftest.py has it
        self.now = 1000.0
        self.claims: list[Claim] = []
        self.sending: list[ReportClaim] = []
        self.calls = 0

    async def _open(self, database: Database) -> list[Spool]:
        directory = self.closing.enter_context(tempfile.TemporaryDirectory(dir=MEMORY))
        another = await self.closing.enter_async_context(database(Path(directory)))
        return [await another(), await another()]

    def same(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Asks both, wants the same answer or refusal, and gives it."""
        self.calls += 1
        spool = self.handles[self.calls % len(self.handles)]
        note(f"{method} {arguments or ''} {options or ''}")
        wanted = self._answer(lambda: getattr(self.model, method)(*arguments, **options))
        found = self._answer(lambda: self.runner.run(asked(spool, method, *arguments, **options)))
        assert found == wanted, method
        return found

    @staticmethod
    def _answer(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except REFUSALS as refusal:
            return type(refusal)

    def time_passes(self, chance: Chance) -> None:
        self.now += chance.choice([0.0, 0.0, 1.0, 20.0, LEASE])

    @rule(seed=st.integers(0, 2**16))
    def step(self, seed: int) -> None:
        """One of STEPS; its details differ from those of an equal seed before it."""
        chance = Chance(f"{seed} {self.calls}")
        [step] = chance.choices(list(STEPS), list(STEPS.values()))
        step(self, chance)

    def put(self, chance: Chance) -> None:
        envelope = Envelope("bounce@idibu.example", ("cv@acme.example",), "192.0.2.1", "mx")
        message = Message(envelope, self.now, chance.randbytes(3), ("SPF: pass",), ("bare LF",))
        self.same("put", message, chance.arrivals())
        self.time_passes(chance)

    def hand_off(self, chance: Chance) -> None:
        """Claims, settles most, and stays on the rest."""
        options = {"worker": chance.choice(WORKERS), "lease": LEASE, "limit": chance.choice([4, 4, 2, 0])}
        options["solo"] = chance.random() < 0.3
        if chance.seldom():
            options["room"] = {account: chance.randint(0, 2) for account in chance.some((*ACCOUNTS, ""))}
        if chance.seldom():
            options["untrusted"] = chance.randint(0, 2)
        claimed = self.same("claim", now=self.now, **options)
        self.time_passes(chance)
        for claim in claimed:
            self.same("to_work_on", claim)
            if chance.seldom():
                self.claims.append(claim)
            else:
                self.same("settle", claim, chance.settlement(self.now), now=self.now)

    def settle_late(self, chance: Chance) -> None:
        """Whoever held these may have lost them; some are settled once more, later, which is refused."""
        self.same("renew", chance.some((*self.claims, *self.sending)), now=self.now, lease=LEASE)
        for claim in self.claims[:2]:
            self.same("settle", claim, chance.settlement(self.now), now=self.now)
        for claim in self.sending[:2]:
            self.same("settle_report", claim, chance.report_settlement(self.now), now=self.now)
        if not chance.seldom():
            self.claims, self.sending = self.claims[2:], self.sending[2:]

    def die(self, chance: Chance) -> None:
        """A worker dies of whatever it is given, again and again, or only its leases run out."""
        worker, reports_for = chance.choice(WORKERS), chance.choice([ACCOUNTS, ("blue",)])
        for number in range(chance.choice([1, 1, 2, 5])):
            claimed = self.same("claim", worker=worker, now=self.now, lease=LEASE, limit=2, solo=number > 0)
            self.claims += claimed[:1] if chance.seldom() else []
            if chance.random() < 0.7:
                self.same("abandon", worker, now=self.now)
            else:
                self.time_passes(chance)
            self.same("reap", now=self.now, reports_for=reports_for)

    def report(self, chance: Chance) -> None:
        options = {"worker": chance.choice(WORKERS), "lease": LEASE, "limit": chance.choice([4, 4, 1])}
        claimed = self.same("claim_reports", now=self.now, accounts=chance.choice([ACCOUNTS, ("acme",)]), **options)
        self.time_passes(chance)
        for claim in claimed:
            if chance.seldom():
                self.sending.append(claim)
            else:
                self.same("settle_report", claim, chance.report_settlement(self.now), now=self.now)

    def report_waiting(self, chance: Chance) -> None:
        account, rule = chance.choice(ACCOUNTS), chance.early_rule()
        self.same("report_waiting", account, rule, now=self.now, limit=chance.choice([1, 5, 5]))

    def pause_or_resume(self, chance: Chance) -> None:
        account, stage, actor = chance.choice(ACCOUNTS), chance.choice(list(Stage)), chance.choice(["", "jo"])
        if chance.random() < 0.3:
            until = chance.maybe(self.now + chance.randint(0, 60))
            self.same("pause", Pause(account, stage, "because", self.now, until, "f1", actor))
        else:
            self.same("resume", account, stage, now=self.now, actor=actor, note="because")
        self.time_passes(chance)
        if chance.random() < 0.5:
            self.same("end_pauses", now=self.now)

    def decide(self, chance: Chance) -> None:
        """About any application, and seldom about one that there is not; mostly what its state allows."""
        number = chance.randint(1, len(self.model.applications) + 1)
        row = self.model.applications.get(number)
        possible = [e for s, e in TRANSITIONS if row is not None and s is row.state and e in BY_A_PERSON]
        event = chance.choice(possible if possible and not chance.seldom() else list(Event))
        action = Action(event, "jo", "because", order_id=chance.maybe(1))
        if event is Event.ROUTE:
            action = replace(action, account=chance.choice(ACCOUNTS), applicant_id=chance.applicant())
        if event is Event.DISCARD:
            action = replace(action, report=chance.maybe(chance.report()))
        self.same("act", number, action, now=self.now)

    def decide_about_reports(self, chance: Chance) -> None:
        for number in range(1, len(self.model.reports) + 2):
            if chance.random() < 0.5:
                method = chance.choice(["retry_report", "drop_report", "tell_again"])
                self.same(method, number, actor="jo", note="because", now=self.now)

    def reparse_and_order(self, chance: Chance) -> None:
        if self.model.applications:
            number = chance.randint(1, len(self.model.applications))
            self.same("update_facts", number, chance.facts(), chance.applicant() if chance.seldom() else None)
        order = Order("retry", "jo", chance.maybe("acme"), "state failed", "because")
        self.same("end_order", self.same("begin_order", order, now=self.now), done=2, refused=1, now=self.now)

    def erase(self, chance: Chance) -> None:
        before = self.now - chance.randint(-50, 50)
        if chance.random() < 0.5:
            self.same("erase_finished", before=before, limit=chance.randint(1, 3))
        else:
            self.same("discard_untrusted", before=before, limit=100, now=self.now)

    # -- what there is to see

    def look(self, chance: Chance) -> None:
        for method in ("outcomes", "arrived"):
            self.same(method, chance.choice(["acme", "blue"]), range(1, 8))
        for _ in range(3):
            wanted = chance.filter()
            self.same("find", wanted)
            self.same("count", wanted)
        self.same("delivered_before", chance.choice(ACCOUNTS), chance.randint(1, 2))
        full, untrusted = chance.some((*ACCOUNTS, "")), chance.random() < 0.5
        self.same("next_due", now=self.now, accounts=chance.some(ACCOUNTS), full=full, untrusted=untrusted)
        self.same("take_mark", "digest", self.now, after=self.now - chance.randint(0, 30))

    @invariant()
    def the_list_is_the_same(self) -> None:
        self.same("find", Filter(limit=1000))
        self.same("next_due", now=self.now, accounts=ACCOUNTS)

    def everything_is_the_same(self) -> None:
        for method in ("load", "pauses"):
            self.same(method)
        self.same("mark", "digest")
        found = self.runner.run(self.handles[0].backlog())
        assert replace(found, size_bytes=0) == self.model.backlog()
        orders = self.runner.run(self.handles[0].orders())
        assert [_without_subject(one) for one in orders] == [_without_subject(one) for one in self.model.orders()]
        for application_id in range(1, len(self.model.applications) + 2):
            self.same("story", application_id)
        for message_id in range(1, len(self.model.messages) + 2):
            self.same("raw", message_id)

    def teardown(self) -> None:
        try:
            self.everything_is_the_same()
        finally:
            self.runner.run(self.closing.aclose())
            self.runner.close()


STEPS: dict[Callable[[Same, Chance], None], int] = {
    Same.put: 3,
    Same.hand_off: 5,
    Same.report: 4,
    Same.report_waiting: 2,
    Same.settle_late: 2,
    Same.die: 1,
    Same.pause_or_resume: 2,
    Same.decide: 3,
    Same.decide_about_reports: 1,
    Same.reparse_and_order: 1,
    Same.erase: 2,
    Same.look: 1,
}
"""What may happen, and how often it does beside the others."""


def _without_subject(one: OrderRecord) -> OrderRecord:
    """A pause's is words for people."""
    return replace(one, order=replace(one.order, subject=""))


def test_a_spool_answers_as_the_model_does(database: Database) -> None:
    run_state_machine_as_test(
        lambda: Same(database),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=LENGTH,
            phases=PHASES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
