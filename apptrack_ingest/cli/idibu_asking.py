"""What all commands that ask idibu share: whose credentials, looking before sending, questions, errors in sentences."""

import functools
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import SecretStr

from apptrack_ingest import settings
from apptrack_ingest.cli.common import config_option, err, errors_as_exit_codes, json_option, run
from apptrack_ingest.cli.idibu_showing import print_rehearsal, record
from apptrack_ingest.cli.making import chosen_account
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.showing import print_json, say
from apptrack_ingest.errors import ConfigError, IngestError, Problem
from apptrack_ingest.idibu import (
    Client,
    DuplicateReference,
    IdibuBusy,
    IdibuError,
    IdibuNotUnderstood,
    IdibuRefused,
    IdibuUnauthorized,
    PartnerUnauthorized,
    rehearse,
)
from apptrack_ingest.service.asking import client_of, partner_of
from apptrack_ingest.settings import Settings

T = TypeVar("T")
Command = Callable[..., None]
Call = Callable[[Client], Awaitable[T]]

_NOT_KNOWN_YET = SecretStr("not known yet")
"""In a dry run, which masks it, the hash that idibu would tell."""


_LOST = "; it may have been done all the same: look before you repeat it"


class Whose(Enum):
    """Whose credentials a command needs."""

    ACCOUNT = "account"
    """The hash of an account in the settings."""
    PARTNER = "partner"
    """The partner's id and password."""
    MANAGED = "managed"
    """The partner's, and the hash of the account in question, which idibu tells where only its client id is known."""
    CONNECTED = "connected"
    """The same for an account in the settings; the command itself says what to do without them."""


class NotDone(IngestError):
    """idibu did not do what a command asked; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One command's conversation with idibu. `name` is the account's in the settings, empty where it is in none or about
    none; where there is no hash, idibu tells it for the `client_id`."""

    found: Settings
    name: str = ""
    hash: SecretStr | None = None
    client_id: int | None = None
    dry_run: bool = False
    as_json: bool = False
    yes: bool = False

    @property
    def whose(self) -> str:
        """The account, as a person calls it."""
        return f"account {self.name}" if self.name else f"the account with client id {self.client_id}"

    def ask(self, call: Call[T], *, changes: bool = False) -> T:
        """What idibu answers; in a dry run the request is printed instead, and the command ends. With `changes` the call
        may have been carried out although its answer was lost."""
        if self.dry_run:
            self.show(call)
        return self.really(call, changes=changes)

    def show(self, call: Call[Any]) -> None:
        """Prints what `call` would send first, and ends the command."""
        rehearsed = rehearse(call, self._base_url, self.hash or _NOT_KNOWN_YET, partner=partner_of(self.found))
        print_rehearsal(run(self._in_words(rehearsed)), self.as_json)
        raise click.exceptions.Exit(0)

    def really(self, call: Call[T], *, changes: bool = False) -> T:
        """What idibu answers, in a dry run too: for reading what a change is made of."""
        try:
            return run(self._in_words(self._asked(call), changes=changes))
        except KeyboardInterrupt:
            if changes:
                err.print(f"stopped{_LOST}", markup=False)
            raise

    def confirm(self, what: str) -> None:
        """Asks before something that the opposite command does not simply take back."""
        if self.yes or self.dry_run:
            return
        if self.as_json or not sys.stdin.isatty():
            raise click.UsageError(f"{what}; --yes says that this is meant")
        click.confirm(f"{what}. Go on?", abort=True, err=True)

    def tell(self, answer: object, line: str) -> None:
        """What came of it: a record for programs, a line for people."""
        if self.as_json:
            print_json(record(answer))
        else:
            say(line)

    @property
    def _base_url(self) -> str:
        return str(self.found.idibu.base_url)

    async def _asked(self, call: Call[T]) -> T:
        hash = self.hash
        if hash is None and self.client_id is not None:
            async with client_of(self.found, None) as client:
                hash = (await client.service.account_details(self.client_id)).client_hash
        async with client_of(self.found, hash) as client:
            return await call(client)

    async def _in_words(self, work: Awaitable[T], *, changes: bool = False) -> T:
        """Raises NotDone for what idibu or the network does, a usage error for what breaks a documented limit."""
        try:
            return await work
        except IdibuError as error:
            raise NotDone(self._sentence(error, changes)) from None
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def _sentence(self, error: IdibuError, changes: bool) -> str:
        if not isinstance(error, IdibuRefused | IdibuUnauthorized):
            return f"{self._not_answered(error)}{_LOST if changes else ''}"
        match error:
            case DuplicateReference():
                advice = "nothing was posted; `idibu jobs update` changes the job that has the reference"
            case PartnerUnauthorized():
                advice = "check idibu.partner_id and idibu.partner_password_file"
            case IdibuUnauthorized() if self.name:
                advice = f"check accounts.{self.name}.hash_file, and that the account may use this service"
            case _:
                advice = "try again later" if error.temporary else ""
        return "; ".join(filter(None, (f"idibu refused: {error.detail.rstrip('. ')}", advice)))

    def _not_answered(self, error: IdibuError) -> str:
        detail = error.detail
        match error:
            case IdibuBusy(after=after):
                wait = "later" if after is None else f"in {after:g} seconds"
                return f"idibu is busy ({detail}); try again {wait}"
            case IdibuNotUnderstood() if error.temporary:
                return f"what came is no answer of idibu ({detail}); try again later"
            case IdibuNotUnderstood():
                return f"what came is no answer of idibu ({detail}); check idibu.base_url, {self._base_url}"
        return (
            f"idibu was not reached ({detail}); check idibu.base_url, {self._base_url}, and the network, or try later"
        )


# --- options ---------------------------------------------------------------------------------------------------------

_ACCOUNT = click.option("--account", metavar="NAME", help="Which account; needed where the settings have several.")
_CLIENT_ID = click.option(
    "--client-id", type=ID, metavar="N", help="The account with this id at idibu, also one that the settings lack."
)
_YES = click.option("--yes", is_flag=True, help="Do not ask before it is done.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only print what would be sent, with secrets masked.")


def asks(whose: Whose, *, confirms: bool = False) -> Callable[[Command], Command]:
    """What a command that asks idibu takes: it is called with an Asking first. `confirms`: it asks the person too."""

    def decorate(command: Command) -> Command:
        @errors_as_exit_codes
        @functools.wraps(command)
        def asking(
            config: Path | None,
            as_json: bool,
            dry_run: bool,
            account: str | None = None,
            client_id: int | None = None,
            yes: bool = False,
            **given: Any,
        ) -> None:
            found = settings.load(config)
            known = _credentials(found, whose, account, client_id)
            command(Asking(found, *known, dry_run=dry_run, as_json=as_json, yes=yes), **given)

        wanted = [config_option, json_option, _DRY_RUN]
        wanted += (
            [_YES] * confirms + [_CLIENT_ID] * (whose is Whose.MANAGED) + [_ACCOUNT] * (whose is not Whose.PARTNER)
        )
        decorated: Command = asking
        for option in wanted:
            decorated = option(decorated)
        return decorated

    return decorate


def _credentials(
    found: Settings, whose: Whose, account: str | None, client_id: int | None
) -> tuple[str, SecretStr | None, int | None]:
    """The account's name in the settings, hash and client id, as far as they are needed. Raises ConfigError for those
    that are missing."""
    is_partner = partner_of(found) is not None
    if whose in (Whose.PARTNER, Whose.MANAGED) and not is_partner:
        raise ConfigError([Problem("idibu.partner_id", "", _NO_PARTNER)])
    if whose is Whose.PARTNER:
        return "", None, None
    if client_id is not None:
        if account is not None:
            raise click.UsageError("give either --account or --client-id")
        return "", None, client_id
    name = chosen_account(found, account)
    chosen = found.known_accounts[name]
    told = is_partner and whose is not Whose.ACCOUNT and chosen.client_id is not None
    if chosen.hash is None and not told and (is_partner or whose is not Whose.CONNECTED):
        raise ConfigError([Problem(f"accounts.{name}.hash_file", "", _NO_HASH)])
    return name, chosen.hash, chosen.client_id


_NO_PARTNER = (
    "service management is for partners of idibu: set partner_id and partner_password_file, both given by idibu"
)
_NO_HASH = "the account has no hash: set hash_file, with the account's API hash at idibu"
