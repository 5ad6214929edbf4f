"""The story of one application as people read it: one timeline, and what is to happen next."""

from collections.abc import Iterator
from dataclasses import dataclass

from apptrack_ingest.cli.listing import is_away
from apptrack_ingest.cli.showing import local, span
from apptrack_ingest.model import AttemptKind, HeldReason, ReportState, Stage, State
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import ActionRecord, AttemptRecord, Pause, ReportRecord, Story, Summary


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: `at` in epoch seconds, `kind` for programs, `text` for people."""

    at: float
    kind: str
    text: str


ORDER = ("received", "action", "attempt", "outcome", "report", "report-attempt", "report-outcome")
"""What comes first of things that happened in one commit."""


def timeline(story: Story) -> list[Entry]:
    """Everything that happened, oldest first."""
    entries = [
        _received(story),
        *(Entry(action.at, "action", _action(action)) for action in story.actions),
        *(_attempt(attempt, story.summary) for attempt in story.attempts),
        *_outcome(story.summary),
        *(entry for report in story.reports for entry in _report(report)),
    ]
    return sorted(entries, key=lambda entry: (entry.at, ORDER.index(entry.kind)))


def _received(story: Story) -> Entry:
    told = f"from {story.peer}, {story.size} bytes" + ("" if story.trusted else f"; not trusted: {story.trust_note}")
    return Entry(story.summary.received_at, "received", told)


def _action(action: ActionRecord) -> str:
    order = f" (order {action.order_id})" if action.order_id is not None else ""
    return f"{action.action} by {action.actor}{order}" + (f": {action.note}" if action.note else "")


def _attempt(attempt: AttemptRecord, summary: Summary) -> Entry:
    is_report = attempt.kind is AttemptKind.REPORT
    kind = "report-attempt" if is_report else "attempt"
    what = f"report {attempt.report_id}, attempt" if is_report else "hand-off, attempt"
    begun = f"{what} {attempt.number} by {attempt.worker}"
    if attempt.ended_at is None:
        still = is_report or summary.in_work
        return Entry(attempt.started_at, kind, f"{begun}: {'under way' if still else 'cut off'}")
    detail = f": {attempt.detail}" if attempt.detail else ""
    took = attempt.ended_at - attempt.started_at
    return Entry(attempt.ended_at, kind, f"{begun}: {attempt.code or 'ended'} after {took:.2f} s{detail}")


def _outcome(summary: Summary) -> Iterator[Entry]:
    if summary.settled_at is None or summary.state is State.RECEIVED:
        return
    words = {
        State.DELIVERED: f"delivered as {summary.remote_id}" if summary.remote_id else "delivered, no remote id",
        State.DUPLICATE: f"duplicate of application {summary.duplicate_of}",
        State.HELD: f"held: {summary.reason}",
    }
    yield Entry(summary.settled_at, "outcome", words.get(summary.state, summary.state.value))


def _report(record: ReportRecord) -> Iterator[Entry]:
    report, number = record.report, record.report_id
    said = [report.status.value]
    said += [f"remote id {report.remote_id}"] if report.remote_id else []
    said += [report.error_message] if report.error_message else []
    yield Entry(
        record.created_at, "report", f"report {number} due for applicant {report.applicant_id}: {', '.join(said)}"
    )
    if record.state is not ReportState.DUE and record.settled_at is not None:
        yield Entry(record.settled_at, "report-outcome", f"report {number} {record.state}")


# --- what is next ------------------------------------------------------------------------------------------------------

_HELD = {
    HeldReason.NO_APPLICANT_ID: "find the applicant's id at idibu, then `route {id} --account NAME --applicant-id N`",
    HeldReason.INVALID_APPLICANT_ID: "find the applicant's id at idibu, then `route {id} --account NAME --applicant-id N`",
    HeldReason.UNROUTED: "`route {id} --account NAME` says whose it is",
    HeldReason.UNTRUSTED: "if its peer is known to you, `release {id}` believes this mail's id",
    HeldReason.UNREADABLE: "`export {id}` to see the mail; `reparse {id}` after an upgrade",
    HeldReason.CRASH_LOOP: "hand-offs of it ended the worker; when the cause is gone: `retry {id}`",
    HeldReason.BY_OPERATOR: "`release {id}` lets it go on",
}


def what_is_next(story: Story, found: Settings, pauses: list[Pause], resting: float | None, now: float) -> list[str]:
    """What happens by itself, or which commands can move it on; `resting` is what `rests` says of its account."""
    summary = story.summary
    obstacle = _paused(summary.account, Stage.HAND_OFF, pauses) or _away(summary, resting, now)
    lines = [_next_hand_off(summary, obstacle, now)]
    if story.reports:
        lines.append(_next_report(story, found, pauses, now))
    elif (account := found.known_accounts.get(summary.account or "")) and not account.reporting:
        lines.append(f"reporting of account {summary.account} is off: idibu is not told")
    if story.erased:
        lines.append("its mail was erased by retention or `forget`: it can be neither read nor handed over again")
    return [line.replace("{id}", str(summary.application_id)) for line in lines if line]


def _away(summary: Summary, until: float | None, now: float) -> str | None:
    """The words for an account whose ATS is away, unless the application would have to wait for longer anyway."""
    if until is None or (summary.due_at is not None and summary.due_at > max(until, now)):
        return None
    return is_away(summary.account or "", until, now)


def _next_hand_off(summary: Summary, obstacle: str | None, now: float) -> str:
    match summary.state:
        case State.RECEIVED if summary.in_work:
            return "being worked on now"
        case State.RECEIVED if obstacle:
            return f"waits: {obstacle}"
        case State.RECEIVED if summary.due_at is not None and summary.due_at > now:
            when = f"in {span(summary.due_at - now)}, at {local(summary.due_at)}"
            return f"next hand-off attempt {when}; " + "`hold {id}` stops it"
        case State.RECEIVED:
            return "handed off as soon as a worker is free and older mails of the same applicant are done"
        case State.HELD:
            waits = _HELD[summary.reason or HeldReason.BY_OPERATOR]
            if summary.reason is HeldReason.UNTRUSTED and summary.account is None:
                waits = "if its peer is known to you, `route {id} --account NAME` believes this mail's id"
            return f"waits for a person: {waits} " + "(`discard {id}` drops it)"
        case State.REJECTED | State.FAILED:
            return "waits for a person: `retry {id}` hands it over again, `discard {id}` drops it"
        case State.DELIVERED:
            return "delivered, nothing to do; `retry {id} --again` hands it over once more"
        case State.DUPLICATE | State.DISCARDED:
            return "finished, nothing to do"


def _next_report(story: Story, found: Settings, pauses: list[Pause], now: float) -> str:
    newest, account = story.reports[-1], story.summary.account or ""
    number = newest.report_id
    if newest.state in (ReportState.REFUSED, ReportState.FAILED):
        return (
            f"report {number} is {newest.state}: "
            + "`retry {id} --report` sends it again, `discard {id} --report` gives it up"
        )
    if newest.state is not ReportState.DUE:
        return ""
    if (obstacle := _obstacle(account, found, pauses)) is not None:
        return f"report {number} waits: {obstacle}"
    if newest.due_at is not None and newest.due_at > now:
        return f"report {number} is sent again in {span(newest.due_at - now)}, at {local(newest.due_at)}"
    return f"report {number} is sent as soon as a worker is free"


def _obstacle(account: str, found: Settings, pauses: list[Pause]) -> str | None:
    """Why no report of the account is sent at present."""
    known = found.known_accounts.get(account)
    if known is None:
        return f"account {account} is not in the settings"
    if not known.reporting:
        return f"reporting of account {account} is off"
    if known.hash is None:
        return f"account {account} has no hash; set accounts.{account}.hash_file"
    return _paused(account, Stage.REPORT, pauses)


def _paused(account: str | None, stage: Stage, pauses: list[Pause]) -> str | None:
    """The words for a stage of the account that is paused."""
    paused = next((pause for pause in pauses if (pause.account, pause.stage) == (account, stage)), None)
    if paused is None:
        return None
    what = "reporting" if stage is Stage.REPORT else "hand-off"
    who = f" by {paused.actor}" if paused.actor else ""
    why = f" ({paused.reason})" if paused.reason else ""
    return f"{what} of account {account} is paused{who}{why} {_until(paused)}"


def _until(pause: Pause) -> str:
    told = f"`resume {pause.account}{' --reporting' if pause.stage is Stage.REPORT else ''}`"
    return f"until {told}" if pause.until is None else f"until {local(pause.until)}"
