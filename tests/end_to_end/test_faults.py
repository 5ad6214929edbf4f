"""Disks that fill up or go read-only, a locked database, peers that leave: 4xx, nothing half-kept, recovery by itself."""

import contextlib
import errno
import os
import shutil
import smtplib
import socket
import sqlite3
import subprocess
import urllib.request
from pathlib import Path

import pytest

from apptrack_ingest.testing import a_document, an_email


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 4 MB, which only root can mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


NO_FLOORS = "[limits]\nfree_space = 0\nfree_inodes = 0\n"
"""With floors a full disk is never met; what is tested here is the one that fills up all the same."""


def attempt(deployment, number: int, size: int = 2000) -> int:
    """The code of the answer to one mail."""
    mail = an_email(number, documents=[a_document(content=b"%PDF-1.4 " + os.urandom(size))])
    try:
        deployment.send(mail)
    except smtplib.SMTPResponseException as error:  # at MAIL, too, once the disk is known to be full
        assert b"sqlite" not in error.smtp_error.lower() and b"disk" not in error.smtp_error.lower()
        return error.smtp_code
    return 250


def test_a_full_disk_is_a_temporary_failure_and_heals(deployment, small_disk, wait):
    deployment.data_dir = small_disk / "data"
    deployment.extra = NO_FLOORS
    intake = deployment.start("--only", "intake")
    deployment.up(intake)
    assert attempt(deployment, 1) == 250
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    for number in (2, 3):  # 452 where the intake has looked at the disk in between
        assert attempt(deployment, number, size=100_000) in (451, 452)
    ballast.unlink()
    wait(lambda: attempt(deployment, 4, size=100_000) == 250)
    assert intake.poll() is None
    kept = {row.applicant_id for row in deployment.applications()}
    assert kept == {1, 4}
    database = sqlite3.connect(deployment.data / "spool.sqlite3")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept_in = "SELECT id FROM puts WHERE raw IS NOT NULL UNION ALL SELECT message_id FROM stored"
    assert database.execute(f"SELECT count(*) FROM ({kept_in})").fetchone() == (2,)


def test_a_locked_database_is_a_temporary_failure_and_heals(deployment, wait):
    intake = deployment.start("--only", "intake")
    deployment.up(intake)
    assert attempt(deployment, 1) == 250
    database = sqlite3.connect(deployment.data / "spool.sqlite3", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        assert attempt(deployment, 2) == 451
    finally:
        database.execute("ROLLBACK")
    wait(lambda: attempt(deployment, 3) == 250)
    assert {row.applicant_id for row in deployment.applications()} == {1, 3}


@pytest.fixture
def faulty_io(tmp_path):
    """A real EIO from write and sync while a file exists, by a library laid before libc."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make input/output errors with")
    source = Path(__file__).parent.parent / "unit" / "spool" / "faulty_io.c"
    library = tmp_path / "faulty_io.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.parametrize("fault", [f"fsync {errno.EIO}", f"write {errno.EIO}", f"write {errno.EROFS}"])
def test_an_input_output_error_and_a_read_only_disk_are_temporary_and_heal(deployment, faulty_io, wait, fault):
    control = deployment.directory / "fault"
    deployment.environment |= {"LD_PRELOAD": str(faulty_io), "FAULT_FILE": str(control)}
    intake = deployment.start("--only", "intake")
    deployment.up(intake)
    assert attempt(deployment, 1) == 250
    control.write_text(fault)
    assert attempt(deployment, 2) == 451
    assert Path(f"{control}.hits").exists()
    control.unlink()
    wait(lambda: attempt(deployment, 3) == 250, why=deployment.log.read_text)
    assert intake.poll() is None
    assert {1, 3} <= {row.applicant_id for row in deployment.applications()}


def test_a_full_disk_stops_no_worker_and_what_was_handed_over_is_settled(deployment, small_disk, sandbox, wait):
    deployment.data_dir = small_disk / "data"
    deployment.extra = NO_FLOORS
    server = deployment.start()
    deployment.up(server)
    ballast = small_disk / "ballast"
    for number in range(1, 6):
        assert attempt(deployment, number) == 250
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    attempt(deployment, 6, size=50_000)
    ballast.unlink()
    wait(lambda: attempt(deployment, 7) == 250)
    wait(lambda: {7, 5, 4, 3, 2, 1} <= {a.id for a in sandbox.applicants()}, why=deployment.log.read_text)
    assert all(a.contents == 1 for a in sandbox.applicants())


def dialogue(port: int, *lines: bytes) -> socket.socket:
    """A peer that has said these lines and read every answer."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=30)
    answers = peer.makefile("rb")
    answers.readline()
    for line in lines:
        peer.sendall(line + b"\r\n")
        while answers.readline()[3:4] == b"-":
            pass
    return peer


TO_DATA = (b"EHLO x.example", b"MAIL FROM:<a@b.example>", b"RCPT TO:<applications@acme.example>", b"DATA")


def test_a_second_supervisor_is_refused_and_peers_that_leave_leave_nothing_half_stored_or_twice(deployment, wait):
    server = deployment.start()
    deployment.up(server)
    second = deployment.start()  # waits for half a minute whether the first ends
    mail = an_email(1)
    with dialogue(deployment.port, *TO_DATA) as peer:
        peer.sendall(mail[: len(mail) // 2])
    with dialogue(deployment.port, *TO_DATA) as peer:
        peer.sendall(mail + b"\r\n.")  # the very end is missing
    for _ in range(3):
        with dialogue(deployment.port, *TO_DATA) as peer:
            peer.sendall(mail + b"\r\n.\r\n")  # complete: the peer leaves without waiting for our 250, and tries again
    wait(lambda: len(deployment.applications()) == 3)
    wait(lambda: deployment.states() == {"delivered": 1, "duplicate": 2})
    assert list(deployment.candidates()) == [1]
    assert second.wait(90) == 1
    assert "another apptrack-ingest runs" in deployment.log.read_text()
    assert deployment.greeted()


def all_command_lines() -> str:
    """What `ps` would show of every process, environments included."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        for part in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                lines.append((process / part).read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


def test_the_hash_is_nowhere(deployment, secret_hash, wait):
    """Where idibu's host does not resolve, the URL with the hash goes through every error there is."""
    deployment.idibu = "http://idibu.invalid"
    deployment.extra = '[log]\nlevel = "debug"\n'
    server = deployment.start()
    deployment.up(server)
    deployment.send(an_email(1, name="Very Private Person", address="private@example.com"))
    wait(
        lambda: (
            any(a.kind == "report" and a.ended_at for a in deployment.story(1).attempts)
            if deployment.applications()
            else 0
        )
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{deployment.web_port}/metrics") as page:
        metrics = page.read().decode()
    shown = "".join(
        deployment.cli(*words).stdout for words in (["show", "1"], ["show", "1", "--json"], ["list"], ["check-config"])
    )
    command_lines = all_command_lines()
    assert "--only worker" in command_lines
    deployment.stop(server)
    log = deployment.log.read_text()
    assert "not-reached" in log and "unreachable" in shown
    for text in (log, metrics, shown):
        assert secret_hash not in text
    for private in ("Very Private", "private@example.com"):
        assert private not in log and private not in metrics
    assert secret_hash not in command_lines
