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
from apptrack_ingest.receive.budget import Budget
from apptrack_ingest.receive.deciding import Decider
from apptrack_ingest.receive.listener import Listener
from apptrack_ingest.receive.pressure import Pressure, Room, room_of, shortages
from apptrack_ingest.receive.rates import Doorkeeper
from apptrack_ingest.receive.reception import Hooks, Reception
from apptrack_ingest.report.reporter import Reporter
from apptrack_ingest.service import activated, build, intake
from apptrack_ingest.service.activated import Activated
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.settings import Account, Settings
from apptrack_ingest.settings import Listener as SettingsListener
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.web.app import Probe, create_app
from apptrack_ingest.web.server import WebServer
from apptrack_ingest.worker import Desk, SystemClock, Tools, Worker
from apptrack_ingest.worker.housekeeping import Housekeeping

log = logs.get("service")

TELL_EVERY = 5.0
"""Seconds between two looks at what no event tells."""


async def run_intake(
    path: Path | None, found: Settings, link: ChildLink, *, own_web: bool, sockets: Activated | None = None
) -> None:
    """Listens until SIGTERM (or the supervisor's end), then drains. `sockets` are those that systemd opened."""
    places = activated.by_listener(found, sockets or {})
    intake.room_for_connections(found)
    spool = build.spool_of(found)
    parts = _IntakeParts(found, spool)
    listener = parts.listener
    async with (
        _signals(path, found, parts.take_up) as stop,
        _web(lambda: parts.present, spool, "intake", own_web) as web_port,
    ):
        await parts.pressure.refresh()
        await parts.listen(places)
        watching = [asyncio.create_task(parts.pressure.watch()), asyncio.create_task(parts.tell())]
        link.start(stop.set)
        link.ready(smtp=[list(address) for address in listener.addresses], web=web_port)
        log.info("listening", smtp=[f"{host}:{port}" for host, port in listener.addresses])
        await stop.wait()
        cut_off = await listener.drain(parts.present.smtp.drain_timeout)
        log.info("drained", cut_off=cut_off)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    await parts.close()
    await spool.close()
    link.stop()


class _IntakeParts:
    """An intake and all that it works with, wired from the settings."""

    def __init__(self, found: Settings, spool: Spool) -> None:
        self.present = found
        trust = intake.trust_of(found)
        self._judge = intake.judge_of(found)
        self._doorkeeper = Doorkeeper(intake.caps_of(found), trust.lists, time.monotonic)
        self._budget = Budget(*intake.budget_of(found))
        self.pressure = Pressure(
            intake.floors_of(found), spool.load, lambda: room_of(found.data_dir), clock=time.monotonic
        )
        self._decider = Decider(
            intake.directory_of(found),
            self._judge,
            trust=trust,
            limits=intake.limits_of(found),
            pressure=self.pressure,
            doorkeeper=self._doorkeeper,
        )
        reception = Reception(
            _counted(spool), self._decider, clock=time.time, hostname=intake.hostname_of(found), hooks=_HOOKS
        )
        self._tls = intake.tls_of(found)
        self.listener = Listener(reception, tls=self._tls, users=intake.users_of(found), budget=self._budget)

    async def take_up(self, new: Settings) -> None:
        """A reload: open sessions go on with what they began with."""
        trust = intake.trust_of(new)
        self._decider.configure(intake.directory_of(new), trust, intake.limits_of(new))
        self._doorkeeper.configure(intake.caps_of(new), trust.lists)
        self._budget.configure(*intake.budget_of(new))
        intake.room_for_connections(new)
        self.pressure.configure(intake.floors_of(new))
        self.listener.users = intake.users_of(new)
        self.present = new

    async def listen(self, places: Sequence[tuple[SettingsListener, Sequence[socket.socket]]]) -> None:
        """Listens at every place. Raises ConfigError for one that cannot be had."""
        for one, sockets in places:
            entry = intake.entry_of(self.present, one)
            try:
                for sock in sockets:
                    await self.listener.serve(sock, entry)
                if not sockets:
                    await self.listener.start(one.host, one.port, entry)
            except OSError as error:
                raise _cannot_listen(self.present, one, error) from None

    async def tell(self) -> None:
        """Shows every few seconds what no event tells: bytes in flight, and when the certificate ends."""
        while True:
            metrics.bytes_in_flight(self._budget.in_use)
            if self._tls is not None:
                self._tls.refresh()
                metrics.certificate_ends(self._tls.expires_at)
            await asyncio.sleep(TELL_EVERY)

    async def close(self) -> None:
        """Ends what was started beside the sessions."""
        await self._judge.close()


def _replied(code: str) -> None:
    metrics.replied(int(code) if code.isdecimal() else 0)


_HOOKS = Hooks(
    reply=_replied,
    accept=metrics.accepted,
    judged=metrics.judged,
    limited=metrics.limited,
    session_opened=metrics.session_opened,
    session_closed=metrics.session_closed,
)


def _counted(spool: Spool) -> Callable[[Message, Sequence[Arrival]], Any]:
    """Puts, and then counts and logs what was put."""

    async def put(message: Message, arrivals: Sequence[Arrival]) -> int:
        begun = time.monotonic()
        message_id = await spool.put(message, arrivals)
        accounts = [arrival.account for arrival in arrivals]
        trusted = any(arrival.trusted for arrival in arrivals)
        metrics.received(accounts, trusted=trusted, at=message.received_at)
        logs.received(
            message_id=message_id,
            accounts=accounts,
            applicant_ids=[arrival.applicant_id for arrival in arrivals],
            trusted=trusted,
            size=len(message.raw),
            seconds=time.monotonic() - begun,
        )
        return message_id

    return put


def _cannot_listen(found: Settings, one: SettingsListener, error: OSError) -> ConfigError:
    key = "smtp.listeners" if found.smtp.listeners else "smtp.host, smtp.port"
    where = f"{one.host}:{one.port}"
    advice = f"cannot be listened on: {error.strerror or error}; is another server there, or is the port below 1024?"
    kind = CannotListen if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) else ConfigError
    return kind([Problem(key, where, advice)])


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
        self._inner = build.InnerJudge(found)
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
            judge_inner=self._inner,
        )
        self.worker = Worker(self.tools)
        self.housekeeping = Housekeeping(spool, clock, found)

    async def take_up(self, new: Settings) -> None:
        """A reload: what is under way goes on with what it began with."""
        before, self._desks = self._desks, build.desks_of(new, self._desks)
        self._reporter.configure(build.destinations_of(new))
        self._inner.configure(new)
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
        await self._inner.close()
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
        return await spool_checks(spool, present())

    probe = Probe(failed_checks, spool.backlog, lambda: build.surroundings_of(present(), {role: True}, None))
    server = WebServer(create_app(probe))
    port = await server.start(present().web.host, present().web.port)
    try:
        yield port
    finally:
        await server.stop()


async def spool_checks(spool: Spool, found: Settings) -> tuple[str, ...]:
    """The readiness checks of the spool that fail: it takes no write, or has no room for more mail (which the intake then
    answers 452)."""
    try:
        await spool.check_writable()
        load = await spool.load()
    except SpoolError:
        return ("spool-not-writable",)
    return tuple(f"no-room-{limit}" for limit in shortages(intake.floors_of(found), _room(found), load))


def _room(found: Settings) -> Room | None:
    try:
        return room_of(found.data_dir)
    except OSError:
        return None
