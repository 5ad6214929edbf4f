"""Whose turn it is: what a claim takes when more is due than it may take, so that no account's flood delays another's."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar


class Waiting(Protocol):
    """A row of what is due: its id, its `account` ("" is unrouted), `due_at`, and whether it is `believed` (its sender is
    trusted, or a person vouched for it)."""

    def __getitem__(self, column: str, /) -> Any: ...


Row = TypeVar("Row", bound=Waiting)


class Share(NamedTuple):
    """What a claim may take: `limit` in all, `room` of each account named there, `untrusted` of what is not believed (None:
    any number); `busy` is how much of each account is in work already, with all workers."""

    limit: int
    busy: Mapping[str, int]
    room: Mapping[str, int]
    untrusted: int | None = None

    def full(self) -> list[str]:
        """The accounts of which nothing may be taken."""
        return [account for account, free in self.room.items() if free <= 0]

    def with_busy(self, found: Mapping[str, int]) -> "Share":
        """The share with what was found in work of further accounts."""
        return self._replace(busy={**found, **self.busy})

    def without(self, taken: Iterable[Waiting]) -> "Share":
        """What is left of the share when these are taken."""
        busy, room = dict(self.busy), dict(self.room)
        limit, untrusted = self.limit, self.untrusted
        for row in taken:
            account = row["account"]
            limit -= 1
            busy[account] = busy.get(account, 0) + 1
            if account in room:
                room[account] -= 1
            if untrusted is not None and not row["believed"]:
                untrusted -= 1
        return Share(limit, busy, room, untrusted)


def in_turn(queues: Iterable[Iterator[Row]], share: Share) -> list[Row]:
    """What to take of the accounts' queues, each in its own order (what is believed first, then the oldest due).

    The account with the fewest in work comes first, of equals the one whose next is due the longest. A queue is read no
    further than needed.
    """
    heads: list[tuple[int, float, int, Row, Iterator[Row]]] = []
    for queue in queues:
        _queue_up(heads, queue, share)
    taken: list[Row] = []
    while heads and share.limit > 0:
        *_, row, queue = heapq.heappop(heads)
        if share.untrusted is not None and share.untrusted <= 0 and not row["believed"]:
            continue  # and nothing better stands behind it
        taken.append(row)
        share = share.without([row])
        if share.limit > 0:
            _queue_up(heads, queue, share)
    return taken


def _queue_up(heads: list[tuple[int, float, int, Row, Iterator[Row]]], queue: Iterator[Row], share: Share) -> None:
    row = next(queue, None)
    if row is not None and share.room.get(row["account"], 1) > 0:
        heapq.heappush(heads, (share.busy.get(row["account"], 0), row["due_at"], row["id"], row, queue))
