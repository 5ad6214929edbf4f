"""SIGTERM: what is under way is finished in time, or given back; nothing new is taken; nothing counts as a crash."""

import socket

import pytest

from apptrack_ingest.testing import an_email

HANDLER = """
import asyncio
from pathlib import Path
from apptrack_ingest import Accepted

HERE = Path(__file__).parent


async def handle(application):
    (HERE / "called").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.02)
    return Accepted("R-1")
"""


@pytest.fixture
def slow(deployment, tmp_path):
    (tmp_path / "slow.py").write_text(HANDLER)
    deployment.environment["PYTHONPATH"] = str(tmp_path)
    deployment.handler = "slow:handle"
    deployment.extra = "[worker]\ndrain_timeout = 8\n"
    deployment.configure()
    text = deployment.config.read_text()
    deployment.config.write_text(
        text.replace("[accounts.acme.handler_settings]\n", "[accounts.acme.handler_settings]\n#")
    )
    return deployment


def test_what_is_received_or_handed_over_at_the_moment_is_finished(slow, sandbox, wait, tmp_path):
    server = slow.start()
    slow.up(server)
    slow.send(an_email(1))
    wait((tmp_path / "called").exists)
    mail = an_email(2)
    with socket.create_connection(("127.0.0.1", slow.port), timeout=60) as peer:
        answers = peer.makefile("rb")
        answers.readline()
        for line in (b"HELO x.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<applications@acme.example>", b"DATA"):
            peer.sendall(line + b"\r\n")
            answers.readline()
        peer.sendall(mail[:500])
        server.terminate()
        wait(lambda: not slow.greeted())
        peer.sendall(mail[500:] + b"\r\n.\r\n")
        assert answers.readline().startswith(b"250 2.6.0")
        assert answers.readline().startswith(b"421 4.3.2")
    wait(lambda: '"event": "drained"' in slow.log.read_text(), why=slow.log.read_text)
    assert not slow.greeted()
    (tmp_path / "go").touch()
    assert server.wait(60) == 0
    states = {row.applicant_id: row.state for row in slow.applications()}
    assert set(states) == {1, 2} and states[1] == "delivered"


def test_what_does_not_finish_is_given_back_uncounted(slow, sandbox, wait, tmp_path):
    server = slow.start()
    slow.up(server)
    slow.send(an_email(1))
    wait((tmp_path / "called").exists)
    assert slow.stop(server) == 0
    [row] = slow.applications()
    assert (row.state, row.code, row.attempts, row.in_work) == ("received", "interrupted", 0, False)
    (tmp_path / "go").touch()
    again = slow.start()
    slow.up(again)
    wait(lambda: slow.states() == {"delivered": 1}, why=slow.log.read_text)
    assert [a.code for a in slow.story(1).attempts if a.kind == "hand-off"] == ["interrupted", "delivered"]
