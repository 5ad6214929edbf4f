"""One thing looked at: what is asked, what was found, and what to do; no look can hold up or break another."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from apptrack_ingest.errors import IngestError

T = TypeVar("T")

PATIENCE = 15.0
"""Seconds one look may take."""


class Level(StrEnum):
    """How it stands: as it should, as it can but had better not, or so that something does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look found, in words without secrets, and what to do about it (empty where all is well)."""

    check: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One look. `network` says that it goes beyond this machine and the spool's database; `seconds` is its time."""

    name: str
    look: Callable[[], Awaitable[Finding | Iterable[Finding]]]
    advice: str = "see docs/runbook.md"
    network: bool = False
    seconds: float = PATIENCE

    def ok(self, found: str) -> Finding:
        """All is well."""
        return Finding(self.name, Level.OK, found)

    async def findings(self) -> list[Finding]:
        """What it found; never raises. What broke is told by its kind alone, unless the words are ours."""
        try:
            async with asyncio.timeout(self.seconds):
                found = await self.look()
            return [found] if isinstance(found, Finding) else list(found)
        except TimeoutError:
            return [self._failed(f"no answer within {self.seconds:g} seconds")]
        except IngestError as error:
            return [self._failed(" ".join(str(error).split()))]
        except Exception as error:  # noqa: BLE001 - one look that breaks must not cost the others
            return [self._failed(f"the look itself broke ({type(error).__name__})")]

    def _failed(self, found: str) -> Finding:
        return Finding(self.name, Level.FAIL, found, self.advice)


async def apart(work: Callable[[], T]) -> T:
    """What `work` returns, in a thread that nothing waits for should it hang: neither the others nor our end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[T | None, Exception | None]] = loop.create_future()

    def settle(answer: tuple[T | None, Exception | None]) -> None:
        if not done.done():
            done.set_result(answer)

    def run() -> None:
        answer: tuple[T | None, Exception | None]
        try:
            answer = work(), None
        except Exception as error:  # noqa: BLE001 - handed over to the side that waits
            answer = None, error
        except BaseException as error:  # noqa: BLE001 - SystemExit of a foreign handler
            answer = None, RuntimeError(type(error).__name__)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, answer)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    result, error = await done
    if error is not None:
        raise error
    return result  # type: ignore[return-value] # there is one where there is no error
