"""`idibu jobs`: a job's whole life by the customer's own reference, from a file and from the command line."""

from pathlib import Path

import pytest

from .conftest import Idibu

JOB = """
sender_id = 31000383
title = "Senior .Net Developer"
description = "<p>What there is to do & more</p>"
reference = "JO-1502-428583"
boards = [517, { id = 41, days = 2 }]
salary_min = 30000
salary_max = 40000.50
salary_per = "annum"
currency = "GBP"
job_type = "permanent"
job_time = 2
start_date = 2026-12-01
publish = 2026-11-30T09:30:00+01:00

[config]
lockboards = "yes"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "job.toml"
    file.write_text(JOB)
    return file


def test_a_job_is_added_changed_and_taken_down(idibu: Idibu, file: Path) -> None:
    shown = idibu.run("idibu", "jobs", "add", "VAC-1", "--file", file).output
    assert "31003390" in shown and "VAC-1" in shown and "added" in shown and "517" in shown and "pending" in shown
    changed = idibu.json("idibu", "jobs", "update", "--reference", "VAC-1", "--file", file, "--set", "title=Dev lead")
    assert changed["jobs"][0]["status"] == "added" and "xml" not in changed["jobs"][0]
    idibu.run("idibu", "jobs", "update", "--id", 31003390, "--new-reference", "VAC-2", "--file", file)
    (job,) = idibu.sandbox.jobs()
    assert (job.client_reference, job.title) == ("VAC-2", "Senior .Net Developer")
    assert "--yes" in idibu.run("idibu", "jobs", "delete", "--reference", "VAC-2", code=2).output
    assert "pending" in idibu.run("idibu", "jobs", "delete", "--reference", "VAC-2", "--yes").output
    assert not [post for post in idibu.sandbox.jobs()[0].posts if post.live]


def test_all_of_the_file_reaches_idibu(idibu: Idibu, file: Path) -> None:
    shown = idibu.run("idibu", "jobs", "add", "VAC-1", "--file", file, "--dry-run").output
    for part in (
        '<sender id="31000383"/>',
        "<![CDATA[<p>What there is to do & more</p>]]>",
        '<board id="517"/>',
        '<duration days="2"/>',
        "<salarymin>30000</salarymin>",
        '<salaryper value="annum"/>',
        '<jobtype id="2"/>',
        "<publish>2026-11-30 08:30</publish>",
        "<startdate>2026-12-01</startdate>",
        "<lockboards>yes</lockboards>",
    ):
        assert part in shown
    assert idibu.calls == []


def test_all_of_it_on_the_command_line(idibu: Idibu) -> None:
    fields = ("sender_id=7", "title=Developer", "description=To do", "reference=REF-1", "boards=517, 41:2")
    sets = [word for field in (*fields, "config.lockboards=yes", "job_type=part time") for word in ("--set", field)]
    assert "job_type" in idibu.run("idibu", "jobs", "add", "VAC-1", *sets, code=2).output
    shown = idibu.run("idibu", "jobs", "add", "VAC-1", *sets, "--set", "job_type=4", "--set", "job_time=part-time")
    assert "added" in shown.output
    assert [post.board for post in idibu.sandbox.jobs()[0].posts] == [517, 41]


def test_a_reference_that_is_taken(idibu: Idibu, file: Path) -> None:
    idibu.run("idibu", "jobs", "add", "VAC-1", "--file", file)
    said = idibu.run("idibu", "jobs", "add", "VAC-1", "--file", file, code=1).output
    assert "already in the system" in said and "jobs update" in said


def test_a_job_that_a_person_has_to_complete(idibu: Idibu, file: Path) -> None:
    shown = idibu.run("idibu", "jobs", "add", "VAC-1", "--file", file, "--set", "config.lockboards=no").output
    assert "delayed" in shown and "to be completed at" in shown and "http" in shown
    told = idibu.json("idibu", "jobs", "cancel", "--posting", 235, "--yes")
    assert told["postings"] == [{"status": "cancelled", "id": 235, "message": told["postings"][0]["message"]}]


def test_a_repost_and_a_quick_one(idibu: Idibu, file: Path) -> None:
    idibu.run("idibu", "jobs", "add", "VAC-1", "--file", file)
    idibu.run("idibu", "jobs", "repost", "--reference", "VAC-1", "--file", file)
    shown = idibu.run("idibu", "jobs", "quick-repost", "--id", 31003390, "--board", 99, "--board", 517, code=1).output
    assert "not-subscribed" in shown and "517" in shown


def test_cancelling_by_queue_or_by_job(idibu: Idibu, file: Path) -> None:
    idibu.run("idibu", "jobs", "add", "VAC-1", "--file", file)
    assert "queued posts 1802" in idibu.run("idibu", "jobs", "cancel", "--queue", 1802, code=2).output
    assert "cancelled" in idibu.run("idibu", "jobs", "cancel", "--queue", 1802, "--yes").output
    assert "failed" in idibu.run("idibu", "jobs", "cancel", "--queue", 9, "--yes", code=1).output
    assert "cancelled" in idibu.run("idibu", "jobs", "cancel", "--reference", "VAC-1", "--yes").output
    words = ("idibu", "jobs", "cancel", "--queue", 1802, "--reference", "VAC-1", "--yes")
    assert "either" in idibu.run(*words, code=2).output


def test_deleting_by_the_adverts_reference(idibu: Idibu, file: Path) -> None:
    for name in ("VAC-1", "VAC-2"):
        idibu.run("idibu", "jobs", "add", name, "--file", file)
    words = ("idibu", "jobs", "delete", "--advert-reference", "JO-1502-428583")
    assert idibu.run(*words, "--yes", code=1).output
    assert "all jobs with" in idibu.run(*words, "--every", code=2).output
    assert len(idibu.json(*words, "--every", "--yes")["jobs"]) == 2
    assert "--every" in idibu.run(*words, "--board", 517, "--yes", code=2).output
    assert "--advert-reference" in idibu.run("idibu", "jobs", "delete", "--id", 1, "--every", "--yes", code=2).output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "VAC-1"), "sender_id: Field required; title: Field required"),
        (("add", " ", "--file", "FILE"), "client reference must be given"),
        (("add", "VAC-1", "--file", "FILE", "--set", "title=Dev"), "title must have at least 5 characters"),
        (("add", "VAC-1", "--file", "FILE", "--set", "salary_max=5"), "highest salary"),
        (("add", "VAC-1", "--file", "FILE", "--set", "publish=2026-11-30T09:30:00"), "publish must have a time zone"),
        (("add", "VAC-1", "--file", "FILE", "--set", "boards=seek"), "boards.0.id"),
        (("add", "VAC-1", "--file", "FILE", "--set", "config.lock=yes"), "no such field: config.lock; known are"),
        (("add", "VAC-1", "--file", "FILE", "--set", "config.lockboards=maybe"), "config.lockboards"),
        (("add", "VAC-1", "--set", "config=yes", "--file", "FILE"), "config must be a section"),
        (("update", "--file", "FILE"), "either --id N or --reference TEXT"),
        (("update", "--id", "1", "--reference", "VAC-1", "--file", "FILE"), "either --id N or --reference TEXT"),
        (("update", "--reference", "VAC-1", "--new-reference", "VAC-2", "--file", "FILE"), "only with idibu's job id"),
        (("quick-repost",), "either --id N or --reference TEXT"),
        (("delete", "--yes"), "either --id N or --reference TEXT"),
        (("cancel", "--yes"), "either --id N or --reference TEXT"),
    ],
)
def test_what_cannot_be_asked_is_not_asked(idibu: Idibu, file: Path, words: tuple[str, ...], says: str) -> None:
    given = [str(file) if word == "FILE" else word for word in words]
    said = idibu.run("idibu", "jobs", *given, code=2).output
    assert says in " ".join(said.split())
    assert idibu.calls == []
