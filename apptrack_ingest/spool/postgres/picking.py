"""Picking what to claim beside other claimers: look, choose whose turn it is, lock what can be had, choose again."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from apptrack_ingest.spool.postgres.door import Record
from apptrack_ingest.spool.turns import Share, in_turn

SPARE = 3
"""How many times the wanted number is looked at, over all accounts: some may be another claimer's by then."""

Look = Callable[[Share, list[int]], Awaitable[list[Record]]]
"""Looks for what is due beyond the ids that were had already: rows with `id`, `account`, `due_at`, `believed`, how much of
the account is in work (`busy`), and how many rows of one queue it returns at most (`depth`)."""
Lock = Callable[[list[int]], Awaitable[list[Record]]]
"""Locks those of the ids that can be had at once, until the end of the transaction; rows with `id`."""


async def pick(look: Look, lock: Lock, share: Share) -> list[int]:
    """The ids of as many rows as the share allows, locked, and not one more: what is locked in vain is hidden from the
    other claimers."""
    had: list[int] = []
    locked: list[int] = []
    while share.limit > 0:
        rows = await look(share, had)
        share = share.with_busy({row["account"]: row["busy"] for row in rows})
        got = await _lock_in_turn(rows, lock, share)
        share = share.without(got)
        locked += [row["id"] for row in got]
        had += [row["id"] for row in rows]
        if not _cut_short(rows):
            break
    return locked


async def _lock_in_turn(rows: Sequence[Record], lock: Lock, share: Share) -> list[Record]:
    """Each that cannot be had makes room for the one after it."""
    queues: dict[str, list[Record]] = defaultdict(list)
    for row in rows:
        queues[row["account"]].append(row)
    got: list[Record] = []
    while chosen := in_turn([iter(queue) for queue in queues.values()], share):
        ids = {row["id"] for row in await lock([row["id"] for row in chosen])}
        taken = [row for row in chosen if row["id"] in ids]
        got += taken
        share = share.without(taken)
        for row in chosen:
            queues[row["account"]].remove(row)
    return got


def _cut_short(rows: Sequence[Record]) -> bool:
    """Whether more may stand behind what was looked at."""
    queues: dict[tuple[str, int], int] = defaultdict(int)
    for row in rows:
        queues[row["account"], row["believed"]] += 1
    return any(number >= rows[0]["depth"] for number in queues.values())
