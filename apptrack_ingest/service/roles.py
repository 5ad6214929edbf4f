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

    present = found

    async def reload(new: Settings) -> None:
        nonlocal present
        reception.configure(build.directory_of(new))
        present = new

    async with _signals(path, found, reload) as stop, _web(lambda: present, spool, "intake", own_web) as web_port:
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
    spool, name = build.spool_of(found), f"{socket.gethostname()}/worker-1"
    # Whoever holds the role's lock knows that an earlier worker of this name is dead: no need to wait for its leases.
    await spool.abandon(name, now=time.time())
    parts = _WorkerParts(found, spool, name)
    await parts.worker.configure(parts.tools.desks, found.idibu.schedule)
    async with (
        _signals(path, found, parts.take_up) as stop,
        _web(lambda: parts.housekeeping.settings, spool, "worker", own_web) as web_port,
    ):
        link.start(stop.set)
        link.ready(web=web_port)
        await parts.work(stop)
    await parts.close()
    await spool.close()
    link.stop()


class _WorkerParts:
    """A worker and all that it works with, wired from the settings."""

    def __init__(self, found: Settings, spool: Spool, name: str) -> None:
        clock = SystemClock()
        self._found = found
        self._desks = build.desks_of(found)
        self._reporter, self._parser = Reporter(), build.parser_of(found)
        self._reporter.configure(build.destinations_of(found))
        self._closing: set[asyncio.Task[None]] = set()
        self.tools = Tools(
            spool=spool,
            parser=self._parser,
            reports=self._reporter,
            clock=clock,
            options=build.options_of(found, name),
            desks=_only_desks(self._desks),
            report_schedule=found.idibu.schedule,
        )
        self.worker = Worker(self.tools)
        self.housekeeping = Housekeeping(spool, clock, found)

    async def take_up(self, new: Settings) -> None:
        """A reload: what is under way goes on with what it began with."""
        before, self._desks = self._desks, build.desks_of(new, self._desks)
        self._reporter.configure(build.destinations_of(new))
        self.housekeeping.settings = new
        old = [desk for name, (_, desk) in before.items() if self._desks.get(name, (None, None))[1] is not desk]
        _beside(self._closing, _close_when_unused(self.worker, old))
        await self.worker.configure(_only_desks(self._desks), new.idibu.schedule)

    async def work(self, stop: asyncio.Event) -> None:
        """Works until told to stop and drained, with the housekeeping beside it."""
        beside = [
            asyncio.create_task(self.housekeeping.run()),
            asyncio.create_task(_warm_up(self._parser, self._found)),
        ]
        try:
            await self.worker.run(stop)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def close(self) -> None:
        """Closes handlers, connections and the parser's processes."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=self._found.worker.drain_timeout)
        await _close_handlers(desk for _, desk in self._desks.values())
        await self._reporter.close()
        await self._parser.close()


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
async def _web(present: Callable[[], Settings], spool: Spool, role: str, wanted: bool) -> AsyncIterator[int | None]:
    """The process's own health and metrics, unless a supervisor serves them; gives the port. `present` gives the
    settings in force, which a reload may change."""
    if not wanted:
        yield None
        return

    async def failed_checks() -> tuple[str, ...]:
        return await spool_checks(spool)

    probe = Probe(failed_checks, spool.backlog, lambda: build.surroundings_of(present(), {role: True}, None))
    server = WebServer(create_app(probe))
    port = await server.start(present().web.host, present().web.port)
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
