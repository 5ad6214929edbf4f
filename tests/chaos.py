"""Intakes and workers as real processes that are killed one after another under load, and what must hold when it is over.

`besiege` starts them on one spool, sends mail to them, kills one after another (SIGKILL, and starts it again), stops
PostgreSQL hard where the spool is in one, lets all settle, and gives what came of it. The seed chooses who dies when, among
those that are up. The ATS is a handler that writes a line for each call before it answers, so that a call whose outcome was
never committed is seen too.
"""

import itertools
import json
import random
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ledger import Ledger
from ports import free_port
from postgres import Server

from apptrack_ingest.model import State
from apptrack_ingest.spool.contract import Summary
from apptrack_ingest.testing import ScriptedIdibu, an_email

T = TypeVar("T")

HASH = "s3cr3t-hash-0123456789"
PATIENCE = 240.0
"""Seconds until all must have settled; only a guard against hanging."""

ATS = '''
"""An ATS that is a file: a line for each call, written before the answer."""
import asyncio, json, os
from pathlib import Path
from apptrack_ingest import Accepted

async def handle(application):
    line = json.dumps([application.applicant_id, application.attempt, application.idempotency_key]) + "\\n"
    calls = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(calls, line.encode())
    os.close(calls)
    gate = os.environ.get("GATE")
    while application.attempt == 1 and gate and not Path(gate).exists():
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.02)
    return Accepted(f"ats-{application.applicant_id}")
'''
"""With GATE set, the first attempt at each application answers only when there is a file of that name."""


# --- processes ----------------------------------------------------------------------------------------------------


@dataclass
class Role:
    """One `serve --only`, with a configuration and ports of its own."""

    name: str
    directory: Path
    data: Path
    idibu: str
    spool: str | None = None
    settings: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    kills: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def configure(self) -> Path:
        ats = self.directory / "chaotic_ats.py"
        if not ats.exists():  # another may be reading it
            ats.write_text(ATS)
        config = self.directory / f"{self.name}.toml"
        config.write_text(
            f"data_dir = {json.dumps(str(self.data))}\n"
            f"{f'spool = {json.dumps(self.spool)}' if self.spool else ''}\n"
            f'[smtp]\nport = {self.port}\nhostname = "mx.test.example"\n[web]\nport = {self.web_port}\n'
            f"[idibu]\nbase_url = {json.dumps(self.idibu)}\n{self.settings}\n"
            f'[accounts.acme]\nhash = "{HASH}"\nrecipients = ["applications@acme.example"]\n'
            f'handler = "chaotic_ats:handle"\nretry = "1s*20, 5s*100"\n'
        )
        return config

    def start(self) -> None:
        command = [sys.executable, "-m", "apptrack_ingest", "serve", "--only", self.kind]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self.configure())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PYTHONPATH": str(self.directory), "CALLS": str(calls_file(self.directory)), **self.environment},
            )

    def kill(self) -> None:
        """As a crash, or the kernel's lack of memory, does it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.kills += 1

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def is_up(self) -> bool:
        """Whether it is at work, which its own pages tell."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.web_port), timeout=5):
            return True
        return False


def calls_file(directory: Path) -> Path:
    return directory / "calls"


@contextmanager
def running(roles: Sequence[Role]) -> Iterator[None]:
    """Starts them; they end with the block."""
    try:
        for role in roles:
            role.start()
        for role in roles:
            wait_for(role.is_up, lambda role=role: role.log.read_text()[-4000:])
        yield
    finally:
        for role in roles:
            role.stop()


def wait_for(what: Callable[[], T], why: Callable[[], object] = lambda: "") -> T:
    """Polls real processes from outside; the bound guards against hanging, nothing is measured by it."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while time.monotonic() < deadline:
        if found := what():
            return found
        pause.wait(0.2)
    raise AssertionError(f"not within {PATIENCE} s: {why()}")


# --- clients ------------------------------------------------------------------------------------------------------


class Clients:
    """SMTP clients that send each mail until it is answered 250, as a mail server would, to one intake after another."""

    def __init__(self, ports: Sequence[int], *, count: int = 4, pause: float = 0.1) -> None:
        self._ports, self._pause = ports, pause
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self.answered: dict[int, int] = {}
        """The message that each applicant's 250 named."""
        self.refused: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._enough.is_set():
            with self._lock:
                number = next(self._numbers)
            self.answered[number] = self._send_until_taken(number)
            self._enough.wait(self._pause)

    def _send_until_taken(self, number: int) -> int:
        mail, pause = an_email(number, name=f"Candidate {number}"), threading.Event()
        for turn in itertools.count(number):
            try:
                reply = self._send(mail, self._ports[turn % len(self._ports)])
            except (OSError, smtplib.SMTPException) as error:
                reply = f"{getattr(error, 'smtp_code', '')} {type(error).__name__}"
            if reply.startswith("250 "):
                return int(reply.rpartition(" ")[2])
            self.refused[reply[:40].strip()] += 1
            pause.wait(0.05)
        raise AssertionError("counting ends never")

    def _send(self, mail: bytes, port: int) -> str:
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=30) as session:
            session.ehlo_or_helo_if_needed()
            for code, text in (session.mail("bounces@idibu.example"), session.rcpt("applications@acme.example")):
                if code != 250:
                    return f"{code} {text.decode()}"
            code, text = session.data(mail)
            return f"{code} {text.decode()}"

    def finish(self) -> None:
        """Lets each finish the mail it is at."""
        self._enough.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"only {len(self.answered)} mails were taken: {self.refused}"


# --- the siege ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How many processes, and for how many seconds they are killed, one `every` so many; the seed chooses which."""

    intakes: int = 3
    workers: int = 3
    seconds: int = 20
    every: float = 1.0
    seed: int = 1
    clients: int = 4
    pause: float = 0.1

    @property
    def processes(self) -> dict[str, int]:
        return {"intake": self.intakes, "worker": self.workers}


@dataclass
class Result:
    """What came of it; `problems` says what was promised and did not hold."""

    taken: int = 0
    applications: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    more_than_once: int = 0
    held: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in self.kills.items())
        return (
            f"{self.taken} mails answered 250, {sum(self.refused.values())} answered otherwise or not at all;"
            f" applications: {dict(self.applications)}; {self.held} were held as crash-loop and retried;"
            f" {self.calls} calls of the handler, {self.more_than_once} of them again, after a kill; kills: {kills}"
            + "".join(f"\nNOT KEPT: {problem}" for problem in self.problems)
        )


def besiege(directory: Path, plan: Plan, *, url: str | None = None, database: Server | None = None) -> Result:
    """Without `url` all processes share one SQLite file: one intake and one worker. With `database` that server is stopped
    hard and started again in the middle."""
    with ScriptedIdibu({HASH: "acme"}, directory / "sandbox.jsonl") as idibu:
        names = [f"{kind}-{n + 1}" for kind, count in plan.processes.items() for n in range(count)]
        roles = [
            Role(name, directory, directory / (name if url else "data"), idibu.base_url, spool=url) for name in names
        ]
        ledger = Ledger(url or directory / "data" / "spool.sqlite3")
        with running(roles):
            ports = [role.port for role in roles if role.kind == "intake"]
            clients = Clients(ports, count=plan.clients, pause=plan.pause)
            _kill_in_turn(roles, plan, database)
            clients.finish()
            result = Result(taken=len(clients.answered), refused=clients.refused)
            result.kills = {role.name: role.kills for role in roles}
            wait_for(ledger.has_settled, lambda: _ends_of_logs(roles))
            while held := ledger.retry_crash_loops():
                result.held += held
                wait_for(ledger.has_settled, lambda: _ends_of_logs(roles))
        _judge(result, clients.answered, ledger, _calls(directory), idibu)
    return result


def _kill_in_turn(roles: Sequence[Role], plan: Plan, database: Server | None) -> None:
    """The first that is at work in an order that the seed makes; every fourth time the first, its own start included."""
    chance, pause, begun = random.Random(plan.seed), threading.Event(), time.monotonic()
    while (gone := time.monotonic() - begun) < plan.seconds:
        pause.wait(plan.every)
        if database is not None and gone > plan.seconds / 2:
            database.stop(immediate=True)
            pause.wait(1.0)
            database.start()
            database = None
        order, whoever = chance.sample(roles, len(roles)), chance.random() < 0.25
        victim = next((role for role in order if whoever or role.is_up()), None)
        if victim is not None:
            victim.kill()
            victim.start()


def _ends_of_logs(roles: Sequence[Role]) -> str:
    return "\n".join(f"--- {role.name}\n{role.log.read_text()[-3000:]}" for role in roles)


def _calls(directory: Path) -> list[tuple[int, int, str]]:
    """Applicant id, attempt and idempotency key of each call of the handler."""
    return [tuple(json.loads(line)) for line in calls_file(directory).read_text().splitlines()]


def _judge(
    result: Result,
    answered: dict[int, int],
    ledger: Ledger,
    calls: Sequence[tuple[int, int, str]],
    idibu: ScriptedIdibu,
) -> None:
    rows = ledger.applications()
    result.applications = Counter(row.state.value for row in rows)
    result.calls = len(calls)
    result.problems += _lost(answered, rows)
    result.problems += _not_delivered_once(rows)
    by_applicant = Counter(applicant for applicant, _, _ in calls)
    result.more_than_once = sum(count - 1 for count in by_applicant.values())
    for applicant, count in by_applicant.items():
        ids = [row.application_id for row in rows if row.applicant_id == applicant] if count > 1 else []
        if count > 1 + (cut_off := ledger.cut_off(ids) if ids else 0):
            result.problems.append(f"applicant {applicant}: {count} calls, but only {cut_off} attempts were cut off")
    if len({key for _, _, key in calls}) != len(by_applicant):
        result.problems.append("an idempotency key changed between attempts")
    at_idibu = {one.id: (one.status, one.remote_id) for one in idibu.applicants()}
    if at_idibu != {row.applicant_id: ("success", row.remote_id) for row in rows if row.state is State.DELIVERED}:
        result.problems.append("idibu and the ledger differ")


def _lost(answered: dict[int, int], rows: Sequence[Summary]) -> Iterator[str]:
    of_message = {row.message_id: row.applicant_id for row in rows}
    for applicant, message in answered.items():
        if of_message.get(message) != applicant:
            yield f"message {message} of applicant {applicant} was answered 250 and is not in the spool"


def _not_delivered_once(rows: Sequence[Summary]) -> Iterator[str]:
    """A mail whose 250 got lost was sent again: the second is recognised."""
    states: dict[int | None, list[State]] = {}
    for row in rows:
        states.setdefault(row.applicant_id, []).append(row.state)
    for applicant, found in states.items():
        if found.count(State.DELIVERED) != 1 or set(found) - {State.DELIVERED, State.DUPLICATE}:
            yield f"applicant {applicant} ended as {[state.value for state in found]}"
