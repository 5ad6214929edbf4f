"""Stages of accounts at rest: by a person until told or for a time, or by ourselves while idibu does not accept a hash."""

from apptrack_ingest.model import PausedBy, Stage
from apptrack_ingest.spool.postgres.door import Record, Statements
from apptrack_ingest.spool.records import Pause
from apptrack_ingest.spool.rows import Ending

RESET_AT_ONCE = 10_000
"""Rows given a new schedule by one statement: few enough to be done long before the statement's time-out."""

ENDED = """
account = :account AND stage = :stage AND (actor = '' OR NOT :own_only::boolean)
    AND (:over_at::double precision IS NULL OR until <= :over_at)
"""

_PAUSE = """
INSERT INTO pauses (account, stage, reason, since, until, fingerprint, actor)
VALUES (:account, :stage, :reason, :since, :until, :fingerprint, :actor)
ON CONFLICT (account, stage) DO UPDATE SET reason = excluded.reason, until = excluded.until,
    fingerprint = excluded.fingerprint, actor = excluded.actor
WHERE pauses.actor = '' OR excluded.actor <> ''
"""


async def pause(statements: Statements, wanted: Pause) -> bool:
    """Pauses a stage of an account; a pause already there keeps its beginning, and a person's all of it where we ourselves
    would pause."""
    changed = await statements.run(
        _PAUSE,
        account=wanted.account,
        stage=wanted.stage,
        reason=wanted.reason,
        since=wanted.since,
        until=wanted.until,
        fingerprint=wanted.fingerprint,
        actor=wanted.actor,
    )
    return changed == 1


async def found(statements: Statements, ending: Ending) -> bool:
    """Whether there is such a pause."""
    return await statements.one(f"SELECT 1 FROM pauses WHERE {ENDED}", **ending.values()) is not None  # noqa: S608


async def end(statements: Statements, ending: Ending) -> bool:
    """Ends a pause; True when there was one."""
    return await statements.run(f"DELETE FROM pauses WHERE {ENDED}", **ending.values()) == 1  # noqa: S608


# What waits has a schedule that began before the pause; to go on with it could be to give up at once.
_RESET = {
    Stage.HAND_OFF: """
WITH page AS (SELECT id FROM (
                  SELECT id FROM applications WHERE account = :account AND state = 'received' AND id > :last
                  UNION ALL SELECT id FROM applications
                  WHERE account IS NULL AND :account = '' AND state = 'received' AND id > :last) every
              ORDER BY id LIMIT :limit),
reset AS (UPDATE applications a SET due_at = least(a.due_at, :now::double precision), series_from = NULL,
              series_base = a.attempts
          FROM page WHERE a.id = page.id AND a.state = 'received' AND NOT a.in_attempt)
SELECT max(id) AS last FROM page
""",
    Stage.REPORT: """
WITH page AS (SELECT id FROM reports WHERE account = :account AND state = 'due' AND id > :last ORDER BY id LIMIT :limit),
reset AS (UPDATE reports r SET due_at = least(r.created_at, :now::double precision), series_from = NULL,
              series_base = r.attempts, refused_since = NULL
          FROM page WHERE r.id = page.id AND r.state = 'due' AND NOT r.in_attempt)
SELECT max(id) AS last FROM page
""",
}


async def reset(statements: Statements, ending: Ending, *, last: int, now: float) -> int | None:
    """Gives what waits its whole schedule again, due at once: a page of rows with ids after `last`; the page's last id, or
    None when there was none left."""
    row = await statements.one(_RESET[ending.stage], account=ending.account, last=last, limit=RESET_AT_ONCE, now=now)
    return row["last"] if row is not None else None


async def pauses(statements: Statements) -> list[Pause]:
    """All pauses."""
    return [_pause_in(row) for row in await statements.all("SELECT * FROM pauses ORDER BY account, stage")]


def _pause_in(row: Record) -> Pause:
    return Pause(
        account=row["account"],
        stage=Stage(row["stage"]),
        reason=row["reason"],
        since=row["since"],
        until=row["until"],
        fingerprint=row["fingerprint"],
        actor=row["actor"],
    )


async def paused(statements: Statements, now: float) -> dict[tuple[str, Stage], PausedBy]:
    """Which stages of accounts rest, and by whom; a person's is over when its time is, our own when idibu has confirmed."""
    return {
        (each.account, each.stage): PausedBy.PERSON if each.actor else PausedBy.ITSELF
        for each in await pauses(statements)
        if not (each.actor and each.over(now))
    }
