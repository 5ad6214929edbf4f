"""`address new` and `user new`: make what is unguessable or secret, and print the setting for it; nothing is written."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from apptrack_ingest import settings
from apptrack_ingest.cli.common import config_option, errors_as_exit_codes, json_option, out
from apptrack_ingest.cli.orders import known_account
from apptrack_ingest.cli.showing import print_json, safe
from apptrack_ingest.errors import IngestError
from apptrack_ingest.receive.users import make_hash
from apptrack_ingest.settings import Duration, Settings, token_parts
from apptrack_ingest.trust import digest_of, new_token

DAY = 86400.0


def _span(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """A span of time as the settings write it."""
    try:
        return float(TypeAdapter(Duration).validate_python(value))
    except ValidationError:
        raise click.BadParameter("write a number with s, m, h or d, like 30d") from None


@click.group("address", short_help="Unguessable recipients.")
def address() -> None:
    """Recipients that only those know who are to deliver here (trust by token)."""


@address.command("new", short_help="Make an unguessable recipient.")
@click.option("--account", metavar="NAME", help="Whose recipient; needed where there are several accounts.")
@click.option("--recipient", metavar="ADDRESS", help="The recipient it is made of; by default the account's first.")
@click.option("--overlap", callback=_span, default="30d", help="How long the present ones stay good (default: 30d).")
@config_option
@json_option
@errors_as_exit_codes
def new_address(account: str | None, recipient: str | None, overlap: float, config: Path | None, as_json: bool) -> None:
    """Make an unguessable recipient, applications+TOKEN@…, and print the address and the setting that goes with it.

    Nothing is written: put the setting into the configuration, reload, then give the address to idibu (Global CC or
    forward-to). The setting holds only a digest; the address cannot be shown again. The account's present tokens are
    kept in the printed setting for the time of --overlap, so that the change at idibu can be made at leisure.
    """
    found = settings.load(config)
    name = chosen_account(found, account)
    token = new_token()
    made = with_subaddress(recipient or first_recipient(found, name), token)
    tokens = (*_still_good(found.known_accounts[name].trust.tokens, overlap, time.time()), digest_of(token))
    if as_json:
        print_json({"account": name, "address": made, "digest": digest_of(token), "tokens": list(tokens)})
        return
    out.print(f"the address, for idibu and nobody else:\n\n    {safe(made)}\n", markup=False)
    out.print("the setting; reload after it is in the configuration, and before idibu uses the address:\n")
    listed = "".join(f"    {json.dumps(token)},\n" for token in tokens)
    out.print(f"[accounts.{name}.trust]\ntokens = [\n{listed}]", markup=False)


def chosen_account(found: Settings, account: str | None) -> str:
    """The account asked for, or the only one there is; NotFound and IngestError say which there are."""
    if account is not None:
        return known_account(found, account)
    if len(found.known_accounts) > 1:
        raise IngestError(
            f"there are several accounts ({', '.join(found.known_accounts)}); say which with --account NAME"
        )
    return next(iter(found.known_accounts))


def first_recipient(found: Settings, name: str) -> str:
    """An address of the account's; of a domain one is made up."""
    listed = (*found.known_accounts[name].recipients, *found.recipients)
    if not listed:
        raise IngestError(
            f"account {name} has no recipients: add them in [accounts.{name}], or say --recipient ADDRESS"
        )
    addresses = [one for one in listed if "@" in one.removeprefix("@")]
    return addresses[0] if addresses else f"applications@{listed[0].removeprefix('@')}"


def with_subaddress(recipient: str, token: str) -> str:
    """The recipient with the token as its subaddress (RFC 5233), in place of one it has."""
    local, at, domain = recipient.rpartition("@")
    if not at or not local:
        raise IngestError(f"{recipient!r} is no address; write it like applications@in.acme.example")
    return f"{local.partition('+')[0]}+{token}@{domain}"


def _still_good(tokens: tuple[str, ...], overlap: float, now: float) -> list[str]:
    """The present tokens, each with its last day; those that are over are left out."""
    last_day = f"{datetime.fromtimestamp(now + overlap, UTC):%Y-%m-%d}"
    kept = []
    for token in tokens:
        digest, until = token_parts(token)
        if until is None or until > now + overlap + DAY:
            kept.append(f"{digest} until {last_day}")
        elif until > now:
            kept.append(token)
    return kept


@click.group("user", short_help="Users of SMTP AUTH.")
def user() -> None:
    """Who may authenticate themselves with name and password (trust by user)."""


@user.command("new", short_help="Hash a password.")
@click.argument("name")
@click.option(
    "--password",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="Asked for when it is not given; best not given, for process lists show it.",
)
@errors_as_exit_codes
def new_user(name: str, password: str) -> None:
    """Hash a password for the SMTP user NAME and print the setting; the password is kept nowhere."""
    if not password:
        raise IngestError("the password is empty")
    out.print("[smtp.users]", markup=False)
    out.print(f"{json.dumps(name)} = {json.dumps(make_hash(password))}", markup=False)
    out.print("\n# and where the user's mail is to be believed, in [trust] or [accounts.NAME.trust]:", markup=False)
    out.print(f"# users = [{json.dumps(name)}]", markup=False)


COMMANDS = (address, user)
"""Commands."""
