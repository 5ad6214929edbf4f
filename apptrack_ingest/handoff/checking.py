"""Asks a handler whether it could work now, where it can tell (docs/handlers.md, "check")."""

import asyncio
import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apptrack_ingest.errors import ConfigError, HandlerError, IngestError, RetryLater
from apptrack_ingest.handoff.configure import build, redacted
from apptrack_ingest.handoff.running import close

MAX_WORDS = 300
"""Characters of what a handler says that are shown."""


def check(name: str, settings: Mapping[str, Any], timeout: float, *, ask: bool = True) -> str | None:
    """What the handler says of itself, built for this alone and closed again, in a loop of its own: it may block as it
    likes. None where it has no `check`; with `ask` off it is only built.

    Raises ConfigError and HandlerError where it cannot be built, and IngestError with the handler's own words, without the
    secrets of its settings, where it says that it cannot work.
    """
    return asyncio.run(_check(name, settings, timeout, ask))


class _Unwaited(ThreadPoolExecutor):
    """Threads that the end of the loop does not wait for: one of them may hang."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Begins nothing more, and waits for nothing."""
        super().shutdown(wait=False, cancel_futures=True)


async def _check(name: str, settings: Mapping[str, Any], timeout: float, ask: bool) -> str | None:
    asyncio.get_running_loop().set_default_executor(_Unwaited(thread_name_prefix="check"))
    handler = build(name, settings)
    function = getattr(handler, "check", None)
    if not ask or not callable(function):
        await close(handler, timeout)
        return None
    try:
        async with asyncio.timeout(timeout):
            said = function()
            said = await said if inspect.isawaitable(said) else said
    except TimeoutError:
        raise IngestError(f"no answer within {timeout:g} seconds") from None
    except RetryLater as error:
        raise IngestError(_words(name, settings, error.reason)) from None
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - a handler may raise anything
        raise IngestError(_words(name, settings, f"{type(error).__name__}: {error}")) from None
    finally:
        await close(handler, timeout)
    return _words(name, settings, said) if isinstance(said, str) and said else "it says that it can work"


def _words(name: str, settings: Mapping[str, Any], said: object) -> str:
    """On one line, bounded, and without its secrets; where that cannot be made sure, nothing of it."""
    try:
        text = redacted(name, settings, str(said))
    except (ConfigError, HandlerError):
        return "what it says cannot be shown"
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"
