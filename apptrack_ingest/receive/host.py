"""What a connection needs from the listener it came in by, and what the listener asks of a connection."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.deciding import Delivery
from apptrack_ingest.receive.entry import Entry
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.receive.reception import Reception
from apptrack_ingest.receive.tls import Tls
from apptrack_ingest.receive.users import Users


class Connected(Protocol):
    """An open connection, before its session or in it."""

    def drain(self) -> None:
        """End it as soon as nothing is lost by that."""

    def abort(self) -> None:
        """Cut it without a word."""


class Host(Protocol):
    """The listener; `replies` are those of our table, by their lines, `common` what its sessions have in common."""

    reception: Reception
    replies: Mapping[str, Reply]
    common: dict[str, Any]
    users: Users
    budget: Budget
    draining: bool

    def identity(self, entry: Entry) -> Tls | None:
        """Certificate and key for connections that come in there; None: no TLS."""

    def joined(self, connection: Connected) -> None:
        """A connection was made."""

    def admit(self, connection: Connected, address: str) -> Limit | None:
        """Whether a peer, known by its address now, may come in; the limit that it met if not."""

    def became(self, before: Connected, after: Connected) -> None:
        """It was let in, and is a session now."""

    def left(self, connection: Connected) -> None:
        """It is gone."""

    def deliver(
        self,
        made: Callable[[bytes | None], Delivery],
        content: Callable[[], Awaitable[bytes | None]],
        release: Callable[[], None],
        answer: Callable[[Reply], None],
    ) -> asyncio.Task[None]:
        """Begin to deliver a mail, `made` of the bytes that `content` gives (None: there is no room for them), in a task
        that outlives the session if need be; `release` is called once when nothing holds these bytes any more, and `answer`
        with what became of it, unless the task is cancelled."""
