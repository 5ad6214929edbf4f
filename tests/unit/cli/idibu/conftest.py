"""A sandbox in a loop of its own beside the commands, over HTTP, and a configuration that points at it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from apptrack_ingest.cli import main
from apptrack_ingest.idibu import Partner
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Step

HASH = "h4sh-of-acme/+"
OTHER_HASH = "h4sh-of-globex"
PASSWORD = "p4rtner <w0rd>"
SECRETS = (HASH, OTHER_HASH, PASSWORD, "h4sh", "w0rd")

SETTINGS = """
data_dir = {data}

[idibu]
base_url = "{url}"
timeout = "2s"
attempts = 1
{partner}

[accounts.acme]
hash = "{hash}"
recipients = ["applications@in.acme.example"]
{account}
"""

PARTNER = 'partner_id = 77\npartner_password = "p4rtner <w0rd>"'


class Idibu:
    """The sandbox as seen from the command line. Its state may be looked at between two commands."""

    def __init__(self, directory: Path, sandbox: Sandbox) -> None:
        self.directory = directory
        self.sandbox = sandbox
        self.config = directory / "apptrack.toml"
        self.configure()

    def configure(self, partner: str = PARTNER, account: str = "", url: str = "", hash: str = HASH) -> None:
        """Writes the configuration: a partner's, with one account, unless something else is said."""
        data = json.dumps(str(self.directory / "data"))
        url = url or self.sandbox.base_url
        text = SETTINGS.format(data=data, url=url, partner=partner, account=account, hash=hash)
        self.config.write_text(text if hash else text.replace('hash = ""\n', ""))

    def run(self, *words: object, code: int = 0, input: str | None = None) -> Result:
        """One command; it must exit with `code`, and show no secret."""
        command = [*map(str, words), "--config", str(self.config)]
        result = CliRunner().invoke(main, command, input=input, catch_exceptions=False)
        assert result.exit_code == code, result.output
        assert not [secret for secret in SECRETS if secret in result.output]
        return result

    def json(self, *words: object, code: int = 0) -> Any:
        """What it prints for programs."""
        return json.loads(self.run(*words, "--json", code=code).stdout)

    def on_a_terminal(self, answer: str, *words: object, code: int = 0) -> str:
        """One command where somebody is there to be asked, who answers so; all that they see."""
        ours, theirs = os.openpty()
        command = [sys.executable, "-m", "apptrack_ingest", *map(str, words), "--config", str(self.config)]
        ended = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.write(ours, f"{answer}\n".encode())
        said, _ = ended.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert ended.returncode == code, said
        return said.decode()

    def misbehave(self, *steps: Step) -> None:
        """What the sandbox is to do wrong from now on."""
        self.sandbox.misbehave(*steps)

    @property
    def calls(self) -> list[str]:
        """The methods it was asked for, in order."""
        return [request.call or request.method for request in self.sandbox.requests()]

    @property
    def cc(self) -> tuple[str, ...]:
        """acme's Global CC there."""
        return self.sandbox.accounts()[0].cc


class _Running(threading.Thread):
    """A sandbox in an event loop of its own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sandbox = Sandbox(
            {HASH: "acme", OTHER_HASH: "globex"},
            clock=lambda: 1_700_000_000.0,
            partner=Partner(77, SecretStr(PASSWORD)),
        )
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with running(self.sandbox):
            self._ready.set()
            await self._end.wait()

    def __enter__(self) -> Sandbox:
        self.start()
        assert self._ready.wait(20)
        return self.sandbox

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(20)
        assert not self.is_alive()


@contextlib.contextmanager
def saying(*answers: str) -> Iterator[str]:
    """A server that gives these answers, one after the other and the last for ever, whatever it is asked; its URL."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = (left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(20)


@pytest.fixture
def idibu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Idibu]:
    for name in [name for name in os.environ if name.upper().startswith("APPTRACK_")]:
        monkeypatch.delenv(name)
    with _Running() as sandbox:
        yield Idibu(tmp_path, sandbox)
