"""From rows to the contract's values, and the rules that need a row: what every database of the spool has in common."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from apptrack_ingest.errors import BeingWorkedOn, NotAllowed, NotFound
from apptrack_ingest.lifecycle import BY_A_PERSON, after
from apptrack_ingest.model import AttemptKind, HeldReason, Report, ReportState, ReportStatus, Stage, State
from apptrack_ingest.spool.contract import (
    Action,
    ActionRecord,
    AttemptRecord,
    Claim,
    Delivered,
    Facts,
    Order,
    OrderRecord,
    Outcome,
    Pause,
    ReportClaim,
    ReportRecord,
    Story,
    Summary,
)


class Row(Protocol):
    """A row of any database, its columns by name."""

    def __getitem__(self, column: str, /) -> Any: ...


def storable(text: str) -> str:
    """The text with U+FFFD for each lone surrogate (bytes of a peer or of a file name that were no UTF-8), which no
    database can keep, and which must not keep an outcome from being committed."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


ACTOR = "retention"
"""Who it is, in the history, that discards what nobody vouched for in time."""

UNVOUCHED_NOTE = "untrusted, and nobody vouched for it within its retention"
"""Why it did so."""

# --- work ------------------------------------------------------------------------------------------------------------


def claim_of(row: Row, *, token: int, attempt: int, series_from: float) -> Claim:
    """The claim on an application's row; `token` and `attempt` are those of the attempt that now begins."""
    return Claim(
        application_id=row["id"],
        message_id=row["message_id"],
        account=row["account"],
        applicant_id=row["applicant_id"],
        token=token,
        attempt=attempt,
        series_attempt=attempt - row["series_base"],
        crashes=row["crashes"],
        first_attempt_at=series_from,
        received_at=row["received_at"],
        trusted=bool(row["trusted"]),
        vouched=bool(row["vouched"]),
        again=bool(row["again"]),
        size=row["size"],
    )


def report_claim_of(row: Row, *, token: int, attempt: int, series_from: float) -> ReportClaim:
    """The claim on a report's row, which has its application's `received_at` beside it, and whether that still `waits`."""
    return ReportClaim(
        report_id=row["id"],
        application_id=row["application_id"],
        account=row["account"],
        report=report_in(row),
        token=token,
        attempt=attempt - row["series_base"],
        first_attempt_at=series_from,
        refused_since=row["refused_since"],
        created_at=row["created_at"],
        received_at=row["received_at"],
        early=bool(row["waits"]),
    )


def report_in(row: Row) -> Report:
    """The report a row holds."""
    return Report(
        applicant_id=row["applicant_id"],
        status=ReportStatus(row["status"]),
        date_processed=row["date_processed"],
        remote_id=row["remote_id"],
        error_message=row["error_message"],
    )


def delivered_in(row: Row) -> Delivered:
    """The earlier delivery that an application's row tells of."""
    return Delivered(row["id"], row["content_digest"], row["remote_id"], row["delivered_at"])


# --- what people read ------------------------------------------------------------------------------------------------


def summary_in(row: Row) -> Summary:
    """An application's row, with the state of its newest report in `report`."""
    return Summary(
        application_id=row["id"],
        message_id=row["message_id"],
        account=row["account"],
        applicant_id=row["applicant_id"],
        state=State(row["state"]),
        reason=HeldReason(row["reason"]) if row["reason"] else None,
        code=row["code"],
        detail=row["detail"],
        facts=Facts(
            client_reference=row["client_reference"],
            candidate_name=row["candidate_name"],
            candidate_email=row["candidate_email"],
            job_title=row["job_title"],
            portal_name=row["portal_name"],
            content_digest=row["content_digest"],
            warnings=tuple(json.loads(row["warnings"])),
        ),
        remote_id=row["remote_id"],
        received_at=row["received_at"],
        settled_at=row["settled_at"],
        due_at=row["due_at"],
        attempts=row["attempts"],
        in_work=bool(row["in_attempt"]),
        duplicate_of=row["duplicate_of"],
        report=ReportState(row["report"]) if row["report"] else None,
    )


def story_of(row: Row, message: Row, attempts: Iterable[Row], reports: Iterable[Row], actions: Iterable[Row]) -> Story:
    """The story that an application's row, its message's, and the rows of its history make."""
    return Story(
        summary=summary_in(row),
        sender=message["sender"],
        recipients=tuple(json.loads(message["recipients"])),
        peer=message["peer"],
        helo=message["helo"],
        size=message["size"],
        sha256=message["sha256"],
        trusted=bool(row["trusted"]),
        trust_note=row["trust_note"],
        evidence=tuple(json.loads(message["evidence"])),
        erased=message["erased_at"] is not None,
        attempts=tuple(map(_attempt_in, attempts)),
        reports=tuple(map(_report_record_in, reports)),
        actions=tuple(map(_action_in, actions)),
        message_warnings=tuple(json.loads(message["warnings"])),
    )


def _attempt_in(row: Row) -> AttemptRecord:
    return AttemptRecord(
        kind=AttemptKind(row["kind"]),
        number=row["number"],
        worker=row["worker"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        code=row["code"],
        detail=row["detail"],
        report_id=row["report_id"],
    )


def _action_in(row: Row) -> ActionRecord:
    return ActionRecord(row["at"], row["actor"], row["action"], row["note"], row["order_id"])


def _report_record_in(row: Row) -> ReportRecord:
    return ReportRecord(
        report_id=row["id"],
        report=report_in(row),
        state=ReportState(row["state"]),
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        due_at=row["due_at"],
        attempts=row["attempts"],
        code=row["code"],
        detail=row["detail"],
    )


def outcomes_in(rows: Iterable[Row]) -> list[Outcome]:
    """The newest of each applicant's reports, whose rows come oldest first, each with its message's `erased_at`."""
    newest = {row["applicant_id"]: row for row in rows}
    return [_outcome_in(newest[applicant_id]) for applicant_id in sorted(newest)]


def _outcome_in(row: Row) -> Outcome:
    return Outcome(
        report_id=row["id"],
        application_id=row["application_id"],
        report=report_in(row),
        state=ReportState(row["state"]),
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        code=row["code"],
        erased=row["erased_at"] is not None,
    )


def order_record_in(row: Row) -> OrderRecord:
    """The order a row tells of."""
    return OrderRecord(
        order_id=row["id"],
        at=row["at"],
        order=Order(row["action"], row["actor"], row["account"], row["subject"], row["note"]),
        done=row["done"],
        refused=row["refused"],
        ended_at=row["ended_at"],
    )


def order_of_pause(pause: Pause) -> Order:
    """The order that a pause is."""
    until = (
        "" if pause.until is None else f" until {datetime.fromtimestamp(pause.until, UTC).isoformat(' ', 'seconds')}"
    )
    return Order("pause", pause.actor, pause.account, f"{pause.stage.value}{until}", pause.reason)


@dataclass(frozen=True, slots=True)
class Ending:
    """Which pause is to end, and the order that says so. Without an actor only one of our own ends, unless its time was up
    at `over_at`."""

    order: Order
    stage: Stage
    over_at: float | None = None

    def values(self) -> dict[str, object]:
        """What the statements need."""
        own_only = not self.order.actor and self.over_at is None
        return {"account": self.account, "stage": self.stage, "own_only": own_only, "over_at": self.over_at}

    @property
    def account(self) -> str:
        """Whose pause it is."""
        return self.order.account or ""


def resumed(account: str, stage: Stage, actor: str, note: str) -> Ending:
    """The end of a pause that was ordered, or that idibu's answer brought about."""
    return Ending(Order("resume", actor, account, stage.value, note), stage)


def run_out(pause: Pause, now: float) -> Ending:
    """The end of a pause whose time is up."""
    order = Order("resume", "", pause.account, pause.stage.value, "its time was up")
    return Ending(order, pause.stage, over_at=now)


# --- what is allowed -------------------------------------------------------------------------------------------------


def decided(row: Row, action: Action) -> State:
    """The state in which a person's decision leaves an application, whose row has its message's `erased_at` beside it.
    NotAllowed."""
    state = after(State(row["state"]), action.event)
    if action.event not in BY_A_PERSON:
        raise NotAllowed(f"{action.event.value} is the outcome of an attempt, no decision of a person")
    if row["in_attempt"]:
        raise BeingWorkedOn(f"application {row['id']} is being worked on at this moment; try again when that is over")
    if state is State.RECEIVED and row["erased_at"] is not None:
        raise NotAllowed(
            f"application {row['id']}: its mail was erased by retention or `forget` and cannot be handed over again"
        )
    return state


def ended_badly(row: Row | None, report_id: int) -> int:
    """The application's id of a report that is refused or failed, the only ones a person decides about. NotAllowed,
    NotFound."""
    if row is None:
        raise NotFound(f"there is no report {report_id}")
    if row["state"] not in (ReportState.REFUSED, ReportState.FAILED):
        raise NotAllowed(f"report {report_id} is {row['state']}; a person decides only about refused and failed ones")
    return int(row["application_id"])


def must_be_kept(message: Row | None, application_id: int) -> None:
    """NotFound where an application's message, whose id and `erased_at` these are, is not there or was erased."""
    if message is None:
        raise no_application(application_id)
    if message["erased_at"] is not None:
        raise no_raw(message["id"])


def tellable_again(newest: Outcome | None, report_id: int) -> int:
    """The application's id of a report that may be sent once more: confirmed, its applicant's newest. NotAllowed."""
    if newest is None or newest.report_id != report_id:
        raise NotAllowed(f"report {report_id} is not the newest of its applicant; only the newest outcome is told")
    if newest.state is not ReportState.CONFIRMED:
        raise NotAllowed(f"report {report_id} is {newest.state}; only a confirmed one is told again")
    return newest.application_id


def no_application(application_id: int) -> NotFound:
    """The error for an application that is not there."""
    return NotFound(f"there is no application {application_id}; `apptrack-ingest list` shows those there are")


def is_as_received(raw: bytes, size: int, sha256: str) -> bool:
    """Whether bytes are those of which size and digest were taken. SQLite takes the digest late: until then, its
    checksum, which is looked at with each reading, has to do."""
    return len(raw) == size and sha256 in ("", hashlib.sha256(raw).hexdigest())


def no_raw(message_id: int) -> NotFound:
    """The error for a message whose bytes are not there."""
    return NotFound(
        f"no raw mail is kept for message {message_id}: there is none, retention or `forget` has erased it, or it was"
        " damaged when the spool was copied"
    )
