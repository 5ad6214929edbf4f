"""The part of the contract about the spool as a whole: pauses, orders, early reports, and how long what is kept."""

from collections.abc import Collection
from functools import partial

from apptrack_ingest.lifecycle import EarlyRule
from apptrack_ingest.spool.pausing import Pausing
from apptrack_ingest.spool.postgres import early, forgetting, orders, pauses, tombstones
from apptrack_ingest.spool.postgres.door import Door, Statements
from apptrack_ingest.spool.postgres.hints import tell
from apptrack_ingest.spool.records import Forgotten, Order, OrderRecord, Pause, Trace
from apptrack_ingest.spool.rows import Ending, order_of_pause


class Decisions(Pausing):
    """See `contract.Spool` for every method's meaning."""

    _door: Door

    # -- pauses

    async def _begin(self, pause: Pause) -> bool:
        async def keep(statements: Statements) -> bool:
            known = {(each.account, each.stage) for each in await pauses.pauses(statements)}
            changed = await pauses.pause(statements, pause)
            if changed and (pause.actor or (pause.account, pause.stage) not in known):
                await orders.keep(statements, order_of_pause(pause), now=pause.since)
            return changed

        return await self._door.change(keep)

    async def _is_there(self, ending: Ending) -> bool:
        return await self._door.ask(lambda s: pauses.found(s, ending))

    async def _end(self, ending: Ending, now: float) -> bool:
        async def end(statements: Statements) -> bool:
            ended = await pauses.end(statements, ending)
            if ended:
                await orders.keep(statements, ending.order, now=now)
            await tell(statements)
            return ended

        return await self._door.change(end)

    async def _reset(self, ending: Ending, now: float) -> None:
        last: int | None = 0
        while last is not None:
            last = await self._door.change(partial(pauses.reset, ending=ending, last=last, now=now))

    async def pauses(self) -> list[Pause]:
        return await self._door.ask(pauses.pauses)

    # -- what waits

    async def report_waiting(self, account: str, rule: EarlyRule, *, now: float, limit: int) -> int:
        return await self._door.change(lambda s: early.report_waiting(s, account, rule, now=now, limit=limit))

    # -- orders

    async def begin_order(self, order: Order, *, now: float) -> int:
        return await self._door.change(lambda s: orders.begin(s, order, now=now))

    async def end_order(self, order_id: int, *, done: int, refused: int, now: float) -> None:
        await self._door.change(lambda s: orders.end(s, order_id, done=done, refused=refused, now=now))

    async def orders(
        self, *, account: str | None = None, before_id: int | None = None, limit: int = 50
    ) -> list[OrderRecord]:
        return await self._door.ask(lambda s: orders.orders(s, account=account, before_id=before_id, limit=limit))

    # -- an end of what is kept

    async def erase_tombstones(self, *, before: float, limit: int) -> int:
        return await self._door.change(lambda s: tombstones.erase(s, before=before, limit=limit))

    async def give_back(self, *, keep: int, limit: int) -> int:
        return 0  # autovacuum makes room for what comes; only VACUUM FULL, which stops everything, makes files smaller

    async def traces(self, address: str, also: Collection[int] = ()) -> list[Trace]:
        return await self._door.look(lambda s: forgetting.traces(s, address, also))

    async def forget(
        self, address: str, applications: Collection[int], *, actor: str, note: str, now: float
    ) -> Forgotten:
        return await self._door.change(
            lambda s: forgetting.forget(s, address, applications, actor=actor, note=note, now=now)
        )

    async def forgotten(self, address: str) -> list[Forgotten]:
        return await self._door.look(lambda s: forgetting.forgotten(s, address))
