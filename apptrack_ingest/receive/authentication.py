"""Leads the conversation of AUTH (RFC 4954), by PLAIN (RFC 4616) or LOGIN, to its reply."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.policy import Reply
from apptrack_ingest.receive.rates import Doorkeeper
from apptrack_ingest.receive.users import TooBusy, Users

Ask = Callable[[str], Awaitable[bytes]]
"""Sends a challenge (base64, or "") and returns the line that answers it, without its end; raises Refused."""

LONGEST_LINE: Final = 12_288
"""Bytes in a line of the conversation, CRLF included (RFC 4954, section 4)."""

WRONG_AT_MOST: Final = 3
"""The so manieth wrong password in a session ends it."""


class Refused(Exception):
    """The conversation ended with this reply; its text is the reply's, never the peer's."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.render())


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a peer claims to be and to know; neither is ever shown."""

    user: str = field(repr=False)
    password: str = field(repr=False)


class Authentication:
    """AUTH in one session. `user` is who proved to be who they are; None: nobody yet. `doorkeeper` counts the wrong
    passwords of the network of `peer`."""

    def __init__(self, users: Users, doorkeeper: Doorkeeper | None, peer: str) -> None:
        self.user: str | None = None
        self._users = users
        self._doorkeeper = doorkeeper
        self._peer = peer
        self._wrong = 0

    async def attempt(self, arg: str, ask: Ask) -> Reply:
        """The reply to AUTH with this argument; after TOO_MANY_LOGINS the session is to be ended. `ask` is not kept, as it
        is the session's: two that hold each other are left to the collector of garbage, at some cost for each mail."""
        try:
            reply = await self._checked(await credentials(arg, ask))
        except Refused as refused:
            reply = refused.reply
        if reply is not policy.WRONG_CREDENTIALS:
            return reply
        self._wrong += 1
        return policy.TOO_MANY_LOGINS if self._wrong >= WRONG_AT_MOST else reply

    async def _checked(self, claimed: Credentials) -> Reply:
        # Counted before it is looked at, and taken back after: else many sessions could guess at the same time.
        if self._doorkeeper is not None and self._doorkeeper.login(self._peer) is not None:
            return policy.TOO_MANY_LOGINS
        try:
            right = await self._users.check(claimed.user, claimed.password)
        except TooBusy:
            self._not_wrong()
            return policy.AUTH_BUSY
        if not right:
            return policy.WRONG_CREDENTIALS
        self._not_wrong()
        self.user = claimed.user
        return policy.AUTHENTICATED

    def _not_wrong(self) -> None:
        if self._doorkeeper is not None:
            self._doorkeeper.not_wrong(self._peer)


async def credentials(arg: str, ask: Ask) -> Credentials:
    """The credentials that the argument of AUTH, and the answers to our challenges, come to; Refused where they do not."""
    words = arg.split()
    if not 1 <= len(words) <= 2:
        raise Refused(policy.BAD_ARGUMENTS)
    mechanism = MECHANISMS.get(words[0].upper())
    if mechanism is None:
        raise Refused(policy.UNKNOWN_MECHANISM)
    return await mechanism(_initial(words[1]) if len(words) == 2 else None, ask)


async def _plain(initial: bytes | None, ask: Ask) -> Credentials:
    """Whom to act as, name and password, NUL between them; acting as somebody else is nobody's right here."""
    response = await _answer(ask, "") if initial is None else initial
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise Refused(policy.BAD_ENCODING)
    if parts[0] not in (b"", parts[1]):
        raise Refused(policy.WRONG_CREDENTIALS)
    return Credentials(_text(parts[1]), _text(parts[2]))


async def _login(initial: bytes | None, ask: Ask) -> Credentials:
    """Name, then password, each asked for in the words that every client knows."""
    user = await _answer(ask, "Username:") if initial is None else initial
    return Credentials(_text(user), _text(await _answer(ask, "Password:")))


MECHANISMS: Final[Mapping[str, Callable[[bytes | None, Ask], Awaitable[Credentials]]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
}


def _initial(word: str) -> bytes:
    """The initial response; "=" stands for an empty one."""
    return b"" if word == "=" else _decoded(word)


async def _answer(ask: Ask, question: str) -> bytes:
    line = await ask(base64.b64encode(question.encode()).decode())
    if line == b"*":
        raise Refused(policy.AUTH_CANCELLED)
    return _decoded(line)


def _decoded(line: str | bytes) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except ValueError:
        raise Refused(policy.BAD_ENCODING) from None


def _text(wire: bytes) -> str:
    try:
        return wire.decode()
    except UnicodeDecodeError:
        raise Refused(policy.BAD_ENCODING) from None
