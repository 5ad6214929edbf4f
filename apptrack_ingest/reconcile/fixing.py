"""Tells idibu again what is ours to say, through the spool: reports are due again, and the worker sends them as usual."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from apptrack_ingest.errors import NotAllowed, NotFound
from apptrack_ingest.reconcile.findings import Kind
from apptrack_ingest.reconcile.pace import Clock, Pace
from apptrack_ingest.spool.contract import Spool

NOTES = {
    Kind.MISSING: "reconcile: idibu shows no outcome",
    Kind.DIFFERENT: "reconcile: idibu shows another outcome",
    Kind.REFUSED: "reconcile: idibu had refused it",
    Kind.FAILED: "reconcile: it had not reached idibu",
}
"""What the application's history says of why."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """A report that is due again; or, `overtaken`, one that need not be: it is not its applicant's newest any more, or on
    its way already."""

    report_id: int
    kind: Kind
    overtaken: bool


async def fix(
    spool: Spool, wanted: Iterable[tuple[int, Kind]], *, actor: str, clock: Clock, pace: Pace
) -> AsyncIterator[Fixed]:
    """Makes each of these reports due again, in a commit of its own: cut off anywhere, another look finds the rest.

    Whatever the spool does not allow is left: a superseded outcome, one that is due or under way. Raises SpoolUnavailable.
    """
    for report_id, kind in wanted:
        await pace.wait()
        again = spool.tell_again if kind in (Kind.MISSING, Kind.DIFFERENT) else spool.retry_report
        try:
            await again(report_id, actor=actor, note=NOTES[kind], now=clock.now())
            yield Fixed(report_id, kind, overtaken=False)
        except (NotAllowed, NotFound):
            yield Fixed(report_id, kind, overtaken=True)
