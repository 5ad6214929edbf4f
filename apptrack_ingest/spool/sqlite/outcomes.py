"""What idibu is to show of applicants, held against what it shows: the newest report of each, and telling it again."""

import json
import sqlite3
from collections.abc import Collection

from apptrack_ingest.errors import NotFound
from apptrack_ingest.spool.records import Outcome
from apptrack_ingest.spool.rows import outcomes_in, tellable_again

# Reports are found by their applications: of one applicant there are few, and no further index need be kept.
_OUTCOMES = """
SELECT r.*, m.erased_at FROM json_each(:applicants) wanted
CROSS JOIN applications a INDEXED BY applications_by_applicant
CROSS JOIN reports r INDEXED BY reports_by_application
CROSS JOIN messages m
WHERE a.applicant_id = wanted.value AND r.application_id = a.id AND m.id = a.message_id
  AND r.account = :account AND r.applicant_id = a.applicant_id
ORDER BY r.id
"""

_ARRIVED = """
SELECT DISTINCT a.applicant_id FROM json_each(:applicants) wanted
CROSS JOIN applications a INDEXED BY applications_by_applicant
WHERE a.applicant_id = wanted.value AND a.account = :account
"""


def outcomes(connection: sqlite3.Connection, account: str, applicants: Collection[int]) -> list[Outcome]:
    """The newest report of each."""
    values = {"account": account, "applicants": json.dumps(sorted(applicants))}
    return outcomes_in(connection.execute(_OUTCOMES, values))


def arrived(connection: sqlite3.Connection, account: str, applicants: Collection[int]) -> set[int]:
    """Which of them there is an application of."""
    values = {"account": account, "applicants": json.dumps(sorted(applicants))}
    return {row["applicant_id"] for row in connection.execute(_ARRIVED, values)}


def tell_again(connection: sqlite3.Connection, report_id: int, *, now: float) -> int:
    """Makes a confirmed report due again; returns its application's id."""
    row = connection.execute("SELECT account, applicant_id FROM reports WHERE id = ?", (report_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no report {report_id}")
    newest = outcomes(connection, row["account"], [row["applicant_id"]])
    application_id = tellable_again(newest[0] if newest else None, report_id)
    connection.execute(
        "UPDATE reports SET state = 'due', due_at = ?, settled_at = NULL, refused_since = NULL, series_from = NULL,"
        " series_base = attempts WHERE id = ?",
        (now, report_id),
    )
    return application_id
