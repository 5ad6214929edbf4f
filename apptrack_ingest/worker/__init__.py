"""The worker's loop: claims what is due, keeps the leases, works alone what must be alone, drains at the end."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any

from apptrack_ingest import logs, metrics
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.handoff.running import CANCEL_GRACE
from apptrack_ingest.lifecycle import Schedule
from apptrack_ingest.spool.contract import Claim, Due, ReportClaim
from apptrack_ingest.worker.application import Job
from apptrack_ingest.worker.desk import Clock, Desk, Options, Parser, Reports, SystemClock, Tools
from apptrack_ingest.worker.report import ReportJob

__all__ = ["Clock", "Desk", "Options", "Parser", "Reports", "SystemClock", "Tools", "Worker"]

log = logs.get("worker")

LOOK_AGAIN = 1.0
"""Seconds between looks at the spool when nothing hints at work: the most that a lost hint can cost."""

GIVING_BACK = CANCEL_GRACE + 5.0
"""Seconds for interrupted jobs to give themselves back: a handler may tidy up first."""


class Worker:
    """Works applications and reports until told to stop. `step` does what is due now; `run` keeps doing so."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._running: dict[asyncio.Task[None], Claim | ReportClaim] = {}
        self._poke = asyncio.Event()
        self._alone: asyncio.Task[None] | None = None
        self._solo_next = True

    async def configure(self, desks: Mapping[str, Desk], report_schedule: Schedule) -> None:
        """Takes up changed accounts; what is under way goes on with what it began with. A changed hash ends the pause
        that the old one earned."""
        self._tools.desks = desks
        self._tools.report_schedule = report_schedule
        for pause in await self._tools.spool.pauses():
            desk = desks.get(pause.account)
            if desk is not None and desk.hash_fingerprint not in (None, pause.fingerprint):
                await self._tools.spool.resume(pause.account)
                log.info("reporting resumed: the hash was changed", account=pause.account)
        self._poke.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then drains: claims nothing more, lets what is under way finish in time."""
        self._tools.spool.listen(self._poke.set)
        leases = asyncio.create_task(self._keep_leases())
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._poke.set())
        try:
            while not stop.is_set():
                await self._wait(await self.step())
            await self.drain()
        finally:
            for task in (leases, stopping):
                task.cancel()
            await asyncio.gather(leases, stopping, return_exceptions=True)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._poke.wait()

    # -- what is due

    async def step(self) -> float:
        """Starts what is due now; returns the seconds after which to look again at the latest."""
        self._poke.clear()
        try:
            return await self._start_due()
        except SpoolUnavailable:
            log.exception("the spool cannot be used")
            return LOOK_AGAIN

    async def _start_due(self) -> float:
        now, spool = self._tools.clock.now(), self._tools.spool
        due = await spool.next_due(now=now, accounts=self._tools.sending_accounts)
        if _is_due(due.lease_end, now):
            # Ours may have run out while this process stood still, the clock leapt, or the spool could not be written:
            # what we are still at is no attempt that nobody holds.
            if await self.renew():
                await self._reap(now)
            due = await spool.next_due(now=now, accounts=self._tools.sending_accounts)
        claimed = await self._start_hand_offs(due, now) + await self._start_reports(due, now)
        if claimed and self._free():
            self._poke.set()
        ahead = [t - now for t in (due.hand_off, due.solo, due.report, due.lease_end) if t is not None and t > now]
        return min([LOOK_AGAIN, *ahead])

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

    async def _start_hand_offs(self, due: Due, now: float) -> int:
        """Normal work side by side, solo work (invariant 2) with nothing beside it; they take turns."""
        if self._alone is not None:
            return 0
        normal = _is_due(due.hand_off, now)
        if _is_due(due.solo, now) and (self._solo_next or not normal):
            return 0 if self._hand_offs() else await self._start_solo(now)
        self._solo_next = True
        if not normal or not self._free():
            return 0
        claims = await self._claim(now, limit=self._free(), room=self._room())
        for claim in claims:
            self._start(claim, Job(claim, self._tools).work())
        return len(claims)

    async def _start_solo(self, now: float) -> int:
        self._solo_next = False
        claims = await self._claim(now, limit=1, solo=True)
        for claim in claims:
            self._alone = self._start(claim, Job(claim, self._tools).work())
        return len(claims)

    async def _claim(
        self, now: float, *, limit: int, room: Mapping[str, int] | None = None, solo: bool = False
    ) -> list[Claim]:
        options = self._tools.options
        return await self._tools.spool.claim(
            worker=options.name, now=now, lease=options.lease, limit=limit, room=room, solo=solo
        )

    async def _start_reports(self, due: Due, now: float) -> int:
        options = self._tools.options
        free = options.report_concurrency - len(self._claims(ReportClaim))
        if not _is_due(due.report, now) or free <= 0:
            return 0
        claims = await self._tools.spool.claim_reports(
            worker=options.name, now=now, lease=options.lease, limit=free, accounts=self._tools.sending_accounts
        )
        for claim in claims:
            self._start(claim, ReportJob(claim, self._tools).work())
        return len(claims)

    # -- what is under way

    def _start(self, claim: Claim | ReportClaim, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running[task] = claim
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if task is self._alone:
            self._alone = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job ended with an error", exc_info=error)
        self._poke.set()

    def _claims(self, kind: type[Claim] | type[ReportClaim]) -> list[Claim | ReportClaim]:
        return [claim for claim in self._running.values() if isinstance(claim, kind)]

    def _hand_offs(self) -> list[Claim | ReportClaim]:
        return self._claims(Claim)

    def _free(self) -> int:
        return self._tools.options.concurrency - len(self._hand_offs())

    def _room(self) -> dict[str, int]:
        """How many more hand-offs each account may have, so that a slow one does not take all places."""
        running = Counter(claim.account for claim in self._hand_offs())
        return {name: desk.concurrency - running[name] for name, desk in self._tools.desks.items()}

    async def idle(self) -> None:
        """Returns when nothing is under way."""
        while self._running:
            await asyncio.wait(list(self._running))

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
        except Exception:
            # Whatever it is: without its renewals all that is under way would be taken for dead.
            log.exception("cannot renew leases")
            return False
        for task, claim in running.items():
            if claim in lost and not task.done():
                task.cancel()
        return True

    async def drain(self) -> None:
        """Lets what is under way finish within the drain time-out, then interrupts it and gives it back."""
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
