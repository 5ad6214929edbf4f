"""`connect` and `disconnect`: whether idibu copies an account's applications to our recipient, by its Global CC."""

import sys
import time

import click

from apptrack_ingest.cli.common import BAD_CONFIGURATION
from apptrack_ingest.cli.idibu_asking import Asking, Whose, asks
from apptrack_ingest.cli.idibu_cc import change, checked, confirm_removal, present
from apptrack_ingest.cli.showing import print_json, say
from apptrack_ingest.errors import IngestError, NotAllowed
from apptrack_ingest.idibu import CcChange, planned
from apptrack_ingest.idibu.global_cc import among
from apptrack_ingest.receive.policy import Special, subaddress, without_secret
from apptrack_ingest.service.asking import partner_of
from apptrack_ingest.service.intake import directory_of
from apptrack_ingest.settings import Settings, token_parts
from apptrack_ingest.trust import digest_of

_ADDRESS = click.option(
    "--address", metavar="ADDRESS", help="Our recipient; needed where the settings have not exactly one address."
)


@click.command(short_help="Let idibu send applications here.")
@_ADDRESS
@asks(Whose.CONNECTED)
def connect(asking: Asking, address: str | None) -> None:
    """Make our recipient address a Global CC of the account at idibu, which then copies every application to it.

    The other addresses stay, and it is looked whether the change took. Where ours is there already nothing is done. That
    takes a partner's credentials; without them it prints what to ask idibu for.
    """
    mine = _Recipients(asking.found, asking.name)
    wanted = None if address is None else mine.verified(checked(address))
    if partner_of(asking.found) is None:
        _ask_a_person(asking, wanted or mine.only())
    before = present(asking)
    if wanted is None:
        wanted = next((each for each in before if mine.suits(each)), None) or mine.only()
    done = change(asking, planned(before, add=[wanted]))
    since = "from now on" if done.changed else "already"
    _tell(asking, mine, done, f"idibu copies every application of {asking.whose} to {mine.shown(wanted)} {since}")


@click.command(short_help="Let idibu send no more applications here.")
@_ADDRESS
@asks(Whose.CONNECTED, confirms=True)
def disconnect(asking: Asking, address: str | None) -> None:
    """Take our addresses out of the Global CC of the account at idibu: all that the settings say are this account's, or
    the one of --address. The others stay. Where none of ours is there nothing is done.
    """
    mine = _Recipients(asking.found, asking.name)
    if address is not None:
        checked(address)
    if partner_of(asking.found) is None:
        _ask_a_person(asking, address or mine.all(), remove=True)
    before = present(asking)
    gone = [each for each in before if (mine.leads_here(each) if address is None else among([address], each))]
    plan = planned(before, remove=gone)
    confirm_removal(asking, plan)
    done = change(asking, plan)
    shown = ", ".join(map(mine.shown, gone))
    words = f"idibu copies no application of {asking.whose} to {shown} any more" if gone else "none of ours was there"
    _tell(asking, mine, done, words)


def _tell(asking: Asking, mine: "_Recipients", done: CcChange, words: str) -> None:
    """What the list is now, without our tokens: whoever knows one may deliver."""
    before, after = ([mine.shown(each) for each in listed] for listed in (done.before, done.after))
    if asking.as_json:
        print_json({"account": asking.name, "changed": done.changed, "before": before, "after": after})
        return
    say(words)
    say(f"its Global CC: {', '.join(after) or 'no address, it is switched off'}")


# --- which address ---------------------------------------------------------------------------------------------------


class _Recipients:
    """What the settings say of an account's recipients, and of the tokens that make mail to them believed."""

    def __init__(self, found: Settings, account: str) -> None:
        self._account = account
        self._settings = found.known_accounts[account]
        self._shared = found.recipients
        self._directory = directory_of(found)
        now = time.time()
        parts = [token_parts(token) for token in (*found.trust.tokens, *self._settings.trust.tokens)]
        self._tokens = {digest.lower() for digest, until in parts if until is None or now < until}
        self._all_tokens = {digest.lower() for digest, _ in parts}

    def leads_here(self, address: str) -> bool:
        """Whether mail to it is this account's: its own recipient, or a shared one that its client id tells apart."""
        owner = self._directory.resolve(address, local=False)
        if owner is Special.SHARED:
            return self._settings.client_id is not None
        return not isinstance(owner, Special) and self._account in owner

    def suits(self, address: str) -> bool:
        """Whether it could be the address: it leads here, with a token where the settings have tokens."""
        return self.leads_here(address) and (not self._tokens or self._token_of(address) in self._tokens)

    def verified(self, address: str) -> str:
        """An address that was given. Raises NotAllowed where mail to it would be refused, or its token does not count."""
        if not self.leads_here(address):
            raise NotAllowed(
                f"{self.shown(address)} is no recipient of account {self._account}, so its mail would be refused: add"
                f" it to accounts.{self._account}.recipients and reload first"
            )
        token = self._token_of(address)
        if self._all_tokens and subaddress(address) and token not in self._tokens:
            over = "has expired" if token in self._all_tokens else "is not one of the settings'"
            raise NotAllowed(
                f"the token in {self.shown(address)} {over}, so mail to it would be held as untrusted:"
                f" `address new --account {self._account}` makes one"
            )
        return address

    def only(self) -> str:
        """The one address there is to choose. Raises IngestError that says how to give one."""
        how = "give it with --address ADDRESS"
        if self._tokens:
            raise IngestError(
                f"account {self._account} trusts by token, and only the tokens' digests are kept: {how}, as"
                f" `address new --account {self._account}` printed it (applications+TOKEN@…)"
            )
        own = [one for one in self._settings.recipients if "@" in one.removeprefix("@")]
        shared = [one for one in self._shared if "@" in one.removeprefix("@") and self._settings.client_id is not None]
        listed = own or shared
        if len(listed) != 1:
            raise IngestError(
                f"account {self._account} has {'several addresses' if listed else 'no address'} among its recipients,"
                f" so it is not certain which one is meant: {how}"
            )
        return listed[0]

    def all(self) -> str:
        """All that mail for the account is addressed to, for people."""
        return " and ".join(self._settings.recipients or self._shared) or "our address"

    def shown(self, address: str) -> str:
        """The address without a token of ours in it."""
        return without_secret(address, lambda word: digest_of(word) in self._all_tokens)

    def _token_of(self, address: str) -> str:
        return digest_of(subaddress(address))


# --- without a partner's credentials ---------------------------------------------------------------------------------


def _ask_a_person(asking: Asking, address: str, *, remove: bool = False) -> None:
    """Says what to do by hand, and exits."""
    of = asking.found.known_accounts[asking.name]
    which = f"our account (client id {of.client_id})" if of.client_id else "our account"
    sentence = (
        f"Please take {address} out of the Global CC addresses of {which}, and keep the others."
        if remove
        else f"Please add {address} to the Global CC addresses of {which}, keep the others, and switch the"
        " X-iTrackID headers on for the mails that AppTrack forwards."
    )
    steps = [
        "in the account at idibu, in its Aptrack settings, change the Global CC yourself:"
        f" {'take out' if remove else 'add'} {address}, keep the others",
        f"or ask idibu's support: {sentence}",
        "or, as a partner of idibu: set idibu.partner_id and idibu.partner_password_file, and give the command again",
    ]
    if asking.as_json:
        print_json({"account": asking.name, "address": address, "changed": False, "do": steps})
    else:
        say(
            "nothing was changed: idibu's web service for the Global CC is for its partners, and the settings name none"
        )
        for step in steps:
            say(f"  - {step}")
        if not remove:
            say(
                "to see that mail comes: docs/reaching-us.md, or `apptrack-ingest list --since 1h` after an application"
            )
    sys.exit(BAD_CONFIGURATION)


COMMANDS = (connect, disconnect)
"""Commands."""
