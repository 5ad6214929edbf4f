"""How a pause begins and ends, whichever database keeps it: what was under way at its beginning is set going first."""

from apptrack_ingest.model import Stage
from apptrack_ingest.spool.records import Pause
from apptrack_ingest.spool.rows import Ending, resumed, run_out


class Pausing:
    """See `contract.Spool` for every method's meaning; those that begin with an underscore are the database's."""

    async def pause(self, pause: Pause) -> bool:
        changed = await self._begin(pause)
        if changed and pause.actor:
            await self._reset(resumed(pause.account, pause.stage, pause.actor, ""), pause.since)
        return changed

    async def resume(self, account: str, stage: Stage, *, now: float, actor: str = "", note: str = "") -> bool:
        return await self._resume(resumed(account, stage, actor, note), now)

    async def end_pauses(self, *, now: float) -> list[Pause]:
        over = [each for each in await self.pauses() if each.actor and each.over(now)]
        return [each for each in over if await self._resume(run_out(each, now), now)]

    async def pauses(self) -> list[Pause]:
        raise NotImplementedError

    async def _resume(self, ending: Ending, now: float) -> bool:
        """First what was under way when the pause began gets its schedule, too, then all may go."""
        if await self._is_there(ending):
            await self._reset(ending, now)
        return await self._end(ending, now)

    async def _begin(self, pause: Pause) -> bool:
        """Keeps a pause, and the order if it is one; whether that changed anything."""
        raise NotImplementedError

    async def _is_there(self, ending: Ending) -> bool:
        """Whether there is a pause to end."""
        raise NotImplementedError

    async def _reset(self, ending: Ending, now: float) -> None:
        """Gives what the pause keeps waiting its schedule from `now` on."""
        raise NotImplementedError

    async def _end(self, ending: Ending, now: float) -> bool:
        """Ends the pause, keeps the order, and tells those who wait for work; whether there was a pause."""
        raise NotImplementedError
