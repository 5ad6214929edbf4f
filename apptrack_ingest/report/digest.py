"""The note that goes to people about what waits for them, so that nothing stays unseen where nobody runs Prometheus.

It holds counts, ids, account names, reason codes and ages: nothing of a candidate, nothing in words, no secret.
"""

import asyncio
import smtplib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from typing import Any

import httpx

from apptrack_ingest import settings
from apptrack_ingest.logs import exception_fields, safe_code
from apptrack_ingest.model import Backlog, PausedBy, ReportState, Stage, State
from apptrack_ingest.spool.contract import Summary

MOST_ROWS = 50
"""Applications named in one digest, the oldest first; the rest are counted."""

DEADLINE = 30.0
"""Seconds that one way of sending may take."""

_REPORT_ENDS = (ReportState.REFUSED, ReportState.FAILED)


@dataclass(frozen=True, slots=True)
class Digest:
    """What to send: one line to catch the eye, the text for people, and the same as values for programs."""

    subject: str
    text: str
    payload: dict[str, Any]


# --- composing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What waits in one account."""

    held: dict[str, int]
    failed: int
    rejected: int
    reports_refused: int
    reports_failed: int
    paused: bool

    @property
    def needs_a_person(self) -> bool:
        """A rejection alone does not: the handler decided, and idibu was told; it is only counted along."""
        return bool(self.held or self.failed or self.reports_refused or self.reports_failed or self.paused)


def compose(backlog: Backlog, rows: Sequence[Summary], now: float) -> Digest | None:
    """The digest of what waits for a person at `now` (epoch seconds), or None when nothing does.

    The counts come from `backlog`; `rows` are held or failed applications and those whose report was refused or failed,
    to be named one by one (others among them are left out).
    """
    waiting = {account: _of_account(backlog, account) for account in sorted(_accounts(backlog))}
    if not any(account.needs_a_person for account in waiting.values()):
        return None
    named = sorted((row for row in rows if _kind(row)), key=lambda row: (row.received_at, row.application_id))
    subject = f"apptrack-ingest: {_totals(waiting.values())}"
    lines = [subject, ""]
    for name, account in waiting.items():
        lines += _account_lines(name, account)
    lines += _row_lines(named[:MOST_ROWS], len(named), now)
    return Digest(subject, "\n".join(lines) + "\n", _payload("\n".join(lines), waiting, named[:MOST_ROWS], now))


def _accounts(backlog: Backlog) -> set[str]:
    return {account for account, _ in [*backlog.applications, *backlog.held, *backlog.reports, *backlog.paused]}


def _of_account(backlog: Backlog, account: str) -> _Waiting:
    return _Waiting(
        held={
            reason.value: count for (name, reason), count in sorted(backlog.held.items()) if name == account and count
        },
        failed=backlog.applications.get((account, State.FAILED), 0),
        rejected=backlog.applications.get((account, State.REJECTED), 0),
        reports_refused=backlog.reports.get((account, ReportState.REFUSED), 0),
        reports_failed=backlog.reports.get((account, ReportState.FAILED), 0),
        paused=backlog.paused.get((account, Stage.REPORT)) is PausedBy.ITSELF,
    )


def _kind(row: Summary) -> str:
    """Why a row stands in the digest; empty when it does not belong there."""
    kinds = [row.state.value] if row.state in (State.HELD, State.FAILED) else []
    if row.report in _REPORT_ENDS:
        kinds.append(f"report {row.report.value}")
    return " and ".join(kinds)


def _phrases(account: _Waiting) -> dict[str, int]:
    return {
        "held": sum(account.held.values()),
        "failed": account.failed,
        "rejected": account.rejected,
        "reports refused by idibu": account.reports_refused,
        "reports that did not reach idibu": account.reports_failed,
        "with reporting paused": int(account.paused),
    }


def _totals(accounts: Iterable[_Waiting]) -> str:
    totals: dict[str, int] = {}
    for account in accounts:
        for phrase, count in _phrases(account).items():
            totals[phrase] = totals.get(phrase, 0) + count
    return ", ".join(f"{count} {phrase}" for phrase, count in totals.items() if count)


def _account_lines(name: str, account: _Waiting) -> list[str]:
    if not (account.needs_a_person or account.rejected):
        return []
    by_reason = ", ".join(f"{reason} {count}" for reason, count in account.held.items())
    lines = {
        f"held: {by_reason}": bool(account.held),
        f"failed: {account.failed}": account.failed,
        f"rejected by the handler: {account.rejected}": account.rejected,
        f"reports refused by idibu: {account.reports_refused}": account.reports_refused,
        f"reports that did not reach idibu: {account.reports_failed}": account.reports_failed,
        "reporting is paused: idibu does not accept the account's hash": account.paused,
    }
    return [f"{name or '(no account)'}", *(f"  {line}" for line, shown in lines.items() if shown), ""]


def _row_lines(rows: Sequence[Summary], total: int, now: float) -> list[str]:
    if not rows:
        return []
    lines = ["The oldest:", *(_row_line(row, now) for row in rows)]
    if total > len(rows):
        lines.append(f"  and {total - len(rows)} more")
    return [*lines, "", "`apptrack-ingest show ID` tells the story of each; the runbook says what to do."]


def _row_line(row: Summary, now: float) -> str:
    applicant = "none" if row.applicant_id is None else str(row.applicant_id)
    code = f" ({_code(row)})" if _code(row) else ""
    account = row.account or "(no account)"
    return (
        f"  {row.application_id}: {account}, applicant {applicant}, {_kind(row)}{code}, {_age(now - row.received_at)}"
    )


def _code(row: Summary) -> str | None:
    if row.state is State.HELD and row.reason is not None:
        return row.reason.value
    return safe_code(row.code) if row.state is State.FAILED and row.code else None


def _age(seconds: float) -> str:
    minutes = max(int(seconds), 0) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _payload(text: str, waiting: Mapping[str, _Waiting], rows: Sequence[Summary], now: float) -> dict[str, Any]:
    """`text` is what Slack, Teams and Mattermost show; `digest` is for programs."""
    applications = [
        {
            "id": row.application_id,
            "account": row.account,
            "applicant_id": row.applicant_id,
            "state": row.state.value,
            "code": _code(row),
            "report": row.report.value if row.report else None,
            "age_seconds": int(max(now - row.received_at, 0)),
        }
        for row in rows
    ]
    accounts = {name: asdict(account) for name, account in waiting.items()}
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    return {"text": text, "digest": {"at": at, "accounts": accounts, "applications": applications}}


# --- sending ---------------------------------------------------------------------------------------------------------


async def deliver(digest: Digest, where: settings.Digest, *, deadline: float = DEADLINE) -> tuple[str, ...]:
    """Sends by every way that is configured; returns a reason code for each that failed, none when all took it.

    Never raises but for cancellation, and names no URL, host or address: the webhook's URL is a secret.
    """
    ways: list[tuple[str, Awaitable[None]]] = []
    if where.webhook_url is not None:
        ways.append(("webhook", _post(digest, where.webhook_url.get_secret_value(), deadline)))
    if where.smtp_host is not None:
        ways.append(("mail", asyncio.to_thread(_mail, digest, where, deadline)))
    outcomes = await asyncio.gather(*(_outcome(name, way, deadline) for name, way in ways))
    return tuple(outcome for outcome in outcomes if outcome)


async def _outcome(name: str, way: Awaitable[None], deadline: float) -> str:
    """Empty when sent, else why not."""
    try:
        async with asyncio.timeout(deadline):
            await way
    except _NotTaken as error:
        return f"{name}:{error.code}"
    except Exception as error:  # noqa: BLE001  a digest that cannot be sent stops nothing; its text may hold the URL
        fields = exception_fields(error)
        return safe_code(f"{name}:{fields.get('reason') or fields['error']}")
    return ""


class _NotTaken(Exception):
    """Whoever was to take the digest answered, and did not take it."""

    def __init__(self, code: str) -> None:
        self.code = code


async def _post(digest: Digest, url: str, deadline: float) -> None:
    # The answer's body is not read: its status says all, and it may be of any size.
    async with httpx.AsyncClient(timeout=deadline) as client, client.stream("POST", url, json=digest.payload) as answer:
        if not answer.is_success:
            raise _NotTaken(f"http-{answer.status_code}")


def _mail(digest: Digest, where: settings.Digest, deadline: float) -> None:
    sender = parseaddr(where.mail_from)[1]
    message = EmailMessage()
    message["From"] = where.mail_from
    message["To"] = ", ".join(where.mail_to)
    message["Subject"] = digest.subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834, section 5: no automatic answers to this, please
    message.set_content(digest.text)
    with smtplib.SMTP(where.smtp_host or "", where.smtp_port, timeout=deadline) as relay:
        if relay.send_message(message, sender, list(where.mail_to)):
            raise _NotTaken("some-recipients-refused")
