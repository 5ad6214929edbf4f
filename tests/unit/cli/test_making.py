"""`address new` and `user new`: what they print can be put into the configuration as it is, and nothing is written."""

import asyncio
import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from apptrack_ingest.cli import main
from apptrack_ingest.receive.users import Users
from apptrack_ingest.settings import load, token_parts
from apptrack_ingest.trust import digest_of

from .conftest import SECRET, House


def run(*words: str, **options: str) -> Result:
    return CliRunner().invoke(main, list(words), **options)


def test_the_printed_setting_makes_the_printed_address_a_token_of_the_account(house: House) -> None:
    before = house.config.read_text()
    shown = run("address", "new", "--account", "acme", "--config", str(house.config)).output
    address = re.search(r"applications\+(\S+)@acme\.example", shown)
    assert address
    setting = shown[shown.index("[accounts.acme.trust]") :]
    assert house.config.read_text() == before
    house.config.write_text(before + "\n" + setting)
    (token,) = load(house.config).accounts["acme"].trust.tokens
    assert token == digest_of(address[1])
    assert address[1] not in setting


def test_the_present_tokens_stay_good_for_the_overlap(house: House) -> None:
    kept, ending, over = "a" * 64, "b" * 64, "c" * 64
    soon, past = (f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}" for days in (3, -3))
    tokens = [kept, f"{ending} until {soon}", f"{over} until {past}"]
    house.config.write_text(house.config.read_text() + f"\n[accounts.acme.trust]\ntokens = {json.dumps(tokens)}\n")
    words = ("address", "new", "--account", "acme", "--overlap", "10d", "--config", str(house.config), "--json")
    days = [f"{datetime.now(UTC) + timedelta(days=10):%Y-%m-%d}"]
    shown = json.loads(run(*words).output)
    days.append(f"{datetime.now(UTC) + timedelta(days=10):%Y-%m-%d}")  # it may be midnight
    first, second, new = shown["tokens"]
    assert first in [f"{kept} until {day}" for day in days] and second == f"{ending} until {soon}"
    assert token_parts(new) == (shown["digest"], None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("address", "new"), "acme, beta, quiet"),
        (("address", "new", "--account", "nobody"), "nobody"),
        (("address", "new", "--account", "acme", "--recipient", "acme.example"), "no address"),
        (("address", "new", "--account", "acme", "--overlap", "soon"), "like 30d"),
    ],
)
def test_what_cannot_be_done_is_said(house: House, words: tuple[str, ...], says: str) -> None:
    result = run(*words, "--config", str(house.config))
    assert result.exit_code != 0
    assert says in result.output
    assert SECRET not in result.output


def test_an_address_of_a_domain_is_made_up(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text('[accounts.acme]\nrecipients = ["@acme.example"]\n')
    shown = json.loads(run("address", "new", "--config", str(config), "--json").output)
    assert re.fullmatch(r"applications\+[a-z2-7]{26,}@acme\.example", shown["address"])


def test_a_password_becomes_a_setting_that_lets_the_user_in() -> None:
    shown = run("user", "new", "relay", input="open sesame\nopen sesame\n").output
    assert "open sesame" not in shown
    users = tomllib.loads(shown[shown.index("[smtp.users]") :])["smtp"]["users"]
    assert asyncio.run(Users(users).check("relay", "open sesame"))
    assert not asyncio.run(Users(users).check("relay", "open sesam"))
