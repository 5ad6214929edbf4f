"""The spool's contract in plain dictionaries, under the contract's own names: what every database is held to.

Nothing here is durable, concurrent or fast, so that each rule can be read where it is applied. test_spool_model.py asks the
same of this and of a spool, and compares every answer. The tables of lifecycle.py are part of the contract and used as
they are.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from contract.spool_model_people import People
from contract.spool_model_rows import (
    OPEN,
    ApplicationRow,
    AttemptRow,
    MessageRow,
    ReportRow,
    Work,
    claim_of,
    report_claim_of,
)

from apptrack_ingest.errors import LeaseLost, NotFound
from apptrack_ingest.lifecycle import EarlyRule, after, is_crash_loop, report_of
from apptrack_ingest.model import (
    Arrival,
    AttemptKind,
    HeldReason,
    Message,
    Report,
    ReportState,
    Stage,
    State,
)
from apptrack_ingest.spool.records import (
    AttemptRecord,
    Claim,
    Delivered,
    Due,
    EarlyReport,
    Reaped,
    ReportClaim,
    ReportSettlement,
    Settlement,
)

W = TypeVar("W", ApplicationRow, ReportRow)


class Model(People):
    """A spool in this process's memory, which is all that there is of it: here is the work, in `People` the rest."""

    # -- receive

    def put(self, message: Message, arrivals: Sequence[Arrival]) -> int:
        message_id, at = len(self.messages) + 1, message.received_at
        self.messages[message_id] = MessageRow(message)
        for arrival in arrivals:
            row = ApplicationRow(len(self.applications) + 1, arrival.account, due_at=at, received_at=at)
            row.message_id, row.size = message_id, len(message.raw)
            row.applicant_id, row.trusted, row.trust_note = arrival.applicant_id, arrival.trusted, arrival.trust_note
            self.applications[row.id] = row
        return message_id

    # -- hand off

    def claim(
        self,
        *,
        worker: str,
        now: float,
        lease: float,
        limit: int,
        room: Mapping[str, int] | None = None,
        untrusted: int | None = None,
        solo: bool = False,
    ) -> list[Claim]:
        taken: list[ApplicationRow] = []
        left, doubtful = dict(room or {}), untrusted if untrusted is not None else limit
        while len(taken) < (min(limit, 1) if solo else limit):
            due = [
                row
                for row in self._free(solo=solo, untrusted=doubtful > 0)
                if row.due_at <= now
                and left.get(row.account or "", 1) > 0
                and not self._is_paused(row.account, Stage.HAND_OFF, now)
            ]
            if not due:
                break
            row = self._next_in_turn(due, self.applications.values())
            taken.append(row)
            self._take(row, AttemptKind.HAND_OFF, row.id, worker, now, lease)
            doubtful -= not row.believed
            if (row.account or "") in left:
                left[row.account or ""] -= 1
        return [claim_of(row) for row in taken]

    def _free(self, *, solo: bool, untrusted: bool) -> list[ApplicationRow]:
        """What waits for nothing but its time: it is the oldest received of its applicant, none of whom is in work. What
        crashed before is worked on alone, and nothing else is."""
        received = [row for row in self.applications.values() if row.state is State.RECEIVED]
        return [
            row
            for row in received
            if not row.in_work
            and (row.crashes > 0) == solo
            and (row.believed or untrusted)
            and not any(
                other.whose == row.whose and (other.id < row.id or other.in_work)
                for other in received
                if row.whose is not None
            )
        ]

    @staticmethod
    def _next_in_turn(due: Iterable[W], every: Iterable[W]) -> W:
        """Of each account what is believed comes first, then what is due the longest; the account with the least in work
        goes first, and of several the one whose next is due the longest."""
        heads: dict[str | None, W] = {}
        for row in sorted(due, key=lambda row: (not row.believed, row.due_at, row.id)):
            heads.setdefault(row.account, row)
        busy = Counter(row.account for row in every if row.in_work)
        return min(heads.values(), key=lambda row: (busy[row.account], row.due_at, row.id))

    def _take(self, row: Work, kind: AttemptKind, application_id: int, worker: str, now: float, lease: float) -> None:
        row.take(worker, now, lease)
        report_id = row.id if kind is AttemptKind.REPORT else None
        record = AttemptRecord(kind, row.attempts, worker, now, None, None, None, report_id)
        self.attempts.append(AttemptRow(application_id, row.token, record))

    def renew(self, claims: Sequence[Claim | ReportClaim], *, now: float, lease: float) -> list[Claim | ReportClaim]:
        lost = []
        for claim in claims:
            try:
                self._held(claim).lease_until = now + lease
            except LeaseLost:
                lost.append(claim)
        return lost

    def _held(self, claim: Claim | ReportClaim) -> ApplicationRow | ReportRow:
        """The work a claim is on, if nobody else had it since, even where the lease has run out."""
        row: ApplicationRow | ReportRow = (
            self.applications[claim.application_id] if isinstance(claim, Claim) else self.reports[claim.report_id]
        )
        if not row.in_work or row.token != claim.token:
            raise LeaseLost
        return row

    def delivered_before(self, account: str, applicant_id: int) -> list[Delivered]:
        found = [
            Delivered(row.id, row.facts.content_digest, row.remote_id, row.delivered_at)
            for row in self.applications.values()
            if row.whose == (account, applicant_id) and row.delivered_at is not None
        ]
        return sorted(found, key=lambda one: (one.delivered_at, one.application_id), reverse=True)

    def to_work_on(self, claim: Claim) -> tuple[bytes, list[Delivered]]:
        raw = self.raw(claim.message_id)
        known = claim.account is not None and claim.applicant_id is not None
        return raw, self.delivered_before(claim.account, claim.applicant_id) if known else []

    def raw(self, message_id: int) -> bytes:
        if message_id not in self.messages or self.messages[message_id].erased:
            raise NotFound
        return self.messages[message_id].message.raw

    def settle(self, claim: Claim, settlement: Settlement, *, now: float) -> None:
        row = self._held(claim)
        row.state = after(row.state, settlement.event)
        waits = row.state is State.RECEIVED
        again_at = now if settlement.counts else row.due_at
        row.due_at = (again_at if settlement.due_at is None else settlement.due_at) if waits else None
        row.settled_at = None if waits else now
        row.reason, row.duplicate_of = settlement.reason, settlement.duplicate_of
        row.remote_id = settlement.remote_id or row.remote_id
        row.applicant_id = settlement.applicant_id or row.applicant_id
        row.facts = settlement.facts or row.facts
        row.again = row.again and waits
        row.crashes = 0 if settlement.counts else row.crashes
        row.delivered_at = now if row.state is State.DELIVERED else row.delivered_at
        row.trusted, row.trust_note = settlement.trust or (row.trusted, row.trust_note)
        self._end_by_verdict(row, settlement, now)
        row.series_from = row.series_from if row.attempts > row.series_base else None
        self._report(row, settlement.report, now)
        if settlement.early is not None and waits:
            self._announce(row, settlement.early, now)

    def _announce(self, row: ApplicationRow, early: EarlyReport, now: float) -> bool:
        """Once for as long as it holds, and never of whom was delivered before."""
        holds = row.announced_until is not None and row.announced_until > now
        if holds or row.account is None or self._was_delivered(row):
            return False
        self._report(row, early.report, now)
        row.announced_until = early.until
        return True

    def _end_by_verdict(self, row: Work, how: Settlement | ReportSettlement, now: float) -> None:
        self._end_attempt(row, how.code, how.detail, now)
        row.code, row.detail = how.code, how.detail
        row.attempts -= not how.counts

    def _end_attempt(self, row: Work, code: str, detail: str, now: float) -> None:
        report_id = row.id if isinstance(row, ReportRow) else None
        wanted = (row.application_id if isinstance(row, ReportRow) else row.id, report_id, row.token)
        [attempt] = [one for one in self.attempts if (one.application_id, one.record.report_id, one.token) == wanted]
        attempt.record = replace(attempt.record, ended_at=now, code=code, detail=detail)
        row.let_go()

    def _report(self, row: ApplicationRow, report: Report | None, now: float) -> None:
        """Only the newest outcome is told; what idibu confirmed stays confirmed. Without an account nobody is told."""
        if report is None or row.account is None:
            return
        new = ReportRow(len(self.reports) + 1, row.account, now, application_id=row.id, report=report, created_at=now)
        for old in self.reports.values():
            if old.whose == new.whose and old.state in OPEN:
                old.state, old.due_at, old.settled_at = ReportState.SUPERSEDED, None, now
        self.reports[new.id] = new

    def reap(self, *, now: float, reports_for: Collection[str]) -> list[Reaped]:
        for report in _overdue(self.reports.values(), now):
            self._end_attempt(report, "no-verdict", "the attempt was cut off", now)
            report.token += 1
            report.due_at = now if report.state is ReportState.DUE else None
        return [self._crashed(row, now, reports_for) for row in _overdue(self.applications.values(), now)]

    def _crashed(self, row: ApplicationRow, now: float, reports_for: Collection[str]) -> Reaped:
        self._end_attempt(row, "no-verdict", "the attempt was cut off without a verdict", now)
        row.token, row.crashes = row.token + 1, row.crashes + 1
        row.code, row.detail = "no-verdict", f"{row.crashes} attempts in a row were cut off without a verdict"
        row.due_at, row.reason = now, None
        if is_crash_loop(row.crashes):
            row.state, row.reason, row.due_at, row.settled_at = State.HELD, HeldReason.CRASH_LOOP, None, now
            told = report_of(
                row.state, applicant_id=row.applicant_id, believed=row.believed, now=now, reason=row.reason
            )
            self._report(row, told if row.account in reports_for else None, now)
        return Reaped(row.id, row.account, row.applicant_id, row.crashes, row.state is State.HELD)

    def abandon(self, worker: str, *, now: float) -> int:
        everything = (*self.applications.values(), *self.reports.values())
        mine = [row for row in everything if row.worker == worker and row.lease_until > now]
        for row in mine:
            row.lease_until = now
        return len(mine)

    # -- report

    def report_waiting(self, account: str, rule: EarlyRule, *, now: float, limit: int) -> int:
        rows = [
            row for row in self._fronts() if row.account == account and row.believed and row.applicant_id is not None
        ]
        over = sorted((row.announced_until, row.id) for row in rows if row.announced_until is not None)
        new = sorted((row.waits_since or row.received_at, row.id) for row in rows if row.announced_until is None)
        over = [entry for entry in over if rule.wanted and entry[0] <= now]
        new = [entry for entry in new if rule.after is not None and entry[0] <= now - rule.after]
        taken = [[self.applications[number] for _, number in entries] for entries in (over, new)]
        chosen = [row for rows in taken for row in [one for one in rows if not self._was_delivered(one)][:limit]]
        chosen.sort(key=lambda row: (row.applicant_id, row.id))
        return sum(self._announce(row, self._early(row, rule, now), now) for row in chosen)

    def _fronts(self) -> list[ApplicationRow]:
        received = [row for row in self.applications.values() if row.state is State.RECEIVED]
        return [
            row
            for row in received
            if row.whose is None or not any(other.whose == row.whose and other.id < row.id for other in received)
        ]

    def _was_delivered(self, row: ApplicationRow) -> bool:
        same = [one for one in self.applications.values() if one.whose == row.whose is not None]
        return any(one.delivered_at is not None for one in same)

    @staticmethod
    def _early(row: ApplicationRow, rule: EarlyRule, now: float) -> EarlyReport:
        until = rule.until(row.series_from, now)
        tried = row.attempts - row.in_work > row.series_base
        return EarlyReport(rule.report(row.applicant_id, until, now, tried=tried), until)

    def claim_reports(
        self, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
    ) -> list[ReportClaim]:
        due = [
            row
            for row in self._free_reports(now, accounts)
            if row.due_at <= now and not self._is_paused(row.account, Stage.REPORT, now)
        ]
        taken: list[ReportRow] = []
        while due and len(taken) < limit:
            row = self._next_in_turn(due, self.reports.values())
            due.remove(row)
            taken.append(row)
            self._take(row, AttemptKind.REPORT, row.application_id, worker, now, lease)
        return [report_claim_of(row, self.applications[row.application_id]) for row in taken]

    def _free_reports(self, now: float, accounts: Collection[str]) -> list[ReportRow]:
        """Two of one applicant could overtake each other on their way, so one waits while another is on it."""
        under_way = [row for row in self.reports.values() if row.in_work and row.lease_until > now]
        return [
            row
            for row in self.reports.values()
            if row.state is ReportState.DUE
            and row.account in accounts
            and not row.in_work
            and row.whose not in [other.whose for other in under_way]
        ]

    def settle_report(self, claim: ReportClaim, settlement: ReportSettlement, *, now: float) -> ReportState:
        row = self._held(claim)
        row.state = row.state if row.state is ReportState.SUPERSEDED else settlement.state
        due = row.state is ReportState.DUE
        row.due_at = (now if settlement.due_at is None else settlement.due_at) if due else None
        row.settled_at = None if due else now
        if settlement.refused and row.refused_since is None:
            row.refused_since = now
        self._end_by_verdict(row, settlement, now)
        return row.state

    # -- both

    def next_due(
        self,
        *,
        now: float,
        accounts: Collection[str],
        full: Collection[str] = (),
        untrusted: bool = True,
        roughly: bool = False,
    ) -> Due:
        alone, others = (
            [row for row in self._free(solo=solo, untrusted=untrusted) if (row.account or "") not in full]
            for solo in (True, False)
        )
        leases = [row.lease_until for row in (*self.applications.values(), *self.reports.values()) if row.in_work]
        return Due(
            hand_off=self._first(others, Stage.HAND_OFF),
            solo=self._first(alone, Stage.HAND_OFF),
            report=self._first(self._free_reports(now, accounts), Stage.REPORT),
            lease_end=min(leases, default=None),
        )

    def _first(self, rows: Iterable[ApplicationRow | ReportRow], stage: Stage) -> float | None:
        """When the first is due; what is paused, at the end of its pause, or never, if that must be told."""
        times = []
        for row in rows:
            pause = self.paused.get((row.account or "", stage))
            if pause is None:
                times.append(row.due_at)
            elif pause.until is not None:
                times.append(max(row.due_at, pause.until))
        return min(times, default=None)


def _overdue(rows: Iterable[W], now: float) -> list[W]:
    return [row for row in rows if row.in_work and row.lease_until <= now]
