"""The benchmark suite runs, and nothing that it sent is lost; its figures are another matter (docs/performance.md)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from end_to_end.programs import PLACES
from ports import free_port

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compare.py"


def run(*words: str) -> str:
    """What it prints; it ends with 1 when a mail that was answered 250, or an application, is missing afterwards."""
    command = [sys.executable, SCRIPT, "--short", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as suite:
        try:
            output, _ = suite.communicate(timeout=600)
        finally:
            suite.terminate()  # it stops what it started
    assert suite.returncode == 0, output
    return output


def rows(output: str) -> list[str]:
    """The first column of its tables."""
    return [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("| ")]


def test_what_is_accepted_is_kept_by_us_and_by_a_peer():
    if shutil.which("smtp-source", path=PLACES) is None:
        pytest.skip("NOT TESTED: smtp-source is not installed (apt-get install postfix)")
    names = rows(run("accept", "--sizes", "2", "--peers", "aiosmtpd", "2 intakes"))
    peers = {"aiosmtpd, file + fsync", "aiosmtpd, its own Mailbox handler"}
    assert {*peers, "apptrack-ingest, SQLite, 2 intakes"} <= set(names)


def test_every_application_handed_to_a_slow_ats_is_confirmed():
    names = rows(run("waiting"))
    for handler in ("a handler that waits", "the webhook handler"):
        assert {f"{handler}, all are there already", f"{handler}, they come as fast as they are taken"} <= set(names)


def test_the_stages_of_an_application_are_told_apart():
    names = rows(run("stages"))
    assert {"spool: put", "parse", "hand off", "report"} <= set(names)
    assert {"intake (receive, put)", "worker (all but parsing)", "parser (parse)"} <= set(names)


SENDS = """
import sys, time
sys.path.insert(0, sys.argv[1])
import load
sending = load.running(int(sys.argv[2]), 300, 3000, reuse=True)
while not sending.is_over():
    time.sleep(0.01)
print(sending.result().taken)
"""


def test_a_load_of_many_mails_comes_to_its_end_whoever_waits_for_it():
    sink = Controller(Sink(), hostname="127.0.0.1", port=free_port())
    sink.start()
    try:
        command = [sys.executable, "-c", SENDS, str(SCRIPT.parent), str(sink.port)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    finally:
        sink.stop()
    assert run.stdout == "3000\n", run.stderr
