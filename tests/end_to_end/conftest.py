"""A whole deployment on loopback: `serve` as real processes, idibu's sandbox, real SMTP clients; nothing is patched."""

import asyncio
import contextlib
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from end_to_end.certificates import Certificates
from end_to_end.doors import Doors, open_doors
from ports import free_port
from postgres import Server, postgres_server

from apptrack_ingest.cli import main
from apptrack_ingest.metric_files import WRITTEN_AFTER
from apptrack_ingest.model import State
from apptrack_ingest.spool.contract import Filter, Story, Summary
from apptrack_ingest.spool.opening import open_spool
from apptrack_ingest.testing import ScriptedIdibu

__all__ = ["postgres_server"]

HASH = "s3cr3t-hash-0123456789"
PATIENCE = 90.0


def wait_for(what: Callable[[], object], patience: float = PATIENCE, why: Callable[[], object] = lambda: ""):
    """Polls a real system from outside; the bound guards against hanging, nothing is measured by it."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < patience:
        if found := what():
            return found
        time.sleep(min(max(0.05, waited / 8), 0.5))  # a look costs what is looked at a part of its time
    raise AssertionError(f"not within {patience} s: {why() or what}")


@dataclass
class Deployment:
    """`apptrack-ingest serve` with a configuration of its own in a directory of its own."""

    directory: Path
    idibu: str
    handler: str = "folder"
    handler_settings: dict[str, object] = field(default_factory=dict)
    recipients: Sequence[str] = ("applications@acme.example",)
    smtp: str = ""
    listeners: Sequence[dict[str, object]] = ()
    accounts: str = ""
    extra: str = ""
    data_dir: Path | None = None
    spool: str | None = None
    port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.directory / "apptrack-ingest.toml"

    @property
    def data(self) -> Path:
        return self.data_dir or self.directory / "data"

    @property
    def folders(self) -> Path:
        return self.directory / "candidates"

    @property
    def log(self) -> Path:
        return self.directory / "serve.log"

    @property
    def ports(self) -> list[object]:
        """The port of each listener."""
        return [one["port"] for one in self.listeners]

    def account(self, name: str, **settings: object) -> None:
        """One more account, whose candidates are laid beside acme's and reported to nobody; for `configure` to write."""
        where = {"path": str(self.folders)}
        self.accounts += f"[accounts.{name}]\n{_lines({'reporting': False, **settings})}\n"
        self.accounts += f"[accounts.{name}.handler_settings]\n{_lines(where)}\n"

    def configure(self, accounts: str | None = None) -> None:
        settings = self.handler_settings or {"path": str(self.folders)}
        lines = _lines(settings)
        if accounts is not None:
            self.accounts = accounts
        listeners = "".join(f"[[smtp.listeners]]\n{_lines(one)}\n" for one in self.listeners)
        self.config.write_text(
            f"data_dir = {json.dumps(str(self.data))}\n"
            f"{f'spool = {json.dumps(self.spool)}' if self.spool else ''}\n"
            f'[smtp]\nhostname = "mx.test.example"\n{self.smtp}\n'
            f"{listeners or f'port = {self.port}'}\n[web]\nport = {self.web_port}\n"
            f"[idibu]\nbase_url = {json.dumps(self.idibu)}\ntimeout = 5\n"
            f'[accounts.acme]\nhash = "{HASH}"\nclient_id = 602\nrecipients = {json.dumps(self.recipients)}\n'
            f'handler = {json.dumps(self.handler)}\nretry = "1s*20, 5s*100"\n[accounts.acme.handler_settings]\n{lines}\n'
            f"{self.accounts}\n{self.extra}\n"
        )

    def start(self, *words: str, program: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Starts `serve` (or another program that ends in it) and returns at once."""
        if not self.config.exists():
            self.configure()
        command = program or [sys.executable, "-m", "apptrack_ingest"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "serve", "--config", str(self.config), *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def up(self, process: subprocess.Popen[bytes] | None = None) -> None:
        """Returns when all of `serve` is ready, or, of an intake alone, when mail is taken."""
        alone = process is not None and "--only" in process.args

        def ready() -> bool:
            return self.greeted() and (alone or (self.data / "serve.json").exists())

        wait_for(lambda: ready() or (process and process.poll() is not None), why=self.log.read_text)
        assert process is None or process.poll() is None, self.log.read_text()

    def greeted(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as peer:
            return peer.recv(3) == b"220"
        return False

    def send(self, mail: bytes, *recipients: str) -> None:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as session:
            session.sendmail("bounces@idibu.example", list(recipients) or ["applications@acme.example"], mail)

    def reload(self) -> None:
        """Returns when both processes of what was started last have taken up the configuration as it is now."""
        self.configure()
        before = self.log.read_text().count("settings taken up")
        os.kill(self.processes[-1].pid, signal.SIGHUP)
        wait_for(lambda: self.log.read_text().count("settings taken up") >= before + 2, why=self.log.read_text)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        if process.poll() is None:
            process.terminate()
        return process.wait(PATIENCE)

    def stop_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def child(self, process: subprocess.Popen[bytes], role: str) -> int | None:
        """The pid of the supervisor's child of that role, as the system knows it."""
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        except OSError:
            return None
        for pid in children:
            with contextlib.suppress(OSError):
                if f"--only\0{role}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        return None

    # -- what came of it

    def _ask(self, question):
        async def ask():
            spool = open_spool(self.spool or self.data / "spool.sqlite3")
            try:
                return await question(spool)
            finally:
                await spool.close()

        return asyncio.run(ask())

    def applications(self, **wanted: object) -> list[Summary]:
        return self._ask(lambda spool: spool.find(Filter(limit=100_000, **wanted)))

    def story(self, application_id: int) -> Story:
        return self._ask(lambda spool: spool.story(application_id))

    def raw(self, message_id: int) -> bytes:
        """A message as it stands in the spool."""
        return self._ask(lambda spool: spool.raw(message_id))

    def states(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for summary in self.applications():
            counts[summary.state.value] = counts.get(summary.state.value, 0) + 1
        return counts

    def application_of(self, reply: str) -> Summary:
        """The one application of the mail that was answered so."""
        assert reply.startswith("250 2.6.0 Queued as "), reply
        message = int(reply.rpartition(" ")[2])
        [found] = [row for row in self.applications() if row.message_id == message]
        return found

    def settled(self, reply: str) -> Summary:
        """The same, once it has an outcome or is held."""
        return wait_for(
            lambda: (row := self.application_of(reply)).state is not State.RECEIVED and row, why=self.log.read_text
        )

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the service's own."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The value of a metric by its name with labels, as the metrics page writes it; 0.0 where it has none yet."""
        time.sleep(2 * WRITTEN_AFTER)  # what has just been counted is there by then, unless the machine is very busy
        values = [
            line.rpartition(" ")[2] for line in self.page("/metrics")[1].splitlines() if line.startswith(f"{name} ")
        ]
        return float(values[0]) if values else 0.0

    def troubles(self) -> list[str]:
        """The lines of the log that tell of something wrong."""
        return [line for line in self.log.read_text().splitlines() if '"level": "info"' not in line]

    def candidates(self, account: str = "acme") -> dict[int, dict[str, object]]:
        """What the folder handler's directories hold, by applicant id."""
        return {
            int(file.parent.name): json.loads(file.read_text())
            for file in (self.folders / account).glob("*/application.json")
        }

    def cli(self, *words: str, check: bool = True) -> Result:
        """A command beside the running service; it runs in this process, as starting one takes longer than most commands."""
        result = CliRunner().invoke(main, [*words, "--config", str(self.config)])
        assert not check or result.exit_code == 0, result.output
        return result


def _lines(values: dict[str, object]) -> str:
    """Settings as TOML writes them, which for text, numbers and lists is as JSON does."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[ScriptedIdibu]:
    with ScriptedIdibu({HASH: "acme"}, tmp_path / "sandbox.jsonl") as sandbox:
        yield sandbox


@pytest.fixture
def deployment(tmp_path: Path, sandbox: ScriptedIdibu) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, sandbox.base_url)
    yield deployment
    deployment.stop_all()


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    """The URL of an empty database, which nobody else gets: processes of this test may outlive it for a moment."""
    return postgres_server.url(postgres_server.make())


@pytest.fixture(params=["sqlite", "postgres"])
def deployment_on_each(request: pytest.FixtureRequest, deployment: Deployment) -> Deployment:
    """A deployment on each database there is."""
    if request.param == "postgres":
        deployment.spool = request.getfixturevalue("postgres_url")
    return deployment


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def each_spool(request: pytest.FixtureRequest) -> str | None:
    """Where the spool is of a deployment that a module's tests share: on each database there is."""
    if request.param == "sqlite":
        return None
    server: Server = request.getfixturevalue("postgres_server")
    return server.url(server.make())


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Deployment]]:
    """Makes deployments that the tests of a module share, where starting one for each would tell nothing more."""
    made: list[Deployment] = []
    directory = tmp_path_factory.mktemp("shared")
    with ScriptedIdibu({HASH: "acme"}, directory / "sandbox.jsonl") as idibu:

        def deploy(**settings: object) -> Deployment:
            made.append(Deployment(tmp_path_factory.mktemp("deployment"), idibu.base_url, **settings))
            return made[-1]

        yield deploy
        for one in made:
            one.stop_all()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def doors(deploy: Callable[..., Deployment], certificates: Certificates) -> Doors:
    return open_doors(deploy, certificates)


@pytest.fixture
def wait():
    return wait_for


@pytest.fixture
def secret_hash() -> str:
    return HASH
