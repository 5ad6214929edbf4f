"""The worker's loop: claims what is due, keeps the leases, works alone what must be alone, drains at the end."""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any

from apptrack_ingest import logs, metrics
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.handoff.running import CANCEL_GRACE
from apptrack_ingest.lifecycle import Schedule
from apptrack_ingest.spool.contract import Claim, Due, ReportClaim
from apptrack_ingest.worker.application import Job
from apptrack_ingest.worker.desk import Clock, Desk, Options, Parser, Reports, SystemClock, Tools
from apptrack_ingest.worker.outage import Outage
from apptrack_ingest.worker.pauses import Pauses
from apptrack_ingest.worker.report import ReportJob
from apptrack_ingest.worker.restraints import Restraints

__all__ = ["Clock", "Desk", "Options", "Parser", "Reports", "SystemClock", "Tools", "Worker"]

log = logs.get("worker")

LOOK_AGAIN = 1.0
"""Seconds between looks at the spool when nothing hints at work: the most that a lost hint can cost."""

REST = 2.0
"""While something is under way the spool is not looked at again for so many times as long as the last look took: what ends
and arrives by then is followed up by one look and one commit. The busier the machine, the more that is."""

LONGEST_REST = 0.02
"""Seconds that a free place waits for that at most."""

GIVING_BACK = CANCEL_GRACE + 5.0
"""Seconds for interrupted jobs to give themselves back: a handler may tidy up first."""


class Worker:
    """Works applications and reports until told to stop. `step` does what is due now; `run` keeps doing so."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._running: dict[asyncio.Task[None], Claim | ReportClaim] = {}
        self._poke = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._alone: asyncio.Task[None] | None = None
        self._solo_next = True
        self._pauses = Pauses(tools)
        self._outage = Outage(tools.clock)
        self._restraints = Restraints(tools.options.concurrency, tools.clock, tools.jitter)
        self._restraints.configure(tools.desks)

    async def configure(self, desks: Mapping[str, Desk], report_schedule: Schedule) -> None:
        """Takes up changed accounts; what is under way goes on with what it began with. A changed hash ends the pause
        that the old one earned."""
        self._tools.desks = desks
        self._tools.report_schedule = report_schedule
        self._restraints.configure(desks)
        self._pauses.configured()
        with contextlib.suppress(SpoolUnavailable):  # the next step does it then
            await self._pauses.end(self._tools.clock.now())
        self._poke.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains: claims nothing more, lets what is under way finish in time."""
        self._tools.spool.listen(self._poke.set)
        leases = asyncio.create_task(self._keep_leases())
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._poke.set())
        time = asyncio.get_running_loop().time
        try:
            while not stop.is_set():
                began = time()
                seconds = await self.step()
                await self._wait(self._idle, min(LONGEST_REST, REST * (time() - began)))
                await self._wait(self._poke, seconds)
            await self.drain()
        finally:
            for task in (leases, stopping):
                task.cancel()
            await asyncio.gather(leases, stopping, return_exceptions=True)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        """Until it is set, so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    # -- what is due

    async def step(self) -> float:
        """Starts what is due now; returns the seconds after which to look again at the latest."""
        self._poke.clear()
        try:
            seconds = await self._start_due()
        except SpoolUnavailable as error:
            self._outage.failed(error)
            return LOOK_AGAIN
        self._outage.over()
        return seconds

    async def _start_due(self) -> float:
        now = self._tools.clock.now()
        await self._pauses.end(now)
        due = await self._next_due(now)
        if _is_due(due.lease_end, now):
            # Ours may have run out while this process stood still, the clock leapt, or the spool could not be written:
            # what we are still at is no attempt that nobody holds. Nor is what other workers are at: they find the spool
            # again when we do, or a little later, and have the time of a lease to renew it.
            if await self.renew() and not self._outage.lately(self._tools.options.lease):
                await self._reap(now)
            due = await self._next_due(now)
        await self._start_both(due, now)
        times = (due.hand_off, due.solo, due.report, due.lease_end, self._restraints.opens_at())
        return min([LOOK_AGAIN, *(t - now for t in times if t is not None and t > now)])

    async def _next_due(self, now: float) -> Due:
        """When work is due that this worker has room for."""
        return await self._tools.spool.next_due(
            now=now,
            accounts=self._tools.sending_accounts,
            full=[account for account, free in self._restraints.room().items() if free <= 0],
            untrusted=self._restraints.untrusted_room > 0,
            roughly=True,
        )

    async def _reap(self, now: float) -> None:
        for reaped in await self._tools.spool.reap(now=now, reports_for=self._tools.reporting_accounts):
            metrics.hand_off_attempted(reaped.account, "", "held" if reaped.held else "no-verdict")
            logs.hand_off_finished(
                application_id=reaped.application_id,
                account=reaped.account,
                applicant_id=reaped.applicant_id,
                handler="",
                attempt=reaped.crashes,
                result="held" if reaped.held else "no-verdict",
                code="crash-loop" if reaped.held else "no-verdict",
                seconds=0.0,
            )

    async def _start_both(self, due: Due, now: float) -> None:
        """At the same time, so that they are claimed in one commit. Neither is cut off when the other cannot be."""
        ends = await asyncio.gather(
            self._start_hand_offs(due, now), self._start_reports(due, now), return_exceptions=True
        )
        for end in ends:
            if end is not None:
                raise end

    async def _start_hand_offs(self, due: Due, now: float) -> None:
        """Normal work side by side, solo work (invariant 2) with nothing beside it; they take turns."""
        if self._alone is not None:
            return
        normal = _is_due(due.hand_off, now)
        if _is_due(due.solo, now) and (self._solo_next or not normal):
            if not self._hand_offs():
                await self._start_solo(now)
            return
        self._solo_next = True
        most = self._restraints.at_once
        if normal and most and len(await self._claim(now, limit=most)) == most and self._restraints.free:
            self._poke.set()

    async def _start_solo(self, now: float) -> None:
        self._solo_next = False
        for task in await self._claim(now, limit=1, solo=True):
            self._alone = task

    async def _claim(self, now: float, *, limit: int, solo: bool = False) -> list[asyncio.Task[None]]:
        """Claims what there is room for and starts it."""
        options, restraints = self._tools.options, self._restraints
        claims = await self._tools.spool.claim(
            worker=options.name,
            now=now,
            lease=options.lease,
            limit=limit,
            room=restraints.room(),
            untrusted=restraints.untrusted_room,
            solo=solo,
        )
        return [self._start_job(claim) for claim in claims]

    async def _start_reports(self, due: Due, now: float) -> None:
        options = self._tools.options
        free = options.report_concurrency - len(self._claims(ReportClaim))
        if not _is_due(due.report, now) or free <= 0:
            return
        claims = await self._tools.spool.claim_reports(
            worker=options.name, now=now, lease=options.lease, limit=free, accounts=self._tools.sending_accounts
        )
        for claim in claims:
            self._start(claim, ReportJob(claim, self._tools).work())

    # -- what is under way

    def _start_job(self, claim: Claim) -> asyncio.Task[None]:
        self._restraints.claimed(claim)
        task = self._start(claim, Job(claim, self._tools, self._restraints).work())
        task.add_done_callback(lambda _: self._restraints.ended(claim))
        return task

    def _start(self, claim: Claim | ReportClaim, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running[task] = claim
        self._idle.clear()
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if task is self._alone:
            self._alone = None
        if not self._running:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job ended with an error", exc_info=error)
        self._poke.set()

    def _claims(self, kind: type[Claim] | type[ReportClaim]) -> list[Claim | ReportClaim]:
        return [claim for claim in self._running.values() if isinstance(claim, kind)]

    def _hand_offs(self) -> list[Claim | ReportClaim]:
        return self._claims(Claim)

    async def idle(self) -> None:
        """Returns when nothing is under way."""
        await self._idle.wait()

    async def under_way_ended(self) -> None:
        """Returns when all that is under way at this moment has ended; what begins later does not count."""
        if self._running:
            await asyncio.wait(list(self._running))

    async def _keep_leases(self) -> None:
        """Renews all leases every third of their time; whoever lost one is stopped, for another works there now."""
        options = self._tools.options
        while True:
            await self._tools.clock.sleep(options.lease / 3)
            await self.renew()

    async def renew(self) -> bool:
        """Renews the leases of all that is under way; False when that could not be done now."""
        running = dict(self._running)
        if not running:
            return True
        try:
            lost = await self._tools.spool.renew(
                list(running.values()), now=self._tools.clock.now(), lease=self._tools.options.lease
            )
        except SpoolUnavailable as error:
            self._outage.failed(error)
            return False
        except Exception:
            # Whatever it is: without its renewals all that is under way would be taken for dead.
            log.exception("cannot renew leases")
            return False
        for task, claim in running.items():
            if claim in lost and not task.done():
                task.cancel()
        return True

    async def drain(self) -> None:
        """Lets what is under way finish within the drain time-out, then interrupts it and gives it back; what was only
        claimed ahead at once."""
        self._restraints.drain()
        if self._running:
            await asyncio.wait(list(self._running), timeout=self._tools.options.drain_timeout)
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            log.warning("interrupted at the end", jobs=len(left))
            await asyncio.wait(left, timeout=GIVING_BACK)


def _is_due(at: float | None, now: float) -> bool:
    return at is not None and at <= now
