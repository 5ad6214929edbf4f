"""How PostgreSQL finds what it is asked for (EXPLAIN): by the index that is meant, and never by looking at all rows."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from postgres import Server

from apptrack_ingest.lifecycle import EarlyRule, Event
from apptrack_ingest.model import HeldReason, Report, ReportState, ReportStatus, State
from apptrack_ingest.spool.contract import EarlyReport, Facts, Filter, ReportSettlement, Settlement
from apptrack_ingest.spool.postgres import (
    Options,
    counts,
    early,
    hand_off,
    messages,
    open_spool,
    outcomes,
    people,
    reports,
    tombstones,
    untrusted,
)
from apptrack_ingest.spool.postgres.door import Statements, _numbered

FILL = """
INSERT INTO messages (received_at, sender, recipients, peer, helo, smtputf8, size, sha256)
    SELECT 1000 + n, '', '[]', '', '', false, 5, '' FROM generate_series(1, 3000) n;
INSERT INTO applications (message_id, account, applicant_id, trusted, trust_note, received_at, due_at, client_reference,
        portal_name, state, reason, settled_at, delivered_at)
    SELECT id, CASE WHEN id % 12 = 0 THEN 'quick' ELSE 'flood' END, id % 900, id % 10 > 0, '', received_at, received_at,
        'REF-' || id / 10, 'portal-' || id % 3, CASE id % 5 WHEN 0 THEN 'held' WHEN 1 THEN 'delivered' ELSE 'received' END,
        CASE id % 5 WHEN 0 THEN 'untrusted' END, CASE id % 5 WHEN 1 THEN 2000 END, CASE id % 5 WHEN 1 THEN 2000 END
    FROM messages ORDER BY id;
INSERT INTO reports (application_id, account, applicant_id, status, date_processed, created_at, due_at, state)
    SELECT id, account, id, 'success', 1000, received_at, received_at, CASE id % 2 WHEN 0 THEN 'due' ELSE 'confirmed' END
    FROM applications ORDER BY id;
INSERT INTO attempts (application_id, report_id, kind, number, token, worker, started_at)
    SELECT application_id, id, 'report', 1, 1, 'w', 1000 FROM reports ORDER BY id;
INSERT INTO actions (application_id, at, actor, action, note)
    SELECT id, 1000, 'jo', 'hold', '' FROM applications ORDER BY id;
INSERT INTO bodies (message_id, raw) SELECT id, 'hello' FROM messages
"""

WORK: dict[str, Any] = {"worker": "w", "now": 9e9, "lease": 60.0, "limit": 4}
BIG = ("applications", "messages", "reports", "attempts", "actions", "bodies")
SMALL = ("applications_in_attempt", "reports_in_attempt", "pauses_pkey", "rerouted_pkey")
"""Indexes that hold no more than what is in work, paused or rerouted, and may be read whole."""


async def settle(statements: Statements) -> None:
    """A claim with an outcome, its facts and its report; then the report's end."""
    report = Report(1, ReportStatus.SUCCESS, 1000.0)
    delivered = Settlement(Event.DELIVER, "delivered", facts=Facts(), report=report)
    for claim in await hand_off.claim(statements, **WORK):
        await hand_off.settle(statements, claim, delivered, now=9e9)
    for claimed in await reports.claim(statements, accounts=["quick"], **WORK):
        await reports.settle(statements, claimed, ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=9e9)


async def report_waiting(statements: Statements) -> None:
    """Of what waits, and of what was told with a time that is over; and of a failed attempt."""
    rule = EarlyRule(after=60.0, window=10.0)
    await early.report_waiting(statements, "flood", rule, now=8e9, limit=4)
    await early.report_waiting(statements, "flood", rule, now=8.1e9, limit=4)
    failed = EarlyReport(Report(1, ReportStatus.FAIL, 1000.0), 9.5e9)
    for claim in await hand_off.claim(statements, **WORK):
        await hand_off.settle(statements, claim, Settlement(Event.POSTPONE, "x", early=failed), now=9e9)


async def tell_again(statements: Statements) -> None:
    """The report of an application, which idibu had confirmed."""
    await reports.insert(statements, 5, Report(5, ReportStatus.SUCCESS, 1000.0), 1000.0)
    newest = (await outcomes.outcomes(statements, "flood", [5]))[-1]
    await statements.run("UPDATE reports SET state = 'confirmed' WHERE id = :id", id=newest.report_id)
    await outcomes.tell_again(statements, newest.report_id, now=9e9)


QUESTIONS: dict[str, tuple[Any, set[str]]] = {
    "report-waiting": (
        report_waiting,
        {"applications_unannounced", "applications_announced", "applications_delivered", "reports_open"},
    ),
    "claim": (
        lambda s: hand_off.claim(s, room={"flood": 1}, untrusted=1, **WORK),
        {"applications_front", "applications_waiting", "applications_in_attempt"},
    ),
    "next-due": (
        lambda s: counts.next_due(s, now=9e9, accounts=["flood"]),
        {"applications_front", "applications_in_attempt", "reports_due", "reports_in_attempt"},
    ),
    "settle": (settle, {"attempts_by_application", "reports_open", "reports_due"}),
    "delivered-before": (lambda s: hand_off.delivered_before(s, "flood", 3), {"applications_delivered"}),
    "backlog": (lambda s: counts.backlog(s, now=9e9), {"applications_oldest", "reports_oldest"}),
    "load": (untrusted.load, set()),
    "story": (lambda s: people.story(s, 5), {"attempts_by_application", "reports_by_application"}),
    "outcomes": (
        lambda s: outcomes.outcomes(s, "flood", range(100, 140)),
        {"applications_by_applicant", "reports_by_application"},
    ),
    "arrived": (lambda s: outcomes.arrived(s, "flood", range(100, 140)), {"applications_by_applicant"}),
    "tell-again": (tell_again, {"applications_by_applicant", "reports_by_application", "reports_pkey"}),
    "erase": (lambda s: messages.erase_finished(s, before=8e9, limit=9, now=9e9), {"messages_finished"}),
    "discard": (lambda s: untrusted.discard(s, before=8e9, limit=9, now=9e9), {"applications_expiring"}),
    "tombstones": (lambda s: tombstones.erase(s, before=8e9, limit=9), {"messages_erased"}),
}

FOUND: dict[str, tuple[Filter, set[str]]] = {
    "all": (Filter(), {"applications_pkey"}),
    "states": (Filter(states=(State.FAILED, State.HELD)), {"applications_by_state"}),
    "reason": (Filter(reasons=(HeldReason.UNTRUSTED,)), {"applications_by_reason"}),
    "reason-of-account": (
        Filter(reasons=(HeldReason.UNTRUSTED,), account="quick"),
        {"applications_by_account_and_reason"},
    ),
    "report": (Filter(report_states=(ReportState.DUE,)), {"reports_by_state"}),
    "report-of-account": (Filter(report_states=(ReportState.DUE,), account="quick"), {"reports_by_account"}),
    "account": (Filter(account="quick"), {"applications_by_account"}),
    "unrouted": (Filter(account=""), {"applications_by_account"}),
    "applicant": (Filter(applicant_id=3), {"applications_by_applicant"}),
    "client-reference": (Filter(client_reference="REF-1"), {"applications_by_client_reference"}),
    "portal": (Filter(portal="portal-1"), {"applications_by_portal"}),
    "since": (Filter(since=1000.0, until=2000.0), {"applications_pkey", "hours_pkey"}),
    "oldest-first": (Filter(states=(State.HELD,), after_id=9, oldest_first=True), {"applications_by_state"}),
}


@dataclass
class Seen:
    """What plans were made of: the indexes they use, and what they read whole."""

    indexes: set[str] = field(default_factory=set)
    whole: list[str] = field(default_factory=list)

    def add(self, node: dict[str, Any]) -> None:
        index, condition = node.get("Index Name"), node.get("Index Cond")
        if index is not None:
            self.indexes.add(index)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
            self.whole.append(f"{node['Relation Name']}: {node.get('Filter')}")
        if index is not None and condition is None and index not in SMALL:
            self.whole.append(f"{index}: no condition")
        for child in node.get("Plans", ()):
            self.add(child)


class Explained(Statements):
    """Explains each statement as it is planned for any values, and runs it."""

    def __init__(self, connection: Any, seen: Seen) -> None:
        super().__init__(connection)
        self.seen = seen

    async def _explain(self, sql: str) -> None:
        text, names = _numbered(sql)
        await self._connection.execute(f"PREPARE asked AS {text}")
        nulls = f"({', '.join('NULL' for _ in names)})" if names else ""
        plan = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked{nulls}")
        await self._connection.execute("DEALLOCATE asked")
        self.seen.add(json.loads(plan)[0]["Plan"])

    async def all(self, sql: str, **values: object) -> Any:
        await self._explain(sql)
        return await super().all(sql, **values)

    async def one(self, sql: str, **values: object) -> Any:
        await self._explain(sql)
        return await super().one(sql, **values)

    async def run(self, sql: str, **values: object) -> int:
        await self._explain(sql)
        return await super().run(sql, **values)


@pytest.fixture(scope="module")
def filled(postgres_server: Server) -> Iterator[str]:
    url = postgres_server.url(postgres_server.make())

    async def fill() -> None:
        spool = open_spool(url)
        await spool.prepare()
        await spool.close()
        connection = await asyncpg.connect(url)
        for statement in FILL.split(";\n"):
            await connection.execute(statement)
        await connection.execute("VACUUM ANALYZE")
        await connection.close()

    asyncio.run(fill())
    yield url


async def seen_by(url: str, question: Any) -> Seen:
    connection = await asyncpg.connect(url, server_settings=Options().server_settings())
    transaction = connection.transaction()
    await transaction.start()
    explained = Explained(connection, Seen())
    await question(explained)
    await transaction.rollback()
    await connection.close()
    return explained.seen


@pytest.mark.parametrize("name", QUESTIONS)
async def test_every_statement_finds_its_rows_by_the_index_that_is_meant(filled: str, name: str) -> None:
    question, indexes = QUESTIONS[name]
    seen = await seen_by(filled, question)
    assert indexes <= seen.indexes
    first_of_all = re.compile(
        r"applications_front: no condition"
    )  # the first account's first: a step, not a look at all
    assert [each for each in seen.whole if not first_of_all.match(each)] == []


@pytest.mark.parametrize("name", FOUND)
async def test_every_list_goes_on_with_the_ids_of_its_index(filled: str, name: str) -> None:
    wanted, indexes = FOUND[name]
    seen = await seen_by(filled, lambda s: people.find(s, wanted))
    assert indexes <= seen.indexes
    # The newest ids are read until there are enough; so is what a person routed elsewhere after it was reported.
    assert [each for each in seen.whole if not each.startswith(("applications_pkey:", "rerouted"))] == []
