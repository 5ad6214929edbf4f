"""Starts the intakes and the worker as processes of their own, keeps them running, and speaks for all of them."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apptrack_ingest import logs, metrics
from apptrack_ingest.errors import ChildFailed, ConfigError, HandlerError
from apptrack_ingest.service import build, intake, lock, neighbourhood
from apptrack_ingest.service.activated import Activated, as_words, by_listener
from apptrack_ingest.service.around import log_problems, spool_checks
from apptrack_ingest.service.place import spool_of
from apptrack_ingest.service.scratch import metrics_home
from apptrack_ingest.settings import Settings, accounts_without_hash
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.web.app import Probe, create_app
from apptrack_ingest.web.server import WebServer

log = logs.get("supervisor")

ROLES = ("worker", "intake")
"""In the order of the start; stopped in reverse, so that nothing new comes in while the rest is worked off."""

SILENCE = 60.0
"""Seconds without a sign of life after which a child is killed and started again."""

LOOK = 5.0
"""Seconds between two looks at when a child was last heard of."""

FIRST_WAIT, LONGEST_WAIT, STEADY = 0.2, 30.0, 60.0
"""Seconds: the first wait before a restart (doubled each time), the longest, and how long up makes it a good start."""

GIVE_UP_AFTER, GIVE_UP_STARTS = 600.0, 10
"""Seconds, and starts, in which a child was never up for STEADY, after which `serve` itself ends: whoever watches over it
must hear of it."""

CANNOT_START = 71
"""The exit code for a process the system could not start (EX_OSERR, sysexits.h)."""

TIDYING = 35.0
"""Seconds that a child has after its drain: interrupted handlers tidy up, files and connections are closed."""

STATUS = "serve.json"
"""The file in the data directory that says where a running `serve` listens."""


@dataclass(slots=True)
class Child:
    """One child process and what is known of it; it is number `number` of `of` with its role."""

    role: str
    number: int = 1
    of: int = 1
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    details: dict[str, Any] = field(default_factory=dict)
    last_beat: float = 0.0
    was_ready: bool = False
    reload_wanted: bool = False
    link: asyncio.StreamWriter | None = None

    @property
    def name(self) -> str:
        """What it is called in logs, metrics and checks: its role, with its number where there are several."""
        return self.role if self.of == 1 else f"{self.role}-{self.number}"

    @property
    def up(self) -> bool:
        """Whether it runs and has said that it is ready."""
        return self.process is not None and self.process.returncode is None and self.ready.is_set()


class Supervisor:
    """Runs until SIGTERM or SIGINT; a child that ends otherwise is started again, with a growing wait.

    Several intakes listen on the same sockets, opened here: whoever is free takes the next connection, or passes it on to
    one that has far fewer, and none that waits is lost with one of them.
    """

    def __init__(
        self,
        path: Path | None,
        found: Settings,
        sockets: Activated | None = None,
        roles: tuple[str, ...] = ROLES,
    ) -> None:
        self._path = path
        self._sockets = sockets or {}
        self._settings = found
        self._roles = roles
        self._only = "" if roles == ROLES else "-".join(roles)
        counts = {"worker": found.worker_processes, "intake": found.intake_processes}
        children = [Child(role, number + 1, counts[role]) for role in roles for number in range(counts[role])]
        self._children = {child.name: child for child in children}
        self._stop = asyncio.Event()
        self._locks: list[int] = []
        self._neighbourhood: neighbourhood.Neighbourhood | None = None
        self._environment: dict[str, str] = {}
        self._metrics_dir = found.data_dir / "metrics"

    async def run(self) -> None:
        """Starts everything, waits for the end, stops everything. Raises ConfigError and ChildFailed at the start."""
        by_listener(self._settings, self._sockets)
        self._locks = [lock.take(self._settings.data_dir, role) for role in self._roles]
        if "intake" in self._roles and self._settings.intake_processes > 1:
            self._sockets = intake.shared_sockets(self._settings, self._sockets)
            self._neighbourhood = neighbourhood.opened(self._settings.intake_processes)
        self._metrics_dir = metrics_home(self._settings.data_dir, role=self._only)
        self._environment = metrics.multiprocess_dir(self._metrics_dir)
        spool = spool_of(self._settings)
        web = WebServer(create_app(self._probe(spool)))
        web_port = await web.start(self._settings.web.host, self._settings.web.port)
        self._take_signals()
        keepers = {name: asyncio.create_task(self._keep(child)) for name, child in self._children.items()}
        try:
            if await self._started(keepers):
                self._announce(web_port)
                await self._until_stopped(keepers)
        finally:
            await self._stop_children(keepers)
            await web.stop()
            await spool.close()
            shutil.rmtree(self._metrics_dir, ignore_errors=True)
            self._unannounce()
            for descriptor in self._locks:
                os.close(descriptor)
        log.info("stopped")

    # -- starting

    async def _started(self, keepers: dict[str, asyncio.Task[None]]) -> bool:
        """True when all children are ready, False when told to stop before; raises what kept one from starting."""
        for name, child in self._children.items():
            waits = [asyncio.create_task(child.ready.wait()), asyncio.create_task(self._stop.wait()), keepers[name]]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in waits[:2]:
                task.cancel()
            if keepers[name].done():
                keepers[name].result()
            if self._stop.is_set():
                return False
        return True

    def _announce(self, web_port: int) -> None:
        listening = [child.details.get("smtp", []) for child in self._of_role("intake")][:1]
        if listening:
            status = {"pid": os.getpid(), "smtp": listening[0], "web": [self._settings.web.host, web_port]}
            (self._settings.data_dir / STATUS).write_text(json.dumps(status), encoding="utf-8")
        smtp = [f"{host}:{port}" for places in listening for host, port in places]
        log.info("ready", smtp=smtp, web=f"http://{self._settings.web.host}:{web_port}/", accounts=self._accounts())
        for account in accounts_without_hash(self._settings):
            log.warning(
                "this account has no hash, so its outcomes wait as due and idibu is told nothing", account=account
            )

    def _unannounce(self) -> None:
        """Not where another `serve`, which has the intake, announced itself."""
        if self._of_role("intake"):
            (self._settings.data_dir / STATUS).unlink(missing_ok=True)

    def _of_role(self, role: str) -> list[Child]:
        return [child for child in self._children.values() if child.role == role]

    def _accounts(self) -> list[str]:
        return sorted(self._settings.known_accounts)

    async def _until_stopped(self, keepers: dict[str, asyncio.Task[None]]) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stopping, *keepers.values()], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for keeper in keepers.values():
            if keeper.done() and not self._stop.is_set():
                keeper.result()

    # -- keeping

    async def _keep(self, child: Child) -> None:
        """Starts the child again and again until told to stop; raises ChildFailed when its very first start fails, and when
        it does not stay up however often it is started."""
        wait = FIRST_WAIT
        starts, since = 0, time.monotonic()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                code = await self._run_once(child)
            except OSError as error:
                # No memory or no descriptor for a new process: the other one still does its work, so wait and try again.
                log.error("process could not be started", process=child.name, exc_info=error)
                code = CANNOT_START
            if self._stop.is_set():
                return
            if not child.was_ready:
                raise ChildFailed(child.name, code if code > 0 else 1)
            now = time.monotonic()
            if now - began > STEADY:
                wait, starts, since = FIRST_WAIT, 0, now
            else:
                wait, starts = min(wait * 2, LONGEST_WAIT), starts + 1
            if starts >= GIVE_UP_STARTS and now - since >= GIVE_UP_AFTER:
                raise ChildFailed(child.name, code if code > 0 else 1, was_ready=True)
            metrics.process_restarted(child.name)
            log.error("process ended unexpectedly, starting again", process=child.name, code=code, wait=wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stop.wait()

    async def _run_once(self, child: Child) -> int:
        ours, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            reader, child.link = await asyncio.open_connection(sock=ours)
            try:
                child.process = await self._spawned(child, theirs)
            except BaseException:
                child.link.close()
                raise
        child.last_beat = time.monotonic()
        if self._stop.is_set():  # told to stop while it was being started: nobody else will tell it
            child.process.terminate()
        listening = asyncio.create_task(self._listen(child, reader))
        watching = asyncio.create_task(self._watch(child))
        try:
            return await child.process.wait()
        finally:
            child.ready.clear()
            watching.cancel()
            child.link.close()
            await asyncio.gather(listening, watching, return_exceptions=True)
            self._keep_counts(child.process.pid)

    async def _spawned(self, child: Child, link: socket.socket) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "apptrack_ingest", "serve", "--only", child.role]
        command += ["--part", f"{child.number}/{child.of}"]
        command += ["--supervised-by", str(link.fileno())]
        command += ["--config", str(self._path)] if self._path is not None else []
        handed = (
            [one.fileno() for several in self._sockets.values() for one in several] if child.role == "intake" else []
        )
        command += ["--sockets", as_words(self._sockets)] if handed else []
        if child.role == "intake" and self._neighbourhood is not None:
            handed += self._neighbourhood.descriptors
            command += ["--neighbours", self._neighbourhood.as_words(child.number)]
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(link.fileno(), *self._locks, *handed),
            env={**os.environ, **self._environment},
        )

    def _keep_counts(self, pid: int) -> None:
        """Counts that cannot be kept are lost; the service they count goes on."""
        try:
            metrics.child_exited(self._metrics_dir, pid)
        except Exception:
            log.exception("an ended process's counts are lost")

    async def _listen(self, child: Child, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            child.last_beat = time.monotonic()
            said = json.loads(line)
            if "ready" in said:
                child.details = said["ready"]
                child.was_ready = True
                child.ready.set()
                self._tell_to_reload(child)

    async def _watch(self, child: Child) -> None:
        """Kills a child whose event loop does not turn any more: a hung worker holds its leases for nothing."""
        while child.process is not None:
            looked = time.monotonic()
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            if now - looked > SILENCE / 2:
                # We ourselves stood still (a frozen container, Ctrl-Z), and the child most likely with us.
                child.last_beat = now
            if now - child.last_beat > SILENCE and child.process.returncode is None:
                log.error("process gives no sign of life, killed", process=child.name)
                child.process.kill()

    # -- ending

    async def _stop_children(self, keepers: dict[str, asyncio.Task[None]]) -> None:
        """Intakes first, then the worker, each with its own time to drain, then killed."""
        self._stop.set()
        for several in self._sockets.values():
            for one in several:
                one.close()  # or peers would wait in a queue that nobody takes them from any more
        patience = {"intake": self._settings.smtp.drain_timeout, "worker": self._settings.worker.drain_timeout}
        for role in reversed(self._roles):
            ending = [self._end(child, keepers[child.name], patience[role]) for child in self._of_role(role)]
            await asyncio.gather(*ending)
            if role == "intake" and self._neighbourhood is not None:
                self._neighbourhood.close()  # the same

    async def _end(self, child: Child, keeper: asyncio.Task[None], patience: float) -> None:
        process = child.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await asyncio.wait([keeper], timeout=patience + TIDYING)
            if process.returncode is None:
                log.error("process did not drain in time, killed", process=child.name)
                process.kill()
        await asyncio.gather(keeper, return_exceptions=True)

    # -- signals and pages

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        """Checks the new settings before the children hear of them."""
        try:
            self._settings = build.checked(self._path)
        except (ConfigError, HandlerError) as error:
            log_problems("settings not taken up; the former ones stay in force", error)
            return
        for child in self._children.values():
            child.reload_wanted = True
            self._tell_to_reload(child)

    def _tell_to_reload(self, child: Child) -> None:
        """At once, or as soon as the child is ready: one still starting may have read the former settings."""
        if child.reload_wanted and child.up and child.process is not None:
            child.reload_wanted = False
            child.process.send_signal(signal.SIGHUP)

    def _probe(self, spool: Spool) -> Probe:
        async def failed_checks() -> tuple[str, ...]:
            down = tuple(f"{name}-down" for name, child in self._children.items() if not child.up)
            return down + await spool_checks(spool, self._settings)

        return Probe(
            failed_checks,
            spool.backlog,
            lambda: build.surroundings_of(
                self._settings, {name: child.up for name, child in self._children.items()}, self._metrics_dir
            ),
        )
