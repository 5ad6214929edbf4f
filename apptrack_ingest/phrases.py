"""Every word that idibu's users read of us, in one place: none of them names an exception, a host or a program.

A report's error message begins in lower case, as idibu shows it behind its own words. What a handler gives as the reason of
its `Rejected`, and what a person gives as the reason of a discard, are meant for idibu's users and passed on; every other
reason is kept in the spool for the operator, and told here by its code alone.
"""

from datetime import UTC, datetime, timedelta, tzinfo

from apptrack_ingest.model import HeldReason

NO_REASON = "The application could not be processed."
"""The error message of a fail that came without a reason: idibu's document expects one there."""

REJECTED = "the recruitment system did not accept the application"
ON_REQUEST = "erased on request"
"""Why it was discarded, where the candidate asked to be forgotten."""

ERASED = f"discarded: {ON_REQUEST}"
"""What a report that is still owed says of a forgotten candidate's application."""

_CAUSES = {
    "retry-later": "the recruitment system could not take the application",
    "timeout": "the recruitment system did not answer in time",
    "overrunning": "the recruitment system did not answer in time",
    "exception": "the recruitment system could not be reached, or did not answer as expected",
    "bad-verdict": "the recruitment system did not answer as expected",
}

_HELD: dict[HeldReason | None, str] = {
    HeldReason.UNREADABLE: "the e-mail could not be read",
    HeldReason.CRASH_LOOP: "the e-mail could not be processed",
    HeldReason.BY_OPERATOR: "somebody asked for it to wait",
}


def held(reason: HeldReason | None) -> str:
    """A person has to look at it first."""
    return f"held until a person has looked at it: {_HELD.get(reason, 'it needs a decision')}"


def discarded(words: str) -> str:
    """A person decided that it is not handed over; `words` are theirs."""
    return f"discarded: {words or 'no reason given'}"


def given_up(code: str) -> str:
    """Nothing is tried any more; `code` is how the last attempt ended."""
    cause = _CAUSES.get(code)
    return "not delivered, gave up retrying" + (f": {cause}" if cause else "")


def waiting(until: float, now: float, zone: tzinfo = UTC, *, tried: bool) -> str:
    """No outcome yet, and it is tried (again) until then."""
    return f"not delivered yet, {'retrying' if tried else 'trying'} until {shown(until, now, zone)}"


def shown(at: float, now: float, zone: tzinfo = UTC) -> str:
    """A time as people read it: rounded up to the minute, with the date where it is not today's, and with its zone."""
    try:
        exact, today = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(now, zone)
    except (OverflowError, OSError, ValueError):  # no calendar goes that far
        return "further notice"
    whole = exact if not (exact.second or exact.microsecond) else _next_minute(exact)
    date = "" if whole.date() == today.date() else f"{whole:%Y-%m-%d} "
    return f"{date}{whole:%H:%M} {whole:%Z}"


def _next_minute(exact: datetime) -> datetime:
    """By way of UTC: a clock that changes in between must not be an hour wrong."""
    later = exact.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    return later.astimezone(exact.tzinfo)
