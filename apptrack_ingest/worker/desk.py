"""What a worker needs to know of each account, and the tools it works with."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from apptrack_ingest.lifecycle import EarlyRule, Rate, Schedule
from apptrack_ingest.model import Parsed, Report
from apptrack_ingest.report.reporter import Result
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.trust import Rule, Verdict
from apptrack_ingest.worker.breaker import USUAL_CAUTION, Caution
from apptrack_ingest.worker.sharing import Memory, Turns


class Clock(Protocol):
    """Time as the worker sees it; tests give one that they move themselves."""

    def now(self) -> float:
        """Epoch seconds."""

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        """Epoch seconds."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""
        await asyncio.sleep(seconds)


class Parser(Protocol):
    """Reads a mail within limits, somewhere it can be killed; raises Unreadable."""

    async def parse(self, raw: bytes) -> Parsed:
        """What the mail says."""


class InnerJudge(Protocol):
    """Says whether an account believes the id in a mail that was attached to another one, by its own signature."""

    async def __call__(self, account: str | None, raw: bytes) -> Verdict:
        """The verdict; undecided where a DNS answer did not come."""


async def believe_none(account: str | None, raw: bytes) -> Verdict:
    """The judge where no rule of trust is known: what a mail has attached is its sender's own text."""
    return Verdict(False, Rule.NONE, "no DKIM signature of a listed domain on the attached mail")


class Reports(Protocol):
    """Sends one report and says how it went; never raises for what idibu or the network does."""

    async def send(self, account: str, report: Report) -> Result:
        """One attempt."""


NOTHING_EARLY = EarlyRule()


@dataclass(frozen=True, slots=True)
class Desk:
    """One account as the worker serves it. `hash_fingerprint` is None where there is no hash to report with: reports
    then wait as due. `rates` are the ATS's quotas, `caution` says when hand-offs rest, `early` what idibu is told before
    there is an outcome. Documents with `block_extensions` are left out; `client_id` is the account's id at idibu. Times are
    in seconds."""

    handler: Any
    handler_name: str
    timeout: float
    schedule: Schedule
    concurrency: int = 4
    rates: tuple[Rate, ...] = ()
    caution: Caution = USUAL_CAUTION
    reporting: bool = True
    early: EarlyRule = NOTHING_EARLY
    hash_fingerprint: str | None = None
    block_extensions: tuple[str, ...] = ()
    client_id: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker works; `lease` and `pause` (how long reporting rests after a wrong hash) are in seconds, `memory` (for
    mails under way and what is made of them) in bytes; `parsers` is how many mails can be read at a time."""

    name: str
    concurrency: int = 8
    report_concurrency: int = 4
    lease: float = 60.0
    drain_timeout: float = 25.0
    pause: float = 900.0
    memory: int = 100_000_000
    parsers: int = 2


@dataclass(slots=True)
class Tools:
    """All that a worker's jobs share; `desks` and `report_schedule` are replaced at a reload."""

    spool: Spool
    parser: Parser
    reports: Reports
    clock: Clock
    options: Options
    desks: Mapping[str, Desk]
    report_schedule: Schedule
    jitter: Callable[[], float] = field(default=random.random)
    judge_inner: InnerJudge = field(default=believe_none)
    confirmed: dict[tuple[str, str | None], float] = field(default_factory=dict)
    """When idibu last confirmed a report of an account with a hash (its fingerprint)."""
    memory: Memory = field(init=False)
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.options.memory)
        self.turns = Turns(self.options.parsers)

    @property
    def reporting_accounts(self) -> tuple[str, ...]:
        """Accounts whose outcomes become reports."""
        return tuple(name for name, desk in self.desks.items() if desk.reporting)

    def takes(self, account: str | None, client_id: int | None) -> bool:
        """Whether X-iTrackID-ClientID leaves room for the account that the envelope's recipient named."""
        if client_id is None or account is None:
            return True
        desk = self.desks.get(account)
        if desk is not None and desk.client_id is not None:
            return desk.client_id == client_id
        return all(other.client_id != client_id for other in self.desks.values())

    @property
    def sending_accounts(self) -> tuple[str, ...]:
        """Accounts whose reports can be sent: wanted, and with a hash."""
        return tuple(name for name, desk in self.desks.items() if desk.reporting and desk.hash_fingerprint)
