"""Whatever a handler does becomes an outcome: it cannot crash, block or end the worker."""

import asyncio
import contextvars
import functools
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from apptrack_ingest import Accepted, Application, Duplicate, Rejected, RetryLater, Verdict
from apptrack_ingest.handoff import Again, Done, close, run, running, try_once
from apptrack_ingest.testing import RecordingHandler, an_application

APPLICATION = an_application()


async def outcome_of(step: Any, timeout: float = 30) -> Done | Again:
    return await run(RecordingHandler(step), APPLICATION, timeout)


@pytest.mark.parametrize("verdict", [Accepted("7"), Accepted(), Duplicate("7"), Rejected("no such job")])
async def test_verdicts_pass(verdict: Verdict) -> None:
    assert await outcome_of(verdict) == Done(verdict)


async def test_functions_and_synchronous_handlers_work_too() -> None:
    class Synchronous:
        def handle(self, application: Application) -> Verdict:
            return Accepted(threading.current_thread().name)

    class AsyncCall:
        async def __call__(self, application: Application) -> Verdict:
            return Accepted("called")

    async def coroutine(application: Application) -> Verdict:
        return Accepted(str(application.applicant_id))

    assert await run(coroutine, APPLICATION, 30) == Done(Accepted("40809163"))
    assert await run(functools.partial(coroutine), APPLICATION, 30) == Done(Accepted("40809163"))
    assert await run(lambda application: coroutine(application), APPLICATION, 30) == Done(Accepted("40809163"))
    assert await run(AsyncCall(), APPLICATION, 30) == Done(Accepted("called"))
    assert await try_once(Synchronous(), APPLICATION, 30) == Done(Accepted("handler"))


async def test_a_thread_sees_the_context_of_the_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")
    assert await run(lambda _: Accepted(variable.get()), APPLICATION, 30) == Done(Accepted("seen"))


@pytest.mark.parametrize("wrong", [None, True, "accepted", Accepted])
async def test_what_is_no_verdict(wrong: Any) -> None:
    outcome = await outcome_of(wrong)
    assert isinstance(outcome, Again)
    assert outcome.code == "bad-verdict"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


def ends_with(error: BaseException) -> Callable[[Application], Any]:
    def handle(application: Application) -> Any:
        raise error

    return handle


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ValueError("the ATS\nis \x00 odd"), "ValueError: the ATS is odd"),
        (ValueError(), "ValueError"),
        (SystemExit(3), "SystemExit: 3"),
        (StopIteration(), "RuntimeError: coroutine raised StopIteration"),
        (Unprintable(), "Unprintable: its text cannot be read"),
        (asyncio.CancelledError(), "CancelledError: the handler cancelled itself"),
        (TimeoutError("its own"), "TimeoutError: its own"),
        (BaseExceptionGroup("both", [SystemExit(1)]), "BaseExceptionGroup: both (1 sub-exception)"),
    ],
)
async def test_whatever_is_raised_means_again(error: BaseException, detail: str) -> None:
    assert await outcome_of(error) == Again("exception", detail)


@pytest.mark.parametrize(
    "error",
    [ValueError(), SystemExit(3), StopIteration(), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()],
)
async def test_also_when_it_is_raised_in_a_thread(error: BaseException) -> None:
    outcome = await run(ends_with(error), APPLICATION, 30)
    assert isinstance(outcome, Again)
    assert outcome.code == "exception"


@pytest.mark.parametrize(
    ("about", "kept"),
    [("ats", "ats"), ("application", "application"), (None, None), ("everybody", None), (1, None), ([], None)],
)
async def test_whom_it_is_about_is_one_of_two_words_or_unknown(about: Any, kept: str | None) -> None:
    outcome = await outcome_of(RetryLater("the ATS sleeps", about=about))
    assert outcome == Again("retry-later", "the ATS sleeps", about=kept)


@pytest.mark.parametrize(
    ("after", "kept"),
    [(None, None), (5, 5.0), (-1, 0.0), (1e12, running.MAX_AFTER), (float("nan"), None), ("5", None), (True, None)],
)
async def test_retry_later(after: Any, kept: float | None) -> None:
    assert await outcome_of(RetryLater("the ATS sleeps", after)) == Again("retry-later", "the ATS sleeps", kept)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (42, "42"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (" a  b\n", "a  b"),
        ("", None),
        ("x" * 255, "x" * 255),
    ],
)
async def test_remote_ids_are_made_text(given: Any, kept: str | None) -> None:
    assert await outcome_of(Accepted(given)) == Done(Accepted(kept))


@pytest.mark.parametrize(
    "given",
    ["x" * 256, True, 1.5, b"id", object(), pytest.param(10**5000, id="huge"), "a\0b", "a\nb", "\ud800", "caf\ufffd-1"],
)
async def test_a_remote_id_that_is_none_is_dropped_with_a_note(given: Any) -> None:
    outcome = await outcome_of(Duplicate(given))
    assert isinstance(outcome, Done)
    assert outcome.verdict == Duplicate(None)
    assert outcome.note is not None


async def test_reasons_are_cleaned_and_bounded() -> None:
    outcome = await outcome_of(Rejected("bad\x00\ud800\n" + "x" * 5000))
    assert isinstance(outcome, Done)
    assert isinstance(outcome.verdict, Rejected)
    assert outcome.verdict.reason.startswith("bad xxx")
    assert len(outcome.verdict.reason) == running.MAX_TEXT
    assert await outcome_of(Rejected("")) == Done(Rejected("the handler gave no reason"))


class Waits:
    """Waits for ever, tidies up when it is cancelled, and remembers both."""

    def __init__(self, then: Verdict | None = None, stubborn: bool = False) -> None:
        self.started = asyncio.Event()
        self.tidied = False
        self.released = asyncio.Event()
        self._then = then
        self._stubborn = stubborn

    async def handle(self, application: Application) -> Verdict | None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.tidied = True
            if self._stubborn:
                await self.released.wait()
            elif self._then is None:
                raise
        return self._then


async def test_a_timeout_cancels_and_waits_for_the_tidying_up() -> None:
    handler = Waits()
    assert await run(handler, APPLICATION, 0.01) == Again("timeout", "no verdict within 0.01 seconds")
    assert handler.tidied


async def test_a_verdict_reached_in_the_moment_of_the_timeout_counts() -> None:
    assert await run(Waits(then=Accepted("7")), APPLICATION, 0.01) == Done(Accepted("7"))


async def test_a_handler_that_will_not_be_cancelled_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CANCEL_GRACE", 0.01)
    handler = Waits(stubborn=True)
    outcome = await run(handler, APPLICATION, 0.01)
    assert isinstance(outcome, Again)
    assert outcome.code == "timeout"
    handler.released.set()


async def test_cancelling_the_caller_cancels_the_handler() -> None:
    handler = Waits()
    task = asyncio.create_task(run(handler, APPLICATION, 30))
    await handler.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handler.tidied


async def test_threads_that_overrun_harm_nobody_but_their_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_OVERRUNNING", 2)
    release = threading.Event()

    def stuck(application: Application) -> Verdict:
        release.wait(60)
        return Accepted()

    for _ in range(2):
        outcome = await run(stuck, APPLICATION, 0.01)
        assert isinstance(outcome, Again)
        assert outcome.code == "timeout"
    outcome = await run(stuck, APPLICATION, 30)
    assert isinstance(outcome, Again)
    assert outcome.code == "overrunning"
    assert await run(lambda _: Accepted(), APPLICATION, 30) == Done(Accepted())

    threads = [thread for thread in threading.enumerate() if thread.name == "handler"]
    release.set()
    for thread in threads:
        thread.join(10)
    assert await run(stuck, APPLICATION, 30) == Done(Accepted())


async def test_a_stuck_thread_does_not_hold_up_the_end_of_the_process() -> None:
    program = (
        "import asyncio, threading\n"
        "from apptrack_ingest.handoff import run\n"
        "from apptrack_ingest.testing import an_application\n"
        "stuck = lambda application: threading.Event().wait()\n"
        "print(asyncio.run(run(stuck, an_application(), 0.01)).code)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert (out.strip(), process.returncode) == (b"timeout", 0)


async def test_a_thread_makes_one_call_at_a_time_and_another_when_it_is_done() -> None:
    together = threading.Barrier(3)

    def handle(application: Application) -> Verdict:
        together.wait(10)
        return Accepted(threading.get_ident())  # type: ignore[arg-type]

    for _ in range(20):
        outcomes = await asyncio.gather(*(run(handle, APPLICATION, 30) for _ in range(3)))
        threads = {outcome.verdict.remote_id for outcome in outcomes if isinstance(outcome, Done)}  # type: ignore[union-attr]
        assert len(threads) == 3
    assert sum(thread.name == "handler" for thread in threading.enumerate()) < 10


async def test_a_thread_is_never_another_handlers() -> None:
    """Which would find there what the first one's library keeps by thread."""

    def one(application: Application) -> Verdict:
        kept.login = "one's"
        return Accepted()

    def other(application: Application) -> Verdict:
        return Accepted(getattr(kept, "login", "nobody's"))

    kept = threading.local()
    for _ in range(3):
        await run(one, APPLICATION, 30)
        outcome = await run(other, APPLICATION, 30)
        assert isinstance(outcome, Done) and outcome.verdict == Accepted("nobody's")


@pytest.mark.parametrize("error", [None, ValueError()])
async def test_a_thread_that_waits_holds_on_to_nothing_and_ends(error: Exception | None) -> None:
    application = an_application()
    before = sys.getrefcount(application)

    def handle(application: Application) -> Verdict:
        if error:
            raise error
        return Accepted()

    await run(handle, application, 30)
    if error:
        error.__traceback__ = None
    waiting = [thread for thread in threading.enumerate() if thread.name == "handler"]
    assert waiting
    gc.collect()  # an error and the frames it went through hold each other
    assert sys.getrefcount(application) == before
    for thread in waiting:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_close_is_optional_bounded_and_never_raises() -> None:
    calls = []

    class Closes:
        async def close(self) -> None:
            calls.append("async")

    class ClosesInAThread:
        def close(self) -> None:
            calls.append("sync")
            raise OSError

    class Hangs:
        async def close(self) -> None:
            await asyncio.Event().wait()

    for handler in (Closes(), ClosesInAThread(), object()):
        await close(handler)
    await close(Hangs(), timeout=0.01)
    assert calls == ["async", "sync"]
