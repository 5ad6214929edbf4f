"""The life of an application as one table and a few pure rules: what may follow what, when to try again, how often at most.

There is no clock and no input or output here; every function takes the time it needs as epoch seconds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, tzinfo
from enum import StrEnum
from hashlib import sha256

from apptrack_ingest import phrases
from apptrack_ingest.errors import NotAllowed
from apptrack_ingest.model import HeldReason, Report, ReportStatus, State


class Event(StrEnum):
    """What can happen to an application: the first six by our work, the rest by a person."""

    DELIVER = "deliver"
    RECOGNISE = "recognise"
    REJECT = "reject"
    EXHAUST = "exhaust"
    POSTPONE = "postpone"
    HOLD = "hold"
    ROUTE = "route"
    RELEASE = "release"
    RETRY = "retry"
    AGAIN = "retry --again"
    DISCARD = "discard"
    FORGET = "forget"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.RECEIVED, Event.DELIVER): State.DELIVERED,
    (State.RECEIVED, Event.RECOGNISE): State.DUPLICATE,
    (State.RECEIVED, Event.REJECT): State.REJECTED,
    (State.RECEIVED, Event.EXHAUST): State.FAILED,
    (State.RECEIVED, Event.POSTPONE): State.RECEIVED,
    (State.RECEIVED, Event.HOLD): State.HELD,
    (State.HELD, Event.ROUTE): State.RECEIVED,
    (State.HELD, Event.RELEASE): State.RECEIVED,
    (State.HELD, Event.RETRY): State.RECEIVED,
    (State.HELD, Event.DISCARD): State.DISCARDED,
    (State.REJECTED, Event.RETRY): State.RECEIVED,
    (State.REJECTED, Event.DISCARD): State.DISCARDED,
    (State.FAILED, Event.RETRY): State.RECEIVED,
    (State.FAILED, Event.DISCARD): State.DISCARDED,
    (State.DELIVERED, Event.AGAIN): State.RECEIVED,
    (State.RECEIVED, Event.FORGET): State.DISCARDED,
    (State.HELD, Event.FORGET): State.DISCARDED,
    (State.REJECTED, Event.FORGET): State.DISCARDED,
    (State.FAILED, Event.FORGET): State.DISCARDED,
}

WAITING = frozenset({State.RECEIVED, State.HELD, State.REJECTED, State.FAILED})
"""States in which an application still waits, for us or for a person; retention never touches these (invariant 6)."""

FINISHED = frozenset(set(State) - WAITING)


def after(state: State, event: Event) -> State:
    """The state that follows; raises NotAllowed naming what would be possible instead."""
    try:
        return TRANSITIONS[(state, event)]
    except KeyError:
        possible = sorted(e.value for (s, e) in TRANSITIONS if s is state and e in OFFERED)
        instead = f"possible: {', '.join(possible)}" if possible else "nothing is left to decide"
        raise NotAllowed(f"{event.value} is not possible while {state.value}; {instead}") from None


OFFERED = frozenset({Event.HOLD, Event.ROUTE, Event.RELEASE, Event.RETRY, Event.AGAIN, Event.DISCARD})
"""What a person can decide about one application."""

BY_A_PERSON = OFFERED | {Event.FORGET}
"""The same, and what follows from a decision about the candidate."""

SOLO_ATTEMPTS = 3
"""How often an application whose attempt ended in no verdict is tried alone before it is held (invariant 2)."""


def is_crash_loop(crashes: int) -> bool:
    """Whether the first attempt without a verdict and all solo attempts after it are used up."""
    return crashes > SOLO_ATTEMPTS


# --- what a mail's contents decide -------------------------------------------------------------------------------


def reason_to_hold(
    *, trusted: bool, vouched: bool, applicant_id: int | None, id_problem: HeldReason | None, account: str | None
) -> HeldReason | None:
    """Why a person must look before the hand-off, or None. Trust comes first: nothing else of an untrusted mail is
    believed (invariant 8). `vouched` is a person's route or release of this very application. Untrusted mail that has
    no id and belongs to no account (mail for postmaster, most likely) has no id to distrust."""
    if not (trusted or vouched):
        nothing_claimed = account is None and applicant_id is None and id_problem is HeldReason.NO_APPLICANT_ID
        return HeldReason.NO_APPLICANT_ID if nothing_claimed else HeldReason.UNTRUSTED
    if applicant_id is None:
        return id_problem or HeldReason.NO_APPLICANT_ID
    return HeldReason.UNROUTED if account is None else None


def idempotency_key(account: str, applicant_id: int, content_digest: str) -> str:
    """Equal over all attempts to hand over the same content, new for an update (DESIGN, section 2)."""
    return sha256(f"{account}\n{applicant_id}\n{content_digest}".encode()).hexdigest()


# --- what idibu is told ------------------------------------------------------------------------------------------

UNREPORTED = frozenset(
    {HeldReason.UNROUTED, HeldReason.UNTRUSTED, HeldReason.NO_APPLICANT_ID, HeldReason.INVALID_APPLICANT_ID}
)
"""Held for these reasons, an application's account or id is not certain enough to tell idibu anything."""


def report_of(
    state: State,
    *,
    applicant_id: int | None,
    believed: bool,
    now: float,
    remote_id: str | None = None,
    reason: HeldReason | None = None,
    words: str = "",
    code: str = "",
) -> Report | None:
    """What idibu is to be told of an outcome reached `now`, or None where nothing may be said (DESIGN, section 2).

    `believed` says that the id comes from a trusted peer or that a person vouched for it; `words` are the handler's or
    a person's, for idibu's users; `code` is how the last attempt ended.
    """
    if applicant_id is None or not believed or reason in UNREPORTED:
        return None
    if state is State.DELIVERED:
        return Report(applicant_id, ReportStatus.SUCCESS, now, remote_id=remote_id)
    texts = {
        State.REJECTED: words or phrases.REJECTED,
        State.FAILED: phrases.given_up(code),
        State.HELD: phrases.held(reason),
        State.DISCARDED: phrases.discarded(words),
    }
    text = texts.get(state)
    return Report(applicant_id, ReportStatus.FAIL, now, error_message=text) if text else None


ANNOUNCE_AGAIN = 3600.0
"""Seconds for which a time is announced at least, where the one announced before is over and still nothing is decided."""


@dataclass(frozen=True, slots=True)
class EarlyRule:
    """When idibu is told that an application has no outcome yet: with the first failed hand-off, and once it waited for
    `after` seconds (None: never). `window` is the retry schedule's, in seconds; `zone` that of the time which is told."""

    first_failure: bool = False
    after: float | None = None
    window: float = 7 * 86400.0
    zone: tzinfo = UTC

    @property
    def wanted(self) -> bool:
        """Whether anything is told early at all."""
        return self.first_failure or self.after is not None

    def until(self, first: float | None, now: float) -> float:
        """The time that is announced: the end of the schedule's window, which begins with the `first` attempt (None: there
        was none, so it cannot begin before now); where that is over, some time from now."""
        end = (now if first is None else first) + self.window
        return end if end > now else now + ANNOUNCE_AGAIN

    def report(self, applicant_id: int, until: float, now: float, *, tried: bool) -> Report:
        """The early report; the outcome's own replaces it."""
        text = phrases.waiting(until, now, self.zone, tried=tried)
        return Report(applicant_id, ReportStatus.FAIL, now, error_message=text)


# --- when to try again -------------------------------------------------------------------------------------------

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STEP = re.compile(r"(\d{1,9})\s*([smhd])(?:\s*\*\s*(\d{1,9}))?")

DEFAULT_RETRY = "1m, 5m*2, 15m, 1h*7, 4h*40"
"""Seven days, the first minutes close together: most outages are restarts."""

DEFAULT_PROBES = "10s, 30s, 1m, 2m, 5m"
"""Waits of an account whose ATS seems to be away, before a single application is tried; the last is repeated."""

REFUSED_FOR = 24 * 3600.0
"""How long idibu's `failed` is tried again before the report is `refused`, in seconds (DESIGN, section 2)."""

LONGEST_WAIT = 24 * 3600.0
"""A Retry-After beyond this many seconds is not believed."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waits between attempts in seconds; their sum is the time after which one gives up."""

    waits: tuple[float, ...]
    text: str = ""

    @property
    def window(self) -> float:
        """Seconds from the first attempt until nothing is tried any more."""
        return sum(self.waits)

    def wait_after(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after attempt number `attempt` (from 1). `jitter`, 0 to 1, adds up to a fifth, so that what
        failed together does not come back together."""
        base = self.waits[min(attempt, len(self.waits)) - 1]
        return base * (1 + 0.2 * jitter)


def parse_schedule(text: str) -> Schedule:
    """Reads `1m, 5m*2, 15m, 1h*6`: units s, m, h, d; `*n` repeats. Raises ValueError saying what was not understood."""
    waits: list[float] = []
    for step in (part.strip() for part in text.split(",")):
        match = _STEP.fullmatch(step)
        if not match:
            raise ValueError(f"{step!r} is no step; write a number and s, m, h or d, like 5m or 5m*2")
        number, unit, times = match.groups()
        if int(number) == 0 or not 1 <= int(times or 1) <= 1000:
            raise ValueError(f"{step!r} is no step: the wait must be over zero and repeated 1 to 1000 times")
        waits += [float(int(number) * _UNITS[unit])] * int(times or 1)
    return Schedule(tuple(waits), text)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in any span of `seconds`, wherever it begins."""

    count: int
    seconds: float


_RATE = re.compile(r"(\d{1,9})\s*/\s*(\d{0,9})\s*([smhd])")

MOST_IN_A_RATE = 100_000
"""The largest count of a rate: as many points in time are remembered."""


def parse_rates(text: str) -> tuple[Rate, ...]:
    """Reads `100/1m, 5000/d`: a count, a slash, a span in s, m, h or d; all of them hold. Empty: no limit. Raises ValueError
    saying what was not understood."""
    return tuple(_rate(part.strip()) for part in text.split(",")) if text.strip() else ()


def _rate(text: str) -> Rate:
    match = _RATE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no rate; write a count, a slash and a span of time, like 100/1m or 5000/d")
    count, number, unit = match.groups()
    if not 1 <= int(count) <= MOST_IN_A_RATE or (number and int(number) == 0):
        raise ValueError(f"{text!r} is no rate: the count must be 1 to {MOST_IN_A_RATE} and the span over zero")
    return Rate(int(count), float(int(number or 1) * _UNITS[unit]))


def next_attempt(
    schedule: Schedule, *, attempt: int, first: float, now: float, jitter: float, wished: float | None = None
) -> float | None:
    """When to try again, or None when the schedule is used up.

    `attempt` is the number of the attempt that just ended and `first` when the first began. `wished` is the other
    side's Retry-After in seconds; it replaces the schedule's wait but never stretches its window.
    """
    if now - first >= schedule.window:
        return None
    if wished is not None:
        # In this order a NaN becomes one second; "due at NaN" would never be due.
        wait = min(max(1.0, wished), LONGEST_WAIT) * (1 + 0.1 * jitter)
    else:
        wait = schedule.wait_after(attempt, jitter)
    # A last attempt falls on the window's end rather than past it, so that "seven days" means seven days.
    return max(min(now + wait, first + schedule.window), now + 1.0)


def states_a_person_can(event: Event) -> Iterable[State]:
    """The states from which a person's event leads on."""
    return (state for (state, e) in TRANSITIONS if e is event)
