"""Tombstones: what is left of erased messages for de-duplication and updates, until it too has had its time."""

from apptrack_ingest.lifecycle import FINISHED
from apptrack_ingest.model import ReportState
from apptrack_ingest.spool.postgres.door import Statements

_OWED = f"'{ReportState.DUE}', '{ReportState.REFUSED}', '{ReportState.FAILED}'"


def _waits(row: str) -> str:
    """SQL: an application is not finished for long enough."""
    finished = ", ".join(f"'{state}'" for state in sorted(FINISHED))
    return f"({row}.state NOT IN ({finished}) OR {row}.settled_at >= :before)"


# An applicant's tombstones go together: the oldest may hold the remote id that an update of the youngest needs.
_REMOVABLE = f"""
m.erased_at IS NOT NULL AND m.received_at < :before
  AND NOT EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id AND (
      {_waits("a")}
      OR EXISTS (SELECT 1 FROM reports r WHERE r.application_id = a.id AND (r.state IN ({_OWED}) OR r.in_attempt))
      OR EXISTS (SELECT 1 FROM applications o WHERE o.duplicate_of = a.id AND o.message_id <> m.id)
      OR EXISTS (SELECT 1 FROM applications o
                 WHERE o.applicant_id = a.applicant_id AND o.account = a.account AND {_waits("o")})))
"""  # noqa: S608 - only our own constants

_LOCK = f"""
SELECT m.id FROM messages m WHERE {_REMOVABLE} ORDER BY m.received_at, m.id LIMIT :limit FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - only our own constants

_STILL = f"SELECT m.id FROM messages m WHERE m.id = ANY(:ids) AND {_REMOVABLE}"  # noqa: S608

_OF_THESE = "(SELECT id FROM applications WHERE message_id = ANY(:ids))"

_REMOVE = (
    f"DELETE FROM attempts WHERE application_id IN {_OF_THESE}",  # noqa: S608
    f"DELETE FROM reports WHERE application_id IN {_OF_THESE}",  # noqa: S608
    f"DELETE FROM actions WHERE application_id IN {_OF_THESE}",  # noqa: S608
    f"DELETE FROM rerouted WHERE application_id IN {_OF_THESE}",  # noqa: S608
    # One of a message can be the duplicate of another of it; the rows would forbid each other's end.
    f"UPDATE applications SET duplicate_of = NULL WHERE id IN {_OF_THESE} AND duplicate_of IS NOT NULL",  # noqa: S608
    "DELETE FROM applications WHERE message_id = ANY(:ids)",
    "DELETE FROM messages WHERE id = ANY(:ids)",
)


async def erase(statements: Statements, *, before: float, limit: int) -> int:
    """Removes tombstones and old orders; see the contract.

    It looks twice, as `messages.erase_finished` does: a person may set one going again between the look and the lock.
    """
    found = await statements.all(_LOCK, before=before, limit=limit)
    still = await statements.all(_STILL, ids=[row["id"] for row in found], before=before)
    ids = [row["id"] for row in still]
    for statement in _REMOVE:
        await statements.run(statement, ids=ids)
    await statements.run("DELETE FROM orders WHERE coalesce(ended_at, at) < :before", before=before)
    return len(ids)
