"""Whatever happens in whatever order: what waits is never erased, nothing is worked on twice at once (invariants 4, 6)."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apptrack_ingest.errors import NotAllowed, NotFound
from apptrack_ingest.lifecycle import BY_A_PERSON, Event
from apptrack_ingest.model import Arrival, Envelope, HeldReason, Message, Report, ReportState, ReportStatus, State
from apptrack_ingest.spool.contract import (
    Action,
    Claim,
    Filter,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Spool,
    Story,
)

Database = Callable[[Path], AbstractAsyncContextManager[Callable[[], Awaitable[Spool]]]]
LEASE = 50.0
OUTCOMES = [*sorted(set(Event) - BY_A_PERSON), Event.HOLD]
WAITS = {State.RECEIVED, State.HELD, State.REJECTED, State.FAILED}
REPORT_WAITS = {ReportState.DUE, ReportState.REFUSED, ReportState.FAILED}


class History:
    """Does one random thing after another to a spool and looks at what must hold after each."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.now = 1000.0
        self.claims: list[Claim] = []
        self.sending: list[ReportClaim] = []

    async def stories(self) -> list[Story]:
        return [await self.spool.story(s.application_id) for s in await self.spool.find(Filter(limit=1000))]

    async def put(self, n: int) -> None:
        arrivals = [Arrival("acme", 1 + n % 2, True)] + [Arrival("blue", 1, True)] * (n % 3 == 0)
        await self.spool.put(Message(Envelope("", (), "192.0.2.1"), self.now, b"%d" % n), arrivals)

    async def claim(self, n: int) -> None:
        options = {"worker": "w", "now": self.now, "lease": LEASE}
        self.claims += await self.spool.claim(limit=1 + n % 3, solo=n % 4 == 0, **options)  # type: ignore[arg-type]
        self.sending += await self.spool.claim_reports(limit=1 + n % 3, accounts=["acme"], **options)  # type: ignore[arg-type]

    async def settle(self, n: int) -> None:
        if not self.claims:
            return
        claim, event = self.claims.pop(n % len(self.claims)), OUTCOMES[n % len(OUTCOMES)]
        report = Report(claim.applicant_id or 0, ReportStatus.SUCCESS, self.now) if n % 2 else None
        reason = HeldReason.UNREADABLE if event is Event.HOLD else None
        await self.spool.settle(
            claim, Settlement(event, "c", reason=reason, due_at=self.now + n % 40, report=report), now=self.now
        )

    async def settle_report(self, n: int) -> None:
        if self.sending:
            claim, state = self.sending.pop(n % len(self.sending)), list(ReportState)[n % len(ReportState)]
            await self.spool.settle_report(claim, ReportSettlement(state, "c", refused=n % 2 == 0), now=self.now)

    async def decide(self, n: int) -> None:
        if found := await self.spool.find(Filter(limit=1000)):
            application, event = found[n % len(found)], sorted(BY_A_PERSON)[n % len(BY_A_PERSON)]
            with suppress(NotAllowed):
                await self.spool.act(application.application_id, Action(event, "jo"), now=self.now)
            for report in (await self.spool.story(application.application_id)).reports:
                with suppress(NotAllowed):
                    await self.spool.retry_report(report.report_id, actor="jo", note="", now=self.now)

    async def wait(self, n: int) -> None:
        """Time passes; every third time somebody's lease runs out."""
        self.now += n % 20
        if n % 3 == 0:
            self.now += LEASE
            await self.spool.reap(now=self.now, reports_for=["acme"])
            self.claims, self.sending = [], []

    async def erase(self, n: int) -> None:
        stories = await self.stories()
        waiting = {s.summary.message_id for s in stories if _waits(s)}
        lately = {s.summary.message_id for s in stories if (s.summary.settled_at or 0) >= self.now - n % 100}
        count = await self.spool.erase_finished(before=self.now - n % 100, limit=1000)
        everything = {s.summary.message_id for s in stories}
        gone = {message_id for message_id in everything if await self._is_gone(message_id)}
        assert not gone & waiting
        already = {s.summary.message_id for s in stories if s.erased}
        assert count == len(gone - already)
        assert not (gone - already) & lately

    async def _is_gone(self, message_id: int) -> bool:
        try:
            await self.spool.raw(message_id)
        except NotFound:
            return True
        return False

    async def look(self) -> None:
        stories = await self.stories()
        in_work = Counter((s.summary.account, s.summary.applicant_id) for s in stories if s.summary.in_work)
        assert set(in_work.values()) <= {1}
        open_reports = Counter(
            (s.summary.account, r.report.applicant_id) for s in stories for r in s.reports if r.state in REPORT_WAITS
        )
        assert set(open_reports.values()) <= {1}
        for story in stories:
            assert (story.summary.due_at is not None) == (story.summary.state is State.RECEIVED)
            assert not (story.erased and _waits(story))


def _waits(story: Story) -> bool:
    return story.summary.state in WAITS or any(report.state in REPORT_WAITS for report in story.reports)


STEPS = [History.put, History.claim, History.settle, History.settle_report, History.decide, History.wait, History.erase]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 10**4)), min_size=5, max_size=40))
def test_in_any_history_nothing_that_waits_is_erased_and_nothing_is_done_twice_at_once(
    database: Database, steps: list[tuple[Callable[[History, int], Awaitable[None]], int]]
) -> None:
    async def live() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with database(Path(directory)) as another:
                history = History(await another())
                for step, number in steps:
                    await step(history, number)
                    await history.look()

    asyncio.run(live())
