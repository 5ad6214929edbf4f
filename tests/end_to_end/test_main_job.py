"""An application comes in by SMTP, reaches the ATS, and its outcome stands at idibu."""

import json
import os
import signal
import smtplib
import socket

import pytest
from end_to_end.conftest import HASH, Deployment
from end_to_end.sending import answer

from apptrack_ingest.model import HeldReason, ReportState, State
from apptrack_ingest.testing import ScriptedIdibu, an_email

OTHER_HASH = "b" * 20


def test_from_smtp_to_idibu(deployment_on_each, sandbox, wait):
    deployment = deployment_on_each
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


# --- one running service, in which each test has applicants of its own --------------------------------------------------


@pytest.fixture(scope="module")
def idibu(each_spool, tmp_path_factory):
    with ScriptedIdibu({HASH: "acme", OTHER_HASH: "counted"}, tmp_path_factory.mktemp("idibu") / "calls") as idibu:
        yield idibu


@pytest.fixture(scope="module")
def service(each_spool, idibu, tmp_path_factory):
    """The same promises, whatever the spool is in."""
    service = Deployment(tmp_path_factory.mktemp("service"), idibu.base_url, spool=each_spool)
    service.account("beta", client_id=7, recipients=["beta.example"])
    service.account("counted", hash=OTHER_HASH, recipients=["counted.example"], reporting=True)
    configure(service)
    service.up(service.start())
    yield service
    service.stop_all()


def configure(service):
    """With a domain besides that belongs to no account."""
    service.configure()
    service.config.write_text('recipients = ["shared.example"]\n' + service.config.read_text())


def sent(service, mail, *recipients):
    """The answer to a mail."""
    with smtplib.SMTP("127.0.0.1", service.port, timeout=60) as session:
        return answer(session, mail, *recipients)


def test_the_bytes_are_kept_as_they_came(service, tmp_path):
    mail = an_email(51) + b"a bare \n line, a NUL \x00, raw \xe9\xff and a dot\r\n..\r\n.x\r\n"
    service.send(mail)
    [row] = service.applications(applicant_id=51)
    target = tmp_path / "exported.eml"
    service.cli("export", str(row.application_id), "-o", str(target))
    ours, kept = target.read_bytes().split(b"\r\n", 1)[0], target.read_bytes()
    assert ours.startswith(b"Received: from ") and b" by mx.test.example with ESMTP" in kept[:300]
    assert kept.endswith(mail)


def test_messages_for_two_accounts_and_routing(service, idibu, wait):
    without_client = {"X-iTrackID-ClientID": None}
    service.send(an_email(21, headers=without_client), "applications@acme.example", "jobs@beta.example")
    service.send(an_email(22, headers={"X-iTrackID-ClientID": "7"}), "x@shared.example")
    service.send(an_email(23, headers={"X-iTrackID-ClientID": "999"}), "x@shared.example")
    service.send(an_email(24, headers={"X-iTrackID-ClientID": "7"}), "applications@acme.example")
    service.send(an_email(25, headers=without_client), "postmaster@beta.example")
    wait(lambda: service.states().get("received", 0) == 0, why=service.log.read_text)
    found = {(row.account, row.applicant_id): row for row in service.applications()}
    assert found["acme", 21].state is found["beta", 21].state is State.DELIVERED
    assert found["beta", 22].state is State.DELIVERED
    assert found[None, 23].reason is found[None, 24].reason is HeldReason.UNROUTED
    ours = set(range(21, 26))
    assert ours & set(service.candidates("acme")) == {21} and set(service.candidates("beta")) == {21, 22}
    wait(lambda: ours & {a.id for a in idibu.applicants()} == {21})
    held = found[None, 24].application_id
    service.cli("route", str(held), "--account", "acme")
    wait(lambda: 24 in service.candidates("acme"))


def test_copies_updates_and_doubled_ids(service, idibu, wait):
    copy = an_email(31, headers={"Received": "from another.example by mx2.example; Mon, 2 Mar 2026 09:31:00 +0000"})
    update = an_email(31, text="an update of the same applicant")
    doubled = b"X-iTrackID: 32\r\n" + an_email(32)
    replies = [sent(service, mail) for mail in (an_email(31), copy, update, doubled, an_email("12a"), an_email(None))]
    rows = [service.settled(reply) for reply in replies]
    assert [(row.state.value, row.reason and row.reason.value) for row in rows] == [
        ("delivered", None),
        ("duplicate", None),
        ("delivered", None),
        ("held", "invalid-applicant-id"),
        ("held", "invalid-applicant-id"),
        ("held", "no-applicant-id"),
    ]
    candidates = service.candidates()
    assert 31 in candidates and 32 not in candidates
    assert candidates[31]["text"].strip() == "an update of the same applicant"
    # The update's report may have taken the place of the first one before that was sent: either way idibu has the newest.
    wait(lambda: service.application_of(replies[2]).report is ReportState.CONFIRMED)
    told = [(a.id, a.status, a.remote_id) for a in idibu.applicants() if a.id in (12, 31, 32)]
    assert told == [(31, "success", "acme/31")]


def test_an_operator_finds_reads_and_repeats(service, wait):
    row = service.settled(sent(service, an_email(41, name="Zoë [bold]Müller[/]\x1b[31m")))
    number = str(row.application_id)
    shown = service.cli("show", number).stdout
    assert "delivered" in shown and "\x1b" not in shown
    assert "Zoë" in service.cli("list", "--candidate", "müller").stdout
    rows = json.loads(service.cli("list", "--json", "--state", "delivered", "--candidate", "müller").stdout)
    assert [row["applicant_id"] for row in rows["applications"]] == [41]
    service.cli("retry", number, "--again", "--reason", "asked to")

    def deliveries():
        attempts = service.story(row.application_id).attempts
        return [a for a in attempts if a.kind == "hand-off" and a.code == "delivered"]

    wait(lambda: len(deliveries()) == 2)
    assert service.cli("retry", "999999", check=False).exit_code == 3


def test_metrics_and_health_are_true_across_processes(service, idibu, wait):
    """Of an account that nobody else uses."""
    to = "jobs@counted.example"
    for number in (71, 72, 73):
        service.send(an_email(number, headers={"X-iTrackID-ClientID": None}), to)
    wait(lambda: set(service.candidates("counted")) == {71, 72, 73} and len(idibu.applicants("counted")) == 3)
    assert json.loads(service.page("/readyz")[1])["ready"] is True
    assert service.page("/livez")[1].strip() == "alive"
    wait(lambda: service.metric('apptrack_report_attempts_total{account="counted",result="confirmed"}') == 3)
    received = 'apptrack_applications_received_total{account="counted"}'
    assert service.metric(received) == 3
    handed_over = 'apptrack_hand_off_attempts_total{account="counted",handler="folder",result="delivered"}'
    assert service.metric(handed_over) == 3
    os.kill(service.child(service.processes[0], "intake"), signal.SIGKILL)
    wait(lambda: service.greeted(), why=service.log.read_text)
    service.send(an_email(74, headers={"X-iTrackID-ClientID": None}), to)
    wait(lambda: service.metric(received) == 4)
    wait(lambda: service.metric('apptrack_process_restarts_total{role="intake"}') == 1)


def test_reload_takes_up_an_account_without_losing_a_connection(service, wait):
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as peer:
        lines = peer.makefile("rb")
        lines.readline()

        def say(line: str) -> bytes:
            peer.sendall(line.encode() + b"\r\n")
            while (answer := lines.readline())[3:4] == b"-":
                pass
            return answer

        assert say("EHLO client.example").startswith(b"250")
        assert say("MAIL FROM:<a@b.example>").startswith(b"250 2.1.0")
        assert say("RCPT TO:<jobs@gamma.example>").startswith(b"550 5.1.1")
        before = service.log.read_text().count("settings taken up")
        service.account("gamma", recipients=["gamma.example"])
        configure(service)
        os.kill(service.processes[0].pid, signal.SIGHUP)
        wait(lambda: say("RCPT TO:<jobs@gamma.example>").startswith(b"250 2.1.5"), why=service.log.read_text)
        wait(lambda: service.log.read_text().count("settings taken up") == before + 2)
        assert say("DATA").startswith(b"354")
        assert say(an_email(61).decode("ascii") + "\r\n.").startswith(b"250 2.6.0")
    wait(lambda: service.candidates("gamma"), why=service.log.read_text)
    service.config.write_text("nonsense = 1\n")
    os.kill(service.processes[0].pid, signal.SIGHUP)
    wait(lambda: "settings not taken up" in service.log.read_text())
    assert service.greeted()
    configure(service)
