"""What the model of the spool (spool_model.py) keeps: its rows, and how each is shown."""

from dataclasses import dataclass, field

from apptrack_ingest.lifecycle import WAITING
from apptrack_ingest.model import HeldReason, Message, Report, ReportState, State
from apptrack_ingest.spool.records import (
    ActionRecord,
    AttemptRecord,
    Claim,
    Facts,
    Filter,
    OrderRecord,
    Pause,
    ReportClaim,
    ReportRecord,
    Summary,
)

OPEN = (ReportState.DUE, ReportState.REFUSED, ReportState.FAILED)
"""The states of a report that idibu has not confirmed and no newer one replaced."""


@dataclass
class Work:
    """What applications and reports have in common: due at a time, worked on under a lease, in attempts of a series."""

    id: int
    account: str | None
    due_at: float | None
    attempts: int = 0
    series_base: int = 0
    series_from: float | None = None
    token: int = 0
    worker: str | None = None
    lease_until: float | None = None
    settled_at: float | None = None
    code: str | None = None
    detail: str | None = None

    @property
    def in_work(self) -> bool:
        return self.lease_until is not None

    def take(self, worker: str, now: float, lease: float) -> None:
        """Counted before anything is done."""
        self.token, self.attempts = self.token + 1, self.attempts + 1
        self.series_from = now if self.series_from is None else self.series_from
        self.worker, self.lease_until = worker, now + lease

    def let_go(self) -> None:
        self.worker = self.lease_until = None

    def new_series(self, due_at: float) -> None:
        """Its whole schedule is before it again."""
        self.due_at, self.series_from, self.series_base = due_at, None, self.attempts


@dataclass
class ApplicationRow(Work):
    """One application."""

    message_id: int = 0
    size: int = 0
    received_at: float = 0.0
    applicant_id: int | None = None
    trusted: bool = False
    trust_note: str = ""
    vouched: bool = False
    again: bool = False
    crashes: int = 0
    state: State = State.RECEIVED
    reason: HeldReason | None = None
    facts: Facts = field(default_factory=Facts)
    remote_id: str | None = None
    duplicate_of: int | None = None
    delivered_at: float | None = None
    announced_until: float | None = None
    waits_since: float | None = None
    actions: list[ActionRecord] = field(default_factory=list)

    @property
    def believed(self) -> bool:
        return self.trusted or self.vouched

    @property
    def whose(self) -> tuple[str, int] | None:
        """The applicant, where both are known; only then do applications wait for each other."""
        return None if self.account is None or self.applicant_id is None else (self.account, self.applicant_id)


@dataclass
class ReportRow(Work):
    """One report; `believed`, or there would be none."""

    application_id: int = 0
    report: Report | None = None
    state: ReportState = ReportState.DUE
    created_at: float = 0.0
    refused_since: float | None = None
    believed: bool = True

    @property
    def whose(self) -> tuple[str | None, int]:
        assert self.report is not None
        return self.account, self.report.applicant_id


@dataclass
class AttemptRow:
    """One attempt of either job; `token` tells it from the others of its work."""

    application_id: int
    token: int
    record: AttemptRecord


@dataclass
class MessageRow:
    """One message; `erased` leaves ids, digests and times."""

    message: Message
    erased: bool = False


@dataclass
class Tables:
    """All that is kept."""

    clock: float
    messages: dict[int, MessageRow] = field(default_factory=dict)
    applications: dict[int, ApplicationRow] = field(default_factory=dict)
    reports: dict[int, ReportRow] = field(default_factory=dict)
    attempts: list[AttemptRow] = field(default_factory=list)
    paused: dict[tuple[str, str], Pause] = field(default_factory=dict)
    ordered: list[OrderRecord] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)


# --- how they are shown -------------------------------------------------------------------------------------------


def claim_of(row: ApplicationRow) -> Claim:
    """The claim that was just made on it."""
    same = "message_id account applicant_id token crashes received_at trusted vouched again size"
    return Claim(
        application_id=row.id,
        attempt=row.attempts,
        series_attempt=row.attempts - row.series_base,
        first_attempt_at=row.series_from,
        **{name: getattr(row, name) for name in same.split()},
    )


def report_claim_of(row: ReportRow, application: ApplicationRow) -> ReportClaim:
    """The claim that was just made on it."""
    same = "application_id account report token refused_since created_at"
    return ReportClaim(
        report_id=row.id,
        attempt=row.attempts - row.series_base,
        first_attempt_at=row.series_from,
        received_at=application.received_at,
        early=application.state is State.RECEIVED,
        **{name: getattr(row, name) for name in same.split()},
    )


def summary_of(row: ApplicationRow, report: ReportState | None) -> Summary:
    """The application in a list; `report` is the state of its newest."""
    same = "message_id account applicant_id state reason code detail facts remote_id received_at settled_at due_at"
    same += " attempts in_work duplicate_of"
    return Summary(application_id=row.id, report=report, **{name: getattr(row, name) for name in same.split()})


def report_record_of(row: ReportRow) -> ReportRecord:
    """The report in its application's story."""
    same = "report state created_at settled_at due_at attempts code detail"
    return ReportRecord(report_id=row.id, **{name: getattr(row, name) for name in same.split()})


def matches(one: Summary, wanted: Filter) -> bool:
    """Whether every given field of the filter lets it pass."""
    candidate = f"{one.facts.candidate_name or ''}\n{one.facts.candidate_email or ''}".casefold()
    return (
        (not wanted.states or one.state in wanted.states)
        and (not wanted.reasons or one.reason in wanted.reasons)
        and (not wanted.report_states or one.report in wanted.report_states)
        and wanted.account in (None, one.account or "")
        and wanted.applicant_id in (None, one.applicant_id)
        and wanted.client_reference in (None, one.facts.client_reference)
        and wanted.portal in (None, one.facts.portal_name)
        and (wanted.candidate or "").casefold() in candidate
        and (not wanted.unread or (one.facts.content_digest is None and one.state in WAITING))
        and (wanted.since is None or one.received_at >= wanted.since)
        and (wanted.until is None or one.received_at < wanted.until)
        and (wanted.before_id is None or one.application_id < wanted.before_id)
        and (wanted.after_id is None or one.application_id > wanted.after_id)
    )
