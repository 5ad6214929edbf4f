"""What stands around each role's process: signals and reloads, its own health and metrics, the spool's readiness."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from apptrack_ingest import logs
from apptrack_ingest.errors import ConfigError, HandlerError, SpoolError, SpoolUnavailable
from apptrack_ingest.receive.pressure import Room, room_of, shortages
from apptrack_ingest.service import build, intake
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.web.app import Probe, create_app
from apptrack_ingest.web.server import WebServer

log = logs.get("service")


def beside(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` in a task that is among `tasks` until it ends (the loop itself keeps weak references only)."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@contextlib.asynccontextmanager
async def signals(
    path: Path | None, found: Settings, reload: Callable[[Settings], Any]
) -> AsyncIterator[asyncio.Event]:
    """SIGTERM and SIGINT set the event; SIGHUP reads the settings anew."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    present = found
    reloading: set[asyncio.Task[None]] = set()

    async def read_anew() -> None:
        nonlocal present
        try:
            new = build.checked(path)
            await reload(new)
        except (ConfigError, HandlerError, SpoolError, ValueError) as error:
            log_problems("settings not taken up; the former ones stay in force", error)
            return
        for section in build.needing_restart(present, new):
            log.warning("changed, but taken up only by a restart", section=section)
        present = new
        log.info("settings taken up", accounts=sorted(new.known_accounts))

    def hang_up() -> None:
        beside(reloading, read_anew())

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def log_problems(event: str, error: Exception) -> None:
    """Logs every mistake in the settings on a line of its own; values are masked where they are secret."""
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    for problem in problems:
        log.error(event, problem=str(problem))


@contextlib.asynccontextmanager
async def own_pages(
    present: Callable[[], Settings], spool: Spool, role: str, wanted: bool
) -> AsyncIterator[int | None]:
    """The process's own health and metrics, unless a supervisor serves them; gives the port. `present` gives the
    settings in force, which a reload may change."""
    if not wanted:
        yield None
        return

    async def failed_checks() -> tuple[str, ...]:
        return await spool_checks(spool, present())

    probe = Probe(failed_checks, spool.backlog, lambda: build.surroundings_of(present(), {role: True}, None))
    server = WebServer(create_app(probe))
    port = await server.start(present().web.host, present().web.port)
    try:
        yield port
    finally:
        await server.stop()


async def usable(spool: Spool) -> bool:
    """Whether the spool can be used now; where not, that is logged, and everybody goes on: it is asked again with every
    call. Raises SpoolError where waiting would not help (a schema for a newer release)."""
    try:
        await spool.prepare()
    except SpoolUnavailable as error:
        log.warning("the spool cannot be used yet; going on until it can", **logs.exception_fields(error))
        return False
    return True


async def spool_checks(spool: Spool, found: Settings) -> tuple[str, ...]:
    """The readiness checks of the spool that fail: it takes no write, or has no room for more mail (which the intake then
    answers 452)."""
    try:
        await spool.check_writable()
        load = await spool.load()
    except SpoolError:
        return ("spool-not-writable",)
    return tuple(f"no-room-{limit}" for limit in shortages(intake.floors_of(found), room_in(found), load))


def room_in(found: Settings) -> Room | None:
    """What is free on the spool's disk; None where it is on no disk of ours, or that cannot be told."""
    if found.spool_url is not None:
        return None
    try:
        return room_of(found.data_dir)
    except OSError:
        return None
