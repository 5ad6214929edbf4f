"""Ledger and idibu held against each other, whatever database the ledger is in."""

from collections.abc import AsyncIterator
from datetime import UTC

import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu import Client, ReportStatus, StatusUpdate
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_applicants import NewApplicant
from apptrack_ingest.lifecycle import Rate
from apptrack_ingest.model import ReportState
from apptrack_ingest.reconcile import Account, Kind, Looked, Pace, fix, look
from apptrack_ingest.spool.contract import ReportSettlement, Spool

from .test_spool_outcomes import outcome, put, sent, success, told

NOW = 90_000.0


class Clock:
    """Stands still but for waits."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running(Sandbox({"h": "acme"}, clock=lambda: NOW)) as sandbox:
        yield sandbox


@pytest.fixture
async def account(sandbox: Sandbox) -> AsyncIterator[Account]:
    async with Client(sandbox.base_url, SecretStr("h")) as client:
        yield Account("acme", client, UTC)


async def looked(spool: Spool, account: Account) -> Looked:
    clock = Clock()
    return await look(spool, account, since=0.0, clock=clock, pace=Pace(Rate(1000, 1.0), clock))


async def test_what_is_found_and_put_right(spool: Spool, sandbox: Sandbox, account: Account) -> None:
    reports = {number: await told(spool, number) for number in (1, 2, 3)}
    await told(spool, 2, "beta")  # another account's business
    await outcome(spool, await put(spool, 4), success(4))
    await sent(spool, ReportSettlement(ReportState.FAILED, "not-reached"))
    await outcome(spool, await put(spool, 5), success(5))
    for number, remote_id in ((1, "ats-1"), (2, "theirs"), (6, "theirs")):
        await account.client.post_status(number, StatusUpdate(ReportStatus.SUCCESS, remote_id))
    sandbox.arrive(NewApplicant(account="acme", id=7, date=NOW - 7200), NewApplicant(account="acme", id=5, date=10.0))
    found = await looked(spool, account)
    assert {(one.kind, one.applicant_id) for one in found.shown} == {
        (Kind.DIFFERENT, 2),
        (Kind.MISSING, 3),
        (Kind.FAILED, 4),
        (Kind.DUE, 5),
        (Kind.NOT_OURS, 6),
        (Kind.NO_MAIL, 7),
    }
    clock = Clock()
    fixing = fix(spool, found.fixable, actor="jo", clock=clock, pace=Pace(Rate(1000, 1.0), clock))
    assert [one.overtaken async for one in fixing] == [False] * 3
    claims = await spool.claim_reports(worker="w", now=NOW + 60, lease=60.0, limit=9, accounts=["acme", "beta"])
    assert sorted(claim.report.applicant_id for claim in claims) == [2, 3, 4, 5]
    assert {reports[2], reports[3]} < {claim.report_id for claim in claims}
