"""Runs one handler for one application under its time-out, and turns whatever it does into one of two outcomes."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import math
import os
import queue
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from apptrack_ingest.deadlines import ends_within
from apptrack_ingest.errors import RetryLater
from apptrack_ingest.model import Accepted, Application, Duplicate, Rejected, Verdict

MAX_REMOTE_ID = 255
"""Characters of a remote id that are kept; an id is of use only whole, so a longer one is dropped, not cut."""
MAX_TEXT = 2000
"""Characters of a reason that are kept."""
MAX_AFTER = 24 * 3600.0
"""Seconds a handler can put off the next attempt at most: a wrong date must not use up the whole schedule."""
CANCEL_GRACE = 10.0
"""Seconds a cancelled handler has for tidying up before it is left to itself."""
MAX_OVERRUNNING = 32
"""Threads of one synchronous handler that may run on past their time-out; with more, it is not called for now."""
IDLE = 1.0
"""Seconds that a thread without a call waits for another."""


@dataclass(frozen=True, slots=True)
class Done:
    """The handler gave a verdict. `note` says in words what had to be put right about it, for the history."""

    verdict: Verdict
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """No verdict: call again, not before `after` seconds when that is set.

    `code` is fit for logs and metrics: retry-later, timeout, exception, bad-verdict, overrunning. `detail` is in the
    handler's words and belongs into the spool alone. `about` is what the handler said of whom it concerns: "ats", all
    applications of the account; "application", this one alone; None, it did not say.
    """

    code: str
    detail: str
    after: float | None = None
    about: Literal["ats", "application"] | None = None


Outcome = Done | Again


async def run(handler: Any, application: Application, timeout: float) -> Outcome:
    """What came of handing `application` to `handler` (an instance with `handle`, or a function) in `timeout` seconds.

    Never raises but CancelledError, when the caller itself is cancelled; the handler is then cancelled too and waited
    for. At the time-out an asynchronous handler is cancelled; a synchronous one runs in a thread of its own, which
    cannot be stopped: it runs on unheeded, and holds up neither other handlers nor the end of the process.
    """
    task = asyncio.create_task(_guarded(getattr(handler, "handle", handler), application))
    try:
        done = await ends_within(task, timeout)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if done:
        return _result(task)
    await _cancel(task)
    # A handler that came to its verdict in this very moment has told us what the ATS holds: better known than not.
    late = _result(task) if task.done() else None
    return late if isinstance(late, Done) else Again("timeout", f"no verdict within {timeout:g} seconds")


try_once = run
"""The same, for trying a handler by hand."""


async def close(handler: Any, timeout: float = CANCEL_GRACE) -> None:
    """Call the handler's `close()` if it has one; it gets `timeout` seconds, and its errors no longer matter."""
    method = getattr(handler, "close", None)
    if callable(method):
        with contextlib.suppress(Exception):
            await asyncio.wait_for(_call(method), timeout)


# --- calling ----------------------------------------------------------------------------------------------------------


async def _guarded(handle: Callable[..., Any], application: Application) -> Outcome:
    """Catches inside the task: a SystemExit that left it would end the event loop."""
    try:
        return _done(await _call(handle, application))
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except RetryLater as error:
        words = _words(error.reason) or "the handler gave no reason"
        return Again("retry-later", words, _seconds(error.after), _about(error))
    except _Overrunning:
        return Again(
            "overrunning", f"{MAX_OVERRUNNING} earlier calls of this handler have not come back yet", about="ats"
        )
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is no verdict; SystemExit included
        return _failed(error)


def _result(task: asyncio.Task[Outcome]) -> Outcome:
    if task.cancelled():
        return Again("exception", "CancelledError: the handler cancelled itself")
    error = task.exception()
    return _failed(error) if error else task.result()


async def _cancel(task: asyncio.Task[Outcome]) -> None:
    task.cancel()
    _, pending = await asyncio.wait({task}, timeout=CANCEL_GRACE)
    for stubborn in pending:
        _left.add(stubborn)  # the loop itself keeps weak references only
        stubborn.add_done_callback(_left.discard)


_left: set[asyncio.Task[Outcome]] = set()


async def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return await function(*arguments)
    result = await _in_thread(function, *arguments)
    return await result if isinstance(result, Awaitable) else result


class _Overrunning(Exception):
    """Too many threads of this handler run on past their time-out."""


_abandoned: dict[int, list["_Call"]] = {}


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a daemon thread that nothing else runs in: a pool would be used up by calls that hang, and waited for at exit."""
    owner = getattr(function, "__self__", function)
    key = id(owner)  # nobody else's while a thread holds on to the object
    _must_not_pile_up(key)
    call = _Call(function, arguments)
    _thread_of(owner).calls.put(call)
    try:
        result, error = await call.answered
    except asyncio.CancelledError:
        _abandoned.setdefault(key, []).append(call)
        raise
    if error is not None:
        # Only the main thread is ever interrupted or cancelled: from here these are an error like others.
        raise error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
    return result


_Answer = tuple[Any, BaseException | None]


class _Call:
    """What a thread is to do; it holds on to nothing of it once that is done, for it may be looked at later."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[_Answer] = self._loop.create_future()
        self.ended = False
        self._work: Callable[[], Any] | None = functools.partial(contextvars.copy_context().run, function, *arguments)

    def made(self) -> _Answer:
        work, self._work = self._work, None
        assert work is not None
        try:
            return work(), None
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting side, which sorts it
            return None, error
        finally:
            self.ended = True

    def tell(self, answer: _Answer) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, self.answered, answer)


class _Thread(threading.Thread):
    """Makes one call of a handler, and another of the same if that comes soon: starting a thread takes twice as long as
    waking one. Never another handler's, which may find in it what this one's library keeps by thread (a login)."""

    def __init__(self, owner: object) -> None:
        super().__init__(name="handler", daemon=True)
        self.owner = owner
        self.calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            try:
                call = self.calls.get(timeout=IDLE)
            except queue.Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # somebody has just taken it: a call is on its way
                    continue
                return
            answer = call.made()
            _idle.append(self)  # before the answer is heard, so that the next call finds it
            call.tell(answer)
            del call, answer  # the next one may be long in coming


_idle: list[_Thread] = []
"""The threads that wait for a call, the last used at the end."""
os.register_at_fork(after_in_child=_idle.clear)


def _thread_of(owner: object) -> _Thread:
    for thread in reversed(tuple(_idle)):
        if thread.owner is owner:
            with contextlib.suppress(ValueError):  # it has just ended, or somebody else took it
                _idle.remove(thread)
                return thread
    return _Thread(owner)


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def _must_not_pile_up(key: int) -> None:
    still = [call for call in _abandoned.pop(key, []) if not call.ended]
    if still:
        _abandoned[key] = still
    if len(still) >= MAX_OVERRUNNING:
        raise _Overrunning


# --- what came back ---------------------------------------------------------------------------------------------------


def _done(verdict: Any) -> Outcome:
    if isinstance(verdict, Accepted | Duplicate):
        remote_id, note = _remote_id(verdict.remote_id)
        return Done(Accepted(remote_id) if isinstance(verdict, Accepted) else Duplicate(remote_id), note)
    if isinstance(verdict, Rejected):
        return Done(Rejected(_words(verdict.reason) or "the handler gave no reason"))
    returned = f"the class {verdict.__name__}" if inspect.isclass(verdict) else type(verdict).__name__
    return Again("bad-verdict", f"the handler returned {returned}, not Accepted(), Duplicate() or Rejected()")


def _failed(error: BaseException) -> Again:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a foreign __str__
        text = "its text cannot be read"
    return Again("exception", _words(f"{type(error).__name__}: {text}").removesuffix(":"))


def _remote_id(value: Any) -> tuple[str | None, str | None]:
    """The id as text, and a note when it had to be dropped: a wrong id is worse than none."""
    if value is None:
        return None, None
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        return None, f"the remote id was dropped: it is a {type(value).__name__}, not text or a whole number"
    text = str(value).strip() if not _too_long(value) else None
    if text is None or len(text) > MAX_REMOTE_ID:
        return None, f"the remote id was dropped: it is longer than {MAX_REMOTE_ID} characters"
    if not text.isprintable() or "\ufffd" in text:  # U+FFFD stands for bytes that somebody could not decode
        return None, "the remote id was dropped: it holds characters that are not printable, or were damaged"
    return text or None, None


def _too_long(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > 4 * MAX_REMOTE_ID


def _words(value: Any) -> str:
    """Words for people: one string without control characters, of bounded length."""
    text = _clean(value if isinstance(value, str) else type(value).__name__)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _clean(text: str) -> str:
    """On one line, without control characters and lone surrogates (neither has a place in XML or UTF-8)."""
    return " ".join(_printable(text).split())


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _about(error: RetryLater) -> Literal["ats", "application"] | None:
    said: object = getattr(error, "about", None)  # a subclass may not have called ours
    return "ats" if said == "ats" else "application" if said == "application" else None


def _seconds(after: Any) -> float | None:
    if isinstance(after, bool) or not isinstance(after, int | float) or not math.isfinite(after):
        return None
    return min(max(0.0, after), MAX_AFTER)
