"""Shows the whole product run on this machine: listener, worker and idibu's sandbox, with ten applications on their way."""

import asyncio
import contextlib
import json
import os
import shutil
import smtplib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apptrack_ingest.errors import IngestError
from apptrack_ingest.model import ReportState, State
from apptrack_ingest.settings.sections import SPOOL_FILE
from apptrack_ingest.spool.contract import Filter, Spool, Story
from apptrack_ingest.spool.sqlite import open_spool
from apptrack_ingest.testing import a_document, an_email

RECIPIENT = "applications@demo.example"
FAILS_FIRST, REJECTED = 40809166, 40809167
PATIENCE = 60.0
"""Seconds until something is wrong: a guard against hanging."""

EXPECTED = Counter({State.DELIVERED: 7, State.DUPLICATE: 1, State.REJECTED: 1, State.HELD: 1})
"""How ten samples end: one is a copy of another, one is rejected, one has no id; one more fails first and is retried."""

REPORTED = 8
"""Outcomes that idibu hears of: all but the copy (idibu knows already) and the one without an id."""


def samples() -> list[tuple[str, bytes]]:
    """Ten varied applications as AppTrack forwards them, each with a word on what is special about it."""
    jane = an_email(40809161)
    rtf = a_document("Lebenslauf.rtf", rb"{\rtf1\ansi Curriculum vitae}", claimed_type="application/rtf")
    letter = a_document("Covering letter.txt", b"Dear Kara, I would like to apply.\n", claimed_type="text/plain")
    odt = a_document("CV.odt", b"PK\x03\x04 not quite an odt", claimed_type="application/vnd.oasis.opendocument.text")
    return [
        ("a PDF CV", jane),
        ("a name beyond ASCII", an_email(40809162, name="José Ñúñez-Łukasik", address="jose@example.com")),
        ("no name known (No_name)", an_email(40809163, name=None, address="n.n@example.com")),
        (
            "HTML only, an RTF CV",
            an_email(
                40809164, name="Jörg Weiß", address="joerg@example.de", text=None, html="<p>Hallo</p>", documents=[rtf]
            ),
        ),
        (
            "covering letter and CV",
            an_email(40809165, name="Amara Okafor", address="amara@example.org", documents=[letter, a_document()]),
        ),
        ("its first hand-off fails, it is retried", an_email(FAILS_FIRST, name="Li Wei", address="li@example.com")),
        ("the ATS rejects it", an_email(REJECTED, name="Robert Roe", address="rob@example.com")),
        ("no X-iTrackID: a person has to look", an_email(None, name="Noor Haddad", address="noor@example.com")),
        ("the Cc copy of the first one", jane),
        (
            "no client reference, a CV in a wrong wrapping",
            an_email(40809170, name="Tomás Ó Sé", address="tomas@example.ie", client_reference=None, documents=[odt]),
        ),
    ]


@dataclass(slots=True)
class Demo:
    """One run in `directory`; `say` gets each line to show."""

    directory: Path
    say: Callable[[str], None]
    sandbox_url: str = ""
    web_url: str = ""
    smtp: tuple[str, int] = ("", 0)
    seen: dict[int, list[str]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The configuration made for this run."""
        return self.directory / "demo.toml"

    @property
    def folders(self) -> Path:
        """Where the candidates end up."""
        return self.directory / "candidates"

    @property
    def database(self) -> Path:
        """The spool's file."""
        return self.directory / "data" / SPOOL_FILE

    async def run(self, *, once: bool) -> bool:
        """Starts everything, sends, watches; stays up until cancelled unless `once`. True when all ended as expected."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with self._sandbox(), self._serve():
            spool = open_spool(self.database)
            try:
                self._say_where()
                sending = asyncio.create_task(asyncio.to_thread(self._send))
                good = await self._watch(spool)
                await sending
                self._summary(good, once)
                while not once:
                    await self._news(spool)
                    await asyncio.sleep(0.5)
            finally:
                await spool.close()
        return good

    # -- the processes

    @contextlib.asynccontextmanager
    async def _sandbox(self) -> AsyncIterator[None]:
        file = self.directory / "sandbox.jsonl"
        words = ["sandbox", "--port", "0", "--file", str(file), "--hash", "demo-hash=demo"]
        async with self._process("sandbox.log", *words, piped=True) as process:
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            self.sandbox_url = next((word for word in line.split() if word.startswith("http")), "")
            if not self.sandbox_url:
                raise IngestError(f"the sandbox did not start; see {self.directory / 'sandbox.log'}")
            yield

    @contextlib.asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        self.config.write_text(self._settings(), encoding="utf-8")
        async with self._process("serve.log", "serve", "--config", str(self.config)) as process:
            status = await self._status(process)
            host, port = status["smtp"][0]
            self.smtp = (str(host), int(port))
            self.web_url = "http://{}:{}/".format(*status["web"])
            yield

    @contextlib.asynccontextmanager
    async def _process(self, log: str, *words: str, piped: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
        """One of our own commands as a process in a session of its own, so that Ctrl-C reaches this one alone."""
        with (self.directory / log).open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "apptrack_ingest", *words),
                stdout=asyncio.subprocess.PIPE if piped else sink,
                stderr=sink,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("APPTRACK_")},
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _status(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        """Where `serve` listens, as soon as it says so."""
        file, deadline = self.directory / "data" / "serve.json", time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.returncode is None:
            with contextlib.suppress(FileNotFoundError, ValueError):
                return dict(json.loads(file.read_text(encoding="utf-8")))
            await asyncio.sleep(0.05)
        raise IngestError(f"`apptrack-ingest serve` did not start; its log is {self.directory / 'serve.log'}")

    def _settings(self) -> str:
        """Everything in one directory, on free ports, with a handler that trips over two of the samples."""
        quoted = json.dumps  # TOML's basic strings are JSON's
        return f"""# made by `apptrack-ingest demo`
data_dir = {quoted(str(self.directory / "data"))}

[smtp]
port = 0

[web]
port = 0

[idibu]
base_url = {quoted(self.sandbox_url)}

[accounts.demo]
hash = "demo-hash"
client_id = 602
recipients = ["{RECIPIENT}"]
handler = "demo"

[accounts.demo.handler_settings]
path = {quoted(str(self.folders))}
fail_first = [{FAILS_FIRST}]
reject = {{ "{REJECTED}" = "the position is filled" }}

[log]
format = "json"
"""

    # -- sending

    def _send(self) -> None:
        with smtplib.SMTP(*self.smtp, timeout=PATIENCE) as session:
            for what, mail in samples():
                session.sendmail("bounces@idibu.example", [RECIPIENT], mail)
                self.say(f"  [dim]sent[/]  {what}")

    # -- watching

    async def _watch(self, spool: Spool) -> bool:
        """Shows what happens until all is settled or patience ends; True when it is as expected."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            stories = await self._news(spool)
            states = Counter(story.summary.state for story in stories)
            confirmed = sum(story.summary.report is ReportState.CONFIRMED for story in stories)
            if states == EXPECTED and confirmed == REPORTED:
                return True
            await asyncio.sleep(0.1)
        return False

    async def _news(self, spool: Spool) -> list[Story]:
        found = await spool.find(Filter(limit=100))
        stories = [await spool.story(summary.application_id) for summary in reversed(found)]
        for story in stories:
            seen = self.seen.setdefault(story.summary.application_id, [])
            for line in list(_lines(story))[len(seen) :]:
                seen.append(line)
                self.say(f"  [dim]{time.strftime('%H:%M:%S')}[/]  {_who(story)}  {line}")
        return stories

    # -- saying

    def _say_where(self) -> None:
        host, port = self.smtp
        self.say(f"[bold]listening[/] on {host}:{port} for {RECIPIENT}; sending ten applications by SMTP")

    def _summary(self, good: bool, once: bool) -> None:
        counts = Counter(line.split(" ")[0] for lines in self.seen.values() for line in lines)
        self.say("")
        self.say(
            "[bold green]all ten ended as they should[/]: 7 delivered (one at the second attempt), 1 recognised as a copy,"
            " 1 rejected, 1 held for a person; idibu knows of 8 outcomes"
            if good
            else f"[bold red]not all ended as expected within {PATIENCE:g} s[/]: {dict(counts)}; see {self.directory}"
        )
        self.say(f"the candidates' folders   {self.folders / 'demo'}")
        self.say(f"what idibu was told       {self.sandbox_url}/")
        self.say(f"health and metrics        {self.web_url}metrics")
        self.say(f"the log                   {self.directory / 'serve.log'}")
        command = _command()
        self.say(f"look for yourself         {command} list --config {self.config}")
        if not once:
            self.say(
                f"it stays up until Ctrl-C; send more with [bold]{command} send FILE.eml --to {RECIPIENT}"
                f" --config {self.config}[/]"
            )


def _command() -> str:
    """How to call us in the reader's shell: by name where that is found, else the way this was called."""
    if shutil.which("apptrack-ingest"):
        return "apptrack-ingest"
    called = Path(sys.argv[0])
    return str(called) if called.name == "apptrack-ingest" else f"{sys.executable} -m apptrack_ingest"


def _who(story: Story) -> str:
    summary = story.summary
    number = str(summary.applicant_id) if summary.applicant_id is not None else "no id"
    name = summary.facts.candidate_name or summary.facts.candidate_email or ""
    return f"[cyan]{number:>8}[/]  {_plain(name):<22.22}"


def _lines(story: Story) -> Iterator[str]:
    """What has happened to an application so far; each line stays true."""
    yield "received"
    for attempt in story.attempts:
        if attempt.kind == "hand-off" and attempt.ended_at is not None:
            yield _outcome(attempt.code or "", _plain(attempt.detail or ""), story)
        elif attempt.ended_at is not None:
            status = next((r.report.status for r in story.reports if r.report_id == attempt.report_id), "")
            yield f"reported {status} to idibu: {attempt.code}"


def _outcome(code: str, detail: str, story: Story) -> str:
    remote = f", remote id {_plain(story.summary.remote_id)}" if story.summary.remote_id else ""
    texts = {
        "delivered": f"[green]delivered[/]{remote}",
        "duplicate": f"[blue]duplicate[/]: {detail}",
        "rejected": f"[red]rejected[/]: {detail}",
        "retry-later": f"[yellow]failed, to be retried[/]: {detail}",
    }
    return texts.get(code, f"[yellow]{story.summary.state}[/] ({code}): {detail}")


def _plain(text: str) -> str:
    """Text of a mail without what a terminal or the markup would take for a command."""
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return printable.replace("[", "\\[")
