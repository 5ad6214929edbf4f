"""The statement that lists applications: for any filter one whose cost depends on what it shows, not on what there is.

An index that is sorted by id behind what a filter fixes gives the newest that match at once. Where a filter leaves a choice
(two states; any state of an account) each possibility is asked by itself, an `_Arm`, and the answers are merged.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from apptrack_ingest.lifecycle import WAITING
from apptrack_ingest.model import State
from apptrack_ingest.spool.contract import Filter

NEWEST_REPORT = "(SELECT r.state FROM reports r WHERE r.application_id = a.id ORDER BY r.id DESC LIMIT 1)"

SUMMARY = f"SELECT a.*, {NEWEST_REPORT} AS report"
"""An application's columns and the state of its newest report, as `rows.summary_in` reads them."""

HOUR = 3600
LATE = 1000
"""How far above `hours.high` an id may be (flat.LISTS): it is not written anew for each."""

Values = dict[str, object]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the databases: the condition by which a candidate is found, how an index is named, which are
    sorted by a number less the id instead of by the id, and how far ids may be from the order of the commits."""

    candidate: str
    by: Callable[[str], str] = lambda _: ""
    less: Mapping[str, int] = field(default_factory=dict)
    late: int = 0


def page(wanted: Filter, dialect: Dialect) -> tuple[str, Values]:
    """The statement for the applications that match, in their order, and its values by name. The limit stands in it as it
    is: a plan for any limit would be one for a long list."""
    order = f"{'ASC' if wanted.oldest_first else 'DESC'} LIMIT {int(wanted.limit)}"
    backwards = f"{'DESC' if wanted.oldest_first else 'ASC'} LIMIT {int(wanted.limit)}"
    arms = [
        f"SELECT * FROM ({arm.sql} ORDER BY {arm.key} {order}) arm"  # noqa: S608
        if arm.less is None
        else f"SELECT * FROM ({arm.sql} ORDER BY {arm.less} - {arm.key} {backwards}) arm"  # noqa: S608
        for arm in _arms(wanted, dialect)
    ]
    found = f"SELECT id FROM ({_merged(arms)}) every ORDER BY id {order}"  # noqa: S608
    sql = f"{SUMMARY} FROM ({found}) found CROSS JOIN applications a WHERE a.id = found.id ORDER BY found.id {order}"
    return sql, _values(wanted, dialect)


def number(wanted: Filter, dialect: Dialect) -> tuple[str, Values]:
    """The statement for how many match, whatever the limit (`number`)."""
    arms = [arm.sql for arm in _arms(wanted, dialect)]
    return f"SELECT count(*) AS number FROM ({_merged(arms)}) found", _values(wanted, dialect)  # noqa: S608


def _merged(arms: list[str]) -> str:
    """No application is in two arms, unless it was routed from one account to another."""
    return (" UNION " if any("rerouted" in arm for arm in arms) else " UNION ALL ").join(arms)


# --- arms ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """An arm's statement, what the id is called in it, and the number less the id by which its index is sorted."""

    sql: str
    key: str = "a.id"
    less: int | None = None


@dataclass(frozen=True, slots=True)
class _Arm:
    """One choice of what a filter leaves open: the place of a state in the filter's list, of a reason, of a report's
    state; None is any."""

    state: int | None
    reason: int | None
    report: int | None


_NOTHING = _Asked("SELECT a.id AS id FROM applications a WHERE 1 = 0")
"""What is asked where a filter contradicts itself: unread, and in a state that is reached by reading alone."""


def _arms(wanted: Filter, dialect: Dialect) -> list[_Asked]:
    return list(_possible(wanted, dialect)) or [_NOTHING]


def _possible(wanted: Filter, dialect: Dialect) -> Iterator[_Asked]:
    for state, reason, report in product(_states(wanted), wanted.reasons or [None], wanted.report_states or [None]):
        arm = _Arm(
            None if state is None else list(State).index(state),
            None if reason is None else wanted.reasons.index(reason),
            None if report is None else wanted.report_states.index(report),
        )
        for source, index, key, own in _sources(wanted, arm, dialect):
            less = dialect.less.get(index or "")
            conditions = [*own, *_chosen(arm), *_conditions(wanted, dialect), *_range(wanted, key, less)]
            where = " AND ".join(conditions) or "1 = 1"
            yield _Asked(f"SELECT {key} AS id FROM {source} WHERE {where}", key, less)  # noqa: S608


def _states(wanted: Filter) -> list[State] | list[None]:
    """The states to be asked by themselves: those that are wanted, or all where an index begins with what they divide."""
    if wanted.states or wanted.unread:
        possible = set(wanted.states or State) & (WAITING if wanted.unread else set(State))
        return sorted(possible)
    narrow = wanted.applicant_id is not None or wanted.client_reference is not None
    divided = wanted.account is not None or wanted.portal is not None
    if divided and not (narrow or wanted.reasons or wanted.report_states):
        return list(State)
    return [None]


def _chosen(arm: _Arm) -> list[str]:
    chosen = {"state": arm.state, "reason": arm.reason}
    return [f"a.{name} = :{name}_{place}" for name, place in chosen.items() if place is not None]


def _sources(wanted: Filter, arm: _Arm, dialect: Dialect) -> Iterator[tuple[str, str | None, str, list[str]]]:
    """Where an arm looks, by which index, what the id is called there, and the conditions that go with it."""
    newest = [] if arm.report is None else [f"{NEWEST_REPORT} = :report_{arm.report}"]
    index = _index(wanted, arm)
    if index is not None or arm.report is None:
        yield f"applications a {dialect.by(index) if index else ''}", index, "a.id", newest
        return
    joined = [
        "a.id = r.application_id",
        f"r.state = :report_{arm.report}",
        "NOT EXISTS (SELECT 1 FROM reports n WHERE n.application_id = r.application_id AND n.id > r.id)",
    ]
    index = "reports_by_account" if wanted.account else "reports_by_state"
    if wanted.account:
        joined.append("r.account = :account")
        yield "rerouted e CROSS JOIN applications a", None, "e.application_id", ["a.id = e.application_id", *newest]
    yield f"reports r {dialect.by(index)} CROSS JOIN applications a", index, "r.application_id", joined


def _index(wanted: Filter, arm: _Arm) -> str | None:
    """The index by which an arm looks at applications; None: in the order of their ids, or by their reports."""
    if wanted.applicant_id is not None:
        return "applications_by_applicant"
    if wanted.client_reference is not None:
        return "applications_by_client_reference"
    if arm.reason is not None:
        return "applications_by_reason" if wanted.account is None else "applications_by_account_and_reason"
    if arm.report is not None or arm.state is None:
        return None
    if wanted.account is not None:
        return "applications_by_account"
    return "applications_by_state" if wanted.portal is None else "applications_by_portal"


# --- conditions ------------------------------------------------------------------------------------------------------

# No application of the hour or later has a lower id, none of the hour or earlier a higher one (flat.LISTS): who looks for a
# time does not look through all others.
_LOWEST = "(SELECT h.low FROM hours h WHERE h.hour >= :since_hour ORDER BY h.hour LIMIT 1)"
_HIGHEST = f"""(SELECT max(bound) FROM (
    SELECT coalesce((SELECT h.low FROM hours h WHERE h.hour > :until_hour ORDER BY h.hour LIMIT 1) + :late,
                    9223372036854775807) AS bound
    UNION ALL
    SELECT coalesce((SELECT h.high FROM hours h WHERE h.hour <= :until_hour ORDER BY h.hour DESC LIMIT 1) + {LATE}, 0)
) bounds)"""  # noqa: S608 - only our own constants


def _conditions(wanted: Filter, dialect: Dialect) -> list[str]:
    """SQL made of our own constants; the values apart (`_values`)."""
    conditions: list[tuple[object, str]] = [
        (wanted.candidate or None, dialect.candidate),
        (wanted.account, "a.account IS NULL" if wanted.account == "" else "a.account = :account"),
        (wanted.applicant_id, "a.applicant_id = :applicant_id"),
        (wanted.client_reference, "a.client_reference = :client_reference"),
        (wanted.portal, "a.portal_name = :portal"),
        (wanted.unread or None, "a.content_digest IS NULL"),
        (wanted.since, "a.received_at >= :since"),
        (wanted.until, "a.received_at < :until"),
    ]
    return [condition for value, condition in conditions if value is not None]


def _range(wanted: Filter, key: str, less: int | None) -> list[str]:
    """Between which ids to look."""
    bounds = [
        (wanted.since, ">=", _LOWEST),
        (wanted.until, "<=", _HIGHEST),
        (wanted.before_id, "<", "CAST(:before_id AS bigint)"),
        (wanted.after_id, ">", "CAST(:after_id AS bigint)"),
    ]
    given = [(than, bound) for value, than, bound in bounds if value is not None]
    if less is None:
        return [f"{key} {than} {bound}" for than, bound in given]
    return [f"{less} - {key} {_TURNED[than]} {less} - {bound}" for than, bound in given]


_TURNED = {">=": "<=", "<=": ">=", "<": ">", ">": "<"}


def _values(wanted: Filter, dialect: Dialect) -> Values:
    given: Values = {
        "candidate": wanted.candidate.casefold() if wanted.candidate else None,
        "account": wanted.account or None,
        "applicant_id": wanted.applicant_id,
        "client_reference": wanted.client_reference,
        "portal": wanted.portal,
        "since": wanted.since,
        "since_hour": None if wanted.since is None else int(wanted.since // HOUR),
        "until": wanted.until,
        "late": dialect.late,
        "until_hour": None if wanted.until is None else int(wanted.until // HOUR),
        "before_id": wanted.before_id,
        "after_id": wanted.after_id,
    }
    places = {"state": list(State), "reason": wanted.reasons, "report": wanted.report_states}
    given.update({f"{name}_{place}": value for name, values in places.items() for place, value in enumerate(values)})
    return {name: value for name, value in given.items() if value is not None}
