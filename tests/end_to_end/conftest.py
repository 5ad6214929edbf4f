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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apptrack_ingest.spool.contract import Filter, Story, Summary
from apptrack_ingest.spool.sqlite import open_spool
from apptrack_ingest.testing import ScriptedIdibu

HASH = "s3cr3t-hash-0123456789"
PATIENCE = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: Callable[[], object], patience: float = PATIENCE, why: Callable[[], object] = lambda: ""):
    """Polls a real system from outside; the bound guards against hanging, nothing is measured by it."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {why() or what}")


@dataclass
class Deployment:
    """`apptrack-ingest serve` with a configuration of its own in a directory of its own."""

    directory: Path
    idibu: str
    handler: str = "folder"
    handler_settings: dict[str, object] = field(default_factory=dict)
    accounts: str = ""
    extra: str = ""
    data_dir: Path | None = None
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

    def configure(self, accounts: str | None = None) -> None:
        settings = self.handler_settings or {"path": str(self.folders)}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        if accounts is not None:
            self.accounts = accounts
        self.config.write_text(
            f"data_dir = {json.dumps(str(self.data))}\n"
            f'[smtp]\nport = {self.port}\nhostname = "mx.test.example"\n[web]\nport = {self.web_port}\n'
            f"[idibu]\nbase_url = {json.dumps(self.idibu)}\ntimeout = 5\n"
            f'[accounts.acme]\nhash = "{HASH}"\nclient_id = 602\nrecipients = ["applications@acme.example"]\n'
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
            spool = open_spool(self.data / "spool.sqlite3")
            try:
                return await question(spool)
            finally:
                await spool.close()

        return asyncio.run(ask())

    def applications(self, **wanted: object) -> list[Summary]:
        return self._ask(lambda spool: spool.find(Filter(limit=100_000, **wanted)))

    def story(self, application_id: int) -> Story:
        return self._ask(lambda spool: spool.story(application_id))

    def states(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for summary in self.applications():
            counts[summary.state.value] = counts.get(summary.state.value, 0) + 1
        return counts

    def candidates(self, account: str = "acme") -> dict[int, dict[str, object]]:
        """What the folder handler's directories hold, by applicant id."""
        return {
            int(file.parent.name): json.loads(file.read_text())
            for file in (self.folders / account).glob("*/application.json")
        }

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", "apptrack_ingest", *words, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result


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
def wait():
    return wait_for


@pytest.fixture
def secret_hash() -> str:
    return HASH
