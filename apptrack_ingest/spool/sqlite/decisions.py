"""The part of the contract about the spool as a whole: pauses, orders, early reports, and how long what is kept."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeVar

from apptrack_ingest.lifecycle import EarlyRule
from apptrack_ingest.spool.pausing import Pausing
from apptrack_ingest.spool.records import Forgotten, Order, OrderRecord, Pause, Trace
from apptrack_ingest.spool.rows import Ending, order_of_pause
from apptrack_ingest.spool.sqlite import early, forgetting, orders, pauses, space, tombstones
from apptrack_ingest.spool.sqlite.around import removed
from apptrack_ingest.spool.sqlite.commit import GroupCommitter
from apptrack_ingest.spool.sqlite.hints import Hints

T = TypeVar("T")

TRIES = 10
"""How often, each time for a second, the log is tried to be emptied of one who was forgotten."""


class Decisions(Pausing):
    """See `contract.Spool` for every method's meaning."""

    database: Path
    _writer: GroupCommitter
    _hints: Hints

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def _look(self, question: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    # -- pauses

    async def _begin(self, pause: Pause) -> bool:
        def keep(connection: sqlite3.Connection) -> bool:
            known = {(each.account, each.stage) for each in pauses.pauses(connection)}
            changed = pauses.pause(connection, pause)
            if changed and (pause.actor or (pause.account, pause.stage) not in known):
                orders.keep(connection, order_of_pause(pause), now=pause.since)
            return changed

        return await self._writer.do(keep)

    async def _is_there(self, ending: Ending) -> bool:
        return await self._look(lambda c: pauses.found(c, ending))

    async def _end(self, ending: Ending, now: float) -> bool:
        def end(connection: sqlite3.Connection) -> bool:
            ended = pauses.end(connection, ending)
            if ended:
                orders.keep(connection, ending.order, now=now)
            return ended

        ended = await self._writer.do(end)
        self._hints.send()
        return ended

    async def _reset(self, ending: Ending, now: float) -> None:
        last: int | None = 0
        while last is not None:
            last = await self._writer.do(partial(pauses.reset, ending=ending, last=last, now=now))

    async def pauses(self) -> list[Pause]:
        return await self._look(pauses.pauses)

    # -- what waits

    async def report_waiting(self, account: str, rule: EarlyRule, *, now: float, limit: int) -> int:
        return await self._writer.do(lambda c: early.report_waiting(c, account, rule, now=now, limit=limit))

    # -- orders

    async def begin_order(self, order: Order, *, now: float) -> int:
        return await self._writer.do(lambda c: orders.begin(c, order, now=now))

    async def end_order(self, order_id: int, *, done: int, refused: int, now: float) -> None:
        await self._writer.do(lambda c: orders.end(c, order_id, done=done, refused=refused, now=now))

    async def orders(
        self, *, account: str | None = None, before_id: int | None = None, limit: int = 50
    ) -> list[OrderRecord]:
        return await self._look(lambda c: orders.orders(c, account=account, before_id=before_id, limit=limit))

    # -- an end of what is kept

    async def erase_tombstones(self, *, before: float, limit: int) -> int:
        return await self._writer.do(lambda c: tombstones.erase(c, before=before, limit=limit))

    async def give_back(self, *, keep: int, limit: int) -> int:
        return await self._writer.do(lambda c: space.give_back(c, keep=keep, limit=limit))

    async def traces(self, address: str, also: Collection[int] = ()) -> list[Trace]:
        return await self._read(lambda c: forgetting.traces(c, address, also))

    async def forget(
        self, address: str, applications: Collection[int], *, actor: str, note: str, now: float
    ) -> Forgotten:
        await self._read(lambda _: None)  # many are entered a few at a time
        left = await self._writer.do(
            lambda c: forgetting.forget(c, address, applications, actor=actor, note=note, now=now)
        )
        await asyncio.to_thread(removed, lambda: space.empty_log(self.database, tries=TRIES))
        return left

    async def forgotten(self, address: str) -> list[Forgotten]:
        return await self._look(lambda c: forgetting.forgotten(c, address))
