"""Ends the pauses of reporting that a wrong hash earned: idibu took a report since, or the hash was changed."""

from apptrack_ingest import logs
from apptrack_ingest.model import Stage
from apptrack_ingest.spool.contract import Pause
from apptrack_ingest.worker.desk import Tools

log = logs.get("worker")

LOOK_AFTER = 1.0
"""Seconds from one look for pauses that confirmed reports might end to the next: not every report needs one."""


class Pauses:
    """Looks for them when there is a reason to. Every method may raise SpoolUnavailable: then it is to be called again."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._hashes_changed = False
        self._looked = float("-inf")

    def configured(self) -> None:
        """The accounts, and perhaps their hashes, are other ones now."""
        self._hashes_changed = True

    async def end(self, now: float) -> None:
        """Ends what is to be ended now."""
        if self._hashes_changed:
            for pause in await self._tools.spool.pauses():
                if self._is_of_old_hash(pause):
                    await self._resume(pause, now, "the hash was changed", "reporting resumed: the hash was changed")
            self._hashes_changed = False
        if self._confirmed_since_look(now):
            self._looked = now
            for pause in await self._tools.spool.pauses():
                if self._is_confirmed(pause):
                    await self._resume(pause, now, "idibu confirmed a report", "reporting resumed")

    def _is_of_old_hash(self, pause: Pause) -> bool:
        desk = self._tools.desks.get(pause.account)
        known = (None, pause.fingerprint)
        return desk is not None and pause.is_of_hash(pause.account) and desk.hash_fingerprint not in known

    def _confirmed_since_look(self, now: float) -> bool:
        newest = max(self._tools.confirmed.values(), default=float("-inf"))
        return newest >= self._looked and not 0 <= now - self._looked < LOOK_AFTER

    def _is_confirmed(self, pause: Pause) -> bool:
        desk = self._tools.desks.get(pause.account)
        confirmed = self._tools.confirmed.get((pause.account, desk.hash_fingerprint if desk else None))
        return confirmed is not None and confirmed >= pause.since and pause.is_of_hash(pause.account)

    async def _resume(self, pause: Pause, now: float, note: str, event: str) -> None:
        await self._tools.spool.resume(pause.account, Stage.REPORT, now=now, note=note)
        log.info(event, account=pause.account)
