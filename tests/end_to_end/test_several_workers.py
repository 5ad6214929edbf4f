"""Several workers under one `serve`: they share the work, keep to an account's limit together, and one that dies takes its
own hand-offs along and nobody else's."""

import itertools
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from apptrack_ingest.testing import an_email

WORKERS = ("worker-1", "worker-2")

HANDLER = """
import asyncio
import os
from pathlib import Path
from apptrack_ingest import Accepted

HERE = Path(__file__).parent


async def handle(application):
    mark = HERE / f"inside-{application.applicant_id}-{os.getpid()}"
    mark.touch()
    (HERE / f"called-{application.applicant_id}-{application.attempt}-{os.getpid()}").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.02)
    mark.unlink()
    return Accepted(f"R-{application.applicant_id}")
"""


@pytest.fixture
def several(deployment, tmp_path):
    """Two workers and a handler that waits until it is told to go on."""
    (tmp_path / "slow.py").write_text(HANDLER)
    deployment.environment |= {"APPTRACK_WORKER_PROCESSES": "2", "PYTHONPATH": str(tmp_path)}
    deployment.handler = "slow:handle"
    deployment.configure()
    text = deployment.config.read_text()
    text = text.replace("[accounts.acme.handler_settings]\n", "concurrency = 5\n[accounts.acme.handler_settings]\n#")
    deployment.config.write_text(text)
    return deployment


def inside(tmp_path) -> Counter[str]:
    """How many hand-offs each process is at."""
    return Counter(mark.name.rpartition("-")[2] for mark in tmp_path.glob("inside-*"))


def events(deployment, event):
    whole, _, _ = deployment.log.read_text().rpartition("\n")  # the last one may be half there
    found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def pid_of(process, number):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    wanted = f"worker\0--part\0{number}/2"
    return next(int(pid) for pid in children if wanted in Path(f"/proc/{pid}/cmdline").read_text())


def warm(several, wait, tmp_path) -> int:
    """Ends the ramp of both, whoever is quicker: each may have as many hand-offs as its share allows, once it had three.
    Gives how many were delivered for it."""
    (tmp_path / "go").touch()
    numbers = itertools.count(1)

    def more() -> bool:
        for number in itertools.islice(numbers, 8):
            several.send(an_email(number))
            sent.append(number)
        wait(lambda: several.states() == {"delivered": len(sent)}, why=several.log.read_text)
        each = Counter(line["role"] for line in events(several, "hand-off finished"))
        return all(each[name] >= 3 for name in WORKERS)

    sent: list[int] = []
    wait(more, why=several.log.read_text)
    (tmp_path / "go").unlink()
    return len(sent)


def test_they_share_the_work_and_keep_to_an_accounts_limit_together(several, sandbox, wait, tmp_path):
    process = several.start()
    several.up(process)
    total = warm(several, wait, tmp_path) + 30
    for number in range(10_000, 10_030):
        several.send(an_email(number))
    wait(lambda: sorted(inside(tmp_path).values()) == [2, 3], why=lambda: inside(tmp_path))
    up = {name: several.metric(f'apptrack_process_up{{role="{name}"}}') for name in (*WORKERS, "intake")}
    assert up == dict.fromkeys(up, 1.0)
    (tmp_path / "go").touch()
    wait(lambda: several.states() == {"delivered": total}, why=several.log.read_text)
    done = 'apptrack_hand_off_attempts_total{account="acme",handler="slow:handle",result="delivered"}'
    wait(lambda: several.metric(done) == total)  # the numbers are of both
    assert several.stop(process) == 0
    assert len(list(tmp_path.glob("called-*"))) == total, "each of them once"


def test_one_that_is_killed_takes_only_its_own_along_and_they_are_tried_again_at_once(several, sandbox, wait, tmp_path):
    process = several.start()
    several.up(process)
    total = warm(several, wait, tmp_path) + 12
    for number in range(10_000, 10_012):
        several.send(an_email(number))
    wait(lambda: sum(inside(tmp_path).values()) == 5)
    dead = pid_of(process, 1)
    lost = inside(tmp_path)[str(dead)]
    os.kill(dead, signal.SIGKILL)
    for mark in tmp_path.glob(f"inside-*-{dead}"):
        mark.unlink()
    wait(lambda: sum(inside(tmp_path).values()) > 5 - lost, why=several.log.read_text)  # the new one is at it
    (tmp_path / "go").touch()
    wait(lambda: several.states() == {"delivered": total}, why=several.log.read_text)
    stories = [several.story(row.application_id) for row in several.applications()]
    codes = Counter(attempt.code for story in stories for attempt in story.attempts if attempt.kind == "hand-off")
    # What it was at, and what it had claimed ahead.
    assert codes["delivered"] == total and lost <= codes["no-verdict"] <= lost + 1 and len(codes) == 2
    assert several.stop(process) == 0


def test_a_reload_reaches_all_and_workers_alone_can_be_several_too(several, sandbox, wait, tmp_path):
    (tmp_path / "go").touch()
    intake = several.start("--only", "intake")
    several.up(intake)
    several.environment["APPTRACK_WEB__PORT"] = "0"
    workers = several.start("--only", "worker")
    wait(lambda: "worker" in {line["role"] for line in events(several, "ready")}, why=several.log.read_text)
    several.send(an_email(1))
    wait(lambda: several.states() == {"delivered": 1}, why=several.log.read_text)
    os.kill(workers.pid, signal.SIGHUP)
    wait(lambda: {line["role"] for line in events(several, "settings taken up")} == set(WORKERS))
    assert several.stop(workers) == 0 and several.stop(intake) == 0
