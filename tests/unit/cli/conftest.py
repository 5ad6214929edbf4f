"""A configuration with three accounts, a real spool beside it, and the commands run on both."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prepared import prepared

from apptrack_ingest.cli import main
from apptrack_ingest.lifecycle import Event, report_of
from apptrack_ingest.model import Arrival, Envelope, HeldReason, Message, ReportState, State
from apptrack_ingest.spool.contract import Facts, Filter, ReportClaim, ReportSettlement, Settlement, Spool, Story
from apptrack_ingest.spool.sqlite import open_spool
from apptrack_ingest.testing import an_email

SECRET = "hash-of-acme-8f3a"

HOSTILE = "\x1b[2J[bold red]:boom:[/]\r\n\x07\u202eexe.vc \ud800 \x9b31m"
"""Text that would clear the screen, ring, colour, overwrite and turn around, and cannot be encoded."""

SETTINGS = """
data_dir = {data}

[accounts.acme]
hash = "{secret}"
recipients = ["applications@acme.example"]
handler_settings = {{ path = {folders} }}

[accounts.beta]
recipients = ["applications@beta.example"]

[accounts.quiet]
recipients = ["applications@quiet.example"]
reporting = false
"""

JANE = Facts(
    client_reference="VAC-1042",
    candidate_name="Jane Doe",
    candidate_email="jane.doe@example.com",
    job_title="Senior .Net Developer",
    portal_name="Seek",
    content_digest="1:abc",
)


class House:
    """The spool's contents as a test needs them, and the command line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.folders = directory / "candidates"
        self.data = directory / "data"
        self.config = directory / "apptrack.toml"
        self.config.write_text(
            SETTINGS.format(data=json.dumps(str(self.data)), folders=json.dumps(str(self.folders)), secret=SECRET)
        )
        self.now = time.time()

    def do(self, work: Callable[[Spool], Awaitable[Any]]) -> Any:
        """Runs `work` on the opened spool."""

        async def opened() -> Any:
            spool = open_spool(prepared(self.data / "spool.sqlite3"))
            try:
                return await work(spool)
            finally:
                await spool.close()

        return asyncio.run(opened())

    def put(
        self,
        raw: bytes | None = None,
        *,
        account: str | None = "acme",
        applicant_id: int | None = 40809163,
        trusted: bool = True,
        received_at: float | None = None,
        recipient: str = "applications@acme.example",
        sender: str = "bounces@idibu.example",
    ) -> int:
        """One application, received; its id."""
        message = Message(
            Envelope(sender, (recipient,), "127.0.0.1", "mail.idibu.example"),
            self.now - 60 if received_at is None else received_at,
            an_email(applicant_id) if raw is None else raw,
        )
        arrival = Arrival(
            account, applicant_id if trusted else None, trusted, "by network" if trusted else "no rule matched"
        )

        async def work(spool: Spool) -> int:
            await spool.put(message, [arrival])
            return (await spool.find(Filter(limit=1)))[0].application_id

        return int(self.do(work))

    def claim(self) -> None:
        """Takes everything due into work and leaves it there."""
        self.do(lambda spool: spool.claim(worker="w1", now=time.time(), lease=3600.0, limit=100))

    def settle(self, application_id: int, settlement: Settlement) -> None:
        """One attempt, ended so."""

        async def work(spool: Spool) -> None:
            claims = await spool.claim(worker="w1", now=time.time(), lease=60.0, limit=100)
            claim = next(claim for claim in claims if claim.application_id == application_id)
            await spool.settle(claim, settlement, now=time.time())

        self.do(work)

    def settle_all(self, settlement: Settlement) -> None:
        """One attempt of each that is due, all ended so."""

        async def work(spool: Spool) -> None:
            for claim in await spool.claim(worker="w1", now=time.time(), lease=60.0, limit=100):
                await spool.settle(claim, settlement, now=time.time())

        self.do(work)

    def delivered(self, *, report: ReportState | None = None, facts: Facts = JANE, **given: Any) -> int:
        """A delivered application of acme, its report settled so; None: still due."""
        application_id = self.put(**given)
        due = report_of(State.DELIVERED, applicant_id=40809163, believed=True, now=time.time(), remote_id="ats-1")
        self.settle(application_id, Settlement(Event.DELIVER, "delivered", facts=facts, remote_id="ats-1", report=due))
        if report is not None:
            self.settle_report(report)
        return application_id

    def rejected(self, **given: Any) -> int:
        """A rejected application, its report due."""
        application_id = self.put(**given)
        due = report_of(State.REJECTED, applicant_id=40809163, believed=True, now=time.time(), words="position filled")
        self.settle(application_id, Settlement(Event.REJECT, "rejected", "position filled", facts=JANE, report=due))
        return application_id

    def held(self, reason: HeldReason, **given: Any) -> int:
        """An application held for this reason."""
        application_id = self.put(**given)
        self.settle(application_id, Settlement(Event.HOLD, reason.value, "why it is held", reason=reason))
        return application_id

    def claim_reports(self) -> list[ReportClaim]:
        """Begins to send every report that is due, and leaves it at that."""
        claims: list[ReportClaim] = self.do(
            lambda spool: spool.claim_reports(
                worker="w1", now=time.time(), lease=3600.0, limit=100, accounts=["acme", "beta"]
            )
        )
        return claims

    def settle_report(self, state: ReportState, code: str = "refused", detail: str = "idibu's words") -> None:
        """The oldest due report, sent once and ended so."""

        async def work(spool: Spool) -> None:
            claims = await spool.claim_reports(
                worker="w1", now=time.time(), lease=60.0, limit=1, accounts=["acme", "beta"]
            )
            await spool.settle_report(claims[0], ReportSettlement(state, code, detail), now=time.time())

        self.do(work)

    def story(self, application_id: int) -> Story:
        """What the spool knows of it now."""
        story: Story = self.do(lambda spool: spool.story(application_id))
        return story

    def run(self, *words: object, code: int = 0) -> Result:
        """One command with this configuration; it must exit with `code`."""
        name, *rest = map(str, words)
        result = CliRunner().invoke(main, [name, "--config", str(self.config), *rest], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def on_a_terminal(self, answer: str, *words: object, code: int = 0) -> str:
        """One command where somebody is there to be asked, who answers so; all that they see."""
        name, *rest = map(str, words)
        ours, theirs = os.openpty()
        command = [sys.executable, "-m", "apptrack_ingest", name, "--config", str(self.config), *rest]
        ended = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.write(ours, f"{answer}\n".encode())
        said, _ = ended.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert ended.returncode == code, said
        return said.decode()

    def json(self, *words: object, code: int = 0) -> Any:
        """What the command prints for programs."""
        return json.loads(self.run(*words, "--json", code=code).stdout)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)
