"""What must hold of what triggers derive from the ledger (flat.py of each database): counts, ids by the hour, and the like.

The statements are understood by every database, but for the few words in which they differ."""

# ruff: noqa: S608 - statements are made of our own names and constants alone

from dataclasses import dataclass

from apptrack_ingest.lifecycle import FINISHED
from apptrack_ingest.model import ReportState


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold: `breaches` is SQL that gives a row for each breach, `says` tells of one, from its row."""

    breaches: str
    says: str


MEND = "; `apptrack-ingest spool check --mend` makes it anew"

_UNTRUSTED = """
EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id AND CAST(a.trusted AS integer) = 0
          AND CAST(a.vouched AS integer) = 0 AND a.state IN ('received', 'held'))
"""

_FINISHED_AT = f"""
CASE WHEN NOT EXISTS (SELECT 1 FROM applications a WHERE a.message_id = m.id
                        AND a.state NOT IN ({", ".join(f"'{state}'" for state in sorted(FINISHED))}))
      AND NOT EXISTS (SELECT 1 FROM applications a CROSS JOIN reports r WHERE r.application_id = a.id AND a.message_id = m.id
                        AND r.state IN ('{ReportState.DUE}', '{ReportState.REFUSED}', '{ReportState.FAILED}'))
     THEN (SELECT max(a.settled_at) FROM applications a WHERE a.message_id = m.id) END
"""

_LINE = Rule(
    "SELECT a.id, CAST(a.behind AS integer) FROM applications a WHERE a.state = 'received' AND CAST(a.behind AS integer)"
    " <> CASE WHEN EXISTS (SELECT 1 FROM applications o WHERE o.account = a.account AND o.applicant_id = a.applicant_id"
    " AND o.state = 'received' AND o.id < a.id) THEN 1 ELSE 0 END",
    "application {0}: its place in its applicant's line is not right (behind another: {1})" + MEND,
)

_END = Rule(
    f"SELECT m.id FROM messages m WHERE m.erased_at IS NULL AND m.finished_at IS DISTINCT FROM {_FINISHED_AT}",
    "message {0}: the time at which it was finished is not right" + MEND,
)

_ELSEWHERE = Rule(
    "SELECT DISTINCT a.id FROM reports r JOIN applications a ON a.id = r.application_id"
    " WHERE a.account IS DISTINCT FROM r.account"
    " AND NOT EXISTS (SELECT 1 FROM rerouted e WHERE e.application_id = a.id)",
    "application {0}: it is not known as routed elsewhere" + MEND,
)


def rules(*, tallies: str, hour: str, late: int) -> tuple[Rule, ...]:
    """The rules for a database in which all `tallies` are what this SQL gives, the hour of a receipt (`a.received_at`) is
    what `hour` gives, and ids are up to `late` away from the order of the commits."""
    return (_LINE, _END, _ELSEWHERE, _counts(tallies), *_hours(hour, late))


def _counts(tallies: str) -> Rule:
    counted = f"""
        SELECT subject, account, state, reason, number, bytes FROM ({tallies}) kept
        UNION ALL SELECT 'applications', coalesce(account, ''), state, coalesce(reason, ''), -count(*), 0
            FROM applications GROUP BY 2, 3, 4
        UNION ALL SELECT 'reports', account, state, '', -count(*), 0 FROM reports GROUP BY 2, 3
        UNION ALL SELECT 'messages', '', '', '', -count(*), -coalesce(CAST(sum(m.size) AS bigint), 0)
            FROM messages m WHERE {_UNTRUSTED}
    """
    return Rule(
        "SELECT subject, account, state, reason, CAST(sum(number) AS bigint), CAST(sum(bytes) AS bigint)"
        f" FROM ({counted}) counted GROUP BY 1, 2, 3, 4 HAVING sum(number) <> 0 OR sum(bytes) <> 0",
        "the tally of {0} (account {1!r}, state {2!r}, reason {3!r}) is off by {4}, and by {5} bytes" + MEND,
    )


def _hours(hour: str, late: int) -> tuple[Rule, ...]:
    """What `finding` relies on, see flat.LISTS."""
    next_low = f"(SELECT h.low FROM hours h WHERE h.hour > {hour} ORDER BY h.hour LIMIT 1)"
    high = f"(SELECT h.high FROM hours h WHERE h.hour <= {hour} ORDER BY h.hour DESC LIMIT 1)"
    low = f"(SELECT h.low FROM hours h WHERE h.hour >= {hour} ORDER BY h.hour LIMIT 1)"
    return (
        Rule(
            f"SELECT a.id FROM applications a WHERE a.id < coalesce({low}, a.id + 1)"
            f" OR a.id > coalesce({next_low} + {late}, a.id) AND a.id > coalesce({high}, 0) + 1000",
            "application {0}: it would not be found by its time" + MEND,
        ),
        Rule(
            "SELECT h.hour FROM hours h WHERE h.low >"
            " (SELECT n.low FROM hours n WHERE n.hour > h.hour ORDER BY n.hour LIMIT 1)",
            "hour {0} since 1970: what follows it has lower ids" + MEND,
        ),
    )
