"""What a history is made of: applications, accounts with their ATSs, worker processes, and the dice that decide on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random
from typing import Any

from simulation.dealings import Dealings, Line

from apptrack_ingest.handoff import Again, Done
from apptrack_ingest.lifecycle import Rate, Schedule, parse_schedule
from apptrack_ingest.model import Accepted, State
from apptrack_ingest.worker.breaker import Caution

LEASE = 60.0
LOOK = 1.0
"""The longest between two looks of a worker at the spool: a hint may be lost."""
TIMEOUT = 30.0
NEVER = float("inf")
SLOWEST = 6.0
"""More than any answer of an ATS takes that gives one."""

SCHEDULES = [parse_schedule(text) for text in ("10s*3, 1m*5", "1m, 5m*2, 15m, 1h*6, 4h*15", "5s, 1m, 2h*3")]
CAUTIONS = [
    Caution(5, parse_schedule("10s, 30s, 1m, 2m, 5m")),
    Caution(2, parse_schedule("5s, 1m")),
    Caution(0, parse_schedule("10s")),
]
RATES: list[tuple[Rate, ...]] = [(), (), (Rate(3, 10.0),), (Rate(2, 1.0), Rate(10, 300.0))]

DONE = Done(Accepted())
REFUSED = Again("retry-later", "not reached", None, "ats")
HANGING = Again("timeout", "no answer")
ERROR = Again("exception", "500")
NOT_YET = Again("retry-later", "the vacancy is not open yet", None, "application")
WANTED = Again("retry-later", "something about this one, and the handler does not say so")


class Dice(Random):
    """Python's own generator; a throw costs a third without what `choice` and `randint` do for long sequences."""

    def choice(self, among: Sequence[Any]) -> Any:
        return among[int(self.random() * len(among))]

    def randint(self, least: int, most: int) -> int:
        return least + int(self.random() * (most - least + 1))

    def uniform(self, least: float, most: float) -> float:
        return least + (most - least) * self.random()


WAKES_AT = attrgetter("wakes_at")


@dataclass(eq=False, slots=True)
class App:
    """One application, as the spool has it. `odd_until` is when the ATS takes it at last, `deadly` how many calls kill the
    worker that makes them, `line` what waits of the same applicant, oldest first."""

    id: int
    account: str
    applicant: int
    due: float
    odd_until: float = 0.0
    odd: Again = NOT_YET
    deadly: int = 0
    state: State = State.RECEIVED
    first: float | None = None
    attempt: int = 0
    crashes: int = 0
    token: int = 0
    holder: "Worker | None" = None
    last_call: float = -1.0
    line: list["App"] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """An account: its settings, and how its ATS behaves."""

    name: str
    schedule: Schedule
    caution: Caution
    rates: tuple[Rate, ...]
    most: int
    outages: list[tuple[float, float, str]]
    window: float = 0.0
    """How long one tries: the sum of the schedule's waits."""
    held: int = 0
    """How many of its applications the workers hold together."""
    dealings: list[Dealings] = field(default_factory=list)
    """Of each life of each worker."""

    def __post_init__(self) -> None:
        self.window = sum(self.schedule.waits)

    def trouble(self, now: float) -> str:
        for begin, end, kind in self.outages:
            if begin <= now < end:
                return kind
        return ""


class Worker:
    """One worker process; `life` counts its restarts, so that what belonged to an earlier one is known, and `wakes_at` is
    when it looks at the spool next."""

    def __init__(self, number: int, places: int) -> None:
        self.number, self.places, self.life = number, places, 0
        self.alive, self.stands_until, self.wakes_at = True, 0.0, NEVER
        self.dealings: dict[str, Dealings] = {}
        self.line: Line | None = None
        self.jobs: dict[tuple[int, int], App] = {}
        self.alone = False
