"""`idibu cc`, `connect` and `disconnect`: no address of the Global CC is lost, whatever happens on the way."""

import json
from pathlib import Path

import pytest

from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.trust import digest_of

from .conftest import Idibu, saying

OURS = "applications@in.acme.example"
READ, SET = "getccemail", "setccemail"


def listed(*addresses: str) -> str:
    """An answer of getccemail or setccemail."""
    cc = f"<cc-email>{','.join(addresses)}</cc-email>" if addresses else ""
    return f"<idibu><response><message>m</message>{cc}</response><status>success</status></idibu>"


def given(idibu: Idibu, *addresses: str) -> None:
    """acme's Global CC before the test."""
    idibu.run("idibu", "cc", "add", *addresses)
    idibu.sandbox.store.requests.clear()


# --- connect and disconnect ------------------------------------------------------------------------------------------


def test_connect_adds_our_address_keeps_the_others_and_looks(idibu: Idibu) -> None:
    given(idibu, "Boss@acme.example", "archive@acme.example")
    said = idibu.run("connect").output
    assert f"idibu copies every application of account acme to {OURS} from now on" in said
    assert idibu.cc == ("Boss@acme.example", "archive@acme.example", OURS)
    assert idibu.calls == [READ, READ, SET, READ]


def test_both_do_nothing_a_second_time(idibu: Idibu) -> None:
    idibu.run("connect")
    assert "already" in idibu.run("connect").output
    assert idibu.json("connect") == {"account": "acme", "changed": False, "before": [OURS], "after": [OURS]}
    assert idibu.calls.count(SET) == 1
    told = idibu.json("disconnect", "--yes")
    assert told == {"account": "acme", "changed": True, "before": [OURS], "after": []}
    assert "none of ours was there" in idibu.run("disconnect").output
    assert idibu.calls.count(SET) == 2 and idibu.cc == ()


def test_capitals_make_no_other_address(idibu: Idibu) -> None:
    given(idibu, "Applications@IN.acme.example")
    assert idibu.json("connect")["changed"] is False
    assert idibu.json("connect", "--address", OURS)["changed"] is False
    assert idibu.json("disconnect", "--address", OURS, "--yes")["after"] == []


def test_disconnect_takes_out_all_of_ours_and_asks_first(idibu: Idibu) -> None:
    given(idibu, "boss@acme.example", OURS, "applications+old@in.acme.example")
    said = idibu.run("disconnect", code=2).output
    assert f"to {OURS}, applications+old@in.acme.example any more; that leaves boss@acme.example" in said
    assert SET not in idibu.calls
    idibu.run("disconnect", "--address", "applications+old@in.acme.example", "--yes")
    assert idibu.cc == ("boss@acme.example", OURS)
    idibu.run("disconnect", "--yes")
    assert idibu.cc == ("boss@acme.example",)


@pytest.mark.parametrize("command", ["connect", "disconnect"])
def test_a_dry_run_shows_what_would_be_set(idibu: Idibu, command: str) -> None:
    given(idibu, "boss@acme.example", *([OURS] if command == "disconnect" else []))
    shown = idibu.run(command, "--dry-run").output
    after = "boss@acme.example" + (f",{OURS}" if command == "connect" else "")
    assert "/ws/rest/v1/service/setccemail" in shown and f"<cc-email>{after}</cc-email>" in shown
    assert "<partner-password>********</partner-password>" in shown
    assert "<client-hash>********</client-hash>" in shown
    assert idibu.calls == [READ]
    assert idibu.json(command, "--dry-run")["form"]["data"].startswith("<idibu>")


def test_an_account_without_a_hash_is_found_by_its_client_id(idibu: Idibu) -> None:
    idibu.configure(account="client_id = 1001", hash="")
    idibu.run("connect")
    assert idibu.cc == (OURS,)
    idibu.configure(hash="")
    assert "accounts.acme.hash_file" in idibu.run("connect", code=78).output


# --- which address ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "says"),
    [
        ('[accounts.other]\nrecipients = ["other.example"]\nhash = "h"', "say which with --account"),
        ("", "several addresses"),
    ],
)
def test_an_address_that_is_not_certain_is_asked_for(idibu: Idibu, account: str, says: str) -> None:
    idibu.configure(account=account)
    if not account:
        text = idibu.config.read_text().replace('["applications', '["jobs@in.acme.example", "applications')
        idibu.config.write_text(text)
    assert says in idibu.run("connect", code=1).output
    assert SET not in idibu.calls


def test_of_a_domain_the_address_must_be_said(idibu: Idibu) -> None:
    idibu.config.write_text(idibu.config.read_text().replace(f'"{OURS}"', '"in.acme.example"'))
    said = idibu.run("connect", code=1).output
    assert "no address among its recipients" in said and "--address" in said
    idibu.run("connect", "--address", "any@in.acme.example")
    assert idibu.cc == ("any@in.acme.example",)
    assert "already" in idibu.run("connect").output


def test_a_shared_recipient_needs_a_client_id(idibu: Idibu) -> None:
    text = idibu.config.read_text().replace(f'recipients = ["{OURS}"]', "client_id = 1001")
    idibu.config.write_text(f'recipients = ["{OURS}"]\n{text}')
    idibu.run("connect")
    assert idibu.cc == (OURS,)


def test_an_address_that_we_would_refuse_is_refused(idibu: Idibu) -> None:
    said = idibu.run("connect", "--address", "someone@elsewhere.example", code=4).output
    assert "no recipient of account acme" in said and "accounts.acme.recipients" in said
    assert "no e-mail address" in idibu.run("connect", "--address", "elsewhere", code=2).output
    assert idibu.calls == []


class TestTokens:
    WORD, OLD = "abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba"
    ADDRESS, EXPIRED = f"applications+{WORD}@in.acme.example", f"applications+{OLD}@in.acme.example"

    @pytest.fixture(autouse=True)
    def _tokens(self, idibu: Idibu) -> None:
        tokens = json.dumps([digest_of(self.WORD), f"{digest_of(self.OLD)} until 2020-01-31"])
        idibu.configure(account=f"[accounts.acme.trust]\ntokens = {tokens}")

    def test_its_address_must_be_given(self, idibu: Idibu) -> None:
        said = idibu.run("connect", code=1).output
        assert "trusts by token" in said and "--address" in said and "address new --account acme" in said
        shown = idibu.run("connect", "--address", self.ADDRESS).output
        assert idibu.cc == (self.ADDRESS,)
        assert self.WORD not in shown and "applications+***@in.acme.example" in shown
        assert "already" in idibu.run("connect").output

    def test_one_that_does_not_count_is_refused(self, idibu: Idibu) -> None:
        said = idibu.run("connect", "--address", self.EXPIRED, code=4).output
        assert "has expired" in said and self.OLD not in said
        wrong = idibu.run("connect", "--address", "applications+wrong@in.acme.example", code=4).output
        assert "is not one of the settings'" in wrong
        assert idibu.calls == []

    def test_the_plain_address_may_be_meant(self, idibu: Idibu) -> None:
        idibu.run("connect", "--address", OURS)
        assert idibu.cc == (OURS,)

    def test_disconnect_finds_them_all(self, idibu: Idibu) -> None:
        given(idibu, self.ADDRESS, self.EXPIRED, "boss@acme.example")
        shown = idibu.run("disconnect", "--yes").output
        assert idibu.cc == ("boss@acme.example",)
        assert self.WORD not in shown and self.OLD not in shown

    def test_without_a_partner_it_must_be_given_to_be_told(self, idibu: Idibu) -> None:
        idibu.configure(partner="", account=idibu.config.read_text().rpartition('example"]\n')[2])
        idibu.run("connect", code=1)
        assert self.ADDRESS in idibu.run("connect", "--address", self.ADDRESS, code=78).output
        assert OURS in idibu.run("disconnect", code=78).output


# --- without a partner's credentials ---------------------------------------------------------------------------------


def test_without_a_partner_it_is_said_what_to_ask_for(idibu: Idibu) -> None:
    idibu.configure(partner="", account="client_id = 602")
    said = idibu.run("connect", code=78).output
    for part in ("nothing was changed", f"Please add {OURS}", "client id 602", "keep the others", "Aptrack settings"):
        assert part in said
    assert "idibu.partner_id" in said and "X-iTrackID" in said
    told = idibu.json("connect", code=78)
    assert (told["changed"], told["address"], len(told["do"])) == (False, OURS, 3)
    assert f"Please take {OURS} out" in idibu.run("disconnect", code=78).output
    idibu.configure(partner="", hash="")
    assert "of our account, keep" in idibu.run("connect", code=78).output
    assert idibu.calls == []


# --- what happens on the way -----------------------------------------------------------------------------------------


def test_a_list_that_changed_in_between_is_left_alone(idibu: Idibu) -> None:
    with saying(listed("a@x.example"), listed("a@x.example", "b@x.example")) as url:
        idibu.configure(url=url)
        said = idibu.run("connect", code=4).output
    assert "changed in between" in said and "a@x.example, b@x.example" in said and "nothing was set" in said


def test_a_set_that_did_not_take_is_told(idibu: Idibu) -> None:
    with saying(
        listed("a@x.example"), listed("a@x.example"), listed("a@x.example", OURS), listed("a@x.example")
    ) as url:
        idibu.configure(url=url)
        said = idibu.run("connect", code=4).output
    assert "said that the Global CC was set, and shows another one: a@x.example" in said


def test_what_another_added_since_is_no_failure(idibu: Idibu) -> None:
    more = listed(OURS, "new@x.example")
    with saying(listed(), listed(), listed(OURS), more) as url:
        idibu.configure(url=url)
        assert idibu.json("connect")["after"] == [OURS, "new@x.example"]


@pytest.mark.parametrize("odd", ["Boss <boss@x.example>", "boss", 'a@b@c.example"'])
def test_a_list_that_would_not_come_back_as_it_is_is_left_alone(idibu: Idibu, odd: str) -> None:
    odd = odd.replace("<", "&lt;").replace(">", "&gt;")
    with saying(listed(odd)) as url:
        idibu.configure(url=url)
        said = idibu.run("connect", code=4).output
    assert "no plain address" in said and "at idibu first" in said


def test_an_address_that_only_we_would_not_write_so_is_kept(idibu: Idibu) -> None:
    present = listed("boss@intranet")
    with saying(present, present, listed(), listed("boss@intranet", OURS)) as url:
        idibu.configure(url=url)
        assert idibu.json("connect")["after"] == ["boss@intranet", OURS]


LOST = [Step(fault=fault, call=SET) for fault in (Fault.CLOSE, Fault.HTML, Fault.EMPTY, Fault.ERROR, Fault.BUSY)]


@pytest.mark.parametrize("step", LOST, ids=lambda step: step.fault)
def test_a_lost_answer_is_no_loss_where_it_was_done(idibu: Idibu, step: Step) -> None:
    given(idibu, "boss@acme.example")
    idibu.misbehave(step.model_copy(update={"saves": True}))
    assert "from now on" in idibu.run("connect").output
    assert idibu.cc == ("boss@acme.example", OURS)


@pytest.mark.parametrize("step", LOST, ids=lambda step: step.fault)
def test_where_it_was_not_done_it_is_told(idibu: Idibu, step: Step) -> None:
    given(idibu, "boss@acme.example")
    idibu.misbehave(step)
    said = idibu.run("connect", code=1).stderr
    assert "try" in said and said.count("\n") == 1
    assert idibu.cc == ("boss@acme.example",)
    idibu.run("connect")
    assert idibu.cc == ("boss@acme.example", OURS)


def test_where_nobody_can_tell_it_is_said_to_look(idibu: Idibu) -> None:
    idibu.misbehave(
        Step(call=READ, times=2), Step(fault=Fault.CLOSE, call=SET, saves=True), Step(fault=Fault.CLOSE, call=READ)
    )
    assert "look before you repeat it" in idibu.run("connect", code=1).stderr
    assert "already" in idibu.run("connect").output


def test_a_refusal_leaves_all_as_it_was(idibu: Idibu) -> None:
    idibu.misbehave(Step(fault=Fault.FAILED, text="Not today", call=SET))
    assert idibu.run("connect", code=1).stderr == "error: idibu refused: Not today\n"
    assert idibu.calls == [READ, READ, SET] and idibu.cc == ()


# --- idibu cc --------------------------------------------------------------------------------------------------------


def test_addresses_are_shown_added_and_removed(idibu: Idibu) -> None:
    assert "switched off" in idibu.run("idibu", "cc", "show").output
    said = idibu.run("idibu", "cc", "add", "a@x.example", "b@x.example").output
    assert said == "the Global CC of account acme is now: a@x.example, b@x.example\n"
    assert "left as it is" in idibu.run("idibu", "cc", "add", "A@x.example").output
    assert idibu.run("idibu", "cc", "show").output == "a@x.example\nb@x.example\n"
    assert "that leaves b@x.example" in idibu.run("idibu", "cc", "remove", "a@x.example", code=2).output
    idibu.run("idibu", "cc", "remove", "a@x.example", "--yes")
    assert "switches the Global CC off" in idibu.run("idibu", "cc", "remove", "b@x.example", code=2).output
    assert idibu.json("idibu", "cc", "remove", "b@x.example", "--yes")["after"] == []
    assert "left as it is" in idibu.run("idibu", "cc", "remove", "b@x.example").output
    assert "no e-mail address" in idibu.run("idibu", "cc", "add", "nobody", code=2).output
    idibu.run("idibu", "cc", "add", "a@x.example", "--client-id", 1002)
    assert [one.cc for one in idibu.sandbox.accounts()] == [(), ("a@x.example",)]
    assert idibu.json("idibu", "cc", "show", "--client-id", 1002) == {"addresses": ["a@x.example"]}


def test_a_password_from_a_file(idibu: Idibu, tmp_path: Path) -> None:
    file = tmp_path / "partner-password"
    file.write_text("p4rtner <w0rd>\n")
    idibu.configure(f"partner_id = 77\npartner_password_file = {json.dumps(str(file))}")
    idibu.run("connect")
    assert idibu.cc == (OURS,)
