"""`list`: filters, order, pages, what is not reported, and text that cannot act on a terminal."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from apptrack_ingest.cli import main
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import HeldReason, ReportState, Stage
from apptrack_ingest.spool.contract import Facts, Pause, Settlement, rest_mark

from .conftest import HOSTILE, JANE, SECRET, House


def ids(house: House, *words: object) -> list[int]:
    return [row["application_id"] for row in house.json("list", *words)["applications"]]


def test_rows_show_what_a_person_looks_for(house: House) -> None:
    application_id = house.delivered(report=ReportState.CONFIRMED)
    line = house.run("list").stdout.splitlines()[1]
    for value in (application_id, "acme", 40809163, "Jane Doe <jane.doe@example.com>", "VAC-1042", "delivered"):
        assert str(value) in line
    assert "confirmed" in line and "ats-1" in line
    assert f"{datetime.fromtimestamp(house.now - 60).astimezone():%Y-%m-%d %H:%M:%S}" in line


def test_newest_first_and_page_by_page(house: House) -> None:
    first, second, third = house.put(), house.put(), house.put()
    assert ids(house) == [third, second, first]
    page = house.json("list", "--limit", 2)
    assert [row["application_id"] for row in page["applications"]] == [third, second]
    assert page["next_before"] == second
    assert f"--before {second}" in house.run("list", "--limit", 2).stdout
    rest = house.json("list", "--limit", 2, "--before", second)
    assert [row["application_id"] for row in rest["applications"]] == [first]
    assert rest["next_before"] is None


def test_filters_narrow(house: House) -> None:
    delivered = house.delivered(report=ReportState.REFUSED)
    untrusted = house.held(HeldReason.UNTRUSTED, trusted=False)
    no_id = house.held(HeldReason.NO_APPLICANT_ID, applicant_id=None, account="beta")
    old = house.put(received_at=time.time() - 10 * 86400, applicant_id=7)
    assert ids(house, "--state", "delivered") == [delivered]
    assert ids(house, "--state", "delivered", "--state", "held") == [no_id, untrusted, delivered]
    assert ids(house, "--held-reason", "untrusted") == [untrusted]
    assert ids(house, "--report-state", "refused") == [delivered]
    assert ids(house, "--account", "beta") == [no_id]
    assert ids(house, "--applicant-id", 7) == [old]
    assert ids(house, "--client-reference", "VAC-1042") == [delivered]
    assert ids(house, "--candidate", "JANE") == [delivered]
    assert ids(house, "--candidate", "doe@example") == [delivered]
    assert ids(house, "--since", "7d") == [no_id, untrusted, delivered]
    assert ids(house, "--since", "2001-01-01") == [old, no_id, untrusted, delivered]
    assert ids(house, "--state", "held", "--account", "acme") == [untrusted]


@pytest.mark.parametrize("since", ["yesterday", "7", "h", "0001-01-01T00:00:00+14:00", "9999-99-99"])
def test_a_time_that_is_none_is_refused(house: House, since: str) -> None:
    house.put()
    assert "neither an age" in house.run("list", "--since", since, code=2).stderr


def test_an_id_too_large_for_the_database_is_refused(house: House) -> None:
    house.put()
    house.run("list", "--applicant-id", 2**63, code=2)
    assert ids(house, "--applicant-id", 2**63 - 1) == []


def test_nothing_found_says_so(house: House) -> None:
    house.put()
    assert "nothing found" in house.run("list", "--state", "failed").stdout
    assert house.json("list", "--state", "failed")["applications"] == []


def test_no_spool_is_no_such_thing_and_makes_none(house: House) -> None:
    assert "there is no spool" in house.run("list", code=3).stderr
    assert not house.data.exists()


def test_a_wrong_configuration_exits_78(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("recipient = 1")
    result = CliRunner().invoke(main, ["list", "--config", str(wrong)])
    assert result.exit_code == 78 and "recipient" in result.stderr


def test_states_say_what_comes_next(house: House) -> None:
    house.held(HeldReason.CRASH_LOOP)
    later = house.put()
    house.settle(later, Settlement(Event.POSTPONE, "timeout", due_at=time.time() + 3600))
    assert "held: crash-loop" in house.run("list").stdout
    assert "received, next attempt " in house.run("list", "--state", "received").stdout
    house.put(applicant_id=2)
    assert "received, due now" in house.run("list").stdout
    house.claim()
    assert "received, in work" in house.run("list").stdout


def test_what_is_not_reported_is_said_under_the_table(house: House) -> None:
    house.delivered(account="beta")
    house.do(
        lambda spool: spool.pause(Pause("acme", Stage.REPORT, "unauthorized", 1e9, time.time() + 600, "abcdef123456"))
    )
    told = house.run("list").stdout
    assert "account beta has no hash: idibu is told nothing, 1 report waiting; set accounts.beta.hash_file" in told
    assert "reporting of account acme is paused since 2001-09-0" in told
    assert "quiet" not in told
    page = house.json("list")
    assert page["accounts_without_hash"] == ["beta"]
    assert page["paused"][0]["account"] == "acme"
    assert page["paused"][0]["since"] == "2001-09-09T01:46:40.000+00:00"
    assert SECRET not in told and "abcdef123456" not in told + str(page)


def test_an_ats_that_is_away_is_told_of_under_the_table_while_something_waits(house: House) -> None:
    for account in ("acme", "beta"):
        house.do(lambda spool, account=account: spool.set_mark(rest_mark(account), 4e9))
    house.put()
    house.delivered(account="beta")
    told = house.run("list").stdout
    assert "note: the ATS of account acme is away or asked for a rest; nothing is handed off before 2096-10-0" in told
    assert ": 1 application waiting" in told and "the ATS of account beta" not in told
    assert house.json("list")["resting"] == [{"account": "acme", "until": "2096-10-02T07:06:40.000+00:00"}]
    house.run("pause", "acme", "--reason", "the ATS is moved")
    told = house.run("list").stdout
    assert "is paused since" in told and "is away" not in told


def test_reports_of_an_account_no_longer_in_the_settings_are_told(house: House) -> None:
    house.delivered(account="gone")
    house.delivered(account="quiet")
    told = house.run("list").stdout
    assert "account gone is not in the settings: idibu is told nothing, 1 report waiting" in told
    assert "reporting of account quiet is off: idibu is told nothing, 1 report waiting" in told


def test_json_has_everything_in_utc(house: House) -> None:
    house.delivered(report=ReportState.CONFIRMED)
    row = house.json("list")["applications"][0]
    assert row["received_at"] == datetime.fromtimestamp(house.now - 60, UTC).isoformat(timespec="milliseconds")
    assert (row["state"], row["report"], row["remote_id"]) == ("delivered", "confirmed", "ats-1")
    assert row["facts"]["candidate_name"] == "Jane Doe"
    assert row["due_at"] is None and row["in_work"] is False


def test_text_of_a_mail_does_not_act_on_the_terminal(house: House) -> None:
    facts = Facts(candidate_name=HOSTILE, candidate_email="[link=file:///]x[/link]", client_reference=HOSTILE)
    house.delivered(facts=facts)
    told = house.run("list").stdout
    assert not set(told) & set("\x1b\r\x07\x9b\u202e\ud800")
    assert r"\x1b[2J[bold red]:boom:[/]\r\n\x07\u202eexe.vc" in told
    assert "[link=file:///]x[/link]" in told


def test_ids_are_never_cut_and_long_names_fold(house: House) -> None:
    largest = 2**63 - 1
    facts = replace(JANE, candidate_name="Wolfeschlegelsteinhausenbergerdorff " * 40)
    house.delivered(applicant_id=largest, facts=facts)
    told = house.run("list").stdout
    assert str(largest) in told
    assert max(map(len, told.splitlines())) < 300
