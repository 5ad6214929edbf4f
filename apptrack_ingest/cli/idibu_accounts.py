"""`idibu accounts`, `account`, `services` and `credits`: what a partner manages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from apptrack_ingest.cli.idibu_asking import Asking, Whose, asks
from apptrack_ingest.cli.idibu_files import SecretFile, filled_in, made, password_from, values_of
from apptrack_ingest.cli.idibu_pages import first, page_of, paged
from apptrack_ingest.cli.idibu_showing import print_facts, print_rows, record
from apptrack_ingest.cli.showing import print_json, say
from apptrack_ingest.errors import NotFound
from apptrack_ingest.idibu import AccountChanges, AccountDetails, Client, NewAccount


def _path(name: str, help: str, *, required: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, required=required, type=click.Path(dir_okay=False, path_type=Path), help=help)


_password_file = _path("--password-file", "A file with the account's password at idibu.")


# --- accounts --------------------------------------------------------------------------------------------------------


@click.command("accounts", short_help="The partner's accounts.")
@paged
@asks(Whose.PARTNER)
def accounts(asking: Asking, offset: int, limit: int) -> None:
    """List the partner's accounts at idibu: client id and user name. Hashes are not shown."""
    listed = asking.ask(lambda client: first(limit + 1, client.service.accounts(offset, page_of(limit))))
    more = len(listed) > limit
    if asking.as_json:
        print_json({"accounts": record(listed[:limit]), "next_offset": offset + limit if more else None})
        return
    if not listed:
        say("the partner has no accounts")
        return
    print_rows(("client id", "user name"), [(one.client_id, one.username) for one in listed[:limit]])
    if more:
        say(f"there are more: add --offset {offset + limit}")


@click.group("account", short_help="One of the partner's accounts.")
def account() -> None:
    """One of the partner's accounts at idibu: show it, make a new one, change it."""


@account.command("show")
@_path("--hash-file", "Write the account's hash into this new file.")
@asks(Whose.MANAGED)
def show_account(asking: Asking, hash_file: Path | None) -> None:
    """Show what idibu tells of an account, and with --hash-file write its hash into a new file of mode 0600.

    An account of the settings is found by its client id there, or among the partner's accounts by its hash.
    """
    found = _keeping_hash(asking, hash_file, _details(asking))
    if asking.as_json:
        print_json(record(found))
    else:
        print_facts([(name.replace("_", " "), value) for name, value in record(found).items()])


def _details(asking: Asking) -> Callable[[Client], Any]:
    async def details(client: Client) -> AccountDetails:
        number = asking.client_id or await _number_of(client, asking)
        return await client.service.account_details(number)

    return details


async def _number_of(client: Client, asking: Asking) -> int:
    """The client id of the account with our hash, looked up among the partner's accounts."""
    async for one in client.service.accounts():
        if one.client_hash == asking.hash:
            return one.client_id
    raise NotFound(f"the partner has no account with the hash of {asking.whose}")


@account.command("new")
@filled_in
@_password_file
@_path("--hash-file", "A new file for the new account's hash.", required=True)
@asks(Whose.PARTNER, confirms=True)
def new_account(
    asking: Asking, file: Path | None, assignments: tuple[str, ...], password_file: Path | None, hash_file: Path
) -> None:
    """Make a new account at idibu, and write its hash into a new file of mode 0600.

    Fields: username, firstname, lastname, email, company_name, address1, country, postcode, phone, www (all needed),
    address, address2, address3, fax. The password is asked for, unless it is in --password-file or in the file.
    """
    values = values_of(file, assignments)
    if password_file is not None or "password" not in values:
        stand_in = SecretStr("stand-in")  # a dry run masks it
        made(NewAccount, {**values, "password": stand_in})  # mistakes first, then the question
        values["password"] = stand_in if asking.dry_run and password_file is None else password_from(password_file)
    wanted = made(NewAccount, values)
    asking.confirm(f"a new account {wanted.username} is made at idibu, which cannot be taken back from here")
    changed = _keeping_hash(asking, hash_file, lambda client: client.service.new_account(wanted), changes=True)
    asking.tell(changed, f"{changed.message}: client id {changed.client_id}; its hash is in {hash_file}")


@account.command("update")
@filled_in
@_password_file
@asks(Whose.MANAGED, confirms=True)
def update_account(asking: Asking, file: Path | None, assignments: tuple[str, ...], password_file: Path | None) -> None:
    """Change fields of an account at idibu, those of `account new` but for the user name; the rest stays."""
    values = values_of(file, assignments)
    if password_file is not None:
        values["password"] = password_from(password_file)
    changes = made(AccountChanges, values)
    asking.confirm(f"{', '.join(values)} of {asking.whose} {'is' if len(values) == 1 else 'are'} changed at idibu")
    changed = asking.ask(lambda client: client.service.update_account(changes), changes=True)
    asking.tell(changed, f"{changed.message}: client id {changed.client_id}")


def _keeping_hash(asking: Asking, path: Path | None, call: Callable[[Client], Any], *, changes: bool = False) -> Any:
    """The answer, its hash written to the file; where none came, no file is left."""
    if path is None or asking.dry_run:
        return asking.ask(call, changes=changes)
    file = SecretFile(path)
    try:
        answer = asking.ask(call, changes=changes)
    except BaseException:
        file.drop()
        raise
    file.write(answer.client_hash)
    return answer


# --- services --------------------------------------------------------------------------------------------------------


@click.group("services", short_help="The services of an account.")
def services() -> None:
    """The services an account has at idibu. Which there are is idibu's to say."""


@services.command("list")
@asks(Whose.MANAGED)
def list_services(asking: Asking) -> None:
    """List the services an account has."""
    found = asking.ask(lambda client: client.service.list_services())
    asking.tell({"services": found.names}, ", ".join(found.names) or f"{asking.whose} has no services")


@services.command("add")
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@asks(Whose.MANAGED)
def add_services(asking: Asking, names: tuple[str, ...]) -> None:
    """Enable services for an account."""
    done = asking.ask(lambda client: client.service.add_services(names), changes=True)
    asking.tell(done, done.message or "done")


@services.command("remove")
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True)
@asks(Whose.MANAGED, confirms=True)
def remove_services(asking: Asking, names: tuple[str, ...]) -> None:
    """Disable services for an account."""
    asking.confirm(f"{asking.whose} loses {', '.join(names)} at idibu")
    done = asking.ask(lambda client: client.service.remove_services(names), changes=True)
    asking.tell(done, done.message or "done")


# --- credits ---------------------------------------------------------------------------------------------------------


@click.group("credits", short_help="Pay Per Post credits.")
def credits() -> None:
    """Pay Per Post credits: the partner's, and what its accounts have of them."""


@credits.command("show")
@asks(Whose.PARTNER)
def show_credits(asking: Asking) -> None:
    """Show the partner's credits, and how many each of its accounts has."""
    found = asking.ask(lambda client: client.service.view_credits())
    if asking.as_json:
        print_json(record(found))
        return
    say(f"{found.available} available, {found.allocated} allocated, {found.total} in all")
    if found.accounts:
        rows = [(one.client_id, one.username, one.credits) for one in found.accounts]
        print_rows(("client id", "user name", "credits"), rows)


@credits.command("set")
@click.argument("number", metavar="CREDITS", type=click.IntRange(0))
@asks(Whose.MANAGED, confirms=True)
def set_credits(asking: Asking, number: int) -> None:
    """Give an account this many credits, whatever it has."""
    asking.confirm(f"{asking.whose} has {number} credits then, whatever it has now")
    changed = asking.ask(lambda client: client.service.set_credits(number), changes=True)
    asking.tell(changed, f"{changed.message}: {changed.credits} credits")


@credits.command("increment", context_settings={"ignore_unknown_options": True})
@click.argument("by", metavar="NUMBER", type=int)
@asks(Whose.MANAGED, confirms=True)
def increment_credits(asking: Asking, by: int) -> None:
    """Give an account more credits, or with a negative NUMBER fewer. Never repeated by itself: each time counts."""
    asking.confirm(f"{asking.whose} gets {abs(by)} credits {'more' if by >= 0 else 'fewer'}")
    changed = asking.ask(lambda client: client.service.increment_credits(by), changes=True)
    asking.tell(changed, f"{changed.message}: {changed.credits} credits")


COMMANDS = (accounts, account, services, credits)
"""Commands of the group."""
