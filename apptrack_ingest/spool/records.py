"""What goes into a spool and comes out of it: claims, settlements, filters and rows, all frozen.

Times are epoch seconds."""

from dataclasses import dataclass

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import AttemptKind, HeldReason, Report, ReportState, Stage, State


@dataclass(frozen=True, slots=True)
class Facts:
    """What was derived from a mail and is kept beside the application for lists and searches; all of it can be missing."""

    client_reference: str | None = None
    candidate_name: str | None = None
    candidate_email: str | None = None
    job_title: str | None = None
    portal_name: str | None = None
    content_digest: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """An application under our lease, its attempt already counted. `token` is the fencing token; `attempt` counts all
    attempts, `series_attempt` those since the last time a person intervened and `first_attempt_at` is when that series
    began; `crashes` how many ended in no verdict; `again` that a person wants it
    handed over although the same content was delivered before; `vouched` that a person routed or released it; `size` is the
    mail's, in bytes."""

    application_id: int
    message_id: int
    account: str | None
    applicant_id: int | None
    token: int
    attempt: int
    series_attempt: int
    crashes: int
    first_attempt_at: float
    received_at: float
    trusted: bool
    vouched: bool
    again: bool
    size: int = 0


@dataclass(frozen=True, slots=True)
class Delivered:
    """An earlier delivery of the same applicant to the same account."""

    application_id: int
    content_digest: str | None
    remote_id: str | None
    delivered_at: float


@dataclass(frozen=True, slots=True)
class EarlyReport:
    """What idibu is told before there is an outcome, and until when it then holds."""

    report: Report
    until: float


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. `code` is the reason for logs and lists, `detail` the words for people (spool only).

    `due_at` is needed with POSTPONE, `reason` with HOLD. `applicant_id` is what the mail turned out to say (None keeps
    what is there). `report` is due from the same commit on (invariant 3). `duplicate_of` names the delivered one.
    `counts` False un-counts the attempt (a drain). `trust` replaces what the intake found, where the mail turned out to
    hold another whose own signature decides: whether its id is believed, and why. `early` goes with POSTPONE: it is due
    like a report, unless what idibu was told before still holds, or the applicant was delivered already.
    """

    event: Event
    code: str
    detail: str = ""
    facts: Facts | None = None
    applicant_id: int | None = None
    remote_id: str | None = None
    reason: HeldReason | None = None
    due_at: float | None = None
    duplicate_of: int | None = None
    report: Report | None = None
    counts: bool = True
    trust: tuple[bool, str] | None = None
    early: EarlyReport | None = None


@dataclass(frozen=True, slots=True)
class ReportClaim:
    """A report under our lease, its attempt already counted. `refused_since` is when idibu first said `failed`; `early` that
    its application has no outcome yet."""

    report_id: int
    application_id: int
    account: str
    report: Report
    token: int
    attempt: int
    first_attempt_at: float
    refused_since: float | None
    created_at: float
    received_at: float
    early: bool = False


@dataclass(frozen=True, slots=True)
class ReportSettlement:
    """How sending a report ended: its next state (DUE needs `due_at`), the code and the words."""

    state: ReportState
    code: str
    detail: str = ""
    due_at: float | None = None
    refused: bool = False
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """The newest report of an applicant: what idibu is to show, or was told. `code` is how its last attempt ended; `erased`
    that retention or `forget` took the words from it."""

    report_id: int
    application_id: int
    report: Report
    state: ReportState
    created_at: float
    settled_at: float | None
    code: str | None
    erased: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """What `list` selects; every given field narrows. `account` "" is unrouted; `candidate` is part of a name or address,
    case-insensitive; `since` and `until` (not included) are epoch seconds of the receipt; `unread` keeps those whose mail
    was not read yet. `before_id` pages backwards, newest first; `after_id` forwards with `oldest_first`."""

    states: tuple[State, ...] = ()
    reasons: tuple[HeldReason, ...] = ()
    report_states: tuple[ReportState, ...] = ()
    account: str | None = None
    applicant_id: int | None = None
    client_reference: str | None = None
    candidate: str | None = None
    portal: str | None = None
    since: float | None = None
    until: float | None = None
    unread: bool = False
    before_id: int | None = None
    after_id: int | None = None
    oldest_first: bool = False
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Summary:
    """One application as a row of a list; `report` is the state of its newest report."""

    application_id: int
    message_id: int
    account: str | None
    applicant_id: int | None
    state: State
    reason: HeldReason | None
    code: str | None
    detail: str | None
    facts: Facts
    remote_id: str | None
    received_at: float
    settled_at: float | None
    due_at: float | None
    attempts: int
    in_work: bool
    duplicate_of: int | None
    report: ReportState | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt in the history a person reads; `ended_at` None: under way, or cut off and not yet noticed."""

    kind: AttemptKind
    number: int
    worker: str
    started_at: float
    ended_at: float | None
    code: str | None
    detail: str | None
    report_id: int | None


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """One report with its state and what last happened to it."""

    report_id: int
    report: Report
    state: ReportState
    created_at: float
    settled_at: float | None
    due_at: float | None
    attempts: int
    code: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """What a person did to an application: who, when, what and why; `order_id` where it was ordered for many at once."""

    at: float
    actor: str
    action: str
    note: str
    order_id: int | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """Everything known of one application; the raw mail is fetched apart (`raw`)."""

    summary: Summary
    sender: str
    recipients: tuple[str, ...]
    peer: str
    helo: str
    size: int
    sha256: str
    trusted: bool
    trust_note: str
    evidence: tuple[str, ...]
    erased: bool
    attempts: tuple[AttemptRecord, ...] = ()
    reports: tuple[ReportRecord, ...] = ()
    actions: tuple[ActionRecord, ...] = ()
    message_warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """A person's decision on one application. `account` and `applicant_id` belong to ROUTE; `report` is what idibu is
    to be told of it (DISCARD); `order_id` where it was ordered for many at once."""

    event: Event
    actor: str
    note: str = ""
    account: str | None = None
    applicant_id: int | None = None
    report: Report | None = None
    order_id: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A stage of an account rests until a time (None: until told), for a reason in words. `actor` is the person who
    ordered it; "" is apptrack-ingest itself, because idibu does not accept the account's hash: then `reason` is a code and
    `fingerprint` tells one hash from the next without holding it."""

    account: str
    stage: Stage
    reason: str
    since: float
    until: float | None
    fingerprint: str = ""
    actor: str = ""

    def is_of_hash(self, account: str) -> bool:
        """Whether it is our own, of this account, because of its hash."""
        return self.account == account and self.stage is Stage.REPORT and not self.actor

    def over(self, now: float) -> bool:
        """Whether its time is up."""
        return self.until is not None and self.until <= now


@dataclass(frozen=True, slots=True)
class Order:
    """What a person orders about more than one application: `action` is the command, `account` the one it is about (None:
    none in particular), `subject` the stage or the filter in words, or a digest of whom to forget; `note` says why. `actor`
    "" is apptrack-ingest itself."""

    action: str
    actor: str
    account: str | None = None
    subject: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """An order in the history: for how many applications it was carried out, and for how many it could not be; `ended_at`
    None: under way, or cut off."""

    order_id: int
    at: float
    order: Order
    done: int
    refused: int
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One application of a person who is to be forgotten: what must be known to do so. `in_work` when it, or a report of it,
    is under way; `attempted` when a handler may have got it; `erased` when its mail is gone already."""

    application_id: int
    message_id: int
    account: str | None
    applicant_id: int | None
    state: State
    reason: HeldReason | None
    believed: bool
    in_work: bool
    attempted: bool
    erased: bool
    remote_id: str | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """That somebody was forgotten: when, by whom, and how many applications there were. `digest` proves it to whoever knows
    the address, and tells it to nobody else."""

    digest: str
    at: float
    actor: str
    applications: int


@dataclass(frozen=True, slots=True)
class Reaped:
    """An application whose lease ran out under an attempt without a verdict; `held` when it is a crash-loop now."""

    application_id: int
    account: str | None
    applicant_id: int | None
    crashes: int
    held: bool


@dataclass(frozen=True, slots=True)
class Load:
    """What weighs on the spool, for the intake's back-pressure: how many applications still wait for their outcome, and
    how many messages, of how many bytes together, are kept for untrusted applications that wait or are held."""

    waiting: int
    untrusted_messages: int
    untrusted_bytes: int


@dataclass(frozen=True, slots=True)
class Due:
    """When the next work is due: epoch seconds, or None. `solo` is the next application to be worked alone."""

    hand_off: float | None = None
    solo: float | None = None
    report: float | None = None
    lease_end: float | None = None
