"""systemd opens the port and hands it over; it stays open while the intake dies and starts again."""

import os
import signal
import socket
import sys
from pathlib import Path

from end_to_end.programs import program
from ports import free_port

from apptrack_ingest.testing import an_email

WRONG_CONFIGURATION = 78
"""The exit code after which systemd does not start the service again (EX_CONFIG of sysexits.h)."""


def test_the_socket_outlives_the_intake(deployment, wait):
    own = free_port()
    deployment.listeners = [{"socket": "smtp"}, {"port": own}]
    activate = [program("systemd-socket-activate", "systemd"), "--fdname=smtp", f"--listen=127.0.0.1:{deployment.port}"]
    server = deployment.start(program=[*activate, sys.executable, "-m", "apptrack_ingest"])
    wait(lambda: "Listening on" in deployment.log.read_text())
    assert deployment.child(server, "intake") is None, "nobody has connected yet"
    # This very connection starts the service, and is served by it.
    deployment.send(an_email(1))
    wait(lambda: (deployment.data / "serve.json").exists(), why=deployment.log.read_text)
    intake = deployment.child(server, "intake")
    assert b"LISTEN_FDS" not in Path(f"/proc/{intake}/environ").read_bytes()
    os.kill(intake, signal.SIGKILL)
    wait(lambda: deployment.child(server, "intake") != intake)
    deployment.send(an_email(2))  # is not refused, but waits for the intake to be there again
    assert deployment.child(server, "intake") not in (None, intake)
    wait(lambda: set(deployment.candidates()) == {1, 2}, why=deployment.log.read_text)
    deployment.port = own
    deployment.send(an_email(3))
    wait(lambda: 3 in deployment.candidates())
    assert deployment.stop(server) == 0


def test_a_socket_that_no_listener_wants_stops_the_start(deployment, wait):
    deployment.listeners = [{"socket": "smtp"}]
    activate = [
        program("systemd-socket-activate", "systemd"),
        "--fdname=other",
        f"--listen=127.0.0.1:{deployment.port}",
    ]
    server = deployment.start(program=[*activate, sys.executable, "-m", "apptrack_ingest"])
    wait(lambda: "Listening on" in deployment.log.read_text())
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=30):
        assert server.wait(60) == WRONG_CONFIGURATION, deployment.log.read_text()
    told = deployment.log.read_text()
    assert "systemd gave no socket of this name; given: other" in told
    assert "systemd gave a socket other, but no listener has socket = 'other'" in told
