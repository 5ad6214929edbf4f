"""The narrow contract behind which a spool's database stands; tests/contract/test_spool.py states each promise once.

Times are epoch seconds and always given by the caller. Every method may raise SpoolUnavailable: then nothing of it was
kept, and the same call may be made again. Every writing method returns only after its commit.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import (
    Arrival,
    AttemptKind,
    Backlog,
    HeldReason,
    Message,
    Report,
    ReportState,
    State,
)


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
    handed over although the same content was delivered before; `vouched` that a person routed or released it."""

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


@dataclass(frozen=True, slots=True)
class Delivered:
    """An earlier delivery of the same applicant to the same account."""

    application_id: int
    content_digest: str | None
    remote_id: str | None
    delivered_at: float


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. `code` is the reason for logs and lists, `detail` the words for people (spool only).

    `due_at` is needed with POSTPONE, `reason` with HOLD. `applicant_id` is what the mail turned out to say (None keeps
    what is there). `report` is due from the same commit on (invariant 3). `duplicate_of` names the delivered one.
    `counts` False un-counts the attempt (a drain). `trust` replaces what the intake found, where the mail turned out to
    hold another whose own signature decides: whether its id is believed, and why.
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


@dataclass(frozen=True, slots=True)
class ReportClaim:
    """A report under our lease, its attempt already counted. `refused_since` is when idibu first said `failed`."""

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
class Filter:
    """What `list` selects; every given field narrows. `candidate` is part of a name or address, case-insensitive.
    `since` is epoch seconds of the receipt; `before_id` pages backwards; newest first."""

    states: tuple[State, ...] = ()
    reasons: tuple[HeldReason, ...] = ()
    report_states: tuple[ReportState, ...] = ()
    account: str | None = None
    applicant_id: int | None = None
    client_reference: str | None = None
    candidate: str | None = None
    since: float | None = None
    before_id: int | None = None
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
    """What a person did to an application: who, when, what and why."""

    at: float
    actor: str
    action: str
    note: str


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
    to be told of it (DISCARD)."""

    event: Event
    actor: str
    note: str = ""
    account: str | None = None
    applicant_id: int | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Reporting of an account is paused until a time, because idibu does not accept its hash. `fingerprint` tells one
    hash from the next without holding it."""

    account: str
    reason: str
    since: float
    until: float
    fingerprint: str


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


class Spool(Protocol):
    """Durable keeping of messages, their applications, attempts and reports."""

    # -- receive
    async def put(self, message: Message, arrivals: Sequence[Arrival]) -> int:
        """Keeps a message and its applications (state received, due at once); returns the message's id, committed."""

    # -- hand off
    async def claim(
        self,
        *,
        worker: str,
        now: float,
        lease: float,
        limit: int,
        room: Mapping[str, int] | None = None,
        solo: bool = False,
    ) -> list[Claim]:
        """Takes up to `limit` due applications under a lease of `lease` seconds, oldest due first, and counts their
        attempts. Of one (account, applicant id) only the oldest still received is ever taken; of an account in `room`
        no more than it says ("" is unrouted). `solo` takes one that must be worked alone (an earlier attempt ended in no
        verdict), else none such."""

    async def renew(
        self, claims: Sequence[Claim | ReportClaim], *, now: float, lease: float
    ) -> list[Claim | ReportClaim]:
        """Prolongs leases; returns the claims that were lost."""

    async def delivered_before(self, account: str, applicant_id: int) -> list[Delivered]:
        """Earlier deliveries of the applicant to the account, newest first."""

    async def raw(self, message_id: int) -> bytes:
        """The exact bytes of a message. NotFound when there is none or they were erased by retention."""

    async def settle(self, claim: Claim, settlement: Settlement, *, now: float) -> None:
        """Ends an attempt and the lease; a report given with it supersedes older unsent ones of the same applicant.
        LeaseLost when the token is no longer the newest."""

    async def reap(self, *, now: float, reports_for: Collection[str]) -> list[Reaped]:
        """Ends the attempts whose lease ran out: no verdict. Their application is due at once, to be worked alone, or
        held as crash-loop after the last solo attempt (then reported as fail for accounts in `reports_for`)."""

    async def abandon(self, worker: str, *, now: float) -> int:
        """Lets all leases of `worker` run out now: the caller knows that whoever held that name is dead."""

    # -- report
    async def claim_reports(
        self, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
    ) -> list[ReportClaim]:
        """Takes due reports of these accounts, unless paused; never two of one applicant at a time."""

    async def settle_report(self, claim: ReportClaim, settlement: ReportSettlement, *, now: float) -> ReportState:
        """Ends sending a report; returns its state now (superseded ones stay so). LeaseLost as in `settle`."""

    async def pause(self, pause: Pause) -> None:
        """Pauses an account's reporting, or prolongs the pause."""

    async def resume(self, account: str) -> bool:
        """Ends the pause; True when there was one."""

    async def pauses(self) -> list[Pause]:
        """All pauses, over or not."""

    # -- both
    async def next_due(self, *, now: float, accounts: Collection[str]) -> Due:
        """When something becomes due: a hand-off, a solo hand-off, a report of `accounts`, the end of a lease."""

    def listen(self, wake: Callable[[], None]) -> None:
        """Calls `wake` in the running loop soon after another process put or changed something. Only a hint: it may be
        lost, so whoever waits looks at least once a second."""

    # -- people
    async def act(self, application_id: int, action: Action, *, now: float) -> State:
        """Carries out a person's decision and keeps who, when and why; returns the state after. NotAllowed, NotFound."""

    async def retry_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        """Makes a refused or failed report due again, if it is still the newest of its applicant. NotAllowed, NotFound."""

    async def drop_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        """A person decides that idibu need not be told (it has deleted the applicant, say): a refused or failed report
        ends as superseded. NotAllowed, NotFound."""

    async def update_facts(self, application_id: int, facts: Facts, applicant_id: int | None) -> None:
        """Replaces what was derived from the mail (reparse)."""

    async def find(self, wanted: Filter) -> list[Summary]:
        """The applications that match, newest first."""

    async def story(self, application_id: int) -> Story:
        """Everything known of one application. NotFound."""

    async def backlog(self) -> Backlog:
        """Counts of all that the spool holds."""

    async def load(self) -> Load:
        """What weighs on the spool; cheap enough to be asked every other second."""

    async def mark(self, key: str) -> float | None:
        """A remembered time (when a digest was last sent), or None."""

    async def set_mark(self, key: str, at: float) -> None:
        """Remembers a time."""

    async def erase_finished(self, *, before: float, limit: int) -> int:
        """Erases raw bytes and candidates' data of messages all of whose applications finished before then and have no
        report due, refused or failed; ids, digests and times stay (invariant 6). Returns how many messages."""

    async def discard_untrusted(self, *, before: float, limit: int, now: float) -> int:
        """Discards what is held of untrusted mail received before then, unless a person vouched for it or holds it, with
        who and why kept in its history, and erases its mail and the candidate's data at once. Returns how many
        applications."""

    async def check_writable(self) -> None:
        """Commits a harmless write, to know that the next `put` can; raises SpoolUnavailable."""

    async def close(self) -> None:
        """Commits what waits and lets go of the database."""
