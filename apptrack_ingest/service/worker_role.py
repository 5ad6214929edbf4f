"""The worker as a process: wired, run until told to stop, and reloaded on SIGHUP."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apptrack_ingest import handoff
from apptrack_ingest.errors import IngestError
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.report.reporter import Reporter
from apptrack_ingest.service import build
from apptrack_ingest.service.around import beside, own_pages, signals
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.settings import Account, Settings
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.worker import Desk, SystemClock, Tools, Worker
from apptrack_ingest.worker.housekeeping import Housekeeping


async def run_worker(path: Path | None, found: Settings, link: ChildLink, *, own_web: bool) -> None:
    """Works until SIGTERM (or the supervisor's end), then drains."""
    spool, name = build.spool_of(found), f"{socket.gethostname()}/worker-1"
    # Whoever holds the role's lock knows that an earlier worker of this name is dead: no need to wait for its leases.
    await spool.abandon(name, now=time.time())
    parts = _WorkerParts(found, spool, name)
    await parts.worker.configure(parts.tools.desks, found.idibu.schedule)
    async with (
        signals(path, found, parts.take_up) as stop,
        own_pages(lambda: parts.housekeeping.settings, spool, "worker", own_web) as web_port,
    ):
        link.start(stop.set)
        link.ready(web=web_port)
        await parts.work(stop)
    await parts.close()
    await spool.close()
    link.stop()


class _WorkerParts:
    """A worker and all that it works with, wired from the settings."""

    def __init__(self, found: Settings, spool: Spool, name: str) -> None:
        clock = SystemClock()
        self._found = found
        self._desks = build.desks_of(found)
        self._reporter, self._parser = Reporter(), build.parser_of(found)
        self._inner = build.InnerJudge(found)
        self._reporter.configure(build.destinations_of(found))
        self._closing: set[asyncio.Task[None]] = set()
        self.tools = Tools(
            spool=spool,
            parser=self._parser,
            reports=self._reporter,
            clock=clock,
            options=build.options_of(found, name),
            desks=_only_desks(self._desks),
            report_schedule=found.idibu.schedule,
            judge_inner=self._inner,
        )
        self.worker = Worker(self.tools)
        self.housekeeping = Housekeeping(spool, clock, found)

    async def take_up(self, new: Settings) -> None:
        """A reload: what is under way goes on with what it began with."""
        before, self._desks = self._desks, build.desks_of(new, self._desks)
        self._reporter.configure(build.destinations_of(new))
        self._inner.configure(new)
        self.housekeeping.settings = new
        old = [desk for name, (_, desk) in before.items() if self._desks.get(name, (None, None))[1] is not desk]
        beside(self._closing, _close_when_unused(self.worker, old))
        await self.worker.configure(_only_desks(self._desks), new.idibu.schedule)

    async def work(self, stop: asyncio.Event) -> None:
        """Works until told to stop and drained, with the housekeeping beside it."""
        side_tasks = [
            asyncio.create_task(self.housekeeping.run()),
            asyncio.create_task(_warm_up(self._parser, self._found)),
        ]
        try:
            await self.worker.run(stop)
        finally:
            for task in side_tasks:
                task.cancel()
            await asyncio.gather(*side_tasks, return_exceptions=True)

    async def close(self) -> None:
        """Closes handlers, connections and the parser's processes."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=self._found.worker.drain_timeout)
        await _close_handlers(desk for _, desk in self._desks.values())
        await self._reporter.close()
        await self._inner.close()
        await self._parser.close()


async def _warm_up(parser: ParserPool, found: Settings) -> None:
    """Starts the parser's processes before the first candidate has to wait for them."""
    with contextlib.suppress(IngestError):
        await asyncio.gather(*(parser.parse(b"\r\n") for _ in range(found.worker.parse_processes)))


def _only_desks(desks: dict[str, tuple[Account, Desk]]) -> dict[str, Desk]:
    return {name: desk for name, (_, desk) in desks.items()}


async def _close_when_unused(worker: Worker, desks: Sequence[Desk]) -> None:
    """What was under way when the settings changed goes on with the handler it began with."""
    await worker.under_way_ended()
    await _close_handlers(desks)


async def _close_handlers(desks: Any) -> None:
    for desk in desks:
        await handoff.close(desk.handler)
