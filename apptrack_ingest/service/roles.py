"""The two roles as processes: the intake and the worker, each wired, run until told to stop, and reloaded on SIGHUP."""

import asyncio
import contextlib
import errno
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from apptrack_ingest import handoff, logs, metrics
from apptrack_ingest.errors import CannotListen, ConfigError, HandlerError, IngestError, Problem, SpoolError
from apptrack_ingest.model import Arrival, Message
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.receive.listener import Listener
from apptrack_ingest.receive.reception import Hooks, Reception
from apptrack_ingest.report.reporter import Reporter
from apptrack_ingest.service import build
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.settings import Account, Settings
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.web.app import Probe, create_app
from apptrack_ingest.web.server import WebServer
from apptrack_ingest.worker import Desk, SystemClock, Tools, Worker
from apptrack_ingest.worker.housekeeping import Housekeeping

log = logs.get("service")


async def run_intake(path: Path | None, found: Settings, link: ChildLink, *, own_web: bool) -> None:
    """Listens until SIGTERM (or the supervisor's end), then drains."""
    spool = build.spool_of(found)
    reception = Reception(
        _counted(spool),
        build.directory_of(found),
        clock=time.time,
        hostname=build.hostname_of(found),
        limits=build.limits_of(found),
        hooks=Hooks(
            reply=_replied,
            accept=metrics.accepted,
            session_opened=metrics.session_opened,
            session_closed=metrics.session_closed,
        ),
    )
    listener = Listener(reception, tls_context=build.tls_context(found))

    async def reload(new: Settings) -> None:
        reception.configure(build.directory_of(new))

    async with _signals(path, found, reload) as stop, _web(found, spool, "intake", own_web) as web_port:
        try:
            await listener.start(found.smtp.host, found.smtp.port)
        except OSError as error:
            raise _cannot_listen(found, error) from None
        link.start(stop.set)
        link.ready(smtp=[list(address) for address in listener.addresses], web=web_port)
        log.info("listening", smtp=[f"{host}:{port}" for host, port in listener.addresses])
        await stop.wait()
        cut_off = await listener.drain(found.smtp.drain_timeout)
        log.info("drained", cut_off=cut_off)
    await spool.close()
    link.stop()


def _replied(code: str) -> None:
    metrics.replied(int(code) if code.isdecimal() else 0)


def _counted(spool: Spool) -> Callable[[Message, Sequence[Arrival]], Any]:
    """Puts, and then counts and logs what was put."""

    async def put(message: Message, arrivals: Sequence[Arrival]) -> int:
        begun = time.monotonic()
        message_id = await spool.put(message, arrivals)
        accounts = [arrival.account for arrival in arrivals]
        metrics.received(accounts, trusted=message.trusted, at=message.received_at)
        logs.received(
            message_id=message_id,
            accounts=accounts,
            applicant_ids=[arrival.applicant_id for arrival in arrivals],
            trusted=message.trusted,
            size=len(message.raw),
            seconds=time.monotonic() - begun,
        )
        return message_id

    return put


def _cannot_listen(found: Settings, error: OSError) -> ConfigError:
    key = f"{found.smtp.host}:{found.smtp.port}"
    advice = f"cannot be listened on: {error.strerror or error}; is another server there, or is the port below 1024?"
    kind = CannotListen if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) else ConfigError
    return kind([Problem("smtp.host, smtp.port", key, advice)])


async def run_worker(path: Path | None, found: Settings, link: ChildLink, *, own_web: bool) -> None:
    """Works until SIGTERM (or the supervisor's end), then drains."""
    spool, clock = build.spool_of(found), SystemClock()
    name = f"{socket.gethostname()}/worker-1"
    # Whoever holds the role's lock knows that an earlier worker of this name is dead: no need to wait for its leases.
    await spool.abandon(name, now=clock.now())
    desks = build.desks_of(found)
    reporter, parser = Reporter(), build.parser_of(found)
    reporter.configure(build.destinations_of(found))
    tools = Tools(
        spool=spool,
        parser=parser,
        reports=reporter,
        clock=clock,
        options=build.options_of(found, name),
        desks=_only_desks(desks),
        report_schedule=found.idibu.schedule,
    )
    worker, housekeeping = Worker(tools), Housekeeping(spool, clock, found)
    await worker.configure(tools.desks, found.idibu.schedule)

    closing: set[asyncio.Task[None]] = set()

    async def reload(new: Settings) -> None:
        nonlocal desks
        before, desks = desks, build.desks_of(new, desks)
        reporter.configure(build.destinations_of(new))
        housekeeping.settings = new
        old = [desk for name, (_, desk) in before.items() if desks.get(name, (None, None))[1] is not desk]
        _beside(closing, _close_when_unused(worker, old))
        await worker.configure(_only_desks(desks), new.idibu.schedule)

    async with _signals(path, found, reload) as stop, _web(found, spool, "worker", own_web) as web_port:
        link.start(stop.set)
        link.ready(web=web_port)
        beside = [asyncio.create_task(housekeeping.run()), asyncio.create_task(_warm_up(parser, found))]
        try:
            await worker.run(stop)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    if closing:
        await asyncio.wait(closing, timeout=found.worker.drain_timeout)
    await _close_handlers(desk for _, desk in desks.values())
    await reporter.close()
    await parser.close()
    await spool.close()
    link.stop()


async def _warm_up(parser: ParserPool, found: Settings) -> None:
    """Starts the parser's processes before the first candidate has to wait for them."""
    with contextlib.suppress(IngestError):
        await asyncio.gather(*(parser.parse(b"\r\n") for _ in range(found.worker.parse_processes)))


def _only_desks(desks: dict[str, tuple[Account, Desk]]) -> dict[str, Desk]:
    return {name: desk for name, (_, desk) in desks.items()}


async def _close_when_unused(worker: Worker, desks: Sequence[Desk]) -> None:
    """What was under way when the settings changed goes on with the handler it began with."""
    await worker.under_way_ended()
    await _close_handlers(desks)


async def _close_handlers(desks: Any) -> None:
    for desk in desks:
        await handoff.close(desk.handler)


# --- around a role ---------------------------------------------------------------------------------------------------


def _beside(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` in a task that is among `tasks` until it ends (the loop itself keeps weak references only)."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@contextlib.asynccontextmanager
async def _signals(
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
        _beside(reloading, read_anew())

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
async def _web(found: Settings, spool: Spool, role: str, wanted: bool) -> AsyncIterator[int | None]:
    """The process's own health and metrics, unless a supervisor serves them; gives the port."""
    if not wanted:
        yield None
        return

    async def failed_checks() -> tuple[str, ...]:
        return await spool_checks(spool)

    probe = Probe(failed_checks, spool.backlog, lambda: build.surroundings_of(found, {role: True}, None))
    server = WebServer(create_app(probe))
    port = await server.start(found.web.host, found.web.port)
    try:
        yield port
    finally:
        await server.stop()


async def spool_checks(spool: Spool) -> tuple[str, ...]:
    """The readiness checks of the spool that fail."""
    try:
        await spool.check_writable()
    except SpoolError:
        return ("spool-not-writable",)
    return ()
