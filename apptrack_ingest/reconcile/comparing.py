"""What follows from what the ledger says of an applicant and what idibu shows: pure, with every time given."""

from dataclasses import dataclass
from datetime import datetime, tzinfo

from apptrack_ingest.idibu import ApplicantStatus, ListedApplicant
from apptrack_ingest.model import Report, ReportState, ReportStatus
from apptrack_ingest.reconcile.findings import Kind
from apptrack_ingest.report.xml import as_sent
from apptrack_ingest.spool.contract import Outcome

SETTLING = 300.0
"""Seconds for which an outcome that was just confirmed is not judged: idibu's list may be older than the confirmation, and
the clocks of several machines differ."""

MAIL_UNDER_WAY = 3600.0
"""Seconds that an applicant's mail may take from idibu to us before it counts as one that never came."""

CUT = 100
"""Characters of an error message from which on its beginning is taken for it: idibu documents no limit, and may have one."""

ERASED_AT_IDIBU = "deleted@idibu.com"
"""The address of an applicant that was erased at its source (docs/idibu.md): nobody waits for its mail."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time looked at: from `since` to `now` (epoch seconds); `zone` is the one in which idibu writes its dates."""

    since: float
    now: float
    zone: tzinfo

    def began_after(self, date: datetime | None) -> bool:
        """Whether idibu's date is in it; one that is missing may be."""
        return date is None or self.epoch(date) >= self.since

    def epoch(self, date: datetime) -> float:
        """A date of idibu in epoch seconds."""
        return date.replace(tzinfo=self.zone).timestamp()

    def settled(self, ours: Outcome) -> bool:
        """Whether idibu must show the outcome by now: it confirmed it, and not just a moment ago."""
        return (
            ours.state is ReportState.CONFIRMED
            and ours.settled_at is not None
            and ours.settled_at <= self.now - SETTLING
        )


def of_status(ours: Outcome | None, theirs: ApplicantStatus, span: Span) -> Kind | None:
    """What a status that idibu lists tells, `ours` having been read after it; None: nothing.

    So `ours`, if it was confirmed long enough ago and is still the newest, is what idibu had to show.
    """
    if ours is None:
        return Kind.NOT_OURS if span.began_after(theirs.date_modified or theirs.date_created) else None
    touched = ours.created_at >= span.since or span.began_after(theirs.date_modified)
    if span.settled(ours) and touched and not same(ours, theirs):
        return Kind.DIFFERENT
    return None


def of_ledger(ours: Outcome, *, paused: bool) -> Kind | None:
    """What the ledger alone tells of an outcome: that idibu was not, or not yet, told it."""
    if ours.state is ReportState.DUE:
        return Kind.PAUSED if paused else Kind.DUE
    return {ReportState.REFUSED: Kind.REFUSED, ReportState.FAILED: Kind.FAILED}.get(ours.state)


def never_came(listed: ListedApplicant, span: Span) -> bool:
    """Whether the mail of an applicant whom the ledger does not know must be here by now."""
    if (listed.email or "").strip().lower() == ERASED_AT_IDIBU:
        return False
    return listed.date is None or span.since <= span.epoch(listed.date) <= span.now - MAIL_UNDER_WAY


def same(ours: Outcome, theirs: ApplicantStatus) -> bool:
    """Whether idibu shows what we said. What we did not say is not compared: a fail names no remote id, a success no error
    message, and idibu may keep earlier ones. Of an erased mail the words are gone here, and theirs may stand."""
    said = as_sent(ours.report)
    if said.status is not theirs.status:
        return False
    if said.status is ReportStatus.SUCCESS:
        erased = ours.erased and said.remote_id is None
        return erased or _folded(said.remote_id) == _folded(theirs.remote_id)
    return ours.erased or _same_words(_folded(said.error_message), _folded(theirs.error_message))


def in_words(report: Report | ApplicantStatus) -> str:
    """An outcome as a person reads it: the status, and the remote id or the error message that goes with it."""
    more = report.remote_id if report.status is ReportStatus.SUCCESS else report.error_message
    return " ".join(filter(None, (report.status.value, _folded(more))))


def _same_words(ours: str, theirs: str) -> bool:
    begins = theirs.rstrip("….")
    return ours == theirs or (len(begins) >= CUT and ours.startswith(begins))


def _folded(text: str | None) -> str:
    """White space does not count: XML and idibu may each change it."""
    return " ".join((text or "").split())
