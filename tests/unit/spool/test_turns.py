"""Whose turn it is, by itself: any queues, any share, in thousands of cases (hypothesis)."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.spool.turns import Share, in_turn

ACCOUNTS = ("", "acme", "blue")
queues = st.fixed_dictionaries(
    {name: st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), max_size=6) for name in ACCOUNTS}
)
shares = st.builds(
    Share,
    st.integers(0, 9),
    st.dictionaries(st.sampled_from(ACCOUNTS), st.integers(0, 3)),
    st.dictionaries(st.sampled_from(ACCOUNTS), st.integers(0, 4)),
    st.none() | st.integers(0, 3),
)


def rows_of(waiting: dict[str, list[tuple[int, int]]]) -> dict[str, list[dict[str, Any]]]:
    """Rows as the databases give them: what is believed first, then by the time it is due."""
    ids = iter(range(1000))
    return {
        account: [
            {"id": next(ids), "account": account, "due_at": at, "believed": believed}
            for believed, at in sorted(given, key=lambda one: (-one[0], one[1]))
        ]
        for account, given in waiting.items()
    }


@given(queues, shares)
def test_a_share_is_kept_and_nothing_is_left_that_it_would_allow(
    waiting: dict[str, list[tuple[int, int]]], share: Share
) -> None:
    rows = rows_of(waiting)
    taken = in_turn([iter(each) for each in rows.values()], share)
    left = share.without(taken)
    assert left.limit >= 0
    assert all(free >= 0 for account, free in left.room.items() if share.room[account] >= 0)
    assert left.untrusted is None or left.untrusted >= 0
    for account, each in rows.items():
        had = [row for row in taken if row["account"] == account]
        assert had == each[: len(had)]
        behind = each[len(had) :]
        allowed = left.room.get(account, 1) > 0 and (left.untrusted is None or left.untrusted > 0)
        assert (
            left.limit == 0 or not behind or not (allowed or (behind[0]["believed"] and left.room.get(account, 1) > 0))
        )


@given(queues, shares)
def test_no_account_is_more_than_one_ahead_of_another_that_could_have_had_the_turn(
    waiting: dict[str, list[tuple[int, int]]], share: Share
) -> None:
    rows = rows_of(waiting)
    free = share._replace(room={}, untrusted=None)
    taken = in_turn([iter(each) for each in rows.values()], free)
    busy = Counter(dict(free.busy))
    for row in taken:
        others = [name for name, each in rows.items() if any(one not in taken[: taken.index(row)] for one in each)]
        assert busy[row["account"]] == min(busy[name] for name in others)
        busy[row["account"]] += 1


def test_a_queue_is_read_no_further_than_needed() -> None:
    read: list[int] = []

    def queue() -> Iterator[dict[str, Any]]:
        for number in range(100):
            read.append(number)
            yield {"id": number, "account": "acme", "due_at": number, "believed": 1}

    assert len(in_turn([queue()], Share(3, {}, {}))) == 3
    assert len(read) <= 4
