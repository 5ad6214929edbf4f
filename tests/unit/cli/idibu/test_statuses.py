"""`idibu status`: what idibu holds is shown, page by page, and can be put right by hand."""

import asyncio
import json
from collections.abc import Coroutine

import pytest

from apptrack_ingest.cli import idibu_asking
from apptrack_ingest.idibu.sandbox_applicants import NewApplicant
from apptrack_ingest.idibu.sandbox_script import Fault, Step

from .conftest import Idibu, saying


def test_what_is_set_is_what_is_got(idibu: Idibu) -> None:
    idibu.run("idibu", "status", "set", 33139609, "success", "--remote-id", "R-1", "--yes")
    shown = idibu.run("idibu", "status", "get", 33139609).output
    assert "success" in shown and "R-1" in shown and "2023-11-14 22:13:20" in shown
    assert idibu.json("idibu", "status", "get", 33139609, "--addressing", "query") == {
        "id": 33139609,
        "status": "success",
        "remote_id": "R-1",
        "error_message": None,
        "date_processed": "2023-11-14T22:13:20",
        "date_created": "2023-11-14T22:13:20",
        "date_modified": "2023-11-14T22:13:20",
    }


def test_a_fail_with_its_date_and_words(idibu: Idibu) -> None:
    words = ("--error-message", "no such vacancy", "--date", "2016-06-03 12:11:59", "--yes")
    told = idibu.json("idibu", "status", "set", 7, "fail", *words)
    assert told["status"] == "fail" and told["applicant_id"] == 7
    (held,) = idibu.sandbox.applicants("acme")
    assert (held.status, held.error_message, held.date_processed) == ("fail", "no such vacancy", "2016-06-03 12:11:59")


def test_a_fail_needs_words(idibu: Idibu) -> None:
    assert "--error-message" in idibu.run("idibu", "status", "set", 7, "fail", "--yes", code=2).output
    assert idibu.calls == []


def test_nothing_is_set_without_a_word(idibu: Idibu) -> None:
    said = idibu.run("idibu", "status", "set", 7, "success", code=2).output
    assert "applicant 7 of account acme" in said and "--yes" in said
    idibu.run("idibu", "status", "set", 7, "success", "--json", code=2)
    assert idibu.calls == []


def test_on_a_terminal_it_asks(idibu: Idibu) -> None:
    assert "Go on?" in idibu.on_a_terminal("n", "idibu", "status", "set", 7, "success", code=1)
    assert idibu.sandbox.applicants() == []
    idibu.on_a_terminal("y", "idibu", "status", "set", 7, "success")
    assert [held.id for held in idibu.sandbox.applicants()] == [7]


def test_a_list_goes_on_at_its_offset(idibu: Idibu) -> None:
    for number in range(1, 6):
        idibu.run("idibu", "status", "set", number, "success", "--remote-id", f"R-{number}", "--yes")
    page = idibu.json("idibu", "status", "list", "--limit", 2)
    assert ([one["id"] for one in page["applicants"]], page["next_offset"]) == ([1, 2], 2)
    page = idibu.json("idibu", "status", "list", "--limit", 3, "--offset", 2)
    assert ([one["id"] for one in page["applicants"]], page["next_offset"]) == ([3, 4, 5], None)
    shown = idibu.run("idibu", "status", "list", "--limit", 4).output
    assert "R-4" in shown and "R-5" not in shown and "--offset 4" in shown


def test_a_list_by_remote_id(idibu: Idibu) -> None:
    for number, remote_id in ((1, "A-1"), (2, "B-1"), (3, "A-2")):
        idibu.run("idibu", "status", "set", number, "success", "--remote-id", remote_id, "--yes")
    found = idibu.json("idibu", "status", "list", "--remote-id", "A*")
    assert [one["remote_id"] for one in found["applicants"]] == ["A-1", "A-2"]
    assert "raise --limit" in idibu.run("idibu", "status", "list", "--remote-id", "A*", "--limit", 1).output
    assert idibu.run("idibu", "status", "list", "--remote-id", "C*").output == "idibu holds nothing\n"
    assert "--offset" in idibu.run("idibu", "status", "list", "--remote-id", "A*", "--offset", 1, code=2).output


def test_those_who_applied_are_listed(idibu: Idibu) -> None:
    at = 1_464_912_000.0  # 2016-06-03, 00:00 UTC
    idibu.sandbox.arrive(*(NewApplicant(account="acme", id=number, date=at + number) for number in (1, 2, 3)))
    assert [one["id"] for one in idibu.json("idibu", "applicants")["applicants"]] == [1, 2, 3]
    shown = idibu.run("idibu", "applicants", "--limit", 2).output
    assert "Jane Doe <jane.doe@example.com>" in shown and "2016-06-03 00:00:02" in shown and "--offset 2" in shown
    found = idibu.json("idibu", "applicants", "--after", "2016-06-03 00:00:02", "--before", "2016-06-04")
    assert [one["id"] for one in found["applicants"]] == [2, 3]
    assert "no applicants" in idibu.run("idibu", "applicants", "--before", "2016-06-02").output


def test_idibus_text_does_nothing_to_the_terminal(idibu: Idibu) -> None:
    words = "\x1b[2J[bold]\u202eexe"
    idibu.run("idibu", "status", "set", 1, "fail", "--error-message", words, "--yes")
    for shown in (idibu.run("idibu", "status", "list").output, idibu.run("idibu", "status", "get", 1).output):
        assert "\x1b" not in shown and "[bold]" in shown and "\\u202e" in shown


def test_success_without_the_applicant_is_no_such_thing(idibu: Idibu) -> None:
    with saying("<idibu><status>success</status></idibu>") as url:
        idibu.configure(url=url)
        assert "no status of applicant 1" in idibu.run("idibu", "status", "get", 1, code=3).output


def test_an_account_without_a_hash(idibu: Idibu) -> None:
    idibu.configure(hash="")
    said = idibu.run("idibu", "status", "list", code=78).output
    assert "accounts.acme.hash_file" in said


def test_which_account_must_be_said(idibu: Idibu) -> None:
    other = '[accounts.globex]\nhash = "h4sh-of-globex"\nrecipients = ["in.globex.example"]'
    idibu.configure(account=other)
    assert "say which with --account" in idibu.run("idibu", "status", "list", code=1).output
    idibu.run("idibu", "status", "set", 1, "success", "--account", "globex", "--yes")
    assert [held.account for held in idibu.sandbox.applicants()] == ["globex"]
    assert "no account nobody" in idibu.run("idibu", "status", "list", "--account", "nobody", code=3).output


def test_json_is_ascii(idibu: Idibu) -> None:
    idibu.run("idibu", "status", "set", 1, "fail", "--error-message", "schön", "--yes")
    shown = idibu.run("idibu", "status", "list", "--json").stdout
    assert shown.isascii() and json.loads(shown)["applicants"][0]["error_message"] == "schön"


def test_ctrl_c_in_a_change_says_that_it_may_have_been_done(idibu: Idibu, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(work: Coroutine[None, None, None]) -> None:
        asyncio.run(work)
        raise KeyboardInterrupt

    monkeypatch.setattr(idibu_asking, "run", stopped)
    said = idibu.run("idibu", "status", "set", 7, "success", "--yes", code=1)
    assert "may have been done all the same" in said.stderr and said.stdout == ""
    assert [held.id for held in idibu.sandbox.applicants()] == [7]
    assert "may have been done" not in idibu.run("idibu", "status", "get", 7, code=1).output


def test_an_applicant_idibu_holds_nothing_of(idibu: Idibu) -> None:
    for addressing in ("path", "query"):
        said = idibu.run("idibu", "status", "get", 99, "--addressing", addressing, code=3)
        assert "holds no status of applicant 99" in said.stderr and said.stdout == ""
    idibu.misbehave(Step(fault=Fault.FAILED, text="No permission to read applicants"))
    assert "No permission" in idibu.run("idibu", "status", "get", 99, code=1).output
