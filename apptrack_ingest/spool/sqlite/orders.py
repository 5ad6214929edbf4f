"""What people ordered about more than one application: who, when, what, why, and what came of it."""

import sqlite3

from apptrack_ingest.spool.records import Order, OrderRecord
from apptrack_ingest.spool.rows import order_record_in


def begin(connection: sqlite3.Connection, order: Order, *, now: float) -> int:
    """Keeps an order that is under way; returns its id."""
    cursor = connection.execute(
        "INSERT INTO orders (at, actor, action, account, subject, note) VALUES (?, ?, ?, ?, ?, ?)",
        (now, order.actor, order.action, order.account, order.subject, order.note),
    )
    return int(cursor.lastrowid or 0)


def end(connection: sqlite3.Connection, order_id: int, *, done: int, refused: int, now: float) -> None:
    """Keeps what came of it."""
    connection.execute(
        "UPDATE orders SET done = ?, refused = ?, ended_at = ? WHERE id = ?", (done, refused, now, order_id)
    )


def keep(connection: sqlite3.Connection, order: Order, *, now: float) -> None:
    """Keeps an order that was carried out in the same transaction."""
    end(connection, begin(connection, order, now=now), done=0, refused=0, now=now)


def orders(
    connection: sqlite3.Connection, *, account: str | None, before_id: int | None, limit: int
) -> list[OrderRecord]:
    """Orders, newest first."""
    rows = connection.execute(
        "SELECT * FROM orders WHERE (:account IS NULL OR account = :account)"
        " AND (:before_id IS NULL OR id < :before_id) ORDER BY id DESC LIMIT :limit",
        {"account": account, "before_id": before_id, "limit": limit},
    )
    return [order_record_in(row) for row in rows]
