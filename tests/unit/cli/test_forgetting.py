"""`forget`: one person is gone everywhere, and it is said what was done."""

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from apptrack_handlers.folder import Folder
from click.testing import CliRunner

from apptrack_ingest.cli import forgetting, main
from apptrack_ingest.errors import BeingWorkedOn
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import ReportState, State
from apptrack_ingest.spool.contract import Facts, ReportClaim, ReportSettlement, Settlement
from apptrack_ingest.spool.sqlite import SqliteSpool
from apptrack_ingest.testing import an_application, an_email

from .conftest import JANE, SECRET, House

ADDRESS = "jane.doe@example.com"
BROKEN = """
from apptrack_ingest import Accepted


class Broken:
    def handle(self, application):
        return Accepted()

    def forget(self, person):
        raise RuntimeError(f"cannot reach the ATS for {len(person.applicant_ids)}")
"""


def filed(house: House, account: str = "acme", applicant_id: int = 40809163, **application: object) -> Path:
    """A candidate in the folder handler's directory."""
    folder = Folder(Folder.Settings(path=house.folders))
    folder.handle(an_application(account=account, applicant_id=applicant_id, **application))
    return house.folders / account / str(applicant_id)


def test_everything_of_a_person_goes_and_nothing_of_others(house: House) -> None:
    john = dataclasses.replace(an_application().candidate, email="john@example.com")
    mine, others = filed(house), filed(house, applicant_id=2, candidate=john)
    delivered = house.delivered()
    other = house.delivered(applicant_id=2, facts=Facts(candidate_email="john@example.com", content_digest="1:x"))
    told = house.run("forget", ADDRESS, "--yes").stdout
    assert f"forgotten: 1 application ({delivered}), 1 mail erased" in told
    assert "account acme: its handler folder erased 1 record" in told
    assert (mine.exists(), others.exists()) == (False, True)
    assert (house.story(delivered).erased, house.story(other).erased) == (True, False)
    assert ADDRESS not in told
    assert "forget by" in house.run("show", delivered).stdout


def test_what_waits_is_discarded_and_told_also_where_nobody_has_read_it_yet(house: House) -> None:
    rejected = house.rejected()
    unread = house.put(raw=an_email(7, address=ADDRESS.title()), applicant_id=7)
    someone = house.put(raw=an_email(8, address="john@example.com"), applicant_id=8)
    done = house.json("forget", ADDRESS, "--yes")
    assert (done["applications"], done["discarded"], done["mails"]) == ([rejected, unread], [rejected, unread], 2)
    for each in (rejected, unread):
        story = house.story(each)
        assert story.summary.state is State.DISCARDED
        assert story.reports[-1].report.error_message == "discarded: erased on request"
    assert house.story(someone).summary.state is State.RECEIVED


def test_the_folder_is_emptied_though_the_spool_knows_nothing_any_more(house: House) -> None:
    mine = filed(house)
    house.put(raw=an_email(8, address="john@example.com"), applicant_id=8)
    assert house.json("forget", ADDRESS, "--yes")["handlers"] == [
        {"account": "acme", "handler": "folder", "erased": 1, "remote_ids": []},
        {"account": "beta", "handler": "folder", "erased": 0, "remote_ids": []},
        {"account": "quiet", "handler": "folder", "erased": 0, "remote_ids": []},
    ]
    assert not mine.exists()


def test_a_handler_that_cannot_forget_is_named_with_what_to_erase_there(house: House) -> None:
    text = house.config.read_text().replace("[accounts.acme]", '[accounts.acme]\nhandler = "webhook"')
    settings = f'handler_settings = {{ path = "{house.folders}" }}'
    assert settings in text
    house.config.write_text(text.replace(settings, 'handler_settings = { url = "http://127.0.0.1:9/" }'))
    house.delivered()
    told = house.run("forget", ADDRESS, "--yes").stdout
    assert "its handler webhook cannot forget; erase the person in the ATS (remote ids: ats-1)" in told


def test_a_handler_that_fails_ends_it_and_it_can_be_given_again(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_ats.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = house.config.read_text()
    text = before.replace("[accounts.acme]", '[accounts.acme]\nhandler = "broken_ats:Broken"')
    house.config.write_text(text.replace(f'handler_settings = {{ path = "{house.folders}" }}', ""))
    application_id = house.delivered()
    said = house.run("forget", ADDRESS, "--yes", code=1).stderr
    assert "could not forget: RuntimeError: cannot reach the ATS for 1" in said
    assert "the spool has erased nothing: put that right and give the command again" in said
    assert not house.story(application_id).erased
    house.config.write_text(before)
    house.run("forget", ADDRESS, "--yes")
    assert house.story(application_id).erased


def reported_meanwhile(house: House, monkeypatch: pytest.MonkeyPatch) -> list[ReportClaim]:
    """A worker begins to send what is due while the handlers are asked; its claims, once it has."""
    claims: list[ReportClaim] = []
    ask = forgetting._ask_handlers

    async def asked(*given: Any) -> Any:
        answers = await ask(*given)
        claims.extend(await asyncio.to_thread(house.claim_reports))
        return answers

    monkeypatch.setattr(forgetting, "_ask_handlers", asked)
    return claims


def test_the_report_about_what_was_discarded_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    application_id = house.put(raw=an_email(7, address=ADDRESS), applicant_id=7)
    claims = reported_meanwhile(house, monkeypatch)
    forget, refused = SqliteSpool.forget, []

    async def arrives_after_a_try(spool: SqliteSpool, *given: Any, **named: Any) -> Any:
        try:
            return await forget(spool, *given, **named)
        except BeingWorkedOn as error:
            refused.append(error)
            await spool.settle_report(claims[0], ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=time.time())
            raise

    monkeypatch.setattr(SqliteSpool, "forget", arrives_after_a_try)
    done = house.json("forget", ADDRESS, "--yes")
    assert (done["applications"], done["mails"], len(refused)) == ([application_id], 1, 1)
    assert house.story(application_id).erased
    assert house.story(application_id).reports[-1].state is ReportState.CONFIRMED


def test_a_report_that_does_not_arrive_is_not_waited_for_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    application_id = house.put(raw=an_email(7, address=ADDRESS), applicant_id=7)
    reported_meanwhile(house, monkeypatch)
    monkeypatch.setattr(forgetting, "PATIENCE", 0.0)
    said = house.run("forget", ADDRESS, "--yes", code=4).stderr
    assert (
        f"application {application_id} is being worked on at this moment; try again soon; what waited is discarded"
        in said
    )
    assert not house.story(application_id).erased


def test_one_whose_hand_off_begins_before_it_could_be_discarded_ends_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the very one that tells whose all of them are: nothing is taken for granted that was read before."""
    first = house.put(raw=an_email(7, address=ADDRESS), applicant_id=7)
    second = house.put(raw=an_email(8, address=ADDRESS), applicant_id=8)
    act = SqliteSpool.act

    async def beside_a_worker(spool: SqliteSpool, *given: Any, **named: Any) -> Any:
        state = await act(spool, *given, **named)
        assert [
            claim.application_id for claim in await spool.claim(worker="w1", now=time.time(), lease=60.0, limit=9)
        ] == [first]
        return state

    monkeypatch.setattr(SqliteSpool, "act", beside_a_worker)
    said = house.run("forget", ADDRESS, "--yes", code=4).stderr
    assert f"application {first} is being worked on at this moment" in said
    assert f"; discarded so far: {second}, and nothing was erased" in said
    assert not house.story(second).erased


def test_one_that_is_handed_over_once_more_meanwhile_is_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler was asked already, and would keep what it gets now."""
    application_id = house.delivered(report=ReportState.CONFIRMED)
    ask = forgetting._ask_handlers

    async def again_meanwhile(*given: Any) -> Any:
        answers = await ask(*given)
        await asyncio.to_thread(house.run, "retry", application_id, "--again")
        await asyncio.to_thread(house.claim)
        return answers

    monkeypatch.setattr(forgetting, "_ask_handlers", again_meanwhile)
    said = house.run("forget", ADDRESS, "--yes", code=4).stderr
    assert "still waits (received)" in said and "the spool nothing yet" in said
    assert not house.story(application_id).erased


def test_the_newest_is_discarded_first_or_the_next_of_the_applicant_would_be_handed_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = house.put(raw=an_email(7, address=ADDRESS), applicant_id=7)
    second = house.put(raw=an_email(7, address=ADDRESS, subject="once more"), applicant_id=7)
    act = SqliteSpool.act

    async def with_a_worker(spool: SqliteSpool, *given: Any, **named: Any) -> Any:
        state = await act(spool, *given, **named)
        if given[0] == first:
            assert await spool.claim(worker="w1", now=time.time(), lease=60.0, limit=9) == []
        return state

    monkeypatch.setattr(SqliteSpool, "act", with_a_worker)
    assert house.json("forget", ADDRESS, "--yes")["discarded"] == [first, second]


def test_what_comes_in_meanwhile_does_not_deny_what_was_done(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    application_id = house.put(raw=an_email(7, address=ADDRESS), applicant_id=7)
    erase = forgetting._erase

    async def erased(*given: Any) -> Any:
        left = await erase(*given)
        await asyncio.to_thread(house.put, raw=an_email(9, address=ADDRESS), applicant_id=9)
        await asyncio.to_thread(house.claim)
        return left

    monkeypatch.setattr(forgetting, "_erase", erased)
    result = house.run("forget", ADDRESS, "--yes", code=4)
    assert f"forgotten: 1 application ({application_id})" in result.stdout
    assert "1 application of this person came in meanwhile; give the command again" in result.stderr
    assert house.story(application_id).erased


def test_amid_an_attempt_nothing_is_done(house: House) -> None:
    application_id = house.put()
    house.settle(application_id, Settlement(Event.POSTPONE, "timeout", facts=JANE, due_at=time.time() - 1))
    house.claim()
    said = house.run("forget", ADDRESS, "--yes", code=4).stderr
    assert f"being worked on at this moment: {application_id}; nothing was done, try again soon" in said
    assert house.story(application_id).summary.facts.candidate_email == ADDRESS


def test_of_nobody_known_nothing_is_kept(house: House) -> None:
    house.put(raw=an_email(8, address="john@example.com"), applicant_id=8)
    assert "nothing is known of this address" in house.run("forget", ADDRESS, "--yes", code=3).stderr
    assert house.json("forget", ADDRESS, "--check", code=1) == {"forgotten": [], "applications": []}
    assert house.json("history") == []


def test_it_can_be_proved_to_whoever_knows_the_address(house: House) -> None:
    house.delivered()
    assert "was not forgotten here" in house.run("forget", ADDRESS, "--check", code=1).stdout
    done = house.json("forget", ADDRESS, "--yes", "--reason", "letter of 2 March")
    told = house.run("forget", ADDRESS.upper(), "--check").stdout
    assert f"1 application, digest {done['digest']}" in told
    assert "0 applications of this person in the spool now" in told
    (order,) = house.json("history")
    assert (order["action"], order["subject"], order["note"]) == ("forget", done["digest"], "letter of 2 March")
    again = house.put(raw=an_email(9, address=ADDRESS), applicant_id=9)
    checked = house.json("forget", ADDRESS, "--check", code=1)
    assert (len(checked["forgotten"]), checked["applications"]) == (1, [again])


@pytest.mark.parametrize(("answer", "code", "erased"), [("y", 0, True), ("n", 1, False)])
def test_on_a_terminal_it_shows_what_would_go_and_asks(house: House, answer: str, code: int, erased: bool) -> None:
    application_id = house.rejected()
    said = house.on_a_terminal(answer, "forget", ADDRESS, code=code)
    assert f"1 application of this person in the spool: {application_id}" in said
    assert f"of these still wait, and are discarded: {application_id}" in said
    assert "It cannot be undone. [y/N]" in said
    assert house.story(application_id).erased is erased
    assert ADDRESS not in said


def test_unasked_nothing_is_done_where_nobody_can_be_asked(house: House) -> None:
    application_id = house.delivered()
    assert "1 application would be erased; --yes" in house.run("forget", ADDRESS, code=2).stderr
    assert not house.story(application_id).erased


def test_the_address_can_come_from_standard_input(house: House) -> None:
    house.delivered()
    words = ["forget", "--config", str(house.config), "-", "--yes", "--json"]
    result = CliRunner().invoke(main, words, input=f"{ADDRESS}\n")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["mails"] == 1
    assert SECRET not in result.output


@pytest.mark.parametrize("address", ["jane", "@example.com", "jane@", "a b@example.com", "-"])
def test_what_is_no_address_is_refused(house: House, address: str) -> None:
    house.put()
    assert "ADDRESS must be an e-mail address" in house.run("forget", address, code=2).stderr
