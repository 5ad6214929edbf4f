"""Stages of accounts at rest: by a person until told or for a time, or by ourselves while idibu does not accept a hash."""

import json
import sqlite3

from apptrack_ingest.model import PausedBy, Stage
from apptrack_ingest.spool.records import Pause
from apptrack_ingest.spool.rows import Ending

RESET_AT_ONCE = 500
"""Rows given a new schedule in one commit: few, so that no mail being received waits long for it."""

ENDED = """
account = :account AND stage = :stage AND (actor = '' OR NOT :own_only) AND (:over_at IS NULL OR until <= :over_at)
"""

_PAUSE = """
INSERT INTO pauses (account, stage, reason, since, until, fingerprint, actor)
VALUES (:account, :stage, :reason, :since, :until, :fingerprint, :actor)
ON CONFLICT (account, stage) DO UPDATE SET reason = excluded.reason, until = excluded.until,
    fingerprint = excluded.fingerprint, actor = excluded.actor
WHERE pauses.actor = '' OR excluded.actor <> ''
"""


def pause(connection: sqlite3.Connection, wanted: Pause) -> bool:
    """Pauses a stage of an account; a pause already there keeps its beginning, and a person's all of it where we ourselves
    would pause."""
    values = {
        "account": wanted.account,
        "stage": wanted.stage,
        "reason": wanted.reason,
        "since": wanted.since,
        "until": wanted.until,
        "fingerprint": wanted.fingerprint,
        "actor": wanted.actor,
    }
    return connection.execute(_PAUSE, values).rowcount == 1


def found(connection: sqlite3.Connection, ending: Ending) -> bool:
    """Whether there is such a pause."""
    return connection.execute(f"SELECT 1 FROM pauses WHERE {ENDED}", ending.values()).fetchone() is not None  # noqa: S608


def end(connection: sqlite3.Connection, ending: Ending) -> bool:
    """Ends a pause; True when there was one."""
    return connection.execute(f"DELETE FROM pauses WHERE {ENDED}", ending.values()).rowcount == 1  # noqa: S608


# What waits has a schedule that began before the pause; to go on with it could be to give up at once.
_WAITING = {
    Stage.HAND_OFF: """
SELECT id FROM applications INDEXED BY applications_by_account
WHERE account IS nullif(:account, '') AND state = 'received' AND id > :last ORDER BY id LIMIT :limit
""",
    Stage.REPORT: """
SELECT id FROM reports INDEXED BY reports_counts
WHERE account = :account AND state = 'due' AND id > :last ORDER BY id LIMIT :limit
""",
}

_RESET = {
    Stage.HAND_OFF: """
UPDATE applications SET due_at = min(due_at, :now), series_from = NULL, series_base = attempts
WHERE id IN (SELECT value FROM json_each(:ids)) AND in_attempt = 0
""",
    Stage.REPORT: """
UPDATE reports SET due_at = created_at, series_from = NULL, series_base = attempts, refused_since = NULL
WHERE id IN (SELECT value FROM json_each(:ids)) AND in_attempt = 0
""",
}


def reset(connection: sqlite3.Connection, ending: Ending, *, last: int, now: float) -> int | None:
    """Gives what waits its whole schedule again, due at once: a page of rows with ids after `last`; the page's last id, or
    None when there was none left."""
    page = {"account": ending.account, "last": last, "limit": RESET_AT_ONCE}
    ids = [row["id"] for row in connection.execute(_WAITING[ending.stage], page)]
    connection.execute(_RESET[ending.stage], {"ids": json.dumps(ids), "now": now})
    return ids[-1] if ids else None


def pauses(connection: sqlite3.Connection) -> list[Pause]:
    """All pauses."""
    rows = connection.execute("SELECT * FROM pauses ORDER BY account, stage")
    return [pause_in(row) for row in rows]


def pause_in(row: sqlite3.Row) -> Pause:
    """The pause a row holds."""
    return Pause(
        account=row["account"],
        stage=Stage(row["stage"]),
        reason=row["reason"],
        since=row["since"],
        until=row["until"],
        fingerprint=row["fingerprint"],
        actor=row["actor"],
    )


def paused(connection: sqlite3.Connection, now: float) -> dict[tuple[str, Stage], PausedBy]:
    """Which stages of accounts rest, and by whom; a person's is over when its time is, our own when idibu has confirmed."""
    return {
        (each.account, each.stage): PausedBy.PERSON if each.actor else PausedBy.ITSELF
        for each in pauses(connection)
        if not (each.actor and each.over(now))
    }
