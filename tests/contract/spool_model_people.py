"""The part of the model of the spool (spool_model.py) that people see and decide, and the end of what is finished."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from hashlib import sha256

from contract.spool_model_rows import (
    OPEN,
    ApplicationRow,
    ReportRow,
    Tables,
    matches,
    report_record_of,
    summary_of,
)

from apptrack_ingest.errors import BeingWorkedOn, NotAllowed, NotFound
from apptrack_ingest.lifecycle import BY_A_PERSON, FINISHED, Event, after
from apptrack_ingest.model import Backlog, HeldReason, PausedBy, Report, ReportState, Stage, State
from apptrack_ingest.spool.records import (
    Action,
    ActionRecord,
    Facts,
    Filter,
    Load,
    Order,
    OrderRecord,
    Outcome,
    Pause,
    Story,
    Summary,
)

PASSING = (HeldReason.UNTRUSTED, HeldReason.NO_APPLICANT_ID, HeldReason.INVALID_APPLICANT_ID)
"""What untrusted mail may be held for and still come to its own end; what a person held, and what crashed, is looked at."""


class People(Tables):
    """See `contract.Spool` for every method's meaning."""

    # -- pauses

    def pause(self, pause: Pause) -> bool:
        """A pause already there keeps its beginning, and a person's is not ours to change."""
        old = self.paused.get((pause.account, pause.stage))
        if old is not None and old.actor and not pause.actor:
            return False
        self.paused[pause.account, pause.stage] = replace(pause, since=pause.since if old is None else old.since)
        if pause.actor or old is None:
            self._order(Order("pause", pause.actor, pause.account, note=pause.reason), pause.since)
        if pause.actor:
            self._whole_schedule(pause, pause.since)
        return True

    def resume(self, account: str, stage: Stage, *, now: float, actor: str = "", note: str = "") -> bool:
        pause = self.paused.get((account, stage))
        if pause is None or (pause.actor and not actor):
            return False
        self._end_pause(pause, Order("resume", actor, account, note=note), now)
        return True

    def end_pauses(self, *, now: float) -> list[Pause]:
        over = [pause for pause in self.pauses() if pause.actor and pause.over(now)]
        for pause in over:
            self._end_pause(pause, Order("resume", "", pause.account, note="its time was up"), now)
        return over

    def _end_pause(self, pause: Pause, order: Order, now: float) -> None:
        del self.paused[pause.account, pause.stage]
        self._whole_schedule(pause, now)
        self._order(order, now)

    def _whole_schedule(self, pause: Pause, now: float) -> None:
        """What waits goes on at once when the pause is over, with its whole schedule before it."""
        for row in (self.applications if pause.stage is Stage.HAND_OFF else self.reports).values():
            if (row.account or "") == pause.account and row.due_at is not None and not row.in_work:
                row.new_series(row.created_at if isinstance(row, ReportRow) else min(row.due_at, now))
                if isinstance(row, ReportRow):
                    row.refused_since = None

    def pauses(self) -> list[Pause]:
        return [self.paused[key] for key in sorted(self.paused)]

    def _is_paused(self, account: str | None, stage: Stage, now: float) -> bool:
        pause = self.paused.get((account or "", stage))
        return pause is not None and not pause.over(now)

    # -- orders

    def begin_order(self, order: Order, *, now: float) -> int:
        self.ordered.append(OrderRecord(len(self.ordered) + 1, now, order, 0, 0, None))
        return len(self.ordered)

    def end_order(self, order_id: int, *, done: int, refused: int, now: float) -> None:
        self.ordered[order_id - 1] = replace(self.ordered[order_id - 1], done=done, refused=refused, ended_at=now)

    def _order(self, order: Order, now: float) -> None:
        """One that is carried out in the same moment."""
        self.end_order(self.begin_order(order, now=now), done=0, refused=0, now=now)

    def orders(self, *, account: str | None = None, before_id: int | None = None, limit: int = 50) -> list[OrderRecord]:
        wanted = (one for one in reversed(self.ordered) if account in (None, one.order.account))
        return [one for one in wanted if before_id is None or one.order_id < before_id][:limit]

    # -- decisions

    def act(self, application_id: int, action: Action, *, now: float) -> State:
        row = self._application(application_id)
        state = after(row.state, action.event)
        erased = self.messages[row.message_id].erased
        if action.event not in BY_A_PERSON:
            raise NotAllowed
        if row.in_work:
            raise BeingWorkedOn
        if state is State.RECEIVED and erased:
            raise NotAllowed
        row.state = state
        if state is State.RECEIVED:
            row.new_series(now)
            row.settled_at = row.reason = None
            row.crashes, row.again = 0, row.delivered_at is not None
            row.announced_until, row.waits_since = None, now
            row.vouched = row.vouched or action.event in (Event.ROUTE, Event.RELEASE)
            row.account, row.applicant_id = action.account or row.account, action.applicant_id or row.applicant_id
        else:
            row.due_at, row.settled_at, row.code, row.detail = None, now, "by-operator", action.note
            row.reason = HeldReason.BY_OPERATOR if state is State.HELD else None
        row.actions.append(ActionRecord(now, action.actor, action.event, action.note, action.order_id))
        self._report(row, action.report, now)
        return state

    def _report(self, row: ApplicationRow, report: Report | None, now: float) -> None:
        raise NotImplementedError

    def _application(self, application_id: int) -> ApplicationRow:
        if application_id not in self.applications:
            raise NotFound
        return self.applications[application_id]

    def retry_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        row = self._ended_badly(report_id)
        row.new_series(now)
        row.state, row.settled_at, row.refused_since = ReportState.DUE, None, None
        self._record(row, ActionRecord(now, actor, f"retry report {report_id}", note))

    def drop_report(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        row = self._ended_badly(report_id)
        row.state, row.code, row.settled_at = ReportState.SUPERSEDED, "by-operator", now
        self._record(row, ActionRecord(now, actor, f"discard report {report_id}", note))

    def tell_again(self, report_id: int, *, actor: str, note: str, now: float) -> None:
        if report_id not in self.reports:
            raise NotFound
        row = self.reports[report_id]
        if self._newest_of(*row.whose) != report_id or row.state is not ReportState.CONFIRMED:
            raise NotAllowed
        row.new_series(now)
        row.state, row.settled_at, row.refused_since = ReportState.DUE, None, None
        self._record(row, ActionRecord(now, actor, f"tell report {report_id} again", note))

    def outcomes(self, account: str, applicants: Collection[int]) -> list[Outcome]:
        newest = [self._newest_of(account, applicant_id) for applicant_id in sorted(applicants)]
        return [self._outcome(report_id) for report_id in newest if report_id is not None]

    def arrived(self, account: str, applicants: Collection[int]) -> set[int]:
        here = {row.applicant_id for row in self.applications.values() if row.account == account}
        return {applicant_id for applicant_id in applicants if applicant_id in here}

    def _newest_of(self, account: str | None, applicant_id: int) -> int | None:
        """Of the reports that are found by their applications: what was routed to another applicant since is not."""
        return max(
            (
                number
                for number, row in self.reports.items()
                if row.whose == (account, applicant_id)
                and self.applications[row.application_id].applicant_id == applicant_id
            ),
            default=None,
        )

    def _outcome(self, report_id: int) -> Outcome:
        row = self.reports[report_id]
        record = report_record_of(row)
        erased = self.messages[self.applications[row.application_id].message_id].erased
        return Outcome(
            *(report_id, row.application_id, record.report, row.state),
            *(record.created_at, record.settled_at, record.code, erased),
        )

    def _ended_badly(self, report_id: int) -> ReportRow:
        if report_id not in self.reports:
            raise NotFound
        if self.reports[report_id].state not in (ReportState.REFUSED, ReportState.FAILED):
            raise NotAllowed
        return self.reports[report_id]

    def _record(self, row: ReportRow, action: ActionRecord) -> None:
        self.applications[row.application_id].actions.append(action)

    def update_facts(self, application_id: int, facts: Facts, applicant_id: int | None) -> None:
        row = self._application(application_id)
        if self.messages[row.message_id].erased:
            raise NotFound
        row.facts, row.applicant_id = facts, applicant_id or row.applicant_id

    def mark(self, key: str) -> float | None:
        return self.marks.get(key)

    def set_mark(self, key: str, at: float) -> None:
        self.marks[key] = at

    def take_mark(self, key: str, at: float, *, after: float) -> bool:
        if self.marks.get(key, after) > after:
            return False
        self.marks[key] = at
        return True

    # -- what there is to see

    def find(self, wanted: Filter) -> list[Summary]:
        rows = list(self.applications.values())
        every = (self._summary(row) for row in (rows if wanted.oldest_first else reversed(rows)))
        return [one for one in every if matches(one, wanted)][: wanted.limit]

    def count(self, wanted: Filter) -> int:
        return len(self.find(replace(wanted, limit=len(self.applications))))

    def _summary(self, row: ApplicationRow) -> Summary:
        states = [report.state for report in self.reports.values() if report.application_id == row.id]
        return summary_of(row, states[-1] if states else None)

    def story(self, application_id: int) -> Story:
        row = self._application(application_id)
        kept = self.messages[row.message_id]
        envelope, raw = kept.message.envelope, kept.message.raw
        return Story(
            summary=self._summary(row),
            sender="" if kept.erased else envelope.sender,
            recipients=() if kept.erased else envelope.recipients,
            peer=envelope.peer,
            helo="" if kept.erased else envelope.helo,
            size=len(raw),
            sha256=sha256(raw).hexdigest(),
            trusted=row.trusted,
            trust_note=row.trust_note,
            evidence=() if kept.erased else kept.message.evidence,
            erased=kept.erased,
            attempts=tuple(one.record for one in self.attempts if one.application_id == row.id),
            reports=tuple(report_record_of(one) for one in self.reports.values() if one.application_id == row.id),
            actions=tuple(row.actions),
            message_warnings=() if kept.erased else kept.message.warnings,
        )

    def backlog(self) -> Backlog:
        rows, reports = self.applications.values(), self.reports.values()
        return Backlog(
            applications=Counter((row.account or "", row.state) for row in rows),
            held=Counter((row.account or "", row.reason) for row in rows if row.state is State.HELD),
            reports=Counter((row.account, row.state) for row in reports),
            oldest_hand_off=_oldest((r.account or "", r.received_at) for r in rows if r.state is State.RECEIVED),
            oldest_report=_oldest((r.account, r.created_at) for r in reports if r.state is ReportState.DUE),
            paused={
                key: PausedBy.PERSON if pause.actor else PausedBy.ITSELF
                for key, pause in self.paused.items()
                if not (pause.actor and pause.over(self.clock))
            },
            size_bytes=0,
        )

    def load(self) -> Load:
        rows = self.applications.values()
        waiting = [row for row in rows if row.state is State.RECEIVED]
        doubtful = {
            row.message_id: row.size for row in rows if not row.believed and row.state in (State.RECEIVED, State.HELD)
        }
        return Load(len(waiting), len(doubtful), sum(doubtful.values()))

    # -- the end of it

    def erase_finished(self, *, before: float, limit: int) -> int:
        """What finished first is first, and only what waits neither for us nor for a person nor for idibu."""
        finished = [
            (max(each.settled_at for each in self._of(message_id)), message_id)
            for message_id, row in self.messages.items()
            if not row.erased and row.message.received_at < before and self._is_finished(message_id, before)
        ]
        for _, message_id in sorted(finished)[:limit]:
            self._erase(message_id)
        return len(finished[:limit])

    def _is_finished(self, message_id: int, before: float) -> bool:
        rows = self._of(message_id)
        ids = [row.id for row in rows]
        waits = [one for one in self.reports.values() if one.application_id in ids and one.state in OPEN]
        return not waits and all(row.state in FINISHED and row.settled_at < before for row in rows)

    def discard_untrusted(self, *, before: float, limit: int, now: float) -> int:
        found = [
            row
            for row in self.applications.values()
            if row.state is State.HELD and not row.believed and row.reason in PASSING and row.received_at < before
        ][:limit]
        note = "untrusted, and nobody vouched for it within its retention"
        for row in found:
            self.act(row.id, Action(Event.DISCARD, "retention", note), now=now)
        for message_id in {row.message_id for row in found}:
            if all(row.state is State.DISCARDED and not row.trusted for row in self._of(message_id)):
                self._erase(message_id)
        return len(found)

    def _of(self, message_id: int) -> list[ApplicationRow]:
        return [row for row in self.applications.values() if row.message_id == message_id]

    def _erase(self, message_id: int) -> None:
        """Bytes, envelope and all that tells of a person; ids, digests and times stay."""
        self.messages[message_id].erased = True
        ids = [row.id for row in self._of(message_id)]
        for row in self._of(message_id):
            row.detail = None
            row.facts = replace(row.facts, candidate_name=None, candidate_email=None, warnings=())
        for attempt in self.attempts:
            if attempt.application_id in ids:
                attempt.record = replace(attempt.record, detail=None)
        for report in self.reports.values():
            if report.application_id in ids:
                report.detail, report.report = None, replace(report.report, error_message=None)


def _oldest(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The least time of each account."""
    return dict(sorted(times, reverse=True))
