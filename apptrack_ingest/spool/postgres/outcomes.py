"""What idibu is to show of applicants, held against what it shows: the newest report of each, and telling it again."""

from collections.abc import Collection

from apptrack_ingest.errors import NotFound
from apptrack_ingest.spool.postgres import reports
from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.records import Outcome
from apptrack_ingest.spool.rows import outcomes_in, tellable_again

# Reports are found by their applications: of one applicant there are few, and no further index need be kept.
_OUTCOMES = """
SELECT r.*, m.erased_at FROM unnest(:applicants::bigint[]) wanted (applicant_id)
JOIN applications a ON a.applicant_id = wanted.applicant_id
JOIN reports r ON r.application_id = a.id AND r.account = :account AND r.applicant_id = wanted.applicant_id
JOIN messages m ON m.id = a.message_id
ORDER BY r.id
"""

_ARRIVED = """
SELECT DISTINCT a.applicant_id FROM unnest(:applicants::bigint[]) wanted (applicant_id)
JOIN applications a ON a.applicant_id = wanted.applicant_id AND a.account = :account
"""


async def outcomes(statements: Statements, account: str, applicants: Collection[int]) -> list[Outcome]:
    """The newest report of each."""
    return outcomes_in(await statements.all(_OUTCOMES, account=account, applicants=sorted(applicants)))


async def arrived(statements: Statements, account: str, applicants: Collection[int]) -> set[int]:
    """Which of them there is an application of."""
    rows = await statements.all(_ARRIVED, account=account, applicants=sorted(applicants))
    return {row["applicant_id"] for row in rows}


async def tell_again(statements: Statements, report_id: int, *, now: float) -> int:
    """Makes a confirmed report due again; returns its application's id. No newer outcome can come in between."""
    row = await statements.one("SELECT account, applicant_id FROM reports WHERE id = :id", id=report_id)
    if row is None:
        raise NotFound(f"there is no report {report_id}")
    await reports.one_at_a_time(statements, row["account"], row["applicant_id"])
    await statements.one("SELECT id FROM reports WHERE id = :id FOR UPDATE", id=report_id)
    newest = await outcomes(statements, row["account"], [row["applicant_id"]])
    application_id = tellable_again(newest[0] if newest else None, report_id)
    await statements.run(
        "UPDATE reports SET state = 'due', due_at = :now, settled_at = NULL, refused_since = NULL, series_from = NULL,"
        " series_base = attempts WHERE id = :id",
        now=now,
        id=report_id,
    )
    return application_id
