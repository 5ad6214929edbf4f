"""A worker with a real spool and real HTTP to the sandbox, and a clock that the test moves."""

import asyncio
import itertools
import random

from prepared import prepared
from pydantic import SecretStr

from apptrack_ingest.idibu.sandbox import Sandbox
from apptrack_ingest.lifecycle import parse_schedule
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.parse.mime import parse
from apptrack_ingest.report.reporter import Destination, Reporter
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.spool.sqlite import open_spool
from apptrack_ingest.testing import RecordingHandler, an_email
from apptrack_ingest.worker import Desk, Options, Tools, Worker

START = 1_800_000_000.0
HOUR = 3600.0


class MovedClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


class HereParser:
    """Parses in this process: what is tested here is time."""

    async def parse(self, raw):
        return parse(raw)


class World:
    """A worker for the accounts acme and beta, with clock, spool and sandbox."""

    def __init__(self, tmp_path, sandbox: Sandbox, **handlers) -> None:
        self.clock = MovedClock()
        self.spool = open_spool(prepared(tmp_path / "spool.sqlite3"), clock=self.clock.now)
        self.sandbox = sandbox
        self.handlers = {name: handlers.get(name) or RecordingHandler() for name in ("acme", "beta")}
        self.reporter = Reporter()
        self.hashes = {"acme": "hash-a", "beta": "hash-b"}
        self.numbers = itertools.count(1)
        self.tools = Tools(
            spool=self.spool,
            parser=HereParser(),
            reports=self.reporter,
            clock=self.clock,
            options=Options("test/worker-1"),
            desks=self.desks(),
            report_schedule=parse_schedule("1m, 5m*2, 15m, 1h*7, 4h*40"),
            jitter=random.Random(7).random,
        )
        self.worker = Worker(self.tools)
        self.point_at(sandbox.base_url)

    def desks(self):
        schedule = parse_schedule("1m, 5m*2, 15m, 1h*7, 4h*40")
        return {
            name: Desk(handler, name, 30.0, schedule, hash_fingerprint=self.hashes[name])
            for name, handler in self.handlers.items()
        }

    def point_at(self, base_url: str) -> None:
        self.reporter.configure(
            {name: Destination(base_url, SecretStr(value), timeout=5.0) for name, value in self.hashes.items()}
        )

    async def receive(self, account: str) -> int:
        number = next(self.numbers)
        raw = an_email(number)
        message = Message(Envelope("", ("x@y.example",), "127.0.0.1"), self.clock.time, raw)
        await self.spool.put(message, [Arrival(account, number, True)])
        return number

    async def work(self) -> None:
        """Everything that is due now."""
        while True:
            await self.worker.step()
            if not self.worker._running:
                break
            await self.worker.idle()

    async def pass_time(self, seconds: float, step: float = 60.0) -> None:
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.clock.time = min(self.clock.time + step, end)
            await self.work()

    async def rows(self, **wanted):
        return await self.spool.find(Filter(limit=1000, **wanted))

    async def close(self) -> None:
        await self.reporter.close()
        await self.spool.close()
