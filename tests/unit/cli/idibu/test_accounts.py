"""`idibu accounts`, `account`, `services`, `credits`: what a partner manages, and hashes that go into files alone."""

import json
from pathlib import Path

import pytest

from apptrack_ingest.cli import idibu_files

from .conftest import HASH, PARTNER, Idibu

NEWBY = """
username = "newby"
firstname = "Ann"
lastname = "Oh"
email = "ann@example.com"
company_name = "Newby Ltd"
address1 = "1 High Street"
country = "UK"
postcode = "X1"
phone = "+44 1"
www = "https://newby.example"
"""
LOGIN = "l0gin-pa55"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text(f"{LOGIN}\n")
    file = tmp_path / "newby.toml"
    file.write_text(NEWBY)
    return file


def test_the_partners_accounts_are_listed_without_hashes(idibu: Idibu) -> None:
    shown = idibu.run("idibu", "accounts").output
    assert "1001" in shown and "acme" in shown and "globex" in shown
    listed = idibu.json("idibu", "accounts", "--limit", 1)
    assert listed == {"accounts": [{"client_id": 1001, "username": "acme"}], "next_offset": 1}
    assert "--offset 1" in idibu.run("idibu", "accounts", "--limit", 1).output
    assert "globex" in idibu.run("idibu", "accounts", "--offset", 1).output
    assert "no accounts" in idibu.run("idibu", "accounts", "--offset", 2).output


def test_a_new_accounts_hash_goes_into_a_file_that_opens_its_services(idibu: Idibu, file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "newby.hash"
    words = ("--file", file, "--password-file", tmp_path / "password", "--hash-file", kept, "--yes")
    said = idibu.run("idibu", "account", "new", *words).output
    assert "client id 2001" in said and str(kept) in said and LOGIN not in said
    hash = kept.read_text().strip()
    assert hash and hash not in said and kept.stat().st_mode & 0o777 == 0o600
    idibu.configure(account=f'[accounts.newby]\nhash_file = {json.dumps(str(kept))}\nrecipients = ["in.newby.example"]')
    shown = idibu.json("idibu", "account", "show", "--account", "newby")
    assert (shown["client_id"], shown["company_name"]) == (2001, "Newby Ltd")
    assert "client_hash" not in shown


def test_an_account_is_asked_for_its_password_and_whether_it_is_meant(idibu: Idibu, file: Path, tmp_path: Path) -> None:
    words = ("idibu", "account", "new", "--file", file, "--hash-file", tmp_path / "new.hash")
    refused = idibu.run(*words, code=2, input=f"{LOGIN}\n{LOGIN}\n").output
    assert "no terminal" in refused and "--password-file" in refused
    rehearsed = idibu.run(*words, "--dry-run").output
    assert "<username>newby</username>" in rehearsed and "<password>********</password>" in rehearsed
    words = (*words, "--password-file", tmp_path / "password")
    refused = idibu.run(*words, code=2).output
    assert "a new account newby" in refused and "--yes" in refused
    assert idibu.calls == []


def test_an_accounts_password_is_asked_for_without_being_shown(
    idibu: Idibu, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idibu_files, "_somebody_is_there", lambda: True)
    words = ("idibu", "account", "new", "--file", file, "--hash-file", tmp_path / "new.hash", "--yes")
    said = idibu.run(*words, input=f"{LOGIN}\n{LOGIN}\n").output
    assert "Password of the account" in said and LOGIN not in said
    assert [one.username for one in idibu.sandbox.accounts()] == ["acme", "globex", "newby"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "email=nobody"), "email is no e-mail address"),
        (("--set", "username=" + "x" * 33), "username must have 1 to 32 characters"),
        (("--set", "colour=blue"), "no such field: colour; known are username"),
        (("--set", "password=x"), "--password-file"),
        (("--set", "email"), "KEY=VALUE"),
        (("--set", "username.first=x"), "username has no parts"),
    ],
)
def test_a_mistake_is_named_before_anything_is_asked(
    idibu: Idibu, file: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    new = tmp_path / "new.hash"
    said = idibu.run("idibu", "account", "new", "--file", file, *words, "--hash-file", new, "--yes", code=2).output
    assert says in " ".join(said.split())
    assert not new.exists() and idibu.calls == []


def test_what_is_missing_is_all_named(idibu: Idibu, tmp_path: Path) -> None:
    said = idibu.run("idibu", "account", "new", "--set", "username=x", "--hash-file", tmp_path / "h", code=2).output
    assert "firstname: Field required" in said and "www: Field required" in said


@pytest.mark.parametrize("content", [b"username = ", b"\xff", b'password = ["x"]\n' + NEWBY.encode()])
def test_a_file_that_cannot_be_used(idibu: Idibu, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "odd.toml"
    file.write_bytes(content)
    words = ("idibu", "account", "new", "--file", file, "--hash-file", tmp_path / "h", "--yes")
    assert "Error" in idibu.run(*words, code=2).output
    assert not (tmp_path / "h").exists()


def test_no_file_that_holds_something_is_overwritten(idibu: Idibu, file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "old.hash"
    kept.write_text("old")
    words = ("idibu", "account", "new", "--file", file, "--password-file", tmp_path / "password", "--yes")
    assert "there already" in idibu.run(*words, "--hash-file", kept, code=1).output
    assert "cannot be written" in idibu.run(*words, "--hash-file", tmp_path / "none" / "h", code=1).output
    assert kept.read_text() == "old" and idibu.calls == []
    refused = idibu.run(*words, "--set", "username=acme", "--hash-file", tmp_path / "new", code=1).output
    assert "already taken" in refused and not (tmp_path / "new").exists()


def test_an_account_is_found_by_its_hash_its_client_id_here_or_the_one_given(idibu: Idibu, tmp_path: Path) -> None:
    kept = tmp_path / "acme.hash"
    shown = idibu.run("idibu", "account", "show", "--hash-file", kept).output
    assert "1001" in shown and kept.read_text() == f"{HASH}\n"
    assert idibu.calls == ["accounts", "accountdetails"]
    assert idibu.json("idibu", "account", "show", "--client-id", 1002)["username"] == "globex"
    idibu.configure(account="client_id = 1001", hash="")
    assert idibu.json("idibu", "account", "show")["username"] == "acme"
    assert "--client-id" in idibu.run("idibu", "account", "show", "--client-id", 1, "--account", "acme", code=2).output
    assert "Invalid client-id" in idibu.run("idibu", "account", "show", "--client-id", 9, code=1).output
    idibu.configure(hash="of-another-partner")
    assert "no account with the hash of account acme" in idibu.run("idibu", "account", "show", code=3).output


def test_fields_are_changed_and_the_rest_is_left(idibu: Idibu, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(LOGIN)
    said = idibu.run("idibu", "account", "update", "--set", "phone=+44 2", code=2).output
    assert "phone of account acme is changed" in said and "--yes" in said
    words = ("--set", "phone=+44 2", "--set", "www=https://a.example", "--password-file", tmp_path / "password")
    said = idibu.run("idibu", "account", "update", *words, "--yes").output
    assert "client id 1001" in said and LOGIN not in said
    idibu.run("idibu", "account", "update", "--set", "firstname=Eve", "--client-id", 1002, "--yes")
    acme, globex = idibu.sandbox.accounts()
    assert (acme.fields["phone"], acme.fields["www"]) == ("+44 2", "https://a.example")
    assert globex.fields["firstname"] == "Eve"
    assert "nothing to change" in idibu.run("idibu", "account", "update", "--yes", code=2).output


def test_services_come_and_go(idibu: Idibu) -> None:
    assert "has no services" in idibu.run("idibu", "services", "list").output
    assert idibu.run("idibu", "services", "add", "aptrack", "posting").output
    assert idibu.json("idibu", "services", "list") == {"services": ["aptrack", "posting"]}
    said = idibu.run("idibu", "services", "remove", "posting", code=2).output
    assert "account acme loses posting" in said
    idibu.run("idibu", "services", "remove", "posting", "--yes")
    assert idibu.run("idibu", "services", "list").output == "aptrack\n"
    assert "Unknown service" in idibu.run("idibu", "services", "add", "colour", code=1).output
    idibu.run("idibu", "services", "add", "posting", "--client-id", 1002)
    assert [one.services for one in idibu.sandbox.accounts()] == [("aptrack",), ("posting",)]


def test_credits_are_set_and_counted(idibu: Idibu) -> None:
    assert "has 5 credits then" in idibu.run("idibu", "credits", "set", 5, code=2).output
    assert idibu.json("idibu", "credits", "set", 5, "--yes")["credits"] == 5
    assert idibu.run("idibu", "credits", "increment", 3, "--yes").output.endswith(": 8 credits\n")
    assert "gets 2 credits fewer" in idibu.run("idibu", "credits", "increment", -2, code=2).output
    assert idibu.json("idibu", "credits", "increment", -2, "--yes")["credits"] == 6
    shown = idibu.run("idibu", "credits", "show").output
    assert "994 available, 6 allocated, 1000 in all" in shown and "acme" in shown
    assert idibu.json("idibu", "credits", "show")["accounts"][0] == {
        "client_id": 1001,
        "username": "acme",
        "credits": 6,
    }
    assert "Not enough credits" in idibu.run("idibu", "credits", "set", 5000, "--yes", code=1).output


def test_the_wrong_partner_is_told_what_to_check(idibu: Idibu) -> None:
    for wrong in (PARTNER.replace("w0rd", "word"), PARTNER.replace("77", "78")):
        idibu.configure(wrong)
        said = idibu.run("idibu", "accounts", code=1).output
        assert "Invalid" in said and "idibu.partner_password_file" in said


def test_without_a_partner_nothing_is_asked(idibu: Idibu) -> None:
    idibu.configure(partner="")
    for words in (("accounts",), ("services", "list"), ("credits", "show"), ("cc", "show"), ("account", "show")):
        assert "idibu.partner_id: service management is for partners" in idibu.run("idibu", *words, code=78).output
    assert idibu.calls == []
