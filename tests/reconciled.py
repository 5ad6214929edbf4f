"""The world of worlds.py with its ledger held against the sandbox: updates, other systems, losses, killed workers, fixes."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from worlds import START, World

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.idibu import Client
from apptrack_ingest.idibu import sandbox_store as store
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.reconcile import Account, Finding, Kind, Looked, Pace, fix, look
from apptrack_ingest.spool.contract import Outcome
from apptrack_ingest.testing import an_email
from apptrack_ingest.worker import Worker

HOUR = 3600.0
SINCE = START - 86400.0
QUICK = Rate(1000, 1.0)


class Mortal:
    """A spool as one worker sees it, until the worker is dead."""

    def __init__(self, spool: Any) -> None:
        self._spool = spool
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise SpoolUnavailable("this worker is dead")
        return getattr(self._spool, name)


class Reconciled(World):
    """A World that can be reconciled."""

    def __init__(self, directory: Path, sandbox: Sandbox) -> None:
        super().__init__(directory, sandbox)
        http = self.reporter._http  # to make another takes as long as all the rest
        self.tools.spool = Mortal(self.spool)
        self.lives = 1
        self.accounts = {
            name: Account(name, Client(sandbox.base_url, SecretStr(value), 5.0, http), UTC)
            for name, value in self.hashes.items()
        }

    async def apply(self, applicant_id: int, account: str = "acme", text: str = "hello") -> None:
        """A mail of this applicant; another text makes it an update."""
        message = Message(
            Envelope("", ("x@y.example",), "127.0.0.1"), self.clock.time, an_email(applicant_id, text=text)
        )
        await self.spool.put(message, [Arrival(account, applicant_id, True)])

    async def told(self, *applicants: int, account: str = "acme") -> None:
        """Applications of these applicants, handed over, reported and confirmed, an hour ago."""
        for applicant_id in applicants:
            await self.apply(applicant_id, account)
        await self.work()
        self.clock.time += HOUR

    def write(self, applicant_id: int, status: str, words: str = "", account: str = "acme") -> None:
        """Another system tells idibu of the applicant."""
        saved = store.Saved(status, words * (status == "success"), words * (status == "fail"), "2027-01-15 08:00:00")
        self.sandbox.store.add(
            store.Request(
                self.clock.time, "POST", "/elsewhere", account, applicant_id, None, "", 200, saved, call="elsewhere"
            )
        )

    async def kill(self) -> None:
        """The worker is gone without a word; another starts in its place, and finds the leases still held."""
        self.tools.spool.dead = True
        for task in list(self.worker._running):
            task.cancel()
        await self.worker.idle()
        self.lives += 1
        options = dataclasses.replace(self.tools.options, name=f"test/worker-{self.lives}")
        self.tools = dataclasses.replace(self.tools, spool=Mortal(self.spool), options=options)
        self.worker = Worker(self.tools)

    async def look(self, account: str = "acme", *, since: float = SINCE, **given: Any) -> Looked:
        return await look(
            self.spool, self.accounts[account], since=since, clock=self.clock, pace=Pace(QUICK, self.clock), **given
        )

    async def found(self, account: str = "acme", **given: Any) -> list[tuple[Kind, int]]:
        """Kind and applicant of each finding, without an error."""
        looked = await self.look(account, **given)
        assert looked.error is None
        return sorted((one.kind, one.applicant_id) for one in looked.shown)

    async def findings(self, account: str = "acme") -> dict[int, Finding]:
        return {one.applicant_id: one for one in (await self.look(account)).shown}

    async def fix(self, account: str = "acme") -> list[bool]:
        """What was found to be fixable, fixed; whether each was overtaken."""
        looked = await self.look(account)
        fixing = fix(self.spool, looked.fixable, actor="jo", clock=self.clock, pace=Pace(QUICK, self.clock))
        return [fixed.overtaken async for fixed in fixing]

    async def outcome(self, applicant_id: int, account: str = "acme") -> Outcome:
        (found,) = await self.spool.outcomes(account, [applicant_id])
        return found

    def shown(self, applicant_id: int, account: str = "acme") -> tuple[str, str, str] | None:
        """Status, remote id and error message that idibu shows."""
        held = self.sandbox.store.applicant(account, applicant_id)
        return None if held is None else (held.status, held.remote_id, held.error_message)


@contextlib.asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Reconciled]:
    worlds: list[Reconciled] = []
    hashes = {"hash-a": "acme", "hash-b": "beta"}
    async with running(Sandbox(hashes, clock=lambda: worlds[0].clock.time if worlds else 0.0)) as sandbox:
        worlds.append(Reconciled(directory, sandbox))
        yield worlds[0]
        await worlds[0].close()
