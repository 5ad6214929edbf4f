"""Where the CPU time of one application goes: each stage alone, in this process, and each process of the service at work.

Stages are measured one after the other, with as much side by side as the service has, so that what they share (a commit,
a thread's wake-up) is shared here too. What the processes take beyond the stages is the loop around them: claims, leases,
log lines, metrics.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import endpoint
import load
import mails
import processes
import tables
from accepting import HOME, started
from end_to_end import noop, wait_until
from pydantic import SecretStr

from apptrack_ingest import Accepted, Application, handoff
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Envelope, Message, Parsed, Report, ReportState, ReportStatus
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.report.reporter import Destination, Reporter
from apptrack_ingest.spool.contract import Claim, ReportClaim, ReportSettlement, Settlement, Spool
from apptrack_ingest.spool.sqlite import open_spool
from apptrack_ingest.worker.application import build_application, facts_of

SIDE_BY_SIDE = 8
SIZE = 60_000


async def cost(work: Callable[[int], Awaitable[object]], many: int, own_children: tuple[int, ...] = ()) -> float:
    """CPU seconds of one `work`, of this process and those children; SIDE_BY_SIDE at a time."""
    numbers = iter(range(many))

    async def one_after_another() -> None:
        for number in numbers:
            await work(number)

    before = _cpu(own_children)
    async with asyncio.TaskGroup() as group:
        for _ in range(SIDE_BY_SIDE):
            group.create_task(one_after_another())
    return (_cpu(own_children) - before) / many


def _cpu(children: tuple[int, ...]) -> float:
    return time.process_time() + sum(processes.tree(child).get(child, 0.0) for child in children)


class Stages:
    """Measures the stages of `many` applications one after the other; each step leaves what the next one needs."""

    def __init__(self, many: int, home: Path) -> None:
        self.many, self.home = many, home
        self.costs: dict[str, float] = {}

    async def measure(self, url: str) -> dict[str, float]:
        """CPU seconds by stage."""
        spool = open_spool(self.home / "spool.sqlite3")
        raws = [_mail(number) for number in range(self.many)]
        parser = ParserPool(deadline=30.0, memory_bytes=2_000_000_000, processes=2)
        try:
            await self._spool_in(spool, raws)
            await self._parse(parser, raws[0])
            await self._hand_off(raws[0], await parser.parse(raws[0]))
            await self._report(url)
        finally:
            await parser.close()
            await spool.close()
        return self.costs

    async def _spool_in(self, spool: Spool, raws: list[bytes]) -> None:
        envelope = Envelope("apptrack@idibu.example", ("jobs@bench.example",), "127.0.0.1", "client")
        claims: list[Claim] = []
        reports: list[ReportClaim] = []

        async def put(number: int) -> None:
            message = Message(envelope, time.time(), raws[number])
            await spool.put(message, [Arrival("bench", 40_000_000 + number, True)])

        async def enter(number: int) -> None:
            if number == 0:  # all of them, a hundred at a time
                await spool.load()

        async def claim(_: int) -> None:
            claims.extend(await spool.claim(worker="w", now=time.time(), lease=60.0, limit=1))

        async def settle(number: int) -> None:
            report = Report(40_000_000 + number, ReportStatus.SUCCESS, time.time(), f"ATS-{number}")
            await spool.settle(claims[number], Settlement(Event.DELIVER, "delivered", report=report), now=time.time())

        async def claim_report(_: int) -> None:
            found = await spool.claim_reports(worker="w", now=time.time(), lease=60.0, limit=1, accounts=["bench"])
            reports.extend(found)

        async def settle_report(number: int) -> None:
            settlement = ReportSettlement(ReportState.CONFIRMED, "confirmed")
            await spool.settle_report(reports[number], settlement, now=time.time())

        self.costs["spool: put"] = await cost(put, self.many)
        self.costs["spool: enter"] = await cost(enter, self.many)
        self.costs["spool: claim"] = await cost(claim, self.many)
        self.costs["spool: read the mail"] = await cost(lambda n: spool.raw(claims[n].message_id), self.many)
        self.costs["spool: settle"] = await cost(settle, self.many)
        self.costs["spool: claim the report"] = await cost(claim_report, self.many)
        self.costs["spool: settle the report"] = await cost(settle_report, self.many)

    async def _parse(self, parser: ParserPool, raw: bytes) -> None:
        await asyncio.gather(*(parser.parse(raw) for _ in range(4)))
        children = tuple(pid for pid in processes.tree(os.getpid()) if pid != os.getpid())
        both = await cost(lambda _: parser.parse(raw), self.many, children)
        self.costs["parse"] = both

    async def _hand_off(self, raw: bytes, parsed: Parsed) -> None:
        async def handle(_: Application) -> Accepted:
            return Accepted("ATS-1")

        async def hand_off(number: int) -> None:
            application = build_application(
                parsed, raw, account="bench", applicant_id=number, attempt=1, received_at=datetime.now(UTC)
            )
            facts_of(parsed)
            await handoff.run(handle, application, 60.0)

        self.costs["hand off"] = await cost(hand_off, self.many)

    async def _report(self, url: str) -> None:
        reporter = Reporter()
        reporter.configure({"bench": Destination(url, SecretStr("bench"))})
        await reporter.send("bench", Report(1, ReportStatus.SUCCESS, time.time(), "ATS-1"))

        async def send(number: int) -> None:
            await reporter.send("bench", Report(number, ReportStatus.SUCCESS, time.time(), "ATS-1"))

        self.costs["report"] = await cost(send, self.many)
        await reporter.close()


def _mail(number: int) -> bytes:
    return mails.template(SIZE).replace(b"\n", b"\r\n").replace(mails.ID, b"%d" % (40_000_000 + number))


def show(many: int) -> None:
    """Prints the table of stages and that of processes."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=HOME) as home, endpoint.serving() as idibu:
        costs = asyncio.run(Stages(many, Path(home)).measure(idibu.url))
    tables.title(f"CPU ms of one application of {tables.SIZES[SIZE]}, stage by stage: {many} applications")
    tables.table(("stage", "CPU ms"), [(name, tables.milliseconds(spent)) for name, spent in costs.items()])
    rows = [(name, tables.milliseconds(spent)) for name, spent in _processes(many).items()]
    tables.title(f"CPU ms of one application of {tables.SIZES[SIZE]}, process by process, no-op handler")
    tables.table(("process", "CPU ms"), rows)


def _processes(many: int) -> dict[str, float]:
    """CPU seconds of one application by kind of process, while they come in as fast as they are taken."""
    with endpoint.serving() as idibu, started(noop(idibu.url)) as peer:
        load.own(peer.port, SIZE, 20)
        wait_until(lambda: idibu.told() >= 20, "the first 20 are reported")
        before = processes.tree(*peer.roots)
        load.own(peer.port, SIZE, many)
        wait_until(lambda: idibu.told() >= many + 20, "all are reported")
        found: dict[str, float] = {}
        for pid, spent in processes.tree(*peer.roots).items():
            kind = _kind(pid, peer.roots)
            found[kind] = found.get(kind, 0.0) + (spent - before.get(pid, 0.0)) / many
        return found


def _kind(pid: int, roots: tuple[int, ...]) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    roles = {b"intake": "intake (receive, put)", b"worker": "worker (all but parsing)"}
    if pid in roots:
        return "supervisor"
    return next((name for word, name in roles.items() if word in words), "parser (parse)")
