"""One attempt to hand one application off: read, decide, call the handler, settle."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from apptrack_ingest import handoff, logs, metrics
from apptrack_ingest.errors import LeaseLost, NotFound, SpoolUnavailable, Unreadable
from apptrack_ingest.handoff import Again, Done
from apptrack_ingest.lifecycle import Event, idempotency_key, next_attempt, reason_to_hold, report_of
from apptrack_ingest.metrics import HandOffResult
from apptrack_ingest.model import (
    Application,
    HeldReason,
    Parsed,
    Previous,
    Rejected,
    Report,
    State,
)
from apptrack_ingest.parse.documents import without_extensions, without_forwarding_mail
from apptrack_ingest.spool.contract import Claim, Delivered, EarlyReport, Facts, Settlement, rest_mark
from apptrack_ingest.trust import Rule
from apptrack_ingest.worker.desk import Desk, Tools
from apptrack_ingest.worker.restraints import Restraints
from apptrack_ingest.worker.sharing import TurnedAway

log = logs.get("worker")

RESULTS: dict[Event, HandOffResult] = {
    Event.DELIVER: "delivered",
    Event.RECOGNISE: "duplicate",
    Event.REJECT: "rejected",
    Event.EXHAUST: "failed",
    Event.POSTPONE: "postponed",
    Event.HOLD: "held",
}

SHAPES = 3
"""What a mail takes in memory, in its own size: as received, its documents, and what a handler makes of them."""

SETTLE_AGAIN = 1.0
"""Seconds between tries to settle while the spool cannot be written; the lease is renewed meanwhile."""


@dataclass(slots=True)
class Job:
    """A claim being worked on; it ends settled, or with its lease lost, or interrupted."""

    claim: Claim
    tools: Tools
    restraints: Restraints
    handler_seconds: float | None = None
    earlier: list[Delivered] = field(default_factory=list)
    """Deliveries of the applicant before this one."""
    delayed: bool = False
    """Whether the outcome could not be committed at once."""
    believed: bool = field(init=False)
    """Whether the id counts: a rule of trust matches the mail that holds it, or a person vouched for it."""

    def __post_init__(self) -> None:
        self.believed = self.claim.trusted or self.claim.vouched

    async def work(self) -> None:
        """Works the claim to its settlement. A cancellation (drain, lost lease) settles it as interrupted."""
        started = self.tools.clock.now()
        try:
            settlement = await self._settlement()
        except asyncio.CancelledError:
            await self._interrupted(started)
            raise
        except TurnedAway:
            settlement = _given_back("claimed ahead, and given back before it was handed over")
        except SpoolUnavailable:
            settlement = self._postponed("spool-unavailable", "the spool could not be read")
        except Exception as error:
            log.exception("fault in our own code", application=self.claim.application_id)
            settlement = self._postponed(
                "internal-error", f"a fault in apptrack-ingest itself ({type(error).__name__})"
            )
        await self._settle(settlement, started)
        await self._tell_of_rest(verdict=settlement.event in (Event.DELIVER, Event.REJECT))

    # -- deciding

    async def _settlement(self) -> Settlement:
        """Waits until there is memory for the mail before a byte of it is loaded."""
        claim = self.claim
        async with self.tools.memory.held(claim.account, SHAPES * claim.size, believed=self.believed):
            return await self._read_and_decide()

    async def _read_and_decide(self) -> Settlement:
        try:
            raw, self.earlier = await self.tools.spool.to_work_on(self.claim)
            async with self.tools.turns.turn(self.claim.account, believed=self.believed):
                parsed = await self.tools.parser.parse(raw)
        except (Unreadable, NotFound) as error:
            return self._unreadable(error)
        applicant_id = self.claim.applicant_id if self.claim.applicant_id is not None else parsed.applicant_id
        if parsed.inner is not None and not self.claim.vouched:
            decided = await self._attached(raw, parsed, applicant_id)
        else:
            decided = await self._decide(raw, parsed, applicant_id)
        # Of a mail we do not trust not even the id is kept in its column: other mails are ordered by it.
        return replace(decided, facts=facts_of(parsed), applicant_id=applicant_id if self.believed else None)

    async def _attached(self, raw: bytes, parsed: Parsed, applicant_id: int | None) -> Settlement:
        """Decides on an application that was attached to another mail: its own signature alone counts, whoever brought
        the outer mail, and whoever did adds nothing to it. The signed ClientID must fit, as the intake could not see it."""
        verdict = await self.tools.judge_inner(self.claim.account, parsed.inner or b"")
        if verdict.rule is Rule.UNDECIDED:
            self.believed = False
            return self._postponed("dns-failed", verdict.note)
        self.believed = verdict.trusted
        if not verdict.trusted:
            decided = self._held(HeldReason.UNTRUSTED, None, f"of a mail attached to this one: {verdict.note}")
        elif not self.tools.takes(self.claim.account, parsed.client_id):
            decided = self._held(
                HeldReason.UNROUTED, applicant_id, "the attached mail's ClientID names another account"
            )
        else:
            decided = await self._decide(raw, without_forwarder(parsed), applicant_id)
        return replace(decided, trust=(verdict.trusted, f"of the attached mail: {verdict.note}"))

    async def _decide(self, raw: bytes, parsed: Parsed, applicant_id: int | None) -> Settlement:
        account = self.claim.account
        desk = self.tools.desks.get(account) if account is not None else None
        reason = reason_to_hold(
            trusted=self.believed,
            vouched=self.claim.vouched,
            applicant_id=applicant_id,
            id_problem=parsed.id_problem,
            account=account if desk else None,
        )
        if reason is not None or desk is None or account is None or applicant_id is None:
            return self._held(reason or HeldReason.UNROUTED, applicant_id, _why_held(reason, account))
        earlier = self.earlier
        if applicant_id != self.claim.applicant_id:  # which only the mail itself names
            earlier = await self.tools.spool.delivered_before(account, applicant_id)
        same = next((d for d in earlier if d.content_digest == parsed.content_digest), None)
        if same is not None and not self.claim.again:
            note = f"the same content as application {same.application_id}, delivered before"
            return Settlement(Event.RECOGNISE, "duplicate", note, duplicate_of=same.application_id)
        parsed = allowed(parsed, desk.block_extensions)
        application = application_of(self.claim, account, applicant_id, parsed, raw, earlier[:1])
        return await self._hand_over(desk, application)

    async def _hand_over(self, desk: Desk, application: Application) -> Settlement:
        time = asyncio.get_running_loop().time
        async with self.restraints.turn(self.claim):
            self.restraints.calling(self.claim)
            begun = time()
            outcome = await handoff.run(desk.handler, application, desk.timeout)
            self.handler_seconds = time() - begun
            self.restraints.answered(self.claim, outcome)
        if isinstance(outcome, Again):
            return self._again(desk, outcome, application.applicant_id)
        return self._done(outcome, application.applicant_id)

    def _done(self, outcome: Done, applicant_id: int) -> Settlement:
        if isinstance(outcome.verdict, Rejected):
            words = outcome.verdict.reason
            report = self._report(State.REJECTED, applicant_id, words=words)
            return Settlement(Event.REJECT, "rejected", words, report=report)
        remote_id = outcome.verdict.remote_id
        report = self._report(State.DELIVERED, applicant_id, remote_id=remote_id)
        note = outcome.note or ""
        return Settlement(Event.DELIVER, "delivered", note, remote_id=remote_id, report=report)

    def _again(self, desk: Desk, outcome: Again, applicant_id: int) -> Settlement:
        due = self._next(desk, outcome.after)
        if due is None:
            report = self._report(State.FAILED, applicant_id, code=outcome.code)
            return Settlement(Event.EXHAUST, outcome.code, outcome.detail, report=report)
        early = self._early(desk, applicant_id)
        return Settlement(Event.POSTPONE, outcome.code, outcome.detail, due_at=due, early=early)

    def _next(self, desk: Desk, wished: float | None = None) -> float | None:
        return next_attempt(
            desk.schedule,
            attempt=self.claim.series_attempt,
            first=self.claim.first_attempt_at,
            now=self.tools.clock.now(),
            jitter=self.tools.jitter(),
            wished=wished,
        )

    def _postponed(self, code: str, detail: str) -> Settlement:
        desk = self.tools.desks.get(self.claim.account or "")
        due = self._next(desk) if desk else self.tools.clock.now() + 60.0
        if due is None:
            report = self._report(State.FAILED, self.claim.applicant_id, code=code)
            return Settlement(Event.EXHAUST, code, detail, report=report)
        early = self._early(desk, self.claim.applicant_id) if desk else None
        return Settlement(Event.POSTPONE, code, detail, due_at=due, early=early)

    def _unreadable(self, error: Unreadable | NotFound) -> Settlement:
        if not self.believed:
            return self._held(HeldReason.UNTRUSTED, None, "from a peer that is not trusted; unreadable besides")
        return self._held(HeldReason.UNREADABLE, self.claim.applicant_id, str(error))

    def _held(self, reason: HeldReason, applicant_id: int | None, detail: str) -> Settlement:
        report = self._report(State.HELD, applicant_id, reason=reason)
        return Settlement(Event.HOLD, reason.value, detail, reason=reason, report=report)

    def _report(
        self,
        state: State,
        applicant_id: int | None,
        *,
        remote_id: str | None = None,
        reason: HeldReason | None = None,
        words: str = "",
        code: str = "",
    ) -> Report | None:
        """The report due with an outcome, if this account is reported at all."""
        desk = self.tools.desks.get(self.claim.account or "")
        if desk is None or not desk.reporting:
            return None
        return report_of(
            state,
            applicant_id=applicant_id,
            believed=self.believed,
            now=self.tools.clock.now(),
            remote_id=remote_id,
            reason=reason,
            words=words,
            code=code,
        )

    def _early(self, desk: Desk, applicant_id: int | None) -> EarlyReport | None:
        """What idibu is told of a failed attempt, where that is wanted and anything may be said at all. Proposed with each
        one: the spool knows what was told before."""
        if not (desk.reporting and desk.early.first_failure and self.believed) or applicant_id is None:
            return None
        now = self.tools.clock.now()
        until = desk.early.until(self.claim.first_attempt_at, now)
        return EarlyReport(desk.early.report(applicant_id, until, now, tried=True), until)

    # -- settling

    async def _settle(self, settlement: Settlement, started: float) -> None:
        """Commits the outcome. What a handler did is known only here, so it is tried until it is committed (the lease is
        renewed by the worker meanwhile), and at the end of a drain once more."""
        trying = asyncio.create_task(self._settled(settlement, started))
        try:
            while not await asyncio.shield(trying):
                await self.tools.clock.sleep(SETTLE_AGAIN)
                trying = asyncio.create_task(self._settled(settlement, started))
        except asyncio.CancelledError:
            await (self._settled(settlement, started) if trying.done() else trying)
            raise

    async def _interrupted(self, started: float) -> None:
        """Gives the claim back at once: a drain is no attempt without a verdict (invariant 2)."""
        await self._settled(_given_back("the worker was stopped"), started)

    async def _settled(self, settlement: Settlement, started: float) -> bool:
        """Tries to commit; False where that may be tried again."""
        try:
            await self.tools.spool.settle(self.claim, settlement, now=self.tools.clock.now())
        except SpoolUnavailable as error:
            if not self.delayed:
                log.warning("cannot settle yet", application=self.claim.application_id, **logs.exception_fields(error))
            self.delayed = True
            return False
        except LeaseLost:
            log.warning("lease lost", application=self.claim.application_id, lease=self.claim.token)
            return True
        self._tell(settlement, started)
        return True

    async def _tell_of_rest(self, *, verdict: bool) -> None:
        """Lets people see that the account's ATS is away, or is back. Only a hint: it may be lost."""
        rests = self.restraints.rest_to_tell(self.claim, verdict=verdict)
        if rests is None or self.claim.account is None:
            return
        key, spool = rest_mark(self.claim.account), self.tools.spool
        try:
            if rests or await spool.mark(key):
                await spool.set_mark(key, rests)
        except SpoolUnavailable:
            self.restraints.not_told(self.claim)

    def _tell(self, settlement: Settlement, started: float) -> None:
        """Counts the attempt and writes its one line."""
        now = self.tools.clock.now()
        result = "interrupted" if not settlement.counts else RESULTS[settlement.event]
        desk = self.tools.desks.get(self.claim.account or "")
        handler = desk.handler_name if desk and self.handler_seconds is not None else ""
        metrics.hand_off_attempted(self.claim.account, handler, result, handler_seconds=self.handler_seconds)
        if settlement.event in (Event.DELIVER, Event.REJECT, Event.RECOGNISE):
            metrics.handed_off(now - self.claim.received_at)
        logs.hand_off_finished(
            application_id=self.claim.application_id,
            account=self.claim.account,
            applicant_id=self.claim.applicant_id,
            handler=handler,
            attempt=self.claim.attempt,
            result=result,
            code=settlement.code,
            seconds=now - started,
        )


def _given_back(words: str) -> Settlement:
    """No attempt, and due again at once."""
    return Settlement(Event.POSTPONE, "interrupted", words, counts=False)


def _why_held(reason: HeldReason | None, account: str | None) -> str:
    """What a person reads beside the reason code."""
    texts = {
        HeldReason.UNTRUSTED: "from a peer that is not trusted, so its X-iTrackID is not believed",
        HeldReason.NO_APPLICANT_ID: "the mail has no X-iTrackID",
        HeldReason.INVALID_APPLICANT_ID: "the mail's X-iTrackID is doubled or is no number",
        HeldReason.UNROUTED: f"account {account} is not in the settings" if account else "no account matches the mail",
    }
    return texts.get(reason or HeldReason.UNROUTED, "")


def facts_of(parsed: Parsed) -> Facts:
    """What is kept of a mail beside its application."""
    return Facts(
        client_reference=parsed.client_reference,
        candidate_name=parsed.candidate.name,
        candidate_email=parsed.candidate.email,
        job_title=parsed.job.title,
        portal_name=parsed.source.portal_name,
        content_digest=parsed.content_digest,
        warnings=parsed.warnings,
    )


def without_forwarder(parsed: Parsed) -> Parsed:
    """What an attached application says, without the documents of the mail around it."""
    documents, warnings = without_forwarding_mail(parsed.documents)
    return replace(parsed, documents=documents, warnings=(*parsed.warnings, *warnings))


def allowed(parsed: Parsed, blocked: Sequence[str]) -> Parsed:
    """What the mail says without the documents whose extensions the account blocks, and a warning for each."""
    if not blocked:
        return parsed
    documents, warnings = without_extensions(parsed.documents, blocked)
    if not warnings:
        return parsed
    return replace(parsed, documents=documents, warnings=(*parsed.warnings, *warnings))


def application_of(
    claim: Claim, account: str, applicant_id: int, parsed: Parsed, raw: bytes, earlier: list[Delivered]
) -> Application:
    """The application as the handler gets it."""
    previous = None
    if earlier:
        previous = Previous(earlier[0].remote_id, datetime.fromtimestamp(earlier[0].delivered_at, UTC))
    return build_application(
        parsed,
        raw,
        account=account,
        applicant_id=applicant_id,
        attempt=claim.attempt,
        received_at=datetime.fromtimestamp(claim.received_at, UTC),
        previous=previous,
    )


def build_application(
    parsed: Parsed,
    raw: bytes,
    *,
    account: str,
    applicant_id: int,
    attempt: int,
    received_at: datetime,
    previous: Previous | None = None,
) -> Application:
    """Joins what the mail says with what we know of it."""
    return Application(
        account=account,
        applicant_id=applicant_id,
        idempotency_key=idempotency_key(account, applicant_id, parsed.content_digest),
        attempt=attempt,
        received_at=received_at,
        client_reference=parsed.client_reference,
        previous=previous,
        candidate=parsed.candidate,
        job=parsed.job,
        source=parsed.source,
        owner=parsed.owner,
        subject=parsed.subject,
        text=parsed.text,
        html=parsed.html,
        documents=parsed.documents,
        warnings=parsed.warnings,
        headers=parsed.headers,
        raw=raw,
    )
