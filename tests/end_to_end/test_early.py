"""What idibu shows while the ATS is away, on real processes: an early status, put right by the delivery; and a pause's."""

import time

from apptrack_ingest.model import ReportState, State
from apptrack_ingest.testing import an_email

HANDLER = """
from pathlib import Path
from apptrack_ingest import Accepted, RetryLater

OPEN = Path({path!r})

async def handle(application):
    if not OPEN.exists():
        raise RetryLater("https://ats.internal:8443 refused the connection")
    return Accepted(f"R-{{application.applicant_id}}")
"""


def away(deployment):
    """An ATS that is away until a file is there."""
    path = deployment.directory / "open"
    (deployment.directory / "away_ats.py").write_text(HANDLER.format(path=str(path)))
    deployment.handler, deployment.handler_settings = "away_ats:handle", {}
    deployment.environment["PYTHONPATH"] = str(deployment.directory)
    return path


def configured(deployment, early):
    """Writes the configuration, with early reports or without; this handler takes no settings of its own."""
    deployment.handler_settings = {"path": "x"}
    deployment.configure()
    text = deployment.config.read_text().replace('[accounts.acme.handler_settings]\npath = "x"\n', "")
    deployment.config.write_text(text.replace("client_id = 602\n", f"client_id = 602\n{early}\n"))


def test_an_early_status_is_put_right_by_the_delivery(deployment_on_each, sandbox, wait):
    deployment = deployment_on_each
    opened = away(deployment)
    configured(deployment, 'report_first_failure = true\ntimezone = "Europe/London"')
    server = deployment.start()
    deployment.up(server)
    deployment.send(an_email(7))
    [early] = wait(sandbox.applicants, why=deployment.log.read_text)
    assert (early.status, early.remote_id) == ("fail", "")
    assert early.error_message.startswith("not delivered yet, retrying until ")
    assert early.error_message.endswith((" GMT", " BST")) and "internal" not in early.error_message
    opened.touch()
    wait(lambda: sandbox.applicants()[0].status == "success", why=deployment.log.read_text)
    [row] = wait(lambda: deployment.applications(report_states=(ReportState.CONFIRMED,)))
    assert (row.state, row.remote_id) == (State.DELIVERED, "R-7")
    assert [request.saved.status for request in sandbox.requests(7) if request.saved] == ["fail", "success"]
    assert deployment.stop(server) == 0


def test_what_a_pause_keeps_waiting_is_told_after_its_time(deployment, sandbox, wait):
    opened = away(deployment)
    opened.touch()
    configured(deployment, 'report_waiting_after = "1s"')
    intake = deployment.start("--only", "intake")
    deployment.up(intake)
    deployment.cli("pause", "acme", "--reason", "moving house")
    deployment.send(an_email(7))
    deployment.stop(intake)
    [waits] = deployment.applications()
    wait(lambda: time.time() > waits.received_at + 1.0)
    server = deployment.start()  # a worker looks after what waits at its start, and then once a minute
    [early] = wait(sandbox.applicants, why=deployment.log.read_text)
    assert early.error_message.startswith("not delivered yet, trying until ")
    deployment.cli("resume", "acme")
    wait(lambda: sandbox.applicants()[0].status == "success", why=deployment.log.read_text)
    assert deployment.stop(server) == 0
