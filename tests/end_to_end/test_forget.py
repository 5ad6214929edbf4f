"""A person is forgotten beside the running service: spool, folder and what waits; idibu is told; nobody else is touched."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.conftest import HASH, Deployment, wait_for

from apptrack_ingest.model import ReportState, State
from apptrack_ingest.spool.contract import Summary
from apptrack_ingest.testing import ScriptedIdibu, an_email

JANE = "jane.doe@example.com"


def holding(directory: Path, word: str) -> list[str]:
    """The files in which a word stands, in whatever capitals."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path.name for path in files if word.encode() in path.read_bytes().lower()]


@pytest.fixture(scope="module")
def sandbox(each_spool: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedIdibu]:
    with ScriptedIdibu({HASH: "acme"}, tmp_path_factory.mktemp("idibu") / "calls") as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def deployment(
    each_spool: str | None, sandbox: ScriptedIdibu, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """One running service for both tests."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"), sandbox.base_url, spool=each_spool)
    deployment.account("moved", recipients=["moved.example"])
    deployment.up(deployment.start())
    yield deployment
    deployment.stop_all()


def test_a_flood_is_held_and_let_go_again_by_selection(deployment: Deployment) -> None:
    """Of an account that the other test does not use."""
    deployment.cli("pause", "moved", "--reason", "the ATS is moved")
    for number in range(1, 9):
        mail = an_email(number, address="joan@example.org", headers={"X-iTrackID-ClientID": None})
        deployment.send(mail, "jobs@moved.example")
    wait_for(lambda: [row.state for row in deployment.applications(account="moved")] == [State.RECEIVED] * 8)
    held = json.loads(deployment.cli("hold", "--account", "moved", "--yes", "--json", "--reason", "in doubt").stdout)
    assert (held["matched"], held["done"], held["refused"]) == (8, 8, 0)
    deployment.cli("resume", "moved", "--reason", "moved")
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
    wait_for(lambda: set(deployment.candidates("moved")) == set(range(1, 9)), why=deployment.log.read_text)
    told = [(each["action"], each["done"]) for each in json.loads(deployment.cli("history", "--json").stdout)[:4]]
    assert told == [("release", 8), ("resume", 0), ("hold", 8), ("pause", 0)]


def test_one_is_forgotten_and_the_others_are_not(deployment: Deployment, sandbox: ScriptedIdibu) -> None:
    """It ends the service, as what is in its files is looked at when all is written."""

    def applications() -> list[Summary]:
        return deployment.applications(account="acme")

    deployment.send(an_email(1, address=JANE, name="Jane Doe"))
    deployment.send(an_email(2, address="john@example.org", name="John Roe"))
    wait_for(lambda: set(deployment.candidates()) == {1, 2}, why=deployment.log.read_text)
    wait_for(lambda: {a.id: a.status for a in sandbox.applicants()} == {1: "success", 2: "success"})
    # While the account rests, a second application of hers is received and waits, unread.
    deployment.cli("pause", "acme", "--reason", "maintenance")
    deployment.send(an_email(3, address=JANE.title(), name="Jane Doe"))
    wait_for(lambda: [row.report for row in applications()] == [None] + [ReportState.CONFIRMED] * 2)
    waiting, john, jane = applications()
    assert [row.state for row in (waiting, john, jane)] == [State.RECEIVED, State.DELIVERED, State.DELIVERED]
    hers = [jane.application_id, waiting.application_id]

    done = json.loads(deployment.cli("forget", JANE, "--yes", "--json").stdout)

    assert (done["applications"], done["discarded"], done["mails"]) == (hers, hers[1:], 2)
    assert [(each["account"], each["erased"]) for each in done["handlers"]] == [("acme", 1), ("moved", 0)]
    assert done["handlers"][0] == {"account": "acme", "handler": "folder", "erased": 1, "remote_ids": []}
    assert set(deployment.candidates()) == {2}
    wait_for(lambda: {a.id: a.status for a in sandbox.applicants()} == {1: "success", 2: "success", 3: "fail"})
    (told,) = [applicant for applicant in sandbox.applicants() if applicant.id == 3]
    assert told.error_message == "discarded: erased on request"
    assert "forgotten" in deployment.cli("forget", JANE, "--check").stdout
    waiting, john, jane = applications()
    assert [row.state for row in (waiting, john, jane)] == [State.DISCARDED, State.DELIVERED, State.DELIVERED]
    assert john.facts.candidate_email == "john@example.org"
    assert b"john@example.org" in deployment.raw(john.message_id).lower()
    # Nothing more is handed over of her when the account goes on.
    deployment.cli("resume", "acme")
    deployment.send(an_email(4, address="joan@example.org"))
    wait_for(lambda: set(deployment.candidates()) == {2, 4}, why=deployment.log.read_text)
    deployment.stop(deployment.processes[0])
    assert JANE not in deployment.log.read_text().lower()
    assert HASH not in deployment.log.read_text()
    for directory in (deployment.data, deployment.folders):
        assert holding(directory, JANE) == []
