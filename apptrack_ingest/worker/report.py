"""One attempt to tell idibu of one outcome, and what follows from its answer."""

import asyncio
from dataclasses import dataclass

from apptrack_ingest import logs, metrics
from apptrack_ingest.errors import LeaseLost, SpoolUnavailable
from apptrack_ingest.lifecycle import REFUSED_FOR, next_attempt
from apptrack_ingest.metrics import ReportResult
from apptrack_ingest.model import ReportState, Stage
from apptrack_ingest.report.reporter import Confirmed, NotReached, Refused, Result, Unauthorized
from apptrack_ingest.spool.contract import Pause, ReportClaim, ReportSettlement
from apptrack_ingest.worker.desk import Tools

log = logs.get("worker")

RESULTS: dict[type[Result], ReportResult] = {
    Confirmed: "confirmed",
    Refused: "refused",
    Unauthorized: "unauthorized",
    NotReached: "not-reached",
}


@dataclass(slots=True)
class ReportJob:
    """A report being sent."""

    claim: ReportClaim
    tools: Tools

    async def work(self) -> None:
        """Sends once and settles. A cancellation gives the report back at once; sending again does no harm."""
        started = self.tools.clock.now()
        try:
            result = await self.tools.reports.send(self.claim.account, self.claim.report)
        except asyncio.CancelledError:
            await self._settle(ReportSettlement(ReportState.DUE, "interrupted", counts=False))
            raise
        except Exception as error:
            log.exception("fault in our own code", report=self.claim.report_id)
            result = NotReached("internal-error", f"a fault in apptrack-ingest itself ({type(error).__name__})")
        settlement = self._settlement(result)
        state = await self._settle(settlement)
        if state is not None:
            await self._follow_up(result)
            self._tell(
                RESULTS[type(result)] if state is not ReportState.SUPERSEDED else "superseded", settlement, started
            )

    # -- deciding

    def _settlement(self, result: Result) -> ReportSettlement:
        match result:
            case Confirmed():
                return ReportSettlement(ReportState.CONFIRMED, "confirmed")
            case Refused():
                return self._refused(result)
            case Unauthorized() if self._hash_is_good():
                return self._refused(Refused("unauthorized", result.detail))
            case Unauthorized():
                # The pause keeps it from being claimed; it is no failure of this report, so it is not counted.
                return ReportSettlement(ReportState.DUE, "unauthorized", result.detail, counts=False)
            case NotReached():
                return self._later(result.code, result.detail, wished=result.after)

    def _hash_is_good(self) -> bool:
        """Whether idibu took another report with this very hash a moment ago: then it is this applicant that idibu (or a
        firewall before it) does not let us touch, and the account's other reports must not wait for that."""
        confirmed = self.tools.confirmed.get(self._hash)
        return confirmed is not None and self.tools.clock.now() - confirmed < self.tools.options.pause

    @property
    def _hash(self) -> tuple[str, str | None]:
        desk = self.tools.desks.get(self.claim.account)
        return self.claim.account, desk.hash_fingerprint if desk else None

    def _refused(self, result: Refused) -> ReportSettlement:
        now = self.tools.clock.now()
        since = self.claim.refused_since if self.claim.refused_since is not None else now
        if now - since >= REFUSED_FOR:
            return ReportSettlement(ReportState.REFUSED, result.code, result.detail, refused=True)
        later = self._later(result.code, result.detail, refused=True)
        if later.state is not ReportState.DUE or later.due_at is None:
            return ReportSettlement(ReportState.REFUSED, result.code, result.detail, refused=True)
        # The last try falls on the end of the 24 hours, so that it does not stay undecided for hours more.
        due = min(later.due_at, max(since + REFUSED_FOR, now + 1.0))
        return ReportSettlement(ReportState.DUE, result.code, result.detail, due_at=due, refused=True)

    def _later(self, code: str, detail: str, *, wished: float | None = None, refused: bool = False) -> ReportSettlement:
        due = next_attempt(
            self.tools.report_schedule,
            attempt=self.claim.attempt,
            first=self.claim.first_attempt_at,
            now=self.tools.clock.now(),
            jitter=self.tools.jitter(),
            wished=wished,
        )
        if due is None:
            return ReportSettlement(ReportState.FAILED, code, detail)
        return ReportSettlement(ReportState.DUE, code, detail, due_at=due, refused=refused)

    # -- settling

    async def _settle(self, settlement: ReportSettlement) -> ReportState | None:
        """The state now; None where that is not ours to say any more. An unsettled report is sent again: no harm."""
        try:
            return await self.tools.spool.settle_report(self.claim, settlement, now=self.tools.clock.now())
        except (SpoolUnavailable, LeaseLost) as error:
            log.warning("cannot settle report", report=self.claim.report_id, **logs.exception_fields(error))
            return None

    async def _follow_up(self, result: Result) -> None:
        """A wrong hash pauses the account's reporting; that a right one ends the pause, `pauses.Pauses` sees to."""
        now, account = self.tools.clock.now(), self.claim.account
        if isinstance(result, Confirmed):
            self.tools.confirmed[self._hash] = now
        if not isinstance(result, Unauthorized) or self._hash_is_good():
            return
        wrong = Pause(account, Stage.REPORT, "unauthorized", now, now + self.tools.options.pause, self._hash[1] or "")
        try:
            if await self.tools.spool.pause(wrong):
                log.error("reporting paused: idibu does not accept the hash", account=account)
        except SpoolUnavailable as error:
            log.warning("cannot keep the pause", account=account, **logs.exception_fields(error))

    def _tell(self, result: ReportResult, settlement: ReportSettlement, started: float) -> None:
        """Counts the attempt and writes its one line."""
        now = self.tools.clock.now()
        metrics.report_attempted(self.claim.account, result)
        if result == "confirmed" and not self.claim.early:
            metrics.reported(now - self.claim.received_at)
        logs.report_finished(
            report_id=self.claim.report_id,
            application_id=self.claim.application_id,
            account=self.claim.account,
            applicant_id=self.claim.report.applicant_id,
            attempt=self.claim.attempt,
            result=result,
            code=settlement.code,
            seconds=now - started,
        )
