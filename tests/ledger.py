"""The spool of running processes, read from outside by the product's own code: what has become of every mail."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, ReportState, State
from apptrack_ingest.spool.contract import Action, Filter, Spool, Story, Summary
from apptrack_ingest.spool.opening import open_spool

T = TypeVar("T")


@dataclass(frozen=True)
class Ledger:
    """The spool as it is, read from outside."""

    where: str | Path

    def ask(self, question: Callable[[Spool], Awaitable[T]]) -> T:
        async def ask() -> T:
            spool = open_spool(self.where)
            try:
                return await question(spool)
            finally:
                await spool.close()

        return asyncio.run(ask())

    def applications(self, **wanted: object) -> list[Summary]:
        return self.ask(lambda spool: spool.find(Filter(limit=1_000_000, **wanted)))

    def story(self, application_id: int) -> Story:
        return self.ask(lambda spool: spool.story(application_id))

    def has_settled(self) -> bool:
        """Whether nothing waits but for a person."""
        backlog = self.ask(lambda spool: spool.backlog())
        waits = [n for (_, state), n in backlog.applications.items() if state is State.RECEIVED]
        due = [n for (_, state), n in backlog.reports.items() if state is ReportState.DUE]
        return not any(waits) and not any(due)

    def retry_crash_loops(self) -> int:
        """What a person would do about them; how many there were."""
        held = self.applications(states=(State.HELD,), reasons=(HeldReason.CRASH_LOOP,))

        async def retry(spool: Spool) -> None:
            for row in held:
                await spool.act(
                    row.application_id, Action(Event.RETRY, "chaos", "no fault of its own"), now=time.time()
                )

        self.ask(retry)
        return len(held)

    def cut_off(self, applications: Sequence[int]) -> int:
        """How many attempts to hand these over ended without a verdict."""

        async def count(spool: Spool) -> int:
            stories = [await spool.story(number) for number in applications]
            return sum(a.code == "no-verdict" and a.report_id is None for story in stories for a in story.attempts)

        return self.ask(count)
