"""What the sandbox can be told to do wrong: steps, taken in order by the requests that follow."""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Quirk(StrEnum):
    """A spelling of idibu's answers that clients must survive (docs/idibu.md)."""

    UPPER_CASE = "upper-case"
    """Names and the status in capitals."""
    UTF8 = "utf8"
    """`encoding="utf8"` in the declaration."""
    WHITE_SPACE = "white-space"
    """White space before the declaration."""
    SINGLE_QUOTES = "single-quotes"
    """Attributes in single quotes."""
    SHORT = "short"
    """Success without a response element, as in the oldest document."""
    FAIL = "fail"
    """`fail` in place of `failed`."""
    MESSAGE = "message"
    """The text in `<response><message>`."""
    LOG_ERRORS = "log-errors"
    """An error in `<log><errors><error>`, in place of a response."""
    POST = "post"
    """A job's posts called `post`, as in the later documents, in place of `posts`."""


class Fault(StrEnum):
    """Something that goes wrong; the number is the HTTP status it comes with unless the step names another."""

    ERROR = "error"
    """500 and a line of text."""
    HTML = "html"
    """200 and an HTML page, as of a proxy."""
    EMPTY = "empty"
    """200 and no body."""
    FAILED = "failed"
    """200 and `failed` in idibu's XML, with the step's text."""
    UNAUTHORIZED = "unauthorized"
    """401 and `failed`; with status 200, `failed` alone."""
    BUSY = "busy"
    """429, with the step's Retry-After."""
    REDIRECT = "redirect"
    """302 to the step's text."""
    HANG = "hang"
    """No answer until the client leaves, or a normal one after the step's seconds."""
    CLOSE = "close"
    """The connection is closed without an answer."""


STATUS = {Fault.ERROR: 500, Fault.UNAUTHORIZED: 401, Fault.BUSY: 429, Fault.REDIRECT: 302}
"""Where a fault's usual HTTP status is not 200."""


class Step(BaseModel):
    """One thing to do to the next requests of the endpoint that it applies to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: Fault | None = None
    quirks: frozenset[Quirk] = frozenset()
    times: int | None = Field(default=1, ge=1)
    """How many requests; null: all, until the script is changed."""
    applicant: int | None = Field(default=None, ge=1)
    """Only requests about this applicant."""
    call: str | None = Field(default=None, max_length=40)
    """Only requests of this method: `applicant-status`, `applicants`, one of service management (`setccemail`)
    or of jobs (`ADD`)."""
    saves: bool = False
    """Whether what was asked is done all the same, and only the answer goes wrong."""
    status: int | None = Field(default=None, ge=200, le=599)
    seconds: float | None = Field(default=None, ge=0, le=3600)
    retry_after: str | None = Field(default=None, pattern=r"^[ -~]{0,100}$")
    text: str = Field(default="The sandbox was told to fail", max_length=10_000)

    @property
    def http_status(self) -> int:
        """The HTTP status to answer with."""
        return self.status or (STATUS.get(self.fault, 200) if self.fault else 200)


STEPS = TypeAdapter(list[Step])
"""Reads and writes a script as JSON."""

PLAIN = Step()


class Script:
    """The steps still to come. A request takes the first that applies to it, and uses up one of its times."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def replace(self, steps: Iterable[Step]) -> None:
        """Forgets what was still to come."""
        self._steps = list(steps)

    def take(self, applicant_id: int | None, call: str = "applicant-status") -> Step:
        """The step for a request of this method about this applicant (None: about no single one); a plain one when none
        applies."""
        for place, step in enumerate(self._steps):
            if step.applicant in (None, applicant_id) and step.call in (None, call):
                self._use(place, step)
                return step
        return PLAIN

    def remaining(self) -> list[Step]:
        """The steps still to come."""
        return list(self._steps)

    def _use(self, place: int, step: Step) -> None:
        if step.times is None:
            return
        rest = [step.model_copy(update={"times": step.times - 1})] if step.times > 1 else []
        self._steps[place : place + 1] = rest
