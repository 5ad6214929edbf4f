"""Decisions on all that a selection matches."""

import time
from collections.abc import Sequence

import pytest

from apptrack_ingest.cli import many
from apptrack_ingest.cli.selecting import words_of
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.lifecycle import Event, Rate
from apptrack_ingest.model import Arrival, Envelope, HeldReason, Message, ReportState, State
from apptrack_ingest.spool import sqlite
from apptrack_ingest.spool.contract import Filter, Settlement
from apptrack_ingest.testing import an_email

from .conftest import SECRET, House


def states(house: House, ids: Sequence[int]) -> list[State]:
    return [house.story(each).summary.state for each in ids]


untrusted = Settlement(Event.HOLD, "untrusted", "why it is held", reason=HeldReason.UNTRUSTED)


def test_all_that_match_and_can_be_decided_are(house: House) -> None:
    waiting = [house.put(applicant_id=number) for number in range(1, 6)]
    other = house.put(account="beta", applicant_id=9, recipient="applications@beta.example")
    told = house.run("hold", "--account", "acme", "--yes", "--reason", "ATS moves").stdout
    assert told == "hold: done for 5 of 5 applications (order 1)\n"
    assert states(house, [*waiting, other]) == [State.HELD] * 5 + [State.RECEIVED]
    (action,) = house.story(waiting[0]).actions
    assert (action.action, action.note, action.order_id) == ("hold", "ATS moves", 1)
    assert "hold by" in house.run("show", waiting[0]).stdout
    assert "(order 1): ATS moves" in house.run("show", waiting[0]).stdout


def test_a_decision_for_each_and_no_end_at_the_first_that_cannot_be(house: House) -> None:
    fine = house.put(raw=an_email(1), trusted=False)
    without = house.put(raw=an_email(None), trusted=False)
    again = house.put(raw=an_email(3), trusted=False)
    house.settle_all(untrusted)
    result = house.run("release", "--held-reason", "untrusted", "--yes", code=4)
    assert f"{without}: error: the mail has no X-iTrackID" in result.stderr
    assert "release: done for 2 of 3 applications, 1 could not be (order 1)" in result.stdout
    assert states(house, [fine, without, again]) == [State.RECEIVED, State.HELD, State.RECEIVED]
    # Given again it goes on with what is left.
    page = house.json("release", "--held-reason", "untrusted", "--yes", code=4)
    assert (page["matched"], page["done"], page["refused"]) == (1, 0, 1)
    assert page["first_refused"][0]["application_id"] == without


def test_more_than_a_page_oldest_first(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "PAGE", 2)
    ids = [house.put(applicant_id=number) for number in range(1, 8)]
    assert house.json("hold", "--state", "received", "--yes", "--limit", "5")["done"] == 5
    assert states(house, ids) == [State.HELD] * 5 + [State.RECEIVED] * 2


def test_a_dry_run_changes_nothing(house: House) -> None:
    ids = [house.put(applicant_id=number) for number in range(1, 4)]
    told = house.run("hold", "--account", "acme", "--dry-run").stdout
    assert told.startswith("hold: 3 applications match\n")
    assert all(str(each) in told for each in ids)
    page = house.json("hold", "--account", "acme", "--dry-run", "--limit", "2")
    assert page["matched"] == 2
    assert [row["application_id"] for row in page["applications"]] == ids[:2]
    assert states(house, ids) == [State.RECEIVED] * 3
    assert house.json("history") == []


def test_nothing_is_done_unasked_where_nobody_can_be_asked(house: House) -> None:
    application_id = house.put()
    assert "1 application would be affected; --yes" in house.run("hold", "--account", "acme", code=2).stderr
    assert states(house, [application_id]) == [State.RECEIVED]
    assert "hold: 0 applications match" in house.run("hold", "--account", "nobody").stdout


@pytest.mark.parametrize(("answer", "code", "state"), [("y", 0, State.HELD), ("n", 1, State.RECEIVED)])
def test_on_a_terminal_it_asks(house: House, answer: str, code: int, state: State) -> None:
    application_id = house.put()
    said = house.on_a_terminal(answer, "hold", "--account", "acme", code=code)
    assert "hold: 1 application. Go on? [y/N]" in said
    assert states(house, [application_id]) == [state]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("hold",), "give either IDs, or options that select"),
        (("hold", "--yes", "--limit", "3"), "give either IDs, or options that select"),
        (("hold", "1", "--account", "acme"), "give either IDs, or options that select"),
        (("hold", "1", "--dry-run"), "go with options that select, not with IDs"),
        (("hold", "1", "--throttle", "5/s"), "go with options that select, not with IDs"),
        (("hold", "--state", "failed", "--yes"), "--state failed: this command is for received"),
        (
            ("retry", "--report", "--report-state", "due", "--yes"),
            "--report-state due: this command is for failed, refused",
        ),
        (("hold", "--account", "acme", "--throttle", "fast"), "is no rate"),
        (("hold", "--account", "acme", "--throttle", "5/s, 9/m"), "one rate is enough"),
        (("route", "--account", "acme", "--applicant-id", "7", "--portal", "Seek", "--yes"), "give one ID"),
        (("route", "--account", "acme", "--yes"), "give either IDs"),
    ],
)
def test_words_that_make_no_sense_together(house: House, words: tuple[str, ...], says: str) -> None:
    house.put()
    assert says in house.run(*words, code=2).stderr


def test_each_command_narrows_to_what_it_is_for(house: House) -> None:
    delivered = house.delivered()
    rejected = house.rejected(applicant_id=2)
    held = house.held(HeldReason.CRASH_LOOP, applicant_id=3)
    received = house.put(applicant_id=4)

    def matched(*words: str) -> set[int]:
        return {row["application_id"] for row in house.json(*words, "--account", "acme", "--dry-run")["applications"]}

    assert matched("retry") == {rejected, held}
    assert matched("retry", "--again") == {delivered}
    assert matched("retry", "--report") == set()
    assert matched("discard", "--reason", "x") == {rejected, held}
    assert matched("hold") == {received}
    assert matched("release") == {held}


def test_reports_that_ended_badly_are_sent_again(house: House) -> None:
    application_id = house.delivered(report=ReportState.FAILED)
    house.run("retry", "--report", "--report-state", "failed", "--yes")
    assert house.story(application_id).reports[-1].state.value == "due"


def test_a_selection_is_routed_from_no_account_unless_it_says_which(house: House) -> None:
    nobodys = house.put(raw=an_email(5), account=None, applicant_id=None, trusted=False)
    betas = house.put(raw=an_email(6), account="beta", trusted=False)
    house.settle_all(untrusted)
    assert house.json("route", "--account", "acme", "--held-reason", "untrusted", "--yes")["done"] == 1
    assert [house.story(each).summary.account for each in (nobodys, betas)] == ["acme", "beta"]
    words = ("--account", "acme", "--from-account", "beta", "--state", "held", "--yes")
    assert house.json("route", *words)["done"] == 1
    assert house.story(betas).summary.account == "acme"


def test_what_comes_in_meanwhile_is_no_part_of_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.put(applicant_id=1)
    late: list[int] = []
    real = sqlite.SqliteSpool.count

    async def counted(spool: sqlite.SqliteSpool, wanted: Filter) -> int:
        matched = await real(spool, wanted)
        await spool.put(Message(Envelope("a@b.example", (), "127.0.0.1"), house.now, b""), [Arrival("acme", 2, True)])
        late.append((await spool.find(Filter(limit=1)))[0].application_id)
        return matched

    monkeypatch.setattr(sqlite.SqliteSpool, "count", counted)
    assert house.json("hold", "--account", "acme", "--yes")["done"] == 1
    assert states(house, late) == [State.RECEIVED]


def test_with_the_spool_away_it_stops_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 30):
        house.put(applicant_id=number)
    tries = 0

    async def away(*_: object, **__: object) -> State:
        nonlocal tries
        tries += 1
        raise SpoolUnavailable("disk full")

    monkeypatch.setattr(sqlite.SqliteSpool, "act", away)
    said = house.run("hold", "--account", "acme", "--yes", code=69).stderr
    assert "disk full; stopped at application 1, give the command again" in said
    assert tries <= many.AT_ONCE
    (order,) = house.json("history")
    assert order["ended_at"] is None


def test_words_that_need_it_are_quoted_in_the_history() -> None:
    assert words_of(Filter(portal="Seek & Co", account="")) == "--account '' --portal 'Seek & Co'"


async def test_a_throttle_keeps_to_its_rate() -> None:
    pace = many._Pace(Rate(100, 1.0))
    began = time.monotonic()
    for _ in range(6):
        await pace.wait()
    assert time.monotonic() - began >= 0.05
    assert (pace.at_once, many._Pace(None).at_once) == (1, many.AT_ONCE)


def test_the_order_is_kept_with_its_filter_but_without_the_candidate(house: House) -> None:
    house.rejected(account="beta")
    house.rejected(applicant_id=2)
    words = ("--candidate", "Jane", "--account", "acme", "--since", "2d", "--portal", "Seek", "--state", "rejected")
    house.run("retry", *words, "--yes", "--reason", "they are back")
    house.run("retry", "--candidate", "jane", "--yes")
    newest, first = house.json("history")
    assert first["subject"].startswith("--state rejected --account acme --candidate … --portal Seek --since 20")
    assert "ane" not in str((newest["subject"], first["subject"]))
    assert (newest["action"], newest["account"], newest["done"], newest["refused"]) == ("retry", None, 1, 0)
    assert (first["action"], first["account"], first["note"]) == ("retry", "acme", "they are back")
    told = house.run("history").stdout
    assert "they are back" in told
    assert SECRET not in told
    assert house.json("history", "--account", "acme") == [first]
    assert house.json("history", "--before", newest["order_id"]) == [first]
    assert "there may be more: add --before 2" in house.run("history", "--limit", "1").stdout
