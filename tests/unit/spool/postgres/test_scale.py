"""A long backlog must not slow the spool down: the blocks that each question looks at are counted (EXPLAIN, BUFFERS)."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from postgres import Server

from apptrack_ingest.spool.postgres import (
    PostgresSpool,
    counts,
    hand_off,
    messages,
    open_spool,
    people,
    reports,
    untrusted,
)
from apptrack_ingest.spool.postgres.door import Statements

FEW, MANY = 500, 8000

FILL = """
INSERT INTO messages (received_at, sender, recipients, peer, helo, smtputf8, size, sha256)
    SELECT 1000 + n, '', '[]', '', '', false, 5, '' FROM generate_series(1, $1::integer) n;
INSERT INTO applications (message_id, account, applicant_id, trusted, trust_note, received_at, due_at)
    SELECT id, CASE WHEN id % 12 = 0 AND id <= 480 THEN 'quick' ELSE 'flood' END, id / 2, true, '', received_at, received_at
    FROM messages ORDER BY id;
INSERT INTO reports (application_id, account, applicant_id, status, date_processed, created_at, due_at)
    SELECT id, account, id, 'success', 1000, received_at, received_at FROM applications ORDER BY id
"""
"""Two applications of each applicant wait, and a report of each; nearly all of one account."""

WORK: dict[str, Any] = {"worker": "w", "now": 9e9, "lease": 60.0, "limit": 10}

ASKED_OFTEN = {
    "claim": lambda s: hand_off.claim(s, room={"flood": 5}, solo=False, **WORK),
    "claim-beside-a-flood": lambda s: hand_off.claim(s, room={"flood": 0}, solo=False, **WORK),
    "claim-solo": lambda s: hand_off.claim(s, room={}, solo=True, **WORK),
    "claim-reports": lambda s: reports.claim(s, accounts=["flood", "quick"], **WORK),
    "next-due": lambda s: counts.next_due(s, now=9e9, accounts=["flood", "quick"]),
    "reap": lambda s: hand_off.reap(s, now=1.0, reports_for=[]),
    "delivered-before": lambda s: hand_off.delivered_before(s, "flood", 3),
    "find": lambda s: people.find(s, people.Filter(limit=20)),
    "story": lambda s: people.story(s, 5),
    "backlog": lambda s: counts.backlog(s, now=9e9),
    "load": untrusted.load,
    "erase": lambda s: messages.erase_finished(s, before=9e9, limit=10, now=9e9),
    "discard": lambda s: untrusted.discard(s, before=9e9, limit=10, now=9e9),
    "find-of-account": lambda s: people.find(s, people.Filter(account="quick", limit=20)),
}


class Counting(Statements):
    """Adds up the blocks that its statements look at, after having run them."""

    blocks = 0

    async def all(self, sql: str, **values: object) -> Any:
        plan = await super().all(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", **values)
        top = json.loads(plan[0][0])[0]["Plan"]
        self.blocks += top["Shared Hit Blocks"] + top["Shared Read Blocks"]
        return await super().all(sql, **values)

    async def one(self, sql: str, **values: object) -> Any:
        return next(iter(await self.all(sql, **values)), None)


async def filled(server: Server, number: int) -> PostgresSpool:
    url = server.url(server.make())
    spool = open_spool(url)
    await spool.prepare()
    connection = await asyncpg.connect(url)
    for statement in FILL.split(";\n"):
        await connection.execute(statement, *([number] if "$1" in statement else []))
    await spool.backlog()  # sums up what the rows above changed
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    return spool


async def blocks(spool: PostgresSpool, question: Any) -> int:
    async def ask(statements: Statements) -> int:
        counting = Counting(statements._connection)
        await question(counting)
        return counting.blocks

    await spool._door.change(ask)  # the second time everything has been looked up once
    return await spool._door.change(ask)


@pytest.fixture(scope="module")
def few_and_many(postgres_server: Server) -> dict[str, tuple[int, int]]:
    """For each question, the blocks it looks at in a small spool and in a large one."""

    async def count() -> dict[str, tuple[int, int]]:
        few, many = await filled(postgres_server, FEW), await filled(postgres_server, MANY)
        counted = {n: (await blocks(few, q), await blocks(many, q)) for n, q in ASKED_OFTEN.items()}
        await asyncio.gather(few.close(), many.close())
        return counted

    return asyncio.run(count())


@pytest.mark.parametrize("question", ASKED_OFTEN)
def test_what_is_asked_often_costs_the_same_however_much_waits(
    few_and_many: dict[str, tuple[int, int]], question: str
) -> None:
    few, many = few_and_many[question]
    assert many <= 1.5 * few + 30, few_and_many
