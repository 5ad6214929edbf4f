"""A person is forgotten beside the running service: spool, folder and what waits; idibu is told; nobody else is touched."""

import json
from pathlib import Path

from end_to_end.conftest import HASH, Deployment, wait_for

from apptrack_ingest.model import ReportState, State
from apptrack_ingest.testing import ScriptedIdibu, an_email

JANE = "jane.doe@example.com"


def holding(directory: Path, word: str) -> list[str]:
    """The files in which a word stands, in whatever capitals."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path.name for path in files if word.encode() in path.read_bytes().lower()]


def test_one_is_forgotten_and_the_others_are_not(deployment_on_each: Deployment, sandbox: ScriptedIdibu) -> None:
    deployment = deployment_on_each
    deployment.up(deployment.start())
    deployment.send(an_email(1, address=JANE, name="Jane Doe"))
    deployment.send(an_email(2, address="john@example.org", name="John Roe"))
    wait_for(lambda: set(deployment.candidates()) == {1, 2}, why=deployment.log.read_text)
    wait_for(lambda: {a.id: a.status for a in sandbox.applicants()} == {1: "success", 2: "success"})
    # While the account rests, a second application of hers is received and waits, unread.
    deployment.cli("pause", "acme", "--reason", "maintenance")
    deployment.send(an_email(3, address=JANE.title(), name="Jane Doe"))
    wait_for(lambda: deployment.states() == {"delivered": 2, "received": 1})
    wait_for(lambda: [row.report for row in deployment.applications()] == [None] + [ReportState.CONFIRMED] * 2)

    done = json.loads(deployment.cli("forget", JANE, "--yes", "--json").stdout)

    assert (done["applications"], done["discarded"], done["mails"]) == ([1, 3], [3], 2)
    assert done["handlers"] == [{"account": "acme", "handler": "folder", "erased": 1, "remote_ids": []}]
    assert set(deployment.candidates()) == {2}
    wait_for(lambda: {a.id: a.status for a in sandbox.applicants()} == {1: "success", 2: "success", 3: "fail"})
    (told,) = [applicant for applicant in sandbox.applicants() if applicant.id == 3]
    assert told.error_message == "discarded: erased on request"
    assert "forgotten" in deployment.cli("forget", JANE, "--check").stdout
    rows = {row.application_id: row for row in deployment.applications()}
    assert [rows[each].state for each in (1, 2, 3)] == [State.DELIVERED, State.DELIVERED, State.DISCARDED]
    assert rows[2].facts.candidate_email == "john@example.org"
    assert b"john@example.org" in deployment.raw(rows[2].message_id).lower()
    # Nothing more is handed over of her when the account goes on.
    deployment.cli("resume", "acme")
    deployment.send(an_email(4, address="joan@example.org"))
    wait_for(lambda: set(deployment.candidates()) == {2, 4}, why=deployment.log.read_text)
    deployment.stop(deployment.processes[0])
    assert JANE not in deployment.log.read_text().lower()
    assert HASH not in deployment.log.read_text()
    for directory in (deployment.data, deployment.folders):
        assert holding(directory, JANE) == []


def test_a_flood_is_held_and_let_go_again_by_selection(deployment_on_each: Deployment) -> None:
    deployment = deployment_on_each
    deployment.up(deployment.start())
    deployment.cli("pause", "acme", "--reason", "the ATS is moved")
    for number in range(1, 9):
        deployment.send(an_email(number))
    wait_for(lambda: deployment.states() == {"received": 8})
    held = json.loads(deployment.cli("hold", "--account", "acme", "--yes", "--json", "--reason", "in doubt").stdout)
    assert (held["matched"], held["done"], held["refused"]) == (8, 8, 0)
    deployment.cli("resume", "acme", "--reason", "moved")
    words = (
        "release",
        "--held-reason",
        "by-operator",
        "--until",
        "2100-01-01",
        "--throttle",
        "50/s",
        "--yes",
        "--json",
    )
    assert json.loads(deployment.cli(*words).stdout)["done"] == 8
    wait_for(lambda: set(deployment.candidates()) == set(range(1, 9)), why=deployment.log.read_text)
    told = [(each["action"], each["done"]) for each in json.loads(deployment.cli("history", "--json").stdout)]
    assert told == [("release", 8), ("resume", 0), ("hold", 8), ("pause", 0)]
