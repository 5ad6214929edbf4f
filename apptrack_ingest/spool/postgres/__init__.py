"""The spool on PostgreSQL: a small pool of connections, claims with SKIP LOCKED, NOTIFY as a hint."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Backlog, Message, ReportState, State
from apptrack_ingest.spool.contract import (
    Action,
    Claim,
    Delivered,
    Due,
    Facts,
    Filter,
    Load,
    Outcome,
    Reaped,
    ReportClaim,
    ReportSettlement,
    Settlement,
    Story,
    Summary,
)
from apptrack_ingest.spool.postgres import (
    bodies,
    counts,
    hand_off,
    marks,
    messages,
    outcomes,
    pauses,
    people,
    reports,
    untrusted,
)
from apptrack_ingest.spool.postgres.decisions import Decisions
from apptrack_ingest.spool.postgres.door import Door, Options, Statements
from apptrack_ingest.spool.postgres.hints import Hints, tell


def open_spool(url: str, *, clock: Callable[[], float] = time.time, options: Options | None = None) -> "PostgresSpool":
    """The spool in the database of a URL (libpq's manual, 34.1.1.2). Nothing is connected yet: that is done in the running
    loop when first needed, and missing migrations are taken then. Raises SpoolError where the URL cannot be read."""
    return PostgresSpool(url, clock, options or Options())


class PostgresSpool(Decisions):
    """The spool contract on PostgreSQL; see `contract.Spool` for every method's meaning.

    Any number of processes on any number of machines may use one database. An object belongs to one event loop.
    """

    def __init__(self, url: str, clock: Callable[[], float], options: Options) -> None:
        self._clock = clock
        self._door = Door(url, options)
        self._hints = Hints(url, options)
        self._unanswered: list[tuple[str, Claim | ReportClaim]] = []

    async def prepare(self) -> None:
        """Connects and takes missing migrations; raises SpoolUnavailable or SpoolError where that cannot be done."""
        await self._door.ask(pauses.pauses)

    # -- receive

    async def put(self, message: Message, arrivals: Sequence[Arrival]) -> int:
        message_id = await self._door.ask(lambda s: messages.put(s, message, arrivals))
        self._hints.send()
        return message_id

    # -- hand off

    async def claim(
        self,
        *,
        worker: str,
        now: float,
        lease: float,
        limit: int,
        room: Mapping[str, int] | None = None,
        untrusted: int | None = None,
        solo: bool = False,
    ) -> list[Claim]:
        taken: list[Claim] = []

        async def take(statements: Statements) -> list[Claim]:
            taken[:] = await hand_off.claim(
                statements,
                worker=worker,
                now=now,
                lease=lease,
                limit=limit,
                room=room or {},
                untrusted=untrusted,
                solo=solo,
            )
            return taken

        await self._give_back(now)
        try:
            return await self._door.change(take)
        except SpoolUnavailable:
            self._unanswered += [(worker, claim) for claim in taken]
            raise

    async def _give_back(self, now: float) -> None:
        """Ends claims whose commit was not answered, if they were committed: nobody works on them, and to wait for the end
        of their lease would look like a crash."""
        while self._unanswered:
            await self._door.change(partial(_interrupt, *self._unanswered[-1], now=now))
            self._unanswered.pop()

    async def renew(
        self, claims: Sequence[Claim | ReportClaim], *, now: float, lease: float
    ) -> list[Claim | ReportClaim]:
        async def renew_all(statements: Statements) -> list[Claim | ReportClaim]:
            mine = [claim for claim in claims if isinstance(claim, Claim)]
            sending = [claim for claim in claims if isinstance(claim, ReportClaim)]
            kept = await hand_off.renew(statements, mine, now + lease) if mine else set()
            sent = await reports.renew(statements, sending, now + lease) if sending else set()
            lost: list[Claim | ReportClaim] = [
                *(claim for claim in mine if (claim.application_id, claim.token) not in kept),
                *(claim for claim in sending if (claim.report_id, claim.token) not in sent),
            ]
            return [claim for claim in claims if claim in lost]

        return await self._door.change(renew_all)

    async def delivered_before(self, account: str, applicant_id: int) -> list[Delivered]:
        return await self._door.ask(lambda s: hand_off.delivered_before(s, account, applicant_id))

    async def to_work_on(self, claim: Claim) -> tuple[bytes, list[Delivered]]:
        async def found(statements: Statements) -> tuple[bytes, list[Delivered]]:
            raw = await bodies.fetch(statements, claim.message_id)
            if claim.account is None or claim.applicant_id is None:
                return raw, []
            return raw, await hand_off.delivered_before(statements, claim.account, claim.applicant_id)

        return await self._door.ask(found)

    async def raw(self, message_id: int) -> bytes:
        return await self._door.ask(lambda s: bodies.fetch(s, message_id))

    async def settle(self, claim: Claim, settlement: Settlement, *, now: float) -> None:
        await self._door.change(lambda s: hand_off.settle(s, claim, settlement, now=now))

    async def reap(self, *, now: float, reports_for: Collection[str]) -> list[Reaped]:
        async def reap_all(statements: Statements) -> list[Reaped]:
            await reports.reap(statements, now=now)
            return await hand_off.reap(statements, now=now, reports_for=reports_for)

        return await self._door.change(reap_all)

    async def abandon(self, worker: str, *, now: float) -> int:
        async def abandon_all(statements: Statements) -> int:
            values = {"now": now, "worker": worker}
            return sum(
                [
                    await statements.run(
                        f"UPDATE {table} SET lease_until = :now"  # noqa: S608 - only our own constants
                        " WHERE in_attempt AND lease_worker = :worker AND lease_until > :now",
                        **values,
                    )
                    for table in ("applications", "reports")
                ]
            )

        return await self._door.change(abandon_all)

    # -- report

    async def claim_reports(
        self, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
    ) -> list[ReportClaim]:
        taken: list[ReportClaim] = []

        async def take(statements: Statements) -> list[ReportClaim]:
            taken[:] = await reports.claim(
                statements, worker=worker, now=now, lease=lease, limit=limit, accounts=accounts
            )
            return taken

        await self._give_back(now)
        try:
            return await self._door.change(take)
        except SpoolUnavailable:
            self._unanswered += [(worker, claim) for claim in taken]
            raise

    async def settle_report(self, claim: ReportClaim, settlement: ReportSettlement, *, now: float) -> ReportState:
        return await self._door.change(lambda s: reports.settle(s, claim, settlement, now=now))

    # -- both

    async def next_due(
        self,
        *,
        now: float,
        accounts: Collection[str],
        full: Collection[str] = (),
        untrusted: bool = True,
        roughly: bool = False,
    ) -> Due:
        return await self._door.ask(
            lambda s: counts.next_due(s, now=now, accounts=accounts, full=full, untrusted=untrusted)
        )

    def listen(self, wake: Callable[[], None]) -> None:
        self._hints.listen(wake)

    # -- people

    async def act(self, application_id: int, action: Action, *, now: float) -> State:
        async def decide(statements: Statements) -> State:
            state = await people.act(statements, application_id, action, now=now)
            await tell(statements)
            return state

        return await self._door.change(decide)

    async def retry_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        async def retry(statements: Statements) -> None:
            application_id = await reports.retry(statements, report_id, now=now)
            await people.record(statements, application_id, now, actor, f"retry report {report_id}", note)
            await tell(statements)

        await self._door.change(retry)

    async def drop_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        async def drop(statements: Statements) -> None:
            application_id = await reports.drop(statements, report_id, now=now)
            await people.record(statements, application_id, now, actor, f"discard report {report_id}", note)

        await self._door.change(drop)

    async def outcomes(self, account: str, applicants: Collection[int]) -> list[Outcome]:
        return await self._door.ask(lambda s: outcomes.outcomes(s, account, applicants))

    async def arrived(self, account: str, applicants: Collection[int]) -> set[int]:
        return await self._door.ask(lambda s: outcomes.arrived(s, account, applicants))

    async def tell_again(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        async def again(statements: Statements) -> None:
            application_id = await outcomes.tell_again(statements, report_id, now=now)
            await people.record(statements, application_id, now, actor, f"tell report {report_id} again", note)
            await tell(statements)

        await self._door.change(again)

    async def update_facts(self, application_id: int, facts: Facts, applicant_id: int | None) -> None:
        await self._door.change(lambda s: people.update_facts(s, application_id, facts, applicant_id))

    async def find(self, wanted: Filter) -> list[Summary]:
        return await self._door.ask(lambda s: people.find(s, wanted))

    async def count(self, wanted: Filter) -> int:
        return await self._door.ask(lambda s: people.count(s, wanted))

    async def story(self, application_id: int) -> Story:
        return await self._door.look(lambda s: people.story(s, application_id))

    async def backlog(self) -> Backlog:
        backlog = await self._door.look(lambda s: counts.backlog(s, now=self._clock()))
        await self._sum_up()
        return backlog

    async def load(self) -> Load:
        load = await self._door.ask(untrusted.load)
        await self._sum_up()
        return load

    async def _sum_up(self) -> None:
        with contextlib.suppress(SpoolUnavailable):
            await self._door.ask(counts.sum_up)

    async def mark(self, key: str) -> float | None:
        return await self._door.ask(lambda s: marks.get(s, key))

    async def set_mark(self, key: str, at: float) -> None:
        await self._door.ask(lambda s: marks.put(s, key, at))

    async def take_mark(self, key: str, at: float, *, after: float) -> bool:
        return await self._door.ask(lambda s: marks.take(s, key, at, after=after))

    async def erase_finished(self, *, before: float, limit: int) -> int:
        now = self._clock()
        await self._sum_up()
        return await self._door.change(lambda s: messages.erase_finished(s, before=before, limit=limit, now=now))

    async def discard_untrusted(self, *, before: float, limit: int, now: float) -> int:
        return await self._door.change(lambda s: untrusted.discard(s, before=before, limit=limit, now=now))

    async def check_writable(self) -> None:
        await self.set_mark("writable", self._clock())

    async def close(self) -> None:
        await self._door.close()
        await self._hints.close()


__all__ = ["Options", "PostgresSpool", "open_spool"]


async def _interrupt(worker: str, claim: Claim | ReportClaim, statements: Statements, *, now: float) -> None:
    """Ends the attempt of a claim in doubt. If its commit was not made, the next worker to claim the row was given the same
    token: only the worker's name then tells the one from the other."""
    if isinstance(claim, Claim):
        if await hand_off.is_held(statements, claim, worker):
            interrupted = Settlement(Event.POSTPONE, "interrupted", counts=False)
            await hand_off.settle(statements, claim, interrupted, now=now)
    elif await reports.is_held(statements, claim, worker):
        await reports.settle(statements, claim, ReportSettlement(ReportState.DUE, "interrupted", counts=False), now=now)
