"""The few pages: is it alive, is it ready, what does it count; nothing here needs a secret or shows a candidate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from apptrack_ingest import logs, metrics
from apptrack_ingest.errors import SpoolError
from apptrack_ingest.metrics import Surroundings
from apptrack_ingest.model import Backlog

BACKLOG_FOR = 5.0
"""Seconds one count of the backlog serves all scrapes, so that scraping cannot load the database."""

READY_FOR = 1.0
"""Seconds one look at the checks serves all who ask: one of them commits a write to the spool."""

DEADLINE = 3.0
"""Seconds the spool is waited for; Prometheus gives a scrape ten, Kubernetes a probe one by default."""

INDEX = "apptrack-ingest: /livez /readyz /metrics\n"

_NO_STORE = {"Cache-Control": "no-store"}

_log = logs.get("web")


T = TypeVar("T")


async def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Probe:
    """What the pages ask of the process they stand for.

    `failed_checks` gives the code of every readiness check that fails now (spool-unavailable, spool-not-writable,
    intake-down, worker-down …), none when ready; `backlog` counts the spool; `alive` says whether the process still
    does its work (that the event loop turns, the answer itself shows); `surroundings` is asked at each scrape, as a
    reload may change the accounts. All may raise and may take long: the pages answer all the same.
    """

    failed_checks: Callable[[], Awaitable[tuple[str, ...]]]
    backlog: Callable[[], Awaitable[Backlog]]
    surroundings: Callable[[], Surroundings] = Surroundings
    alive: Callable[[], Awaitable[bool]] = _always
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    deadline: float = DEADLINE


def create_app(probe: Probe) -> Starlette:
    """The application that serves `/livez`, `/readyz` and `/metrics`; `/` is left for a console to come."""
    pages = _Pages(probe)
    return Starlette(
        routes=[
            Route("/", pages.index),
            Route("/livez", pages.livez),
            Route("/readyz", pages.readyz),
            Route("/metrics", pages.metrics),
        ]
    )


class _Pages:
    """The endpoints, with what they remember between requests."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._backlog = _Remembered(probe, self._count, keep=BACKLOG_FOR)
        self._failed = _Remembered(probe, self._check, keep=READY_FOR)
        self._ailing: set[str] = set()

    async def index(self, _: Request) -> Response:
        return PlainTextResponse(INDEX)

    async def livez(self, _: Request) -> Response:
        try:
            async with asyncio.timeout(self._probe.deadline):
                alive = await self._probe.alive()
        except Exception as error:  # noqa: BLE001  a probe that cannot tell is not alive
            _log.warning("liveness check failed", **logs.exception_fields(error))
            alive = False
        return PlainTextResponse("alive\n" if alive else "not alive\n", 200 if alive else 503, _NO_STORE)

    async def readyz(self, _: Request) -> Response:
        failed = await self._failed.get()
        return JSONResponse({"ready": not failed, "failed": sorted(failed)}, 503 if failed else 200, _NO_STORE)

    async def metrics(self, _: Request) -> Response:
        backlog = await self._backlog.get()
        body, content_type = metrics.exposition(backlog, self._probe.clock(), self._probe.surroundings())
        return Response(body, headers={**_NO_STORE, "Content-Type": content_type})

    async def _count(self) -> Backlog | None:
        try:
            async with asyncio.timeout(self._probe.deadline):
                backlog = await self._probe.backlog()
        except Exception as error:  # noqa: BLE001  whatever ails the spool, the other metrics are still wanted
            self._warn("backlog not counted", error)
            return None
        self._ailing.discard("backlog not counted")
        return backlog

    async def _check(self) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(self._probe.deadline):
                failed = await self._probe.failed_checks()
        except Exception as error:  # noqa: BLE001  a check that cannot be made has failed
            self._warn("readiness not known", error)
            return (_failure(error),)
        self._ailing.discard("readiness not known")
        return failed

    def _warn(self, what: str, error: Exception) -> None:
        """Once until it is known again: it is asked for every few seconds."""
        if what not in self._ailing:
            self._ailing.add(what)
            _log.warning(what, **logs.exception_fields(error))


def _failure(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no-answer-in-time"
    return "spool-unavailable" if isinstance(error, SpoolError) else "check-failed"


class _Remembered(Generic[T]):
    """One answer for all who ask within `keep` seconds; those who come while it is being found wait for the same."""

    def __init__(self, probe: Probe, find: Callable[[], Awaitable[T]], *, keep: float) -> None:
        self._monotonic = probe.monotonic
        self._find = find
        self._keep = keep
        self._lock = asyncio.Lock()
        self._answer: tuple[float, T] | None = None

    async def get(self) -> T:
        async with self._lock:
            if self._answer is None or self._answer[0] <= self._monotonic():
                found = await self._find()
                self._answer = (self._monotonic() + self._keep, found)
            return self._answer[1]
