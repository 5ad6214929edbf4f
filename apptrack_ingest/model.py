"""The nouns of the product, frozen: what passes between receiving, spooling, parsing, handing off and reporting."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

# --- the life of an application and of a report ------------------------------------------------------------------


class State(StrEnum):
    """The states of an application (docs/lifecycle.md); "in work" is a lease, not a state."""

    RECEIVED = "received"
    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    FAILED = "failed"
    HELD = "held"
    DISCARDED = "discarded"


class HeldReason(StrEnum):
    """Why a person has to look at a held application."""

    NO_APPLICANT_ID = "no-applicant-id"
    INVALID_APPLICANT_ID = "invalid-applicant-id"
    UNROUTED = "unrouted"
    UNTRUSTED = "untrusted"
    UNREADABLE = "unreadable"
    CRASH_LOOP = "crash-loop"
    BY_OPERATOR = "by-operator"


class ReportState(StrEnum):
    """The states of a report to idibu; `due` until one of the others ends it."""

    DUE = "due"
    CONFIRMED = "confirmed"
    SUPERSEDED = "superseded"
    REFUSED = "refused"
    FAILED = "failed"


class ReportStatus(StrEnum):
    """What a report says to idibu (seed-applicant-status.txt: "either success or fail")."""

    SUCCESS = "success"
    FAIL = "fail"


class Stage(StrEnum):
    """The two stages in which work waits for others, and which a person can pause."""

    HAND_OFF = "hand-off"
    REPORT = "report"


class PausedBy(StrEnum):
    """Who paused a stage of an account: apptrack-ingest itself, or a person."""

    ITSELF = "itself"
    PERSON = "person"


class AttemptKind(StrEnum):
    """Which of the two independent jobs an attempt belongs to."""

    HAND_OFF = "hand-off"
    REPORT = "report"


# --- receiving ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """How one mail reached us: its SMTP envelope and its peer, as far as they are known before the 250.

    `sender` is the reverse path without angle brackets, empty for a bounce; `recipients` are as given at RCPT.
    """

    sender: str
    recipients: tuple[str, ...]
    peer: str
    helo: str = ""
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """One application to be of a message being received: the account (None: unrouted) and the id to order it by.

    `trusted` says whether the account's rules let the mail's X-iTrackID be believed, `trust_note` which rule matched, or
    what was tried. `applicant_id` is set only when the header block holds exactly one well-formed id and it is trusted.
    """

    account: str | None
    applicant_id: int | None
    trusted: bool
    trust_note: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One DATA as received. `raw` are the exact bytes with our own Received header on top; `evidence` is what was found
    out about its sender, a line each (DKIM, SPF, names); `warnings` are what the receive stage noticed."""

    envelope: Envelope
    received_at: float
    raw: bytes = field(repr=False)
    evidence: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# --- what a handler gets (public API) -----------------------------------------------------------------------------


class Role(StrEnum):
    """What a document most likely is. The last three are what mail programs put in, and hardly ever a person's document."""

    CV = "cv"
    COVER_LETTER = "cover-letter"
    OTHER = "other"
    INLINE_IMAGE = "inline-image"
    SIGNATURE = "signature"
    CALENDAR = "calendar"


@dataclass(frozen=True, slots=True)
class Document:
    """One attachment. `name` is safe as a file name on any system and unique within the application; `original_name` is
    what the mail said (None: nothing); types are MIME types (`sniffed_type` None: not recognised); `size` is in bytes,
    `sha256` lower-case hex of `content`; `why` says in words how `role` was found.

    `disposition` is what the mail asks for (inline, attachment; None: nothing). `inside` names the document that this one
    was found in: an attached mail, a winmail.dat, a signed container, or `text` for a file written into the mail's text;
    None for a part of the mail itself. `flags` are words for a handler that filters: executable, archive, encrypted
    (its content cannot be read without a key), mismatch (its first bytes are not of the type it claims), recovered (only a
    repair of the mail's broken structure found it).
    """

    name: str
    original_name: str | None
    claimed_type: str
    sniffed_type: str | None
    size: int
    sha256: str
    role: Role
    why: str
    content: bytes = field(repr=False)
    disposition: str | None = None
    inside: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hint:
    """Something found that may be true of the candidate but is not certain; `source` says where it was found."""

    kind: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """The person who applied; what is missing is None, never invented. `source` names the header it was read from."""

    name: str | None = None
    email: str | None = None
    source: str | None = None
    hints: tuple[Hint, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """The job applied for: idibu's id, title, the advert's reference (not unique), and type (`2 Permanent` as sent)."""

    id: int | None = None
    title: str | None = None
    reference: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the candidate came from: the job board's (portal's) id and name, and the id of the posting."""

    portal_id: int | None = None
    portal_name: str | None = None
    post_log_id: int | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """The consultant whose advert it was, with office and team."""

    id: int | None = None
    name: str | None = None
    email: str | None = None
    office: str | None = None
    team: str | None = None


@dataclass(frozen=True, slots=True)
class Previous:
    """An earlier delivery of the same applicant to the same account: the ATS's remote id (if it gave one) and when."""

    remote_id: str | None
    delivered_at: datetime


@dataclass(frozen=True, slots=True)
class Application:
    """One candidate's application, as a handler gets it. Everything but account and applicant_id can be missing.

    `idempotency_key` is equal over all attempts to hand over the same content and new for an update; `attempt` counts
    from 1; `previous` is set when this applicant was delivered before; `documents` have the likely CV first; `headers`
    are all of the mail's, decoded, in order; `raw` is the mail as received; `warnings` say what was repaired or lost.
    """

    account: str
    applicant_id: int
    idempotency_key: str
    attempt: int
    received_at: datetime
    client_reference: str | None = None
    previous: Previous | None = None
    candidate: Candidate = Candidate()
    job: Job = Job()
    source: Source = Source()
    owner: Owner = Owner()
    subject: str | None = None
    text: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    documents: tuple[Document, ...] = ()
    warnings: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    raw: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is to be forgotten, as a handler is asked to: the account and the candidate's e-mail address, in whatever
    capitals; the applicants' ids and the ATS's remote ids as far as they are still known, each perhaps none."""

    account: str
    email: str = field(repr=False)
    applicant_ids: tuple[int, ...] = ()
    remote_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ATS took the candidate; `remote_id` is its own id for it, passed on to idibu."""

    remote_id: str | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The ATS already had this very application; counts as delivered."""

    remote_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The ATS will never take this application; `reason` is in words and is reported to idibu as the error message."""

    reason: str


Verdict = Accepted | Duplicate | Rejected

# --- parsing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a mail says, derived from its raw bytes alone.

    `applicant_id` is None when the header is missing or not believable as a number; `id_problem` then tells which.
    `content_digest` is the versioned digest of metadata, subject and leaf bytes, equal for two copies of one application.
    `unwrapped` says that all of this, the id included, was read from a mail attached to the one received, which has no
    X-iTrackID itself, and `inner` are the attached mail's bytes: its own DKIM signature alone can vouch for its id.
    """

    applicant_id: int | None
    id_problem: HeldReason | None
    content_digest: str
    client_reference: str | None = None
    client_id: int | None = None
    candidate: Candidate = Candidate()
    job: Job = Job()
    source: Source = Source()
    owner: Owner = Owner()
    subject: str | None = None
    text: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    documents: tuple[Document, ...] = ()
    warnings: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    unwrapped: bool = False
    inner: bytes | None = field(default=None, repr=False)


# --- reporting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What idibu is to be told of one applicant; `date_processed` is when the outcome was reached (epoch seconds, UTC)."""

    applicant_id: int
    status: ReportStatus
    date_processed: float
    remote_id: str | None = None
    error_message: str | None = None


# --- what waits -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Backlog:
    """A count of what the spool holds, for metrics, health and digests; times are epoch seconds.

    `applications` counts by (account, state), account "" where unrouted; `held` by (account, reason); `reports` by
    (account, state). `oldest_hand_off` and `oldest_report` give, by account, when the oldest application still
    `received` came in and when the oldest `due` report was made. `paused` says which stages of accounts are paused, and
    by whom.
    """

    applications: dict[tuple[str, State], int]
    held: dict[tuple[str, HeldReason], int]
    reports: dict[tuple[str, ReportState], int]
    oldest_hand_off: dict[str, float]
    oldest_report: dict[str, float]
    paused: dict[tuple[str, Stage], PausedBy]
    size_bytes: int
