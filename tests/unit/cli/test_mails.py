"""`reparse` and `export`: the mail as received, read again or handed out unchanged."""

import os
import pty
import stat
import subprocess
import sys
import time
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path

import pytest
from click.testing import CliRunner

from apptrack_ingest.cli import main
from apptrack_ingest.model import HeldReason, ReportState, State
from apptrack_ingest.testing import an_email

from .conftest import House

# --- reparse ---------------------------------------------------------------------------------------------------------


def test_reparse_shows_and_keeps_what_changed(house: House) -> None:
    application_id = house.delivered(raw=an_email(name="Jane D. Doe", client_reference=None))
    told = house.run("reparse", application_id).stdout
    assert "client_reference: VAC-1042 -> -" in told
    assert "candidate_name: Jane Doe -> Jane D. Doe" in told
    summary = house.story(application_id).summary
    assert (summary.facts.candidate_name, summary.facts.client_reference) == ("Jane D. Doe", None)
    assert summary.state is State.DELIVERED
    assert "nothing changed" in house.run("reparse", application_id).stdout


def test_reparse_puts_what_can_be_read_now_back_to_work(house: House) -> None:
    unreadable = house.held(HeldReason.UNREADABLE)
    mended = house.held(HeldReason.NO_APPLICANT_ID, raw=an_email(4711), applicant_id=None)
    without = house.held(HeldReason.NO_APPLICANT_ID, raw=an_email(None), applicant_id=None)
    results = house.json("reparse", unreadable, mended, without)
    assert [("tried again" in result["text"]) for result in results] == [True, True, False]
    assert house.story(unreadable).summary.state is State.RECEIVED
    story = house.story(mended)
    assert (story.summary.state, story.summary.applicant_id) == (State.RECEIVED, 4711)
    assert (story.actions[-1].action, story.actions[-1].note) == ("retry", "reparse")
    assert house.story(without).summary.state is State.HELD


@pytest.mark.parametrize("reason", [HeldReason.UNREADABLE, HeldReason.UNTRUSTED])
def test_reparse_leaves_the_id_of_an_attached_mail_to_its_signature(house: House, reason: HeldReason) -> None:
    outer = EmailMessage(policy=SMTP)
    outer["Subject"] = "FW: an application"
    outer.set_content("see attached")
    outer.add_attachment(BytesParser(policy=SMTP).parsebytes(an_email(4711)))
    application_id = house.held(reason, raw=outer.as_bytes(), applicant_id=None)
    house.run("reparse", application_id)
    shown = house.json("show", application_id)["summary"]
    assert shown["applicant_id"] is None
    # What could not be read goes back to the worker, who looks at the signature.
    assert shown["state"] == ("received" if reason is HeldReason.UNREADABLE else "held")


def test_reparse_does_not_believe_a_mail_that_is_not_trusted(house: House) -> None:
    application_id = house.held(HeldReason.UNTRUSTED, trusted=False)
    house.run("reparse", application_id)
    summary = house.story(application_id).summary
    assert (summary.state, summary.applicant_id) == (State.HELD, None)
    assert summary.facts.candidate_name == "Jane Doe"


def test_reparse_never_changes_an_id_already_believed(house: House) -> None:
    application_id = house.delivered(raw=an_email(999), applicant_id=40809163)
    house.run("reparse", application_id)
    assert house.story(application_id).summary.applicant_id == 40809163


def test_reparse_of_what_still_cannot_be_read_says_why(house: House) -> None:
    application_id = house.held(HeldReason.UNREADABLE, raw=b"A: " + b"x" * 200_000 + b"\r\n\r\n")
    assert "header-block-too-large" in house.run("reparse", application_id, code=1).stderr
    assert house.story(application_id).summary.state is State.HELD


def erased(house: House) -> int:
    application_id = house.delivered(report=ReportState.CONFIRMED)
    house.do(lambda spool: spool.erase_finished(before=time.time() + 60, limit=10))
    return application_id


def test_an_erased_mail_is_gone(house: House) -> None:
    application_id = erased(house)
    for command in ("reparse", "export"):
        assert "its mail was erased by retention" in house.run(command, application_id, code=3).stderr


# --- export ----------------------------------------------------------------------------------------------------------

RAW = b"Subject: caf\xe9\r\n\r\nbare\nlines\rand \x00 bytes\r\n"


def test_export_writes_the_exact_bytes_for_us_alone(house: House, tmp_path: Path) -> None:
    application_id, file = house.put(RAW), tmp_path / "out.eml"
    house.run("export", application_id, "-o", file)
    assert file.read_bytes() == RAW
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_export_replaces_nothing_unless_forced(house: House, tmp_path: Path) -> None:
    application_id, file = house.put(RAW), tmp_path / "out.eml"
    file.write_bytes(b"dear to somebody")
    file.chmod(0o644)
    assert "--force replaces it" in house.run("export", application_id, "-o", file, code=1).stderr
    assert file.read_bytes() == b"dear to somebody"
    house.run("export", application_id, "-o", file, "--force")
    assert file.read_bytes() == RAW
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "out.eml" in path.name] == ["out.eml"]


def test_export_into_a_pipe(house: House) -> None:
    application_id = house.put(RAW)
    for words in ((), ("-o", "-")):
        assert house.run("export", application_id, *words).stdout_bytes == RAW


def test_export_refuses_a_terminal(house: House) -> None:
    house.put(RAW)
    try:
        terminal, other_end = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminal can be had here (is /dev/pts mounted?)")
    command = [sys.executable, "-m", "apptrack_ingest", "export", "--config", str(house.config), "1"]
    result = subprocess.run(command, stdout=other_end, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(other_end)
    os.close(terminal)
    assert result.returncode == 2 and "give -o FILE" in result.stderr


def test_export_where_nothing_can_be_written(house: House, tmp_path: Path) -> None:
    house.put(RAW)
    assert "No such file" in house.run("export", 1, "-o", tmp_path / "none" / "out.eml", code=1).stderr
    result = CliRunner().invoke(main, ["export", "--config", str(house.config), "1", "-o", str(tmp_path)])
    assert result.exit_code == 2
