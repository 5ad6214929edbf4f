"""What is done now and then beside the work: erasing what is finished for long, and telling people what waits for them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from apptrack_ingest import logs, settings
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.model import ReportState, State
from apptrack_ingest.report import digest
from apptrack_ingest.spool.contract import Filter, Spool, Summary
from apptrack_ingest.worker.desk import Clock

log = logs.get("housekeeping")

ROUND = 60.0
"""Seconds between two rounds."""

ERASE_AT_ONCE = 100
"""Messages erased in one commit: few, so that no mail being received waits long for it."""

KEEP_FREE = 64 * 1024 * 1024
"""Bytes of free space that the spool's file keeps: tomorrow's mails take them, and to move pages twice helps nobody."""

GIVE_BACK = 1024 * 1024 * 1024
GIVE_BACK_AT_ONCE = 2 * 1024 * 1024
GIVE_BACK_PAUSE = 0.05
"""Bytes given back in one round, and in one step of it (milliseconds, for which a commit waits), and seconds in between."""

TELL_AT_ONCE = 50
"""Applications of which early reports are made in one commit."""

DIGEST_MARK = "digest"
DIGEST_ROWS = 2000
"""Applications looked at for one digest, which names the oldest of them."""

DIGEST_AGAIN = 600.0
"""Seconds after which a digest that was not delivered is tried again."""


@dataclass(slots=True)
class Housekeeping:
    """Runs beside the worker; `configure` replaces the settings at a reload."""

    spool: Spool
    clock: Clock
    settings: settings.Settings
    _left_out: set[str] = field(default_factory=set)
    """What the spool could not be used for in the last round: told once, and the worker tells of an outage itself."""

    async def run(self) -> None:
        """Rounds until cancelled; a fault in one is logged and the next comes all the same."""
        while True:
            await self._guarded(self.end_pauses)
            await self._guarded(self.report_waiting)
            await self._guarded(self.erase)
            await self._guarded(self.discard_untrusted)
            await self._guarded(self.erase_tombstones)
            await self._guarded(self.give_back)
            await self._guarded(self.tell)
            await self.clock.sleep(ROUND)

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        name = task.__name__
        try:
            await task()
        except SpoolUnavailable as error:
            if name not in self._left_out:
                log.warning("left out until the spool can be used", task=name, **logs.exception_fields(error))
            self._left_out.add(name)
            return
        except Exception:
            log.exception("round left out", task=name)
        self._left_out.discard(name)

    async def end_pauses(self) -> None:
        """Ends persons' pauses whose time is up, so that what waited has its whole schedule before it."""
        for pause in await self.spool.end_pauses(now=self.clock.now()):
            log.info("pause is over", account=pause.account, stage=pause.stage.value)

    async def report_waiting(self) -> None:
        """Has idibu told what has no outcome yet, where an account wants that."""
        now = self.clock.now()
        for name, account in self.settings.known_accounts.items():
            if not (account.reporting and account.early.wanted):
                continue
            told = 0
            while count := await self.spool.report_waiting(name, account.early, now=now, limit=TELL_AT_ONCE):
                told += count
                await asyncio.sleep(0)
            if told:
                log.info("early reports are due", account=name, applications=told)

    async def erase(self) -> None:
        """Erases raw mails and candidates' data of what finished longer ago than the retention."""
        before = self.clock.now() - self.settings.retention
        erased = 0
        while count := await self.spool.erase_finished(before=before, limit=ERASE_AT_ONCE):
            erased += count
            await asyncio.sleep(0)
        if erased:
            log.info("erased by retention", messages=erased)

    async def discard_untrusted(self) -> None:
        """Discards and erases what no rule of trust matched and nobody vouched for within its own retention."""
        before = self.clock.now() - self.settings.untrusted.retention
        discarded = 0
        while count := await self.spool.discard_untrusted(before=before, limit=ERASE_AT_ONCE, now=self.clock.now()):
            discarded += count
            await asyncio.sleep(0)
        if discarded:
            log.info("untrusted mail discarded by retention", applications=discarded)

    async def erase_tombstones(self) -> None:
        """Removes what is left of mails erased long ago."""
        before = self.clock.now() - self.settings.tombstones
        removed = 0
        while count := await self.spool.erase_tombstones(before=before, limit=ERASE_AT_ONCE):
            removed += count
            await asyncio.sleep(0)
        if removed:
            log.info("tombstones removed", messages=removed)

    async def give_back(self) -> None:
        """Gives free space of the spool's file back, in steps between which mails are received."""
        given = 0
        while given < GIVE_BACK and (step := await self.spool.give_back(keep=KEEP_FREE, limit=GIVE_BACK_AT_ONCE)):
            given += step
            await self.clock.sleep(GIVE_BACK_PAUSE)
        if given:
            log.info("free space given back", bytes=given)

    async def tell(self) -> None:
        """Sends the digest when it is wanted, something waits for a person, and the last one is long enough ago."""
        if not self.settings.digest.wanted:
            return
        now = self.clock.now()
        last = await self.spool.mark(DIGEST_MARK)
        if last is not None and now - last < self.settings.digest.every:
            return
        note = digest.compose(await self.spool.backlog(), await self._rows(), now)
        if note is None:
            return
        # Several workers may be about to send it: one of them takes it, for as long as it needs to be tried again.
        since = now - self.settings.digest.every
        taken = since + DIGEST_AGAIN
        try:
            if not await self.spool.take_mark(DIGEST_MARK, taken, after=since):
                return
            failed = await digest.deliver(note, self.settings.digest)
        except asyncio.CancelledError:
            await self._leave_to_the_next(taken, since)
            raise
        if failed:
            # Not at once again: one of two ways may have taken it, and its readers need no copy a minute.
            log.error("digest not delivered", ways=list(failed))
            return
        await self.spool.set_mark(DIGEST_MARK, now)
        log.info("digest delivered")

    async def _leave_to_the_next(self, taken: float, before: float) -> None:
        """A stop came in between: the digest is due as before. Not asked first whether it was ours, for the taking of it may
        have been cut off and go on; what another has delivered since is later, and stays."""
        with suppress(SpoolUnavailable):
            await self.spool.take_mark(DIGEST_MARK, before, after=taken)

    async def _rows(self) -> list[Summary]:
        waiting = await self.spool.find(Filter(states=(State.HELD, State.FAILED), limit=DIGEST_ROWS))
        unreported = await self.spool.find(
            Filter(report_states=(ReportState.REFUSED, ReportState.FAILED), limit=DIGEST_ROWS)
        )
        by_id = {row.application_id: row for row in (*waiting, *unreported)}
        return [by_id[key] for key in sorted(by_id)]
