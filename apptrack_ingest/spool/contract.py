"""The narrow contract behind which a spool's database stands; tests/contract/test_spool.py states each promise once.

Times are epoch seconds and always given by the caller. Every method may raise SpoolUnavailable: then nothing of it was
kept, and the same call may be made again. Every writing method returns only after its commit.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from apptrack_ingest.lifecycle import EarlyRule
from apptrack_ingest.model import Arrival, Backlog, Message, ReportState, Stage, State
from apptrack_ingest.spool.records import (
    Action,
    ActionRecord,
    AttemptRecord,
    Claim,
    Delivered,
    Due,
    EarlyReport,
    Facts,
    Filter,
    Forgotten,
    Load,
    Order,
    OrderRecord,
    Outcome,
    Pause,
    Reaped,
    ReportClaim,
    ReportRecord,
    ReportSettlement,
    Settlement,
    Story,
    Summary,
    Trace,
)

__all__ = [
    "Action",
    "ActionRecord",
    "AttemptRecord",
    "Claim",
    "Delivered",
    "Due",
    "EarlyReport",
    "Facts",
    "Filter",
    "Forgotten",
    "Load",
    "Order",
    "OrderRecord",
    "Outcome",
    "Pause",
    "Reaped",
    "ReportClaim",
    "ReportRecord",
    "ReportSettlement",
    "Settlement",
    "Spool",
    "Story",
    "Summary",
    "Trace",
]


def rest_mark(account: str) -> str:
    """The key of the time before which nothing of an account is handed off, as the worker says that noticed last that its
    ATS is away; once it is past, single ones are tried. 0.0 where the ATS is back. A hint for people."""
    return f"rests {account}"


class Spool(Protocol):
    """Durable keeping of messages, their applications, attempts and reports."""

    async def prepare(self) -> None:
        """Brings the schema up to date, where opening did not. SpoolUnavailable where the database cannot be reached now:
        the spool then does it with the first call that reaches it. SpoolError where this program cannot use it."""

    # -- receive
    def put(self, message: Message, arrivals: Sequence[Arrival]) -> Awaitable[int]:
        """Keeps a message and its applications (state received, due at once); gives the message's id, committed."""

    # -- hand off
    async def claim(
        self,
        *,
        worker: str,
        now: float,
        lease: float,
        limit: int,
        room: Mapping[str, int] | None = None,
        untrusted: int | None = None,
        solo: bool = False,
    ) -> list[Claim]:
        """Takes up to `limit` due applications under a lease of `lease` seconds and counts their attempts.

        The accounts take turns, and the claims come in that order: first the one with the fewest in work, over all
        workers, of equals the one whose next is due the longest; within an account what is trusted or vouched for, then
        what is due the longest. Of one (account, applicant id) only the oldest still received is ever taken, and none while
        another of it is in work; of an account in `room` no more than it says ("" is unrouted); of what is neither trusted
        nor vouched for at most `untrusted` (None: any number); of an account whose hand-off is paused nothing. `solo` takes
        one that must be worked alone (an earlier attempt ended in no verdict), else none such."""

    async def renew(
        self, claims: Sequence[Claim | ReportClaim], *, now: float, lease: float
    ) -> list[Claim | ReportClaim]:
        """Prolongs leases; returns the claims that were lost."""

    async def delivered_before(self, account: str, applicant_id: int) -> list[Delivered]:
        """Earlier deliveries of the applicant to the account, newest first."""

    async def to_work_on(self, claim: Claim) -> tuple[bytes, list[Delivered]]:
        """What the work on a claim begins with, both at once: `raw` of its message, and `delivered_before` of its applicant,
        nothing where account or applicant are not known yet. Nobody else delivers for the applicant meanwhile."""

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
    async def report_waiting(self, account: str, rule: EarlyRule, *, now: float, limit: int) -> int:
        """Makes early reports due of the account's received applications, where the rule asks for it: of what waits since
        then (received, or set going by a person) and of which nothing was told, and of what was told with a time that is
        over. Only of what stands in front of its applicant's line, is trusted or vouched for, has an applicant id, and of
        whom nothing was delivered before. Returns how many, at most twice `limit`; in work or paused makes no difference."""

    async def claim_reports(
        self, *, worker: str, now: float, lease: float, limit: int, accounts: Collection[str]
    ) -> list[ReportClaim]:
        """Takes due reports of these accounts, unless their reporting is paused; never two of one applicant at a time. The
        accounts take turns, as in `claim`."""

    async def settle_report(self, claim: ReportClaim, settlement: ReportSettlement, *, now: float) -> ReportState:
        """Ends sending a report; returns its state now (superseded ones stay so). LeaseLost as in `settle`."""

    # -- pauses
    async def pause(self, pause: Pause) -> bool:
        """Pauses a stage of an account, or changes the pause that is there, which keeps its beginning; False where a
        person's is there and this is none. What a person orders is kept in the orders, and what waits has its whole schedule
        before it from then on: it will be due as soon as the pause is over."""

    async def resume(self, account: str, stage: Stage, *, now: float, actor: str = "", note: str = "") -> bool:
        """Ends the pause; True when there was one. What waited goes on at once, with its whole schedule before it.
        Without an actor only a pause of our own is ended."""

    async def end_pauses(self, *, now: float) -> list[Pause]:
        """Ends persons' pauses whose time is up, as `resume` does; returns them."""

    async def pauses(self) -> list[Pause]:
        """All pauses, over or not."""

    # -- orders
    async def begin_order(self, order: Order, *, now: float) -> int:
        """Keeps that a person ordered something about more than one application; returns the order's id."""

    async def end_order(self, order_id: int, *, done: int, refused: int, now: float) -> None:
        """Keeps for how many applications it was carried out, and for how many it could not be."""

    async def orders(
        self, *, account: str | None = None, before_id: int | None = None, limit: int = 50
    ) -> list[OrderRecord]:
        """What was ordered, pauses and their ends included, newest first; of one account, or of all."""

    # -- both
    async def next_due(
        self,
        *,
        now: float,
        accounts: Collection[str],
        full: Collection[str] = (),
        untrusted: bool = True,
        roughly: bool = False,
    ) -> Due:
        """When something becomes due: a hand-off, a solo hand-off, a report of `accounts`, the end of a lease. What cannot
        be taken now is not counted: hand-offs of accounts in `full` ("" is unrouted), unless `untrusted` those of what is
        neither trusted nor vouched for, and what waits for another of its applicant. What is paused is due when its pause
        ends, never if that must be told. `roughly`: hand-offs may be called due where something was put in this moment,
        though it may not be its turn: a claim, which finds that out, costs less than to look before."""

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

    async def outcomes(self, account: str, applicants: Collection[int]) -> list[Outcome]:
        """The newest report of each of these applicants to the account, as far as there is one, by applicant id."""

    async def arrived(self, account: str, applicants: Collection[int]) -> set[int]:
        """Which of these applicants the account has an application of, whatever became of it."""

    async def tell_again(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        """Makes a confirmed report due again, with its whole schedule before it, if it is still the newest of its applicant:
        idibu shows something else, or nothing. NotAllowed, NotFound."""

    async def update_facts(self, application_id: int, facts: Facts, applicant_id: int | None) -> None:
        """Replaces what was derived from the mail (reparse). NotFound, also where the mail was erased meanwhile."""

    async def find(self, wanted: Filter) -> list[Summary]:
        """The applications that match, newest first unless it says otherwise."""

    async def count(self, wanted: Filter) -> int:
        """How many applications match, whatever the limit."""

    async def story(self, application_id: int) -> Story:
        """Everything known of one application. NotFound."""

    async def backlog(self) -> Backlog:
        """Counts of all that the spool holds."""

    async def load(self) -> Load:
        """What weighs on the spool; cheap enough to be asked every other second."""

    async def mark(self, key: str) -> float | None:
        """A remembered time (when a digest was last sent, see also `rest_mark`) or number, or None."""

    async def set_mark(self, key: str, at: float) -> None:
        """Remembers a time or a number."""

    async def take_mark(self, key: str, at: float, *, after: float) -> bool:
        """Remembers a time, unless what is remembered is later than `after`; True when it was. Of several that try at once
        one succeeds, if `at` is later than `after`."""

    async def erase_finished(self, *, before: float, limit: int) -> int:
        """Erases raw bytes and candidates' data of messages all of whose applications finished before then and have no
        report due, refused or failed; ids, digests and times stay (invariant 6). Returns how many messages."""

    async def discard_untrusted(self, *, before: float, limit: int, now: float) -> int:
        """Discards what is held of untrusted mail received before then, unless a person vouched for it or holds it, with
        who and why kept in its history, and erases its mail and the candidate's data at once. Returns how many
        applications."""

    async def erase_tombstones(self, *, before: float, limit: int) -> int:
        """Removes what is left of messages erased since, received before then, all of whose applications finished before
        then and owe no report, unless another application refers to one of them, or is of the same applicant and younger:
        those of one applicant go together, so that an update always finds what was delivered before. Orders ended before
        then go too. Returns how many messages."""

    async def give_back(self, *, keep: int, limit: int) -> int:
        """Gives free space inside the database back to the file system, but for `keep` bytes, and at most `limit` bytes at
        once; returns how many. 0 where there is no more, or where the database does so by itself."""

    # -- persons
    async def traces(self, address: str, also: Collection[int] = ()) -> list[Trace]:
        """The applications of the candidate with this address (capitals or not) and `also` these; of the same applicants;
        and all of the same messages."""

    async def forget(
        self, address: str, applications: Collection[int], *, actor: str, note: str, now: float
    ) -> Forgotten:
        """Erases the messages of these applications and all that may tell of the person in their histories, in one
        transaction; ids, digests and times stay, and reports still owed go on without words of anybody's. NotAllowed while
        one of them waits or is under way."""

    async def forgotten(self, address: str) -> list[Forgotten]:
        """When and by whom the person with this address was forgotten, newest first."""

    async def check_writable(self) -> None:
        """Commits a harmless write, to know that the next `put` can; raises SpoolUnavailable."""

    async def close(self) -> None:
        """Commits what waits and lets go of the database."""
