"""Knows who may AUTH, by password hashes that are slow to guess and tell nothing by the time they take."""

import asyncio
import base64
import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

AT_ONCE: Final = 2
"""Passwords checked at a time; each takes the memory of its hash."""
MOST_MEMORY: Final = 128 * 2**20
"""What one check may take, in bytes."""
WAITING: Final = 16
"""So many more may wait to be checked: who floods us with passwords must not make everybody else wait for minutes."""
_KIND = "scrypt"


class TooBusy(Exception):
    """Too many passwords wait to be checked; nothing was found out about this one."""


@dataclass(frozen=True, slots=True, repr=False)
class _Hash:
    """A scrypt hash (RFC 7914): cost `n`, block size `r`, parallelisation `p`."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @property
    def cost(self) -> int:
        return self.n * self.r * self.p

    def matches(self, password: bytes) -> bool:
        return hmac.compare_digest(_digest(password, self.salt, self.n, self.r, self.p, len(self.digest)), self.digest)


class Users:
    """Who may AUTH, by name; the hashes are those of `make_hash`. ValueError, naming the user, where one is none.

    Names and passwords are compared in Unicode's composed form (NFC, as RFC 8265 has it).
    """

    def __init__(self, by_name: Mapping[str, str]) -> None:
        self._hashes = {_composed(name): _read(name, text) for name, text in by_name.items()}
        # For users there are none of: checked all the same, so that the time of the answer does not tell.
        costliest = max(self._hashes.values(), key=lambda known: known.cost, default=None)
        self._nobody = _Hash(*_parameters(costliest), secrets.token_bytes(16), secrets.token_bytes(32))
        self._under_way = 0
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="apptrack-auth")

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._hashes)

    async def check(self, user: str, password: str) -> bool:
        """Whether the user exists and this is the password; off the loop, at most two at a time. TooBusy where too many
        wait already."""
        if self._under_way >= AT_ONCE + WAITING:
            raise TooBusy
        known = self._hashes.get(_composed(user))
        loop = asyncio.get_running_loop()
        wire = _composed(password).encode("utf-8", "surrogatepass")
        self._under_way += 1
        try:
            right = await loop.run_in_executor(self._threads, (known or self._nobody).matches, wire)
        finally:
            self._under_way -= 1
        return right and known is not None


def make_hash(password: str, *, n: int = 2**14, r: int = 8, p: int = 5) -> str:
    """A password's hash as the settings hold it, `scrypt$N$r$p$salt$hash`; the cost is OWASP's, a fifth of a second."""
    salt = secrets.token_bytes(16)
    digest = _digest(_composed(password).encode(), salt, n, r, p, 32)
    encoded = (base64.b64encode(part).decode() for part in (salt, digest))
    return "$".join((_KIND, str(n), str(r), str(p), *encoded))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _parameters(known: _Hash | None) -> tuple[int, int, int]:
    return (known.n, known.r, known.p) if known else (2**14, 8, 5)


def _digest(password: bytes, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
    memory = 128 * r * (n + p + 4)
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=length)


def _read(name: str, text: str) -> _Hash:
    """The hash; whatever is wrong with it is told by the user's name alone."""
    try:
        kind, *numbers, salt, digest = text.strip().split("$")
        n, r, p = (int(number) for number in numbers)
        made = _Hash(n, r, p, base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True))
    except ValueError:
        made, kind = None, ""
    if made is None or kind != _KIND or not _sound(made):
        raise ValueError(f"user {name}: not a usable password hash (scrypt$N$r$p$salt$hash)")
    return made


def _sound(made: _Hash) -> bool:
    """Whether the parameters are ones that scrypt takes, guard anything, and cost no more than a login may."""
    power = made.n >= 2**12 and made.n & (made.n - 1) == 0
    bounded = 1 <= made.r <= 32 and 1 <= made.p <= 16 and 128 * made.n * made.r <= MOST_MEMORY
    return power and bounded and 8 <= len(made.salt) <= 64 and 16 <= len(made.digest) <= 64
