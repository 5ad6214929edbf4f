"""Counts of what the spool holds, and when the next of it is due."""

import json
import sqlite3
from collections.abc import Collection

from apptrack_ingest.model import Backlog, HeldReason, ReportState, State
from apptrack_ingest.spool.contract import Due
from apptrack_ingest.spool.sqlite import hand_off, reports


def backlog(connection: sqlite3.Connection) -> Backlog:
    """One look at everything, for metrics, health and digests."""
    applications: dict[tuple[str, State], int] = {}
    held: dict[tuple[str, HeldReason], int] = {}
    for account, state, reason, count in connection.execute(
        "SELECT coalesce(account, ''), state, reason, count(*) FROM applications GROUP BY account, state, reason"
    ):
        key = (account, State(state))
        applications[key] = applications.get(key, 0) + count
        if key[1] is State.HELD and reason:
            held[(account, HeldReason(reason))] = count
    counted = connection.execute("SELECT account, state, count(*) FROM reports GROUP BY account, state")
    pages = connection.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
    return Backlog(
        applications=applications,
        held=held,
        reports={(account, ReportState(state)): count for account, state, count in counted},
        oldest_hand_off=_oldest(connection, "applications", "received_at", State.RECEIVED),
        oldest_report=_oldest(connection, "reports", "created_at", ReportState.DUE),
        paused=frozenset(row["account"] for row in connection.execute("SELECT account FROM pauses")),
        size_bytes=int(pages.fetchone()[0]),
    )


def _oldest(connection: sqlite3.Connection, table: str, column: str, state: str) -> dict[str, float]:
    rows = connection.execute(
        f"SELECT coalesce(account, ''), min({column}) FROM {table} WHERE state = ? GROUP BY account",  # noqa: S608
        (state,),
    )
    return dict(tuple(row) for row in rows)


# What has to wait for another of its applicant is not due, or a worker would make room for it in vain.
_FIRST_FREE = f"SELECT a.due_at FROM applications a INDEXED BY applications_due WHERE {hand_off.FREE}"  # noqa: S608

_NEXT = {
    "hand_off": f"{_FIRST_FREE} AND a.crashes = 0 ORDER BY a.due_at LIMIT 1",
    "solo": f"{_FIRST_FREE} AND a.crashes > 0 ORDER BY a.due_at LIMIT 1",
    "report": (
        "SELECT min(max(r.due_at, coalesce(p.until, r.due_at)))"  # noqa: S608
        f" FROM reports r LEFT JOIN pauses p ON p.account = r.account WHERE {reports.FREE}"
    ),
    "lease_end": (
        "SELECT min(lease_until) FROM (SELECT lease_until FROM applications WHERE in_attempt = 1"
        " UNION ALL SELECT lease_until FROM reports WHERE in_attempt = 1)"
    ),
}


def next_due(connection: sqlite3.Connection, *, now: float, accounts: Collection[str]) -> Due:
    """When something becomes due."""
    values = {"now": now, "accounts": json.dumps(list(accounts))}
    rows = {name: connection.execute(sql, values).fetchone() for name, sql in _NEXT.items()}
    return Due(**{name: row[0] if row else None for name, row in rows.items()})
