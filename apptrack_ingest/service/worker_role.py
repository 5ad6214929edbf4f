"""The worker as a process: wired, run until told to stop, and reloaded on SIGHUP."""

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from apptrack_ingest import handoff, logs
from apptrack_ingest.errors import IngestError, SpoolUnavailable
from apptrack_ingest.idibu.http import Http
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.report.reporter import Reporter
from apptrack_ingest.service import working
from apptrack_ingest.service.around import beside, own_pages, signals, usable
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.service.names import Names
from apptrack_ingest.service.part import WHOLE, Part
from apptrack_ingest.service.place import spool_of
from apptrack_ingest.service.reconciling import accounts_of
from apptrack_ingest.settings import Account, Settings
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.worker import Desk, SystemClock, Tools, Worker
from apptrack_ingest.worker.allocation import give_back_early
from apptrack_ingest.worker.housekeeping import Housekeeping
from apptrack_ingest.worker.reconciling import Reconciling

log = logs.get("service")

SETTLE_AGAIN = 2.0
"""Seconds until the spool is asked again for what the start needs of it."""


THREADS = 4
"""So many times as many threads as there can be hand-offs and reports, made when they are needed. A name is looked up in one
(getaddrinfo), and where an ATS's name servers are silent that lasts longer than the hand-off: the threads that a loop has
of its own, four, would all wait for that ATS, and everybody else's hand-offs and reports for them."""

MOST_THREADS = 1024
"""More libuv does not make."""


async def run_worker(path: Path | None, found: Settings, link: ChildLink, *, own_web: bool, part: Part = WHOLE) -> None:
    """Works until SIGTERM (or the supervisor's end), then drains."""
    give_back_early()
    enough_threads(found)
    spool, names = spool_of(found), Names(found.data_dir, own_spool=found.spool_url is None, part=part)
    parts = _WorkerParts(found, spool, names.own, part)
    async with (
        signals(path, found, parts.take_up) as stop,
        own_pages(lambda: parts.housekeeping.settings, spool, "worker", own_web) as web_port,
    ):
        link.start(stop.set)  # before the spool, whose schema may take long to be brought up to date
        settled = await usable(spool) and await parts.settle(names)
        link.ready(web=web_port)
        await parts.work(stop, names if not settled else None)
    await parts.close()
    await spool.close()
    link.stop()


def enough_threads(found: Settings) -> None:
    """Has names looked up in as many threads as there may be who wait; to be called before the first is, on the loop.

    uvloop looks them up in libuv's threads, and never in more than half of these, which are made at the first look-up, as
    many as the environment says (libuv's documentation, "Thread pool work scheduling"). What else is slow, in handlers too,
    goes to the loop's executor.
    """
    threads = THREADS * (found.worker.concurrency + found.worker.report_concurrency)
    os.environ["UV_THREADPOOL_SIZE"] = str(min(2 * threads, MOST_THREADS))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads, thread_name_prefix="lookup"))


class _WorkerParts:
    """A worker and all that it works with, wired from the settings."""

    def __init__(self, found: Settings, spool: Spool, name: str, part: Part) -> None:
        clock = SystemClock()
        self._found, self._part = found, part
        self._desks = working.desks_of(found, part=part)
        self._reporter, self._parser = Reporter(), working.parser_of(found, part)
        self._inner = working.InnerJudge(found)
        self._reporter.configure(working.destinations_of(found))
        self._closing: set[asyncio.Task[None]] = set()
        self.tools = Tools(
            spool=spool,
            parser=self._parser,
            reports=self._reporter,
            clock=clock,
            options=working.options_of(found, name, part),
            desks=_only_desks(self._desks),
            report_schedule=found.idibu.schedule,
            judge_inner=self._inner,
        )
        self.worker = Worker(self.tools)
        self.housekeeping = Housekeeping(spool, clock, found)
        self._http = Http()
        self.reconciling = Reconciling(spool, clock, found, lambda: accounts_of(self.reconciling.settings, self._http))

    async def take_up(self, new: Settings) -> None:
        """A reload: what is under way goes on with what it began with."""
        before, self._desks = self._desks, working.desks_of(new, self._desks, self._part)
        self._reporter.configure(working.destinations_of(new))
        self._inner.configure(new)
        self.housekeeping.settings = self.reconciling.settings = new
        old = [desk for name, (_, desk) in before.items() if self._desks.get(name, (None, None))[1] is not desk]
        beside(self._closing, _close_when_unused(self.worker, old))
        await self.worker.configure(_only_desks(self._desks), new.idibu.schedule)

    async def settle(self, names: Names) -> bool:
        """What the start asks of the spool: that nobody waits for the leases of dead workers, and that pauses fit the
        settings. False where the spool cannot be used at this moment."""
        try:
            for name in names.before:
                await self.tools.spool.abandon(name, now=self.tools.clock.now())
            names.forget()
            await self.worker.configure(self.tools.desks, self.tools.report_schedule)
        except SpoolUnavailable:
            return False  # the worker, which asks more often, tells the log
        return True

    async def _settle_later(self, names: Names) -> None:
        while not await self.settle(names):
            await self.tools.clock.sleep(SETTLE_AGAIN)

    async def work(self, stop: asyncio.Event, unsettled: Names | None) -> None:
        """Works until told to stop and drained, with the housekeeping beside it."""
        side_tasks = [
            *([asyncio.create_task(self._settle_later(unsettled))] if unsettled else []),
            *(asyncio.create_task(work) for work in self._beside()),
            asyncio.create_task(_warm_up(self._parser, self.tools.options.parsers)),
        ]
        try:
            await self.worker.run(stop)
        finally:
            for task in side_tasks:
                task.cancel()
            await asyncio.gather(*side_tasks, return_exceptions=True)

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        """What one worker process does for all of a `serve`: the first."""
        return [self.housekeeping.run(), self.reconciling.run()] if self._part.number == 1 else []

    async def close(self) -> None:
        """Closes handlers, connections and the parser's processes."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=self._found.worker.drain_timeout)
        await _close_handlers(desk for _, desk in self._desks.values())
        await self._reporter.close()
        await self._http.close()
        await self._inner.close()
        await self._parser.close()


async def _warm_up(parser: ParserPool, processes: int) -> None:
    """Starts the parser's processes before the first candidate has to wait for them."""
    with contextlib.suppress(IngestError):
        await asyncio.gather(*(parser.parse(b"\r\n") for _ in range(processes)))


def _only_desks(desks: dict[str, tuple[Account, Desk]]) -> dict[str, Desk]:
    return {name: desk for name, (_, desk) in desks.items()}


async def _close_when_unused(worker: Worker, desks: Sequence[Desk]) -> None:
    """What was under way when the settings changed goes on with the handler it began with."""
    await worker.under_way_ended()
    await _close_handlers(desks)


async def _close_handlers(desks: Any) -> None:
    for desk in desks:
        await handoff.close(desk.handler)
