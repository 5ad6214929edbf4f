"""Whatever happened to deliveries, reports, workers and idibu: after `reconcile --fix` ledger and idibu agree.

`RECONCILE_HISTORIES=1000 pytest tests/unit/reconcile/test_agreement.py` plays more of them.
"""

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reconciled import HOUR, Reconciled, opened

from apptrack_ingest import RetryLater
from apptrack_ingest.errors import NotAllowed
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.lifecycle import Event, report_of
from apptrack_ingest.model import Accepted, Rejected, ReportState, ReportStatus, State
from apptrack_ingest.reconcile import Kind
from apptrack_ingest.spool.contract import Action, Filter

ACCOUNTS = ("acme", "beta")
APPLICANTS = (1, 2, 3)
FAULTS = (Fault.CLOSE, Fault.ERROR, Fault.HTML, Fault.EMPTY, Fault.FAILED, Fault.BUSY, Fault.UNAUTHORIZED)
JUMPS = (60.0, 600.0, HOUR, 30 * HOUR)
HISTORIES = int(os.environ.get("RECONCILE_HISTORIES", "20"))
SCHEDULE = 8 * 24
"""Hours after which every schedule is used up."""


class History:
    """Does one thing after another; `n` chooses among its variants."""

    def __init__(self, world: Reconciled) -> None:
        self.world = world
        self.texts = 0

    async def apply(self, n: int) -> None:
        self.texts += 1
        await self.world.apply(APPLICANTS[n % 3], ACCOUNTS[n % 2], text=f"text {self.texts}")

    async def verdict(self, n: int) -> None:
        steps = (Rejected(f"full {n}"), Accepted(f"ats-{n}"), Accepted(), RetryLater("later"), RuntimeError("boom"))
        self.world.handlers[ACCOUNTS[n % 2]]._script.append(steps[n % 5])

    async def work(self, n: int) -> None:
        await self.world.work()

    async def time(self, n: int) -> None:
        self.world.clock.time += JUMPS[n % 4]
        await self.world.work()

    async def fault(self, n: int) -> None:
        self.world.sandbox.misbehave(Step(fault=FAULTS[n % 7], saves=n % 2 == 0, times=1 + n % 3))

    async def outage(self, n: int) -> None:
        """Until every schedule is used up: reports fail, or are refused."""
        self.world.sandbox.misbehave(Step(fault=FAULTS[n % 6], times=None))
        for _ in range(SCHEDULE // 6):
            self.world.clock.time += 6 * HOUR
            await self.world.work()
        self.world.sandbox.misbehave()

    async def overwrite(self, n: int) -> None:
        self.world.write(APPLICANTS[n % 3], "success" if n % 4 < 2 else "fail", f"theirs-{n}", ACCOUNTS[n % 2])

    async def lose(self, n: int) -> None:
        self.world.sandbox.store.lose(ACCOUNTS[n % 2], APPLICANTS[n % 3])

    async def kill(self, n: int) -> None:
        """The worker dies amid whatever is due: with a report on its way, which idibu may have taken, or before."""
        sandbox = self.world.sandbox
        sandbox.misbehave(Step(fault=Fault.HANG, saves=n % 2 == 0))
        asked = len(sandbox.requests())
        await self.world.worker.step()
        with contextlib.suppress(TimeoutError):
            await sandbox.wait_until(lambda _: len(sandbox.requests()) > asked, timeout=0.05)
        await self.world.kill()
        sandbox.misbehave()

    async def person(self, n: int) -> None:
        """Somebody retries, discards or hands over again whatever allows it."""
        rows = await self.world.spool.find(Filter(limit=12))
        if not rows:
            return
        row, event = rows[n % len(rows)], (Event.RETRY, Event.DISCARD, Event.AGAIN, Event.HOLD)[n % 4]
        after = {Event.DISCARD: State.DISCARDED, Event.HOLD: State.HELD}.get(event)
        now = self.world.clock.time
        report = after and report_of(after, applicant_id=row.applicant_id, believed=True, now=now, words="by jo")
        with contextlib.suppress(NotAllowed):
            await self.world.spool.act(row.application_id, Action(event, "jo", report=report), now=now)

    async def reconcile(self, n: int) -> None:
        """In the middle of it all, whatever idibu answers."""
        await self.world.fix(ACCOUNTS[n % 2])

    # -- the end

    async def settle(self) -> None:
        """Idibu and the ATS are well, and time passes until nothing is due any more."""
        self.world.sandbox.misbehave()
        for _ in range(SCHEDULE):
            self.world.clock.time += HOUR
            await self.world.work()
            waits = Filter(states=(State.RECEIVED,)), Filter(report_states=(ReportState.DUE,))
            if not [row for wanted in waits for row in await self.world.spool.find(wanted)]:
                return
        raise AssertionError("something is due for ever")

    async def check(self) -> None:
        for account in ACCOUNTS:
            ours = {one.report.applicant_id: one for one in await self.world.spool.outcomes(account, APPLICANTS)}
            for applicant_id, one in ours.items():
                assert one.state is ReportState.CONFIRMED, one
                status, remote_id, message = self.world.shown(applicant_id, account) or ("", "", "")
                assert status == one.report.status
                if one.report.status is ReportStatus.SUCCESS:
                    assert remote_id == (one.report.remote_id or "")
                else:
                    assert message == one.report.error_message
            found = await self.world.found(account)
            assert {kind for kind, _ in found} <= {Kind.NOT_OURS, Kind.NO_MAIL}, found
            assert not {applicant_id for _, applicant_id in found} & set(ours)
            sent = {
                r.applicant_id for r in self.world.sandbox.requests() if r.account == account and r.data is not None
            }
            assert sent <= set(ours), "what we did not handle was touched"


STEPS = [name for name in vars(History) if not name.startswith("_") and name not in ("settle", "check")]


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 41)), min_size=3, max_size=16))
@example([("apply", 0), ("work", 0), ("overwrite", 0)])
@example([("apply", 0), ("work", 0), ("lose", 0)])
@example([("apply", 0), ("outage", 0)])
@example([("verdict", 0), ("apply", 0), ("outage", 4), ("overwrite", 2), ("reconcile", 0)])
@example([("apply", 0), ("kill", 0), ("overwrite", 0), ("kill", 1), ("apply", 0), ("lose", 0)])
def test_ledger_and_idibu_agree_after_any_history_and_a_fix(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with opened(Path(directory)) as world:
                history = History(world)
                for name, n in steps:
                    await getattr(history, name)(n)
                await history.settle()
                for account in ACCOUNTS:
                    await world.fix(account)
                await history.settle()
                await history.check()

    asyncio.run(play())
