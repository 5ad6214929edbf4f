"""The nouns of posting jobs: what is sent (seed-client-reference.html.txt and section 5 of docs/idibu.md).

Marked as assumed is what neither the seed nor idibu's later documents show.
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum

from apptrack_ingest.idibu import limits

SHORTEST_TITLE = 5
SHORTEST_DESCRIPTION = 5
SHORTEST_REFERENCE = 4


class Method(StrEnum):
    """What is to be done with a job."""

    ADD = "ADD"
    UPDATE = "UPDATE"
    REPOST = "REPOST"
    QUICKREPOST = "QUICKREPOST"
    DELETE = "DELETE"
    CANCEL = "CANCEL"


class LockBoards(StrEnum):
    """Whether a person has to complete the posting on idibu's completion page, and may choose boards there."""

    YES = "yes"
    """Only where something needed is missing; the boards are fixed."""
    NO = "no"
    """Always, and boards can be chosen (idibu's default)."""
    YES_PCP = "yes_pcp"
    """Always; the boards are fixed."""


class ValidateLevel(StrEnum):
    """What idibu does about data that breaks a rule."""

    WARNING = "warning"
    """Warn, and go on (idibu's default)."""
    FAIL = "fail"
    """Refuse the job."""


class JobType(IntEnum):
    """As in the header X-iTrackID-Type."""

    CONTRACT = 1
    PERMANENT = 2
    TEMPORARY = 4


class JobTime(IntEnum):
    """How much of the week the job takes."""

    PART_TIME = 1
    FULL_TIME = 2


class SalaryPer(StrEnum):
    """What the salary is paid for."""

    ANNUM = "annum"
    MONTH = "month"
    WEEK = "week"
    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class ById:
    """A job by idibu's own id."""

    id: int

    def __post_init__(self) -> None:
        limits.identity("the job's id", self.id)


@dataclass(frozen=True, slots=True)
class ByClientReference:
    """A job by the customer's unique reference: "a complement for idibu job ids", as the seed has it."""

    client_reference: str

    def __post_init__(self) -> None:
        (stripped,) = limits.one_line("the client reference", [self.client_reference])
        object.__setattr__(self, "client_reference", stripped)


JobKey = ById | ByClientReference


@dataclass(frozen=True, slots=True)
class JobConfig:
    """The config block; what is None is left out and idibu's default holds. `utf8_enable` is always sent as yes.

    `partner_id` chooses the completion page's looks; `redirect_url` is where that page leads to in the end;
    `completion_email` has idibu mail the page's address there (`completionurl` email) in place of answering with it.
    """

    show_durations: bool | None = None
    lockboards: LockBoards | None = None
    partner_id: str | None = None
    redirect_url: str | None = None
    validate_level: ValidateLevel | None = None
    completion_email: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.completion_email is not None:
            limits.address("completion_email", self.completion_email)


@dataclass(frozen=True, slots=True)
class Board:
    """A job board to post to, for how many days (None: as the account has it set)."""

    id: int
    days: int | None = None

    def __post_init__(self) -> None:
        limits.identity("a board's id", self.id)
        if self.days is not None:
            limits.identity("a board's days", self.days)


@dataclass(frozen=True, slots=True)
class Advert:
    """A job as it is posted. `sender_id` is idibu's id of the consultant; `reference` is the advert's own, not unique.

    `description` may hold HTML. `publish` must know its time zone: idibu is told GMT. Categories and locations are ids
    from idibu's lists (a country's code will do as a location). Raises ValueError for a text shorter than idibu takes, a
    salary from more to less, or a `publish` without time zone.
    """

    sender_id: int
    title: str
    description: str = field(repr=False)
    reference: str
    boards: tuple[Board, ...] = ()
    start_date: date | None = None
    salary_min: Decimal | int | None = None
    salary_max: Decimal | int | None = None
    salary_per: SalaryPer | None = None
    currency: str | None = None
    job_type: JobType | None = None
    job_time: JobTime | None = None
    category: str | int | None = None
    location: str | int | None = None
    sublocation: str | int | None = None
    publish: datetime | None = None

    def __post_init__(self) -> None:
        limits.identity("the sender's id", self.sender_id)
        limits.given("the title", self.title, SHORTEST_TITLE)
        limits.given("the description", self.description, SHORTEST_DESCRIPTION)
        limits.given("the reference", self.reference, SHORTEST_REFERENCE)
        if self.salary_min is not None and self.salary_max is not None and self.salary_max < self.salary_min:
            raise ValueError("the highest salary must not be below the lowest")
        if self.publish is not None and self.publish.utcoffset() is None:
            raise ValueError("publish must have a time zone")
