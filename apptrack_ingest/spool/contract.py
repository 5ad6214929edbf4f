"""The narrow contract behind which a spool's database stands; tests/contract/test_spool.py states each promise once.

Times are epoch seconds and always given by the caller. Every method may raise SpoolUnavailable: then nothing of it was
kept, and the same call may be made again. Every writing method returns only after its commit.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from apptrack_ingest.model import Arrival, Backlog, Message, ReportState, State
from apptrack_ingest.spool.records import (
    Action,
    ActionRecord,
    AttemptRecord,
    Claim,
    Delivered,
    Due,
    Facts,
    Filter,
    Load,
    Pause,
    Reaped,
    ReportClaim,
    ReportRecord,
    ReportSettlement,
    Settlement,
    Story,
    Summary,
)

__all__ = [
    "Action",
    "ActionRecord",
    "AttemptRecord",
    "Claim",
    "Delivered",
    "Due",
    "Facts",
    "Filter",
    "Load",
    "Pause",
    "Reaped",
    "ReportClaim",
    "ReportRecord",
    "ReportSettlement",
    "Settlement",
    "Spool",
    "Story",
    "Summary",
]


class Spool(Protocol):
    """Durable keeping of messages, their applications, attempts and reports."""

    # -- receive
    async def put(self, message: Message, arrivals: Sequence[Arrival]) -> int:
        """Keeps a message and its applications (state received, due at once); returns the message's id, committed."""

    # -- hand off
    async def claim(
        self,
        *,
        worker: str,
        now: float,
        lease: float,
        limit: int,
        room: Mapping[str, int] | None = None,
        solo: bool = False,
    ) -> list[Claim]:
        """Takes up to `limit` due applications under a lease of `lease` seconds, oldest due first, and counts their
        attempts. Of one (account, applicant id) only the oldest still received is ever taken; of an account in `room`
        no more than it says ("" is unrouted). `solo` takes one that must be worked alone (an earlier attempt ended in no
        verdict), else none such."""

    async def renew(
        self, claims: Sequence[Claim | ReportClaim], *, now: float, lease: float
    ) -> list[Claim | ReportClaim]:
        """Prolongs leases; returns the claims that were lost."""

    async def delivered_before(self, account: str, applicant_id: int) -> list[Delivered]:
        """Earlier deliveries of the applicant to the account, newest first."""

    async def raw(self, message_id: int) -> bytes:
        """The exact bytes of a message. NotFound when there is none or they were erased by retention."""

    async def settle(self, claim: Claim, settlement: Settlement, *, now: float) -> None:
        """Ends an attempt and the lease; a report given with it supersedes older unsent ones of the same applicant.
        LeaseLost when the token is no longer the newest."""

    async def reap(self, *, now: float, reports_for: Collection[str]) -> list[Reaped]:
        """Ends the attempts whose lease ran out: no verdict. Their application is due at once, to be worked alone, or
        held as crash-loop after the last solo attempt (then reported as fail for accounts in `reports_for`)."""

    async def abandon(self, worker: str, *, now: float) -> int:
        """Lets all leases of `worker` run out now: the caller knows that whoever held that name is dead."""

    # -- report
    async def claim_reports(
        self, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
    ) -> list[ReportClaim]:
        """Takes due reports of these accounts, unless paused; never two of one applicant at a time."""

    async def settle_report(self, claim: ReportClaim, settlement: ReportSettlement, *, now: float) -> ReportState:
        """Ends sending a report; returns its state now (superseded ones stay so). LeaseLost as in `settle`."""

    async def pause(self, pause: Pause) -> None:
        """Pauses an account's reporting, or prolongs the pause."""

    async def resume(self, account: str) -> bool:
        """Ends the pause; True when there was one."""

    async def pauses(self) -> list[Pause]:
        """All pauses, over or not."""

    # -- both
    async def next_due(self, *, now: float, accounts: Collection[str]) -> Due:
        """When something becomes due: a hand-off, a solo hand-off, a report of `accounts`, the end of a lease."""

    def listen(self, wake: Callable[[], None]) -> None:
        """Calls `wake` in the running loop soon after another process put or changed something. Only a hint: it may be
        lost, so whoever waits looks at least once a second."""

    # -- people
    async def act(self, application_id: int, action: Action, *, now: float) -> State:
        """Carries out a person's decision and keeps who, when and why; returns the state after. NotAllowed, NotFound."""

    async def retry_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        """Makes a refused or failed report due again, if it is still the newest of its applicant. NotAllowed, NotFound."""

    async def drop_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        """A person decides that idibu need not be told (it has deleted the applicant, say): a refused or failed report
        ends as superseded. NotAllowed, NotFound."""

    async def update_facts(self, application_id: int, facts: Facts, applicant_id: int | None) -> None:
        """Replaces what was derived from the mail (reparse)."""

    async def find(self, wanted: Filter) -> list[Summary]:
        """The applications that match, newest first."""

    async def story(self, application_id: int) -> Story:
        """Everything known of one application. NotFound."""

    async def backlog(self) -> Backlog:
        """Counts of all that the spool holds."""

    async def load(self) -> Load:
        """What weighs on the spool; cheap enough to be asked every other second."""

    async def mark(self, key: str) -> float | None:
        """A remembered time (when a digest was last sent), or None."""

    async def set_mark(self, key: str, at: float) -> None:
        """Remembers a time."""

    async def erase_finished(self, *, before: float, limit: int) -> int:
        """Erases raw bytes and candidates' data of messages all of whose applications finished before then and have no
        report due, refused or failed; ids, digests and times stay (invariant 6). Returns how many messages."""

    async def discard_untrusted(self, *, before: float, limit: int, now: float) -> int:
        """Discards what is held of untrusted mail received before then, unless a person vouched for it or holds it, with
        who and why kept in its history, and erases its mail and the candidate's data at once. Returns how many
        applications."""

    async def check_writable(self) -> None:
        """Commits a harmless write, to know that the next `put` can; raises SpoolUnavailable."""

    async def close(self) -> None:
        """Commits what waits and lets go of the database."""
