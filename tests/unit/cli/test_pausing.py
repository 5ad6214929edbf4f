"""`pause`, `resume` and `pauses`: what rests, by whom and why."""

import time

import pytest

from apptrack_ingest.model import Stage
from apptrack_ingest.spool.contract import Pause

from .conftest import House


def test_a_paused_account_waits_until_it_is_resumed(house: House) -> None:
    house.put()
    told = house.run("pause", "acme", "--reason", "the ATS is moved").stdout
    assert told == "hand-off of account acme is paused: goes on with `resume acme`\n"
    (pause,) = house.do(lambda spool: spool.pauses())
    assert (pause.account, pause.stage, pause.reason, pause.until) == ("acme", Stage.HAND_OFF, "the ATS is moved", None)
    assert pause.actor
    assert house.do(lambda spool: spool.claim(worker="w", now=time.time(), lease=9, limit=9)) == []
    assert house.run("resume", "acme", "--reason", "moved").stdout == "hand-off of account acme goes on\n"
    assert len(house.do(lambda spool: spool.claim(worker="w", now=time.time(), lease=9, limit=9))) == 1
    told = [(each["action"], each["account"], each["subject"], each["note"]) for each in house.json("history")]
    assert told == [("resume", "acme", "hand-off", "moved"), ("pause", "acme", "hand-off", "the ATS is moved")]


def test_reporting_rests_for_a_time(house: House) -> None:
    house.delivered()
    told = house.run("pause", "acme", "--reporting", "--for", "2h", "--reason", "idibu asked us to").stdout
    assert told.startswith("reporting of account acme is paused: goes on at 2")
    assert told.endswith(", or with `resume acme --reporting`\n")
    (pause,) = house.json("pauses")
    assert (pause["stage"], pause["waiting"], pause["reason"]) == ("report", 1, "idibu asked us to")
    (kept,) = house.do(lambda spool: spool.pauses())
    assert 7190 < kept.until - time.time() <= 7200
    table = house.run("pauses").stdout
    assert "idibu asked us to" in table
    note = house.run("list").stdout
    assert "note: reporting of account acme is paused since" in note
    assert "1 report waiting; goes on at" in note
    assert (
        "hand-off of account acme is not paused; its reporting is: goes on"
        in house.run("resume", "acme", code=4).stderr
    )


def test_what_is_paused_says_so_wherever_one_looks(house: House) -> None:
    application_id = house.put()
    house.run("pause", "acme", "--reason", "the ATS is moved")
    following = house.json("show", application_id)["next"]
    assert following[0].startswith("waits: hand-off of account acme is paused by ")
    assert following[0].endswith(" (the ATS is moved) until `resume acme`")
    page = house.json("list")
    assert page["paused"][0]["stage"] == "hand-off"
    assert any("1 application waiting; goes on with `resume acme`" in note for note in page["notes"])


def test_a_pause_that_is_over_is_none(house: House) -> None:
    past = Pause("acme", Stage.HAND_OFF, "for a while", time.time() - 99, time.time() - 9, actor="jo")
    house.do(lambda spool: spool.pause(past))
    assert house.run("pauses").stdout == "nothing is paused\n"
    assert house.json("list")["paused"] == []


def test_our_own_pause_is_shown_and_ended_by_hand(house: House) -> None:
    ours = Pause("acme", Stage.REPORT, "unauthorized", time.time(), time.time() + 900, "fingerprint")
    house.do(lambda spool: spool.pause(ours))
    table = house.run("pauses").stdout
    assert "apptrack-ingest" in table
    assert "tried again 2" in table
    assert "fingerprint" not in table
    house.run("resume", "acme", "--reporting")
    assert house.json("pauses") == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("pause", "acme"), 2, "Missing option '--reason'"),
        (("pause", "acme", "--reason", " "), 2, "--reason must say why"),
        (("pause", "acme", "--for", "soon", "--reason", "x"), 2, "no length of time like 90m"),
        (("pause", "nobody", "--reason", "x"), 3, "there is no account nobody in the settings"),
        (("resume", "nobody"), 3, "there is no account nobody in the settings"),
        (("resume", "acme"), 4, "hand-off of account acme is not paused"),
    ],
)
def test_what_cannot_be_done_says_why(house: House, words: tuple[str, ...], code: int, says: str) -> None:
    house.put()
    assert says in house.run(*words, code=code).stderr
