"""Everything at once: several processes' worth of everything that can be done, side by side, and nothing is out of place."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from apptrack_ingest.errors import IngestError, LeaseLost, NotAllowed, NotFound, SpoolUnavailable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import (
    Arrival,
    Envelope,
    HeldReason,
    Message,
    Report,
    ReportState,
    ReportStatus,
    Stage,
    State,
)
from apptrack_ingest.spool import postgres, sqlite
from apptrack_ingest.spool.checking import Check
from apptrack_ingest.spool.contract import Action, Claim, Facts, Filter, ReportSettlement, Settlement, Spool
from apptrack_ingest.spool.opening import open_tables
from apptrack_ingest.spool.records import Pause
from apptrack_ingest.spool.sqlite.bodies import LARGE

OPERATIONS = int(os.environ.get("TOGETHER_OPERATIONS", "80"))
"""Of each of the workers."""

WORKERS = 4
Opener = Callable[[], Awaitable[Spool]]
ACCOUNTS = ("acme", "blue", None)
LONG = 1e9


class Ledger:
    """Who is at what at this moment, as all workers together know it."""

    def __init__(self) -> None:
        self.at_work: dict[int, Claim] = {}
        self.now = 10_000.0
        self.done: Counter[str] = Counter()

    def takes(self, claim: Claim) -> None:
        same = [
            each
            for each in self.at_work.values()
            if each.account is not None
            and each.applicant_id is not None
            and (each.account, each.applicant_id) == (claim.account, claim.applicant_id)
        ]
        assert not same and claim.application_id not in self.at_work, (claim, same)
        self.at_work[claim.application_id] = claim

    def ends(self, claim: Claim) -> None:
        if self.at_work.get(claim.application_id) == claim:
            del self.at_work[claim.application_id]


class Worker:
    """One process: it does what its dice say."""

    def __init__(self, name: str, spool: Spool, ledger: Ledger, dice: random.Random) -> None:
        self.name, self.spool, self.ledger, self.dice = name, spool, ledger, dice
        self.claims: list[Claim] = []

    async def run(self) -> None:
        kinds: list[tuple[Callable[[], Awaitable[object]], int]] = [
            (self.put, 6), (self.claim, 6), (self.settle, 10), (self.report, 5), (self.decide, 6), (self.die, 1),
            (self.reap, 2), (self.pause, 1), (self.resume, 2), (self.retention, 2), (self.forget, 1), (self.look, 2),
            (self.reparse, 2), (self.renew, 1),
        ]  # fmt: skip
        for _ in range(OPERATIONS):
            self.ledger.now += 1.0
            [kind] = self.dice.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
            try:
                await kind()
                self.ledger.done[kind.__name__] += 1
            except SpoolUnavailable:
                raise
            except (NotAllowed, NotFound, LeaseLost, IngestError):
                self.ledger.done[f"{kind.__name__}, refused"] += 1

    # -- what it does

    async def put(self) -> None:
        raw = self.dice.randbytes(self.dice.choice([0, 10, 10, LARGE + 5]))
        accounts = self.dice.sample(ACCOUNTS, self.dice.choice([1, 1, 2, 3]))
        arrivals = [
            Arrival(account, self.dice.choice([1, 2, 3, None]), self.dice.random() < 0.7, "why") for account in accounts
        ]
        received = self.ledger.now - self.dice.choice([0, 0, 5000])
        await self.spool.put(Message(Envelope("a@b.example", ("c@d.example",), "192.0.2.1"), received, raw), arrivals)

    async def claim(self) -> None:
        claims = await self.spool.claim(
            worker=self.name,
            now=self.ledger.now,
            lease=LONG,
            limit=self.dice.choice([1, 3, 9]),
            room={"acme": 4} if self.dice.random() < 0.3 else None,
            untrusted=self.dice.choice([None, None, 1]),
            solo=self.dice.random() < 0.2,
        )
        for claim in claims:
            self.ledger.takes(claim)
            self.claims.append(claim)

    async def settle(self) -> None:
        if not self.claims:
            return
        claim = self.claims.pop(self.dice.randrange(len(self.claims)))
        # What it is in the end must be told before: another may take the next one before the answer is heard.
        self.ledger.ends(claim)
        await self.spool.settle(claim, self.outcome(claim), now=self.ledger.now)

    def outcome(self, claim: Claim) -> Settlement:
        now, address = self.ledger.now, f"{claim.applicant_id}@home.example"
        facts = Facts(candidate_name="Jo", candidate_email=address, content_digest="d")
        report = None
        if claim.applicant_id is not None and self.dice.random() < 0.8:
            report = Report(claim.applicant_id, ReportStatus.SUCCESS, now)
        found = self.dice.choice([None, None, 4]) if claim.applicant_id is None else None
        return self.dice.choice(
            [
                Settlement(Event.DELIVER, "delivered", facts=facts, report=report, applicant_id=found),
                Settlement(Event.DELIVER, "delivered", facts=facts, report=report),
                Settlement(Event.REJECT, "rejected", "no", facts=facts, report=report),
                Settlement(Event.POSTPONE, "later", due_at=now + 3, applicant_id=found, trust=(True, "itself")),
                Settlement(Event.POSTPONE, "drained", due_at=now, counts=False),
                Settlement(Event.HOLD, "untrusted", reason=HeldReason.UNTRUSTED, trust=(False, "no")),
                Settlement(Event.EXHAUST, "failed", "words", report=report),
            ]
        )

    async def report(self) -> None:
        claims = await self.spool.claim_reports(
            worker=self.name, now=self.ledger.now, lease=LONG, limit=3, accounts=["acme", "blue"]
        )
        for claim in claims:
            state = self.dice.choice(
                [ReportState.CONFIRMED, ReportState.CONFIRMED, ReportState.FAILED, ReportState.DUE]
            )
            await self.spool.settle_report(
                claim, ReportSettlement(state, "x", due_at=self.ledger.now + 2), now=self.ledger.now
            )

    async def decide(self) -> None:
        found = await self.spool.find(Filter(limit=30, account=self.dice.choice([None, None, "acme", ""])))
        if not found:
            return
        chosen = self.dice.choice(found)
        event = self.dice.choice([Event.HOLD, Event.RELEASE, Event.ROUTE, Event.RETRY, Event.AGAIN, Event.DISCARD])
        action = Action(event, "jo", "why")
        if event is Event.ROUTE:
            action = replace(action, account=self.dice.choice(["acme", "blue"]), applicant_id=2)
        elif event is Event.DISCARD and chosen.applicant_id is not None:
            action = replace(action, report=Report(chosen.applicant_id, ReportStatus.FAIL, self.ledger.now))
        await self.spool.act(chosen.application_id, action, now=self.ledger.now)
        story = await self.spool.story(chosen.application_id)
        for each in story.reports:
            if each.state is ReportState.FAILED:
                order = self.dice.choice([self.spool.retry_report, self.spool.drop_report])
                await order(each.report_id, actor="jo", note="", now=self.ledger.now)

    async def die(self) -> None:
        """Loses all it has, as a worker that was killed does; the next of its name is told."""
        for claim in self.claims:
            self.ledger.ends(claim)
        self.claims = []
        await self.spool.abandon(self.name, now=self.ledger.now)

    async def reap(self) -> None:
        await self.spool.reap(now=self.ledger.now, reports_for=["acme"])

    async def renew(self) -> None:
        assert await self.spool.renew(self.claims, now=self.ledger.now, lease=LONG) == []

    async def pause(self) -> None:
        account, stage = self.dice.choice(["acme", "blue", ""]), self.dice.choice(list(Stage))
        until = self.dice.choice([None, self.ledger.now + 5])
        await self.spool.pause(Pause(account, stage, "why", self.ledger.now, until, actor="jo"))

    async def resume(self) -> None:
        for each in await self.spool.pauses():
            await self.spool.resume(each.account, each.stage, now=self.ledger.now, actor="jo")
        await self.spool.end_pauses(now=self.ledger.now)

    async def retention(self) -> None:
        await self.spool.erase_finished(before=self.ledger.now - 50, limit=9)
        await self.spool.discard_untrusted(before=self.ledger.now - 100, limit=9, now=self.ledger.now)
        await self.spool.erase_tombstones(before=self.ledger.now - 150, limit=9)

    async def forget(self) -> None:
        address = f"{self.dice.choice([1, 2, 3])}@home.example"
        traces = await self.spool.traces(address)
        ids = [each.application_id for each in traces]
        await self.spool.forget(address, ids, actor="jo", note="", now=self.ledger.now)

    async def look(self) -> None:
        await self.spool.next_due(now=self.ledger.now, accounts=["acme", "blue"])
        await self.spool.backlog()
        await self.spool.load()

    async def reparse(self) -> None:
        for each in (await self.spool.find(Filter(limit=5)))[-1:]:
            await self.spool.update_facts(each.application_id, Facts(candidate_email="1@home.example"), None)


@pytest.mark.parametrize("seed", range(int(os.environ.get("TOGETHER_SEEDS", "2"))))
async def test_side_by_side_nothing_gets_out_of_place(another: Opener, seed: int) -> None:
    ledger, spools = Ledger(), [await another() for _ in range(WORKERS)]
    workers = [
        Worker(f"w{number}", spool, ledger, random.Random(seed * WORKERS + number))
        for number, spool in enumerate(spools)
    ]
    await asyncio.gather(*(worker.run() for worker in workers))
    await _goes_on_to_the_end(spools[0], ledger, workers)
    await _is_sound(spools[0])
    assert ledger.done["put"] and ledger.done["claim"] and ledger.done["settle"] and ledger.done["decide"]


async def _goes_on_to_the_end(spool: Spool, ledger: Ledger, workers: list[Worker]) -> None:
    """What still waits can all be taken, the oldest of an applicant first: nobody is left behind."""
    for worker in workers:
        await worker.die()
        await worker.resume()
    ledger.now += 1000
    await spool.reap(now=ledger.now, reports_for=[])
    last: dict[tuple[str, int], int] = {}
    while claims := [
        *await spool.claim(worker="end", now=ledger.now, lease=LONG, limit=50),
        *await spool.claim(worker="end", now=ledger.now, lease=LONG, limit=50, solo=True),
    ]:
        for claim in claims:
            if claim.account is not None and claim.applicant_id is not None:
                key = (claim.account, claim.applicant_id)
                assert last.get(key, 0) < claim.application_id
                last[key] = claim.application_id
            await spool.settle(claim, Settlement(Event.DELIVER, "delivered"), now=ledger.now)
    assert await spool.count(Filter(states=(State.RECEIVED,))) == 0


async def _is_sound(spool: Spool) -> None:
    if isinstance(spool, sqlite.SqliteSpool):
        tables = await open_tables(spool.database)
    else:
        assert isinstance(spool, postgres.PostgresSpool)
        tables = await open_tables(spool._door._url)
    try:
        assert [finding async for finding in Check(tables).findings()] == []
    finally:
        await tables.close()
