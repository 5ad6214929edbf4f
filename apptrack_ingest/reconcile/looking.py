"""Reads ledger and idibu side by side, in pages: in memory stay the ids that idibu listed, and what was found.

The ledger is always read after idibu's answer that it is held against. A report that was confirmed long enough before, and
is still its applicant's newest, is then what idibu had to show; nothing that happens meanwhile can look like a difference.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import TypeVar

from apptrack_ingest.errors import IdibuError, IdibuRefused
from apptrack_ingest.idibu import ApplicantStatus, Client
from apptrack_ingest.idibu.limits import LARGEST_PAGE
from apptrack_ingest.model import ReportState, Stage
from apptrack_ingest.reconcile import comparing
from apptrack_ingest.reconcile.comparing import Span, in_words
from apptrack_ingest.reconcile.findings import FIXABLE, Finding, Kind
from apptrack_ingest.reconcile.pace import Clock, Pace
from apptrack_ingest.spool.contract import Filter, Outcome, Spool

T = TypeVar("T")

OPEN = (ReportState.DUE, ReportState.REFUSED, ReportState.FAILED)

Step = Callable[[], Awaitable[None]]
"""Called after every page."""


async def _nothing() -> None:
    """What is done after a page where nobody asks for anything."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the settings: its client, and the time zone in which idibu writes its dates."""

    name: str
    client: Client
    zone: tzinfo


@dataclass(slots=True)
class Looked:
    """What came of looking at an account since a time (epoch seconds).

    `statuses`, `outcomes` and `applicants` are how many were looked at; without the last, idibu's list of applicants could
    not be had, and `unavailable` is the code of why. `shown` keeps the first findings of each kind, `fixable` all that can
    be put right (report, kind). With an `error` not all was looked at: what was found holds, what was not found does not.
    """

    account: str
    since: float
    statuses: int = 0
    outcomes: int = 0
    applicants: int | None = None
    unavailable: str = ""
    error: IdibuError | None = None
    counts: Counter[Kind] = field(default_factory=Counter)
    shown: list[Finding] = field(default_factory=list)
    fixable: list[tuple[int, Kind]] = field(default_factory=list)

    def add(self, finding: Finding, most: int) -> None:
        """One more; it is shown if there are less than so many of its kind."""
        if self.counts[finding.kind] < most:
            self.shown.append(finding)
        self.counts[finding.kind] += 1
        if finding.kind in FIXABLE and finding.report_id is not None:
            self.fixable.append((finding.report_id, finding.kind))


async def look(
    spool: Spool,
    account: Account,
    *,
    since: float,
    clock: Clock,
    pace: Pace,
    most: int = 20,
    step: Step = _nothing,
) -> Looked:
    """Holds the account's ledger against what idibu shows. What idibu or the network does is in the result's `error`; raises
    SpoolUnavailable."""
    looking = _Looking(spool, account, clock, pace, step, Looked(account.name, since))
    try:
        async for finding in looking.findings():
            looking.looked.add(finding, most)
    except IdibuError as error:
        looking.looked.error = error
    return looking.looked


@dataclass(slots=True)
class _Looking:
    """One look at one account."""

    spool: Spool
    account: Account
    clock: Clock
    pace: Pace
    step: Step
    looked: Looked
    seen: set[int] = field(default_factory=set)

    async def findings(self) -> AsyncIterator[Finding]:
        """One after the other: what idibu lists, what it does not list, what it was not told, whom it never sent."""
        for part in (self._listed(), self._unlisted(), self._untold(), self._unsent()):
            async for finding in part:
                yield finding

    def _span(self) -> Span:
        """From the time looked at until this moment, which is to be before idibu is asked."""
        return Span(self.looked.since, self.clock.now(), self.account.zone)

    # -- idibu's statuses

    async def _listed(self) -> AsyncIterator[Finding]:
        span = self._span()  # of before the first page: each later page is the younger one
        async for page in self._pages(self.account.client.statuses()):
            ids = [one.id for one in page]
            self.seen.update(ids)
            self.looked.statuses += len(page)
            ours = await self._ours(ids)
            for theirs in page:
                kind = comparing.of_status(ours.get(theirs.id), theirs, span)
                if kind is not None:
                    yield self._finding(kind, theirs.id, ours.get(theirs.id), theirs)

    async def _unlisted(self) -> AsyncIterator[Finding]:
        """Outcomes that idibu confirmed and did not list; each is asked for by itself, for lists shift while they are read,
        and not every server pages as it should."""
        span = self._span()
        confirmed = Filter(account=self.account.name, report_states=(ReportState.CONFIRMED,), since=self.looked.since)
        async for ours in self._walk(confirmed):
            self.looked.outcomes += 1
            applicant_id = ours.report.applicant_id
            if applicant_id in self.seen or not span.settled(ours):
                continue
            await self.pace.wait()
            theirs = await self._status(applicant_id)
            newest = (await self._ours([applicant_id])).get(applicant_id)
            if newest is None or newest.report_id != ours.report_id or not span.settled(newest):
                continue
            if theirs is None:
                yield self._finding(Kind.MISSING, applicant_id, newest, None)
            elif comparing.of_status(newest, theirs, span) is not None:
                yield self._finding(Kind.DIFFERENT, applicant_id, newest, theirs)

    async def _status(self, applicant_id: int) -> ApplicantStatus | None:
        """None where idibu has none: it says so by a `failed` (not one about the hash), or by an empty success."""
        try:
            return await self.account.client.get_status(applicant_id)
        except IdibuRefused as error:
            if error.temporary:
                raise
            return None

    # -- the ledger

    async def _untold(self) -> AsyncIterator[Finding]:
        """Whenever they came in: what waits or was given up is none the less so for being old."""
        paused = any(
            each.account == self.account.name and each.stage is Stage.REPORT and not each.over(self.clock.now())
            for each in await self.spool.pauses()
        )
        async for ours in self._walk(Filter(account=self.account.name, report_states=OPEN)):
            kind = comparing.of_ledger(ours, paused=paused)
            if kind is not None:
                yield self._finding(kind, ours.report.applicant_id, ours, None)

    async def _walk(self, wanted: Filter) -> AsyncIterator[Outcome]:
        """The newest outcomes of the applicants whose applications match, each once, oldest application first."""
        last: int | None = 0
        while last is not None:
            page = await self.spool.find(_after(wanted, last))
            ids = [row.applicant_id for row in page if row.applicant_id is not None]
            ours = await self._ours(ids)
            applications = {row.application_id for row in page}
            for outcome in ours.values():
                if outcome.application_id in applications:
                    yield outcome
            last = page[-1].application_id if page else None
            await self.step()

    async def _ours(self, applicants: list[int]) -> dict[int, Outcome]:
        found = await self.spool.outcomes(self.account.name, applicants)
        return {outcome.report.applicant_id: outcome for outcome in found}

    # -- idibu's applicants

    async def _unsent(self) -> AsyncIterator[Finding]:
        """Not every account may use this list, and no document says how it is refused: whatever comes in its place, the
        rest of what was found holds."""
        span = self._span()
        after = datetime.fromtimestamp(self.looked.since, self.account.zone).replace(tzinfo=None)
        number = 0
        try:
            async for page in self._pages(self.account.client.applicants.listed(after=after)):
                number += len(page)
                here = await self.spool.arrived(self.account.name, [one.id for one in page])
                for one in page:
                    if one.id not in here and comparing.never_came(one, span):
                        yield Finding(self.account.name, Kind.NO_MAIL, one.id)
        except IdibuError as error:
            self.looked.unavailable = error.code
        else:
            self.looked.applicants = number

    # -- both

    async def _pages(self, items: AsyncIterator[T]) -> AsyncIterator[list[T]]:
        """A page's worth at a time, no faster than the pace."""
        page: list[T] = []
        await self.pace.wait()
        async for item in items:
            page.append(item)
            if len(page) == LARGEST_PAGE:
                yield page
                page = []
                await self.step()
                await self.pace.wait()
        if page:
            yield page
            await self.step()

    def _finding(self, kind: Kind, applicant_id: int, ours: Outcome | None, theirs: ApplicantStatus | None) -> Finding:
        return Finding(
            self.account.name,
            kind,
            applicant_id,
            ours.application_id if ours else None,
            ours.report_id if ours else None,
            in_words(ours.report) if ours else None,
            in_words(theirs) if theirs else None,
        )


def _after(wanted: Filter, last: int) -> Filter:
    return Filter(
        account=wanted.account,
        report_states=wanted.report_states,
        since=wanted.since,
        after_id=last,
        oldest_first=True,
        limit=LARGEST_PAGE,
    )
