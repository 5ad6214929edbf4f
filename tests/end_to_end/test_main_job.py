"""An application comes in by SMTP, reaches the ATS, and its outcome stands at idibu."""

import json
import os
import signal
import socket
import urllib.request

import pytest

from apptrack_ingest.model import HeldReason, ReportState, State
from apptrack_ingest.testing import an_email


@pytest.fixture
def deployment(deployment_on_each):
    """The same promises, whatever the spool is in."""
    return deployment_on_each


def test_from_smtp_to_idibu(deployment, sandbox, wait):
    server = deployment.start()
    deployment.up(server)
    deployment.send(an_email(33139609, name="Jane Doe", client_reference="Some-CUSTOM-Ref"))
    wait(lambda: deployment.states() == {"delivered": 1} and sandbox.applicants(), why=deployment.log.read_text)
    [row] = deployment.applications()
    wait(lambda: deployment.applications()[0].report is ReportState.CONFIRMED)
    assert (row.account, row.applicant_id, row.remote_id) == ("acme", 33139609, "acme/33139609")
    assert row.facts.client_reference == "Some-CUSTOM-Ref" and row.facts.candidate_name == "Jane Doe"
    candidate = deployment.candidates()[33139609]
    assert candidate["candidate"]["email"] == "jane.doe@example.com"
    [at_idibu] = sandbox.applicants()
    assert (at_idibu.id, at_idibu.status, at_idibu.remote_id) == (33139609, "success", "acme/33139609")
    assert deployment.stop(server) == 0
    assert not (deployment.data / "serve.json").exists()


def test_the_bytes_are_kept_as_they_came(deployment, wait, tmp_path):
    server = deployment.start("--only", "intake")
    deployment.up(server)
    mail = an_email(1) + b"a bare \n line, a NUL \x00, raw \xe9\xff and a dot\r\n..\r\n.x\r\n"
    deployment.send(mail)
    target = tmp_path / "exported.eml"
    deployment.cli("export", "1", "-o", str(target))
    ours, kept = target.read_bytes().split(b"\r\n", 1)[0], target.read_bytes()
    assert ours.startswith(b"Received: from ") and b" by mx.test.example with ESMTP" in kept[:300]
    assert kept.endswith(mail)


def test_messages_for_two_accounts_and_routing(deployment, sandbox, wait):
    deployment.configure(
        f'[accounts.beta]\nhash = "{"b" * 20}"\nclient_id = 7\nrecipients = ["beta.example"]\nreporting = false\n'
        f"[accounts.beta.handler_settings]\npath = {json.dumps(str(deployment.folders))}\n"
    )
    config = deployment.config.read_text()
    deployment.config.write_text('recipients = ["shared.example"]\n' + config)
    server = deployment.start()
    deployment.up(server)
    without_client = {"X-iTrackID-ClientID": None}
    deployment.send(an_email(1, headers=without_client), "applications@acme.example", "jobs@beta.example")
    deployment.send(an_email(2, headers={"X-iTrackID-ClientID": "7"}), "x@shared.example")
    deployment.send(an_email(3, headers={"X-iTrackID-ClientID": "999"}), "x@shared.example")
    deployment.send(an_email(4, headers={"X-iTrackID-ClientID": "7"}), "applications@acme.example")
    deployment.send(an_email(5, headers=without_client), "postmaster@beta.example")
    wait(lambda: deployment.states().get("received", 0) == 0, why=deployment.log.read_text)
    found = {(row.account, row.applicant_id): row for row in deployment.applications()}
    assert found["acme", 1].state is found["beta", 1].state is State.DELIVERED
    assert found["beta", 2].state is State.DELIVERED
    assert found[None, 3].reason is found[None, 4].reason is HeldReason.UNROUTED
    assert set(deployment.candidates("acme")) == {1} and set(deployment.candidates("beta")) == {1, 2}
    wait(lambda: {a.id for a in sandbox.applicants()} == {1})
    held = found[None, 4].application_id
    deployment.cli("route", str(held), "--account", "acme")
    wait(lambda: 4 in deployment.candidates("acme"))


def test_copies_updates_and_doubled_ids(deployment, sandbox, wait):
    server = deployment.start()
    deployment.up(server)
    deployment.send(an_email(1))
    deployment.send(
        an_email(1, headers={"Received": "from another.example by mx2.example; Mon, 2 Mar 2026 09:31:00 +0000"})
    )
    deployment.send(an_email(1, text="an update of the same applicant"))
    deployment.send(b"X-iTrackID: 2\r\n" + an_email(2))
    deployment.send(an_email("12a"))
    deployment.send(an_email(None))
    wait(lambda: deployment.states().get("received", 0) == 0, why=deployment.log.read_text)
    states = [(row.state.value, row.reason and row.reason.value) for row in reversed(deployment.applications())]
    assert states == [
        ("delivered", None),
        ("duplicate", None),
        ("delivered", None),
        ("held", "invalid-applicant-id"),
        ("held", "invalid-applicant-id"),
        ("held", "no-applicant-id"),
    ]
    assert list(deployment.candidates()) == [1]
    assert deployment.candidates()[1]["text"].strip() == "an update of the same applicant"
    # The update's report may have taken the place of the first one before that was sent: either way idibu has the newest.
    wait(lambda: deployment.applications()[3].report is ReportState.CONFIRMED)
    assert [(a.id, a.status, a.remote_id) for a in sandbox.applicants()] == [(1, "success", "acme/1")]


def test_an_operator_finds_reads_and_repeats(deployment, wait):
    server = deployment.start()
    deployment.up(server)
    deployment.send(an_email(7, name="Zoë [bold]Müller[/]\x1b[31m"))
    wait(lambda: deployment.states() == {"delivered": 1})
    shown = deployment.cli("show", "1").stdout
    assert "delivered" in shown and "\x1b" not in shown
    assert "Zoë" in deployment.cli("list", "--candidate", "müller").stdout
    rows = json.loads(deployment.cli("list", "--json", "--state", "delivered").stdout)
    assert [row["applicant_id"] for row in rows["applications"]] == [7]
    deployment.cli("retry", "1", "--again", "--reason", "asked to")
    wait(lambda: len([a for a in deployment.story(1).attempts if a.kind == "hand-off" and a.code == "delivered"]) == 2)
    assert deployment.cli("retry", "999", check=False).returncode == 3


def test_metrics_and_health_are_true_across_processes(deployment, sandbox, wait):
    server = deployment.start()
    deployment.up(server)
    for number in range(3):
        deployment.send(an_email(number + 1))
    wait(lambda: deployment.states() == {"delivered": 3} and len(sandbox.applicants()) == 3)

    def page(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{deployment.web_port}{path}", timeout=30) as answer:
            return answer.read().decode()

    assert json.loads(page("/readyz"))["ready"] is True
    assert page("/livez").strip() == "alive"
    wait(lambda: 'apptrack_report_attempts_total{account="acme",result="confirmed"} 3.0' in page("/metrics"))
    metrics = page("/metrics")
    assert 'apptrack_applications_received_total{account="acme"} 3.0' in metrics
    assert 'apptrack_hand_off_attempts_total{account="acme",handler="folder",result="delivered"} 3.0' in metrics
    os.kill(deployment.child(server, "intake"), signal.SIGKILL)
    wait(lambda: deployment.greeted(), why=deployment.log.read_text)
    deployment.send(an_email(4))
    wait(lambda: 'apptrack_applications_received_total{account="acme"} 4.0' in page("/metrics"))
    wait(lambda: 'apptrack_process_restarts_total{role="intake"} 1.0' in page("/metrics"))


def test_reload_takes_up_an_account_without_losing_a_connection(deployment, wait):
    server = deployment.start()
    deployment.up(server)
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=30) as peer:
        lines = peer.makefile("rb")
        lines.readline()

        def say(line: str) -> bytes:
            peer.sendall(line.encode() + b"\r\n")
            while (answer := lines.readline())[3:4] == b"-":
                pass
            return answer

        assert say("EHLO client.example").startswith(b"250")
        assert say("MAIL FROM:<a@b.example>").startswith(b"250 2.1.0")
        assert say("RCPT TO:<jobs@beta.example>").startswith(b"550 5.1.1")
        deployment.configure(
            f'[accounts.beta]\nrecipients = ["beta.example"]\n[accounts.beta.handler_settings]\n'
            f"path = {json.dumps(str(deployment.folders))}\n"
        )
        os.kill(server.pid, signal.SIGHUP)
        wait(lambda: say("RCPT TO:<jobs@beta.example>").startswith(b"250 2.1.5"), why=deployment.log.read_text)
        wait(lambda: deployment.log.read_text().count("settings taken up") == 2)
        assert say("DATA").startswith(b"354")
        assert say(an_email(5).decode("ascii") + "\r\n.").startswith(b"250 2.6.0")
    wait(lambda: deployment.candidates("beta"), why=deployment.log.read_text)
    deployment.config.write_text("nonsense = 1\n")
    os.kill(server.pid, signal.SIGHUP)
    wait(lambda: "settings not taken up" in deployment.log.read_text())
    assert deployment.greeted()
