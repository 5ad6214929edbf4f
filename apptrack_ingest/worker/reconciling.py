"""Holds ledger and idibu against each other on a schedule, one worker at a time over all machines; nothing is changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from apptrack_ingest import logs, metrics, settings
from apptrack_ingest.reconcile import USUAL_PACE, Account, Kind, Looked, Pace, look
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.worker.desk import Clock

log = logs.get("reconcile")

ROUND = 60.0
"""Seconds between two looks at whether it is time."""

WINDOW = 7 * 86400.0
"""Seconds back to which ledger and idibu are compared; or two intervals, where that is more."""

MARK = "reconcile"
"""The mark of an account is this and its name: when it was last done."""

FOUND = "reconciled"
"""What an account's last look found, for whoever starts after it: this, then `at` or a kind of findings, and the account's
name are the keys of the marks that hold when it was (0 while they are being written) and how many there were. Without them
an alert would be over with a restart until the next look."""

TAKEN_FOR = 1800.0
"""Seconds for which a worker that does it keeps the others from doing it too, from its last page on; and after which it is
tried again where it could not be done."""


@dataclass(slots=True)
class Reconciling:
    """Runs beside the worker; `accounts` gives those that can be asked about, by the settings then in force."""

    spool: Spool
    clock: Clock
    settings: settings.Settings
    accounts: Callable[[], Sequence[Account]]
    _shown: set[str] = field(default_factory=set)
    """Accounts whose numbers this process shows."""

    async def run(self) -> None:
        """Looks until cancelled; a fault is logged and the next look comes all the same."""
        while True:
            try:
                await self.round()
            except Exception:
                log.exception("round left out")
            await self.clock.sleep(ROUND)

    async def round(self) -> None:
        """Each account whose time has come, one after the other; of the others what was found the last time."""
        every = self.settings.idibu.reconcile_every
        if every is None:
            return
        accounts = self.accounts()
        for account in accounts:
            await self._show_the_last(account.name)
        for account in accounts:  # which may take hours
            await self._when_due(account, every)

    async def _when_due(self, account: Account, every: float) -> None:
        now, key = self.clock.now(), f"{MARK} {account.name}"
        last = await self.spool.mark(key)
        if last is not None and last > now - every:
            return
        keep = min(TAKEN_FOR, every / 2)
        if not await self.spool.take_mark(key, now - every + keep, after=now - every):
            return  # another worker took it a moment ago

        async def still_at_it() -> None:
            await self.spool.set_mark(key, self.clock.now() - every + keep)

        looked = await look(
            self.spool,
            account,
            since=now - max(WINDOW, 2 * every),
            clock=self.clock,
            pace=Pace(USUAL_PACE, self.clock),
            most=0,
            step=still_at_it,
        )
        if looked.error is not None:
            log.warning("not reconciled to the end", account=looked.account, code=looked.error.code)
            return
        await self._keep(looked)
        await self.spool.set_mark(key, now)

    async def _keep(self, looked: Looked) -> None:
        """One line, and the numbers, here and in the spool; neither tells anything of an applicant."""
        counted = {kind.value: looked.counts[kind] for kind in Kind}
        at = self.clock.now()
        metrics.reconciled(looked.account, counted, at)
        self._shown.add(looked.account)
        found = {kind.replace("-", "_"): number for kind, number in counted.items() if number}
        log.info(
            "reconciled",
            account=looked.account,
            statuses=looked.statuses,
            outcomes=looked.outcomes,
            applicants=looked.applicants,
            **found,
        )
        await self.spool.set_mark(f"{FOUND} at {looked.account}", 0.0)
        for kind, number in counted.items():
            await self.spool.set_mark(f"{FOUND} {kind} {looked.account}", number)
        await self.spool.set_mark(f"{FOUND} at {looked.account}", at)

    async def _show_the_last(self, account: str) -> None:
        """Shows what the last look found, once, where this process has looked at nothing yet."""
        if account in self._shown:
            return
        at = await self.spool.mark(f"{FOUND} at {account}")
        if at:
            counted = {kind.value: int(await self.spool.mark(f"{FOUND} {kind} {account}") or 0) for kind in Kind}
            metrics.reconciled(account, counted, at)
        self._shown.add(account)
