"""kill -9 at any moment loses nothing: every mail answered 250 is delivered once, and idibu is told of every outcome."""

import contextlib
import os
import random
import signal
import smtplib
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from apptrack_ingest.model import ReportState, State
from apptrack_ingest.testing import an_email

MAILS = 500
DYING_WORKER = Path(__file__).with_name("dying_worker.py")


class Senders:
    """Real SMTP clients that send every mail until it was answered 250, as a mail server would."""

    def __init__(self, port: int, ids: range, threads: int = 4) -> None:
        self._port = port
        self._todo = list(reversed(ids))
        self._lock = threading.Lock()
        self.answered_250: list[int] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _next(self) -> int | None:
        with self._lock:
            return self._todo.pop() if self._todo else None

    def _work(self) -> None:
        pause = threading.Event()
        while (number := self._next()) is not None:
            mail = an_email(number, name=f"Candidate {number}")
            while not self._sent(mail):
                pause.wait(0.05)
            with self._lock:
                self.answered_250.append(number)

    def _sent(self, mail: bytes) -> bool:
        try:
            with smtplib.SMTP("127.0.0.1", self._port, timeout=30) as session:
                session.sendmail("bounces@idibu.example", ["applications@acme.example"], mail)
        except (OSError, smtplib.SMTPException):
            return False
        return True

    def join(self, patience: float) -> None:
        for thread in self._threads:
            thread.join(patience)
            assert not thread.is_alive(), f"only {len(self.answered_250)} mails were taken"


def assert_nothing_lost(deployment, sandbox, wait, ids: set[int]) -> None:
    """Delivered once, one folder each, each outcome at idibu, none told twice with differing content."""

    def settled() -> bool:
        rows = deployment.applications()
        return all(row.state is not State.RECEIVED for row in rows) and all(
            row.report is ReportState.CONFIRMED for row in rows if row.state is State.DELIVERED
        )

    wait(settled, 120, deployment.log.read_text)
    rows = deployment.applications()
    assert {row.state for row in rows} <= {State.DELIVERED, State.DUPLICATE}, Counter(row.state for row in rows)
    delivered = Counter(row.applicant_id for row in rows if row.state is State.DELIVERED)
    assert set(delivered) == ids and set(delivered.values()) == {1}
    assert set(deployment.candidates()) == ids
    at_idibu = {applicant.id: applicant for applicant in sandbox.applicants()}
    assert set(at_idibu) == ids
    assert all(applicant.contents == 1 for applicant in at_idibu.values())
    assert all(at_idibu[number].remote_id == f"acme/{number}" for number in ids)


@pytest.mark.slow
def test_the_intake_is_killed_again_and_again_during_500_mails(deployment, sandbox, wait):
    server = deployment.start()
    deployment.up(server)
    chance = random.Random(20261121)
    senders = Senders(deployment.port, range(1, MAILS + 1))
    killed = 0
    for share in sorted(chance.uniform(0.02, 0.9) for _ in range(6)):
        wait(lambda share=share: len(senders.answered_250) >= share * MAILS, 120, deployment.log.read_text)
        pid = wait(lambda: deployment.child(server, "intake"))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    senders.join(120)
    assert killed >= 5
    assert_nothing_lost(deployment, sandbox, wait, set(senders.answered_250))
    assert len(senders.answered_250) == MAILS


BOUNDARIES = [
    ("after", "claim"),  # counted, nothing done
    ("before", "settle"),  # the handler is done, the outcome unknown to the spool
    ("after", "settle"),  # the outcome is committed, its report not claimed
    ("after", "claim_reports"),  # counted, nothing sent
    ("before", "settle_report"),  # idibu knows, the spool does not
    ("after", "settle_report"),  # all done
]


@pytest.mark.slow
def test_the_worker_is_killed_at_every_step(deployment, sandbox, wait):
    intake = deployment.start("--only", "intake")
    deployment.up(intake)
    mails = 24
    senders = Senders(deployment.port, range(1, mails + 1))
    senders.join(60)
    deployment.stop(intake)
    for when, method in BOUNDARIES:
        program = [sys.executable, str(DYING_WORKER), when, method, "2"]
        worker = deployment.start("--only", "worker", program=program)
        assert worker.wait(90) == -signal.SIGKILL, (when, method, deployment.log.read_text())
    survivor = deployment.start("--only", "worker")
    assert_nothing_lost(deployment, sandbox, wait, set(range(1, mails + 1)))
    cut_off = [
        a
        for row in deployment.applications()
        for a in deployment.story(row.application_id).attempts
        if a.code == "no-verdict"
    ]
    assert cut_off
    deployment.stop(survivor)


@pytest.mark.slow
def test_the_supervisor_is_killed_and_its_children_follow(deployment, sandbox, wait):
    server = deployment.start()
    deployment.up(server)
    senders = Senders(deployment.port, range(1, 41))
    wait(lambda: len(senders.answered_250) >= 5)
    children = [deployment.child(server, role) for role in ("intake", "worker")]
    server.kill()
    server.wait()
    wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children if pid), why=deployment.log.read_text)
    again = deployment.start()
    senders.join(120)
    assert again.poll() is None
    assert_nothing_lost(deployment, sandbox, wait, set(range(1, 41)))


def test_a_poison_application_is_held_and_takes_no_other_along(deployment, sandbox, wait, tmp_path):
    module = tmp_path / "poison.py"
    module.write_text(
        "import os, signal\n"
        "from apptrack_ingest import Accepted\n"
        "async def handle(application):\n"
        "    if application.applicant_id == 13:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return Accepted(str(application.applicant_id))\n"
    )
    deployment.environment["PYTHONPATH"] = str(tmp_path)
    deployment.handler = "poison:handle"
    deployment.configure()
    text = deployment.config.read_text()
    deployment.config.write_text(text[: text.index("[accounts.acme.handler_settings]")])
    intake = deployment.start("--only", "intake")
    deployment.up(intake)
    for number in (11, 12, 13, 14, 15):
        deployment.send(an_email(number))
    deployment.stop(intake)
    server = deployment.start()
    deployment.up(server)
    wait(lambda: deployment.states() == {"delivered": 4, "held": 1}, 120, deployment.log.read_text)
    [held] = deployment.applications(states=(State.HELD,))
    assert (held.applicant_id, held.reason) == (13, "crash-loop")
    assert len([a for a in deployment.story(held.application_id).attempts if a.code == "no-verdict"]) == 4
    wait(lambda: {a.id: a.status for a in sandbox.applicants()}.get(13) == "fail")
