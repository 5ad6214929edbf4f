"""Asks a handler to erase what it keeps of one person, where it can (docs/handlers.md, "Forgetting a person")."""

import asyncio
import inspect
from typing import Any

from apptrack_ingest.errors import IngestError
from apptrack_ingest.handoff.loading import told
from apptrack_ingest.model import Person


def can_forget(handler: Any) -> bool:
    """Whether the handler has the hook."""
    return callable(getattr(handler, "forget", None))


async def forget(handler: Any, person: Person, timeout: float) -> int:
    """How many records of the person the handler erased, in at most `timeout` seconds.

    Raises IngestError with the handler's own words, which are for the person who asked and belong into no log.
    """
    try:
        async with asyncio.timeout(timeout):
            erased = await _call(handler.forget, person)
    except TimeoutError:
        raise IngestError(f"no answer within {timeout:g} seconds") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a handler may raise anything
        raise IngestError(told(error)) from None
    if isinstance(erased, bool) or not isinstance(erased, int):
        raise IngestError(f"`forget` must return how many it erased, not {type(erased).__name__}")
    return erased


async def _call(function: Any, person: Person) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(person)
    result = await asyncio.to_thread(function, person)
    return await result if inspect.isawaitable(result) else result
