"""What people ordered about more than one application: who, when, what, why, and what came of it."""

from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.records import Order, OrderRecord
from apptrack_ingest.spool.rows import order_record_in

_BEGIN = """
INSERT INTO orders (at, actor, action, account, subject, note) VALUES (:now, :actor, :action, :account, :subject, :note)
RETURNING id
"""


async def begin(statements: Statements, order: Order, *, now: float) -> int:
    """Keeps an order that is under way; returns its id."""
    row = await statements.one(
        _BEGIN,
        now=now,
        actor=order.actor,
        action=order.action,
        account=order.account,
        subject=order.subject,
        note=order.note,
    )
    assert row is not None, "INSERT ... RETURNING has its row"
    return int(row["id"])


async def end(statements: Statements, order_id: int, *, done: int, refused: int, now: float) -> None:
    """Keeps what came of it."""
    await statements.run(
        "UPDATE orders SET done = :done, refused = :refused, ended_at = :now WHERE id = :id",
        done=done,
        refused=refused,
        now=now,
        id=order_id,
    )


async def keep(statements: Statements, order: Order, *, now: float) -> None:
    """Keeps an order that was carried out in the same transaction."""
    await end(statements, await begin(statements, order, now=now), done=0, refused=0, now=now)


async def orders(
    statements: Statements, *, account: str | None, before_id: int | None, limit: int
) -> list[OrderRecord]:
    """Orders, newest first."""
    rows = await statements.all(
        "SELECT * FROM orders WHERE (:account::text IS NULL OR account = :account)"
        " AND (:before_id::bigint IS NULL OR id < :before_id) ORDER BY id DESC LIMIT :limit",
        account=account,
        before_id=before_id,
        limit=limit,
    )
    return [order_record_in(row) for row in rows]
