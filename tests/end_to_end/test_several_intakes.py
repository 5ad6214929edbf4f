"""Several intakes on one address: all of them take mail, one that dies takes nothing along, and none outlives `serve`."""

import json
import os
import signal
import smtplib
import socket
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from apptrack_ingest.testing import an_email

INTAKES = ("intake-1", "intake-2")


@pytest.fixture
def several(deployment):
    deployment.environment["APPTRACK_INTAKE_PROCESSES"] = "2"
    return deployment


def lines(deployment, event):
    """What the log tells of these events."""
    whole, _, _ = deployment.log.read_text().rpartition("\n")  # the last one may be half there
    found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def takers(deployment):
    """Who took the mails so far."""
    return [line["role"] for line in lines(deployment, "received")]


def children(process):
    """The pids of the supervisor's children."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def pid_of(process, number):
    return next(pid for pid in children(process) if f"{number}/2" in Path(f"/proc/{pid}/cmdline").read_text())


def cores_of(process, number):
    """The cores that an intake keeps to; nothing while it is being started."""
    try:
        return os.sched_getaffinity(pid_of(process, number))
    except (StopIteration, OSError):
        return None


@contextmanager
def stopped(pid):
    """A process that listens, and takes nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ready(deployment):
    return deployment.page("/readyz")[0] == 200


def test_all_of_them_take_mail_on_one_address(several, wait):
    process = several.start()
    several.up(process)
    wait(lambda: ready(several))
    for busy, free in ((1, 2), (2, 1)):  # whoever is free takes a connection, so one alone may well take all
        with stopped(pid_of(process, busy)):
            for number in range(8):
                several.send(an_email(1000 * free + number))
    assert wait(lambda: len(takers(several)) == 16 and takers(several)) == ["intake-2"] * 8 + ["intake-1"] * 8
    up = {name: several.metric(f'apptrack_process_up{{role="{name}"}}') for name in (*INTAKES, "worker")}
    assert up == dict.fromkeys(up, 1.0)
    assert several.metric('apptrack_messages_received_total{trusted="yes"}') == 16
    cores = [cores_of(process, number) for number in (1, 2)]
    allowed = os.sched_getaffinity(process.pid)
    assert set.union(*cores) == allowed and (len(allowed) == 1 or not set.intersection(*cores)), "each has its own"
    usual = os.sched_getscheduler(process.pid) == os.SCHED_OTHER
    assert not usual or {os.sched_getscheduler(pid) for pid in children(process)} == {os.SCHED_BATCH}, "the worker, too"
    several.configure('[accounts.globex]\nrecipients = ["globex.example"]\nreporting = false\n')
    os.kill(process.pid, signal.SIGHUP)
    wait(lambda: {line["role"] for line in lines(several, "settings taken up")} == {*INTAKES, "worker"})
    assert several.stop(process) == 0
    assert {line["role"] for line in lines(several, "drained")} >= set(INTAKES)


def test_mail_is_taken_while_one_of_them_is_dead_and_none_outlives_its_supervisor(several, wait):
    process = several.start()
    several.up(process)
    wait(lambda: ready(several))
    cores = cores_of(process, 1)
    os.kill(pid_of(process, 1), signal.SIGSTOP)  # it still listens, and takes nothing
    for number in range(4):
        several.send(an_email(2000 + number))
    assert takers(several) == ["intake-2"] * 4
    os.kill(pid_of(process, 1), signal.SIGKILL)
    wait(lambda: lines(several, "process ended unexpectedly, starting again"))
    several.send(an_email(2010))
    wait(lambda: ready(several) and several.metric('apptrack_process_restarts_total{role="intake-1"}') == 1)
    wait(lambda: cores_of(process, 1) == cores)
    left = wait(lambda: len(found := children(process)) >= 3 and found)
    process.kill()
    process.wait()
    wait(lambda: not [pid for pid in left if Path(f"/proc/{pid}").exists()])


def test_an_intake_alone_can_be_several_too(several, wait):
    process = several.start("--only", "intake")
    several.up(process)
    several.send(an_email(3000))
    wait(lambda: ready(several))
    with urllib.request.urlopen(f"http://127.0.0.1:{several.web_port}/metrics", timeout=30) as page:
        text = page.read().decode()
    assert 'apptrack_process_up{role="intake-2"} 1.0' in text and 'role="worker"' not in text
    second = several.start("--only", "intake")
    wait(lambda: lines(several, "waiting for another apptrack-ingest to end"))
    assert several.stop(process) == 0
    several.up(second)
    assert several.stop(second) == 0


def test_an_address_that_is_taken_stops_the_start(several):
    with socket.socket() as other:
        other.bind(("127.0.0.1", several.port))
        other.listen()
        process = several.start()
        assert process.wait(90) == 1
    assert "cannot be listened on" in several.log.read_text()


def greeted(connection):
    """What a server says first."""
    return connection.makefile("rb").readline()[:4]


def opened(deployment, count):
    return [socket.create_connection(("127.0.0.1", deployment.port), timeout=60) for _ in range(count)]


def test_long_lived_connections_are_shared_among_them(several, wait):
    process = several.start()
    several.up(process)
    wait(lambda: ready(several))
    connections = opened(several, 20)
    assert [greeted(one) for one in connections] == [b"220 "] * 20
    for number, one in enumerate(connections):
        with smtplib.SMTP() as client:
            client.sock, client.file = one, None
            client.ehlo("sender.example")
            client.sendmail("a@example.org", ["applications@acme.example"], an_email(4000 + number))
    shares = wait(lambda: len(found := takers(several)) == 20 and [found.count(name) for name in INTAKES])
    assert min(shares) >= 3, shares
    assert several.stop(process) == 0


def test_an_intake_that_hangs_keeps_no_connection_waiting(several, wait):
    process = several.start()
    several.up(process)
    wait(lambda: ready(several))
    with stopped(pid_of(process, 2)):  # it still counts as there, for a second
        connections = opened(several, 20)
        assert [greeted(one) for one in connections] == [b"220 "] * 20
    for one in connections:
        one.close()
    assert several.stop(process) == 0
