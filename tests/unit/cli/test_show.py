"""`show`: one timeline of everything, what is next, no secret, and text that cannot act on a terminal."""

import re
import time

import pytest

from apptrack_ingest.cli.listing import NO_NEWS
from apptrack_ingest.cli.showing import safe, span
from apptrack_ingest.lifecycle import Event, report_of
from apptrack_ingest.model import HeldReason, ReportState, Stage, State
from apptrack_ingest.spool.contract import Action, Facts, Pause, Settlement, rest_mark

from .conftest import HOSTILE, SECRET, House


def kinds(house: House, application_id: int) -> list[str]:
    return [entry["kind"] for entry in house.json("show", application_id)["timeline"]]


def test_the_whole_story_in_order(house: House) -> None:
    application_id = house.put()
    house.settle(application_id, Settlement(Event.POSTPONE, "timeout", "no verdict in 60 seconds", due_at=0.0))
    house.do(lambda spool: spool.act(application_id, Action(Event.HOLD, "kara", "let me see"), now=time.time()))
    house.do(lambda spool: spool.act(application_id, Action(Event.RELEASE, "kara"), now=time.time()))

    due = report_of(State.DELIVERED, applicant_id=40809163, believed=True, now=time.time(), remote_id="ats-1")
    house.settle(application_id, Settlement(Event.DELIVER, "delivered", remote_id="ats-1", report=due))
    house.settle_report(ReportState.CONFIRMED, "confirmed", "")
    assert kinds(house, application_id) == [
        *("received", "attempt", "action", "action"),
        *("attempt", "outcome", "report", "report-attempt", "report-outcome"),
    ]
    told = house.run("show", application_id).stdout
    for words in (
        f"Application {application_id}: delivered",
        "hand-off, attempt 1 by w1: timeout after",
        "no verdict in 60 seconds",
        "hold by kara: let me see",
        "delivered as ats-1",
        "report 1 due for applicant 40809163: success, remote id ats-1",
        "report 1 confirmed",
        "bounces@idibu.example",
        "applications@acme.example",
        "127.0.0.1 (mail.idibu.example)",
        "yes: by network",
        f"`retry {application_id} --again` hands it over once more",
    ):
        assert words in told


def test_json_is_the_story_with_envelope_trust_facts_and_digest(house: House) -> None:
    shown = house.json("show", house.delivered())
    assert shown["summary"]["facts"]["content_digest"] == "1:abc"
    assert shown["sender"] == "bounces@idibu.example"
    assert shown["recipients"] == ["applications@acme.example"]
    assert shown["trusted"] is True and shown["erased"] is False
    assert shown["reports"][0]["report"]["status"] == "success"
    assert shown["reports"][0]["created_at"].endswith("+00:00")
    assert shown["attempts"][0]["started_at"].endswith("+00:00")
    assert len(shown["sha256"]) == 64


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (HeldReason.NO_APPLICANT_ID, "`route 1 --account NAME --applicant-id N`"),
        (HeldReason.INVALID_APPLICANT_ID, "`route 1 --account NAME --applicant-id N`"),
        (HeldReason.UNROUTED, "`route 1 --account NAME`"),
        (HeldReason.UNTRUSTED, "`release 1`"),
        (HeldReason.UNREADABLE, "`reparse 1`"),
        (HeldReason.CRASH_LOOP, "`retry 1`"),
        (HeldReason.BY_OPERATOR, "`release 1`"),
    ],
)
def test_a_held_one_says_which_command_moves_it_on(house: House, reason: HeldReason, advice: str) -> None:
    house.held(reason)
    told = house.run("show", 1).stdout
    assert advice in told and "`discard 1` drops it" in told


def following(house: House, application_id: int) -> str:
    return "\n".join(house.json("show", application_id)["next"])


def test_what_is_next_of_a_received_one(house: House) -> None:
    application_id = house.put()
    assert "handed off as soon as a worker is free" in following(house, application_id)
    house.settle(application_id, Settlement(Event.POSTPONE, "timeout", due_at=time.time() + 3600))
    assert re.search(r"next hand-off attempt in (1h|59m( \d+s)?), at", following(house, application_id))
    other = house.put(applicant_id=2)
    house.claim()
    assert "being worked on now" in following(house, other)
    assert "under way" in house.run("show", other).stdout


def test_what_is_next_where_the_ats_is_away(house: House) -> None:
    application_id, now = house.put(), time.time()
    house.do(lambda spool: spool.set_mark(rest_mark("beta"), now + 600))
    for known in (0.0, now - NO_NEWS - 1):
        house.do(lambda spool, known=known: spool.set_mark(rest_mark("acme"), known))
        assert "handed off as soon as a worker is free" in following(house, application_id)
    house.do(lambda spool: spool.set_mark(rest_mark("acme"), now - 10))
    assert "as far as is known; single hand-offs are tried until it answers" in following(house, application_id)
    house.do(lambda spool: spool.set_mark(rest_mark("acme"), now + 300))
    told = "waits: the ATS of account acme is away or asked for a rest; nothing is handed off before 20"
    assert told in following(house, application_id)
    house.settle(application_id, Settlement(Event.POSTPONE, "timeout", due_at=now + 3600.4))
    assert "next hand-off attempt in" in following(house, application_id)
    assert "delivered, nothing to do" in following(house, house.delivered(account="beta"))


def test_what_is_next_of_a_report(house: House) -> None:
    application_id = house.delivered()
    assert "report 1 is sent as soon as a worker is free" in following(house, application_id)
    house.do(
        lambda spool: spool.pause(Pause("acme", Stage.REPORT, "unauthorized", 1e9, time.time() + 600, "abcdef123456"))
    )
    assert "report 1 waits: reporting of account acme is paused (unauthorized) until" in following(
        house, application_id
    )
    house.do(lambda spool: spool.resume("acme", Stage.REPORT, now=time.time()))
    house.settle_report(ReportState.REFUSED)
    assert f"report 1 is refused: `retry {application_id} --report` sends it again" in following(house, application_id)
    assert "account beta has no hash" in following(house, house.delivered(account="beta"))
    assert "reporting of account quiet is off: idibu is not told" in following(house, house.put(account="quiet"))


def test_an_erased_one_says_so(house: House) -> None:
    application_id = house.delivered(report=ReportState.CONFIRMED)
    house.do(lambda spool: spool.erase_finished(before=time.time() + 60, limit=10))
    told = house.run("show", application_id).stdout
    assert "Jane" not in told and "bounces@" not in told
    assert "erased by retention" in told


def test_no_secret_is_shown(house: House) -> None:
    application_id = house.delivered(report=ReportState.FAILED)
    assert SECRET not in house.run("show", application_id).output
    assert SECRET not in house.run("show", application_id, "--json").output


def test_text_of_strangers_does_not_act_on_the_terminal(house: House) -> None:
    facts = Facts(*[HOSTILE] * 6, warnings=(HOSTILE,))
    application_id = house.put(sender=HOSTILE, recipient=HOSTILE)
    house.settle(
        application_id,
        Settlement(Event.HOLD, "crash-loop", HOSTILE, facts=facts, reason=HeldReason.CRASH_LOOP, remote_id=HOSTILE),
    )
    house.do(lambda spool: spool.act(application_id, Action(Event.DISCARD, HOSTILE, HOSTILE), now=time.time()))
    told = house.run("show", application_id).stdout
    assert not set(told) & set("\x1b\r\x07\x9b\u202e\ud800")
    assert told.count("[bold red]:boom:[/]") >= 10
    house.json("show", application_id)


def test_no_such_application(house: House) -> None:
    house.put()
    assert "there is no application 99" in house.run("show", 99, code=3).stderr


@pytest.mark.parametrize("text", ["Jane Doe", "山田 太郎", "José", "a [b] c", "🙂", "a:b"])
def test_honest_text_stays_as_it_is(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0s"), (0.4, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h"), (3660, "1h 1m"), (7 * 86400 + 3601, "7d 1h")],
)
def test_lengths_of_time_in_two_units(seconds: float, words: str) -> None:
    assert span(seconds) == words
