"""idibu's side: whether it answers, what its clock says, and whether it knows each account's hash and copies us its mail."""

import time
from collections.abc import Iterator

from apptrack_ingest.doctor.finding import Check, Finding, Level
from apptrack_ingest.doctor.spool import clock
from apptrack_ingest.errors import IdibuError, IdibuRefused, IdibuUnauthorized, IdibuUnreachable
from apptrack_ingest.idibu import PartnerUnauthorized
from apptrack_ingest.idibu.http import Http
from apptrack_ingest.receive.policy import Special
from apptrack_ingest.service.asking import client_of, partner_of
from apptrack_ingest.service.intake import directory_of
from apptrack_ingest.settings import Account, Settings

NOT_REACHED = "see that idibu.base_url is right and can be reached from here (proxy, firewall, DNS)"
WRONG_HASH = "set the account's API hash as idibu shows it; until then its reports wait"
CLOCK = "clock of idibu"
TOO_MUCH = 300.0
"""Seconds by which our clock may be wrong before the times we tell idibu are."""


def checks(found: Settings, accounts: dict[str, Account]) -> Iterator[Check]:
    """The service itself, where anybody has to do with it, and each of these accounts."""
    patience = found.idibu.timeout + 5.0
    if any(account.reporting for account in accounts.values()):
        yield Check(CLOCK, lambda: _clock(found), NOT_REACHED, network=True, seconds=patience)
    for name, account in accounts.items():
        yield _of_account(found, name, account, patience)
        if account.reporting or account.hash is not None:
            yield _global_cc(found, name, account, patience)


async def _clock(found: Settings) -> Finding:
    """Any answer has a time; a page that is not there is as good as another."""
    http = Http()
    try:
        asked = time.time()
        reply = await http.exchange("GET", str(found.idibu.base_url), {}, None, found.idibu.timeout)
        between = (asked + time.time()) / 2
    except IdibuError as error:
        return Finding(CLOCK, Level.FAIL, error.detail, NOT_REACHED)
    finally:
        await http.close()
    if reply.date is None:
        return Finding(CLOCK, Level.OK, "its answer tells no time")
    return clock(CLOCK, reply.date - between, TOO_MUCH)


# --- the hash --------------------------------------------------------------------------------------------------------


def _of_account(found: Settings, name: str, account: Account, patience: float) -> Check:
    title = f"hash of {name}"
    return Check(title, lambda: knows(found, title, account), NOT_REACHED, network=True, seconds=patience)


async def knows(found: Settings, title: str, account: Account) -> Finding:
    """Whether idibu takes the account's hash: asked for one applicant of its list, which changes nothing."""
    if not account.reporting:
        return Finding(title, Level.OK, "not needed: reporting is off")
    if account.hash is None:
        advice = "set hash or hash_file, or reporting = false: without it idibu is told nothing"
        return Finding(title, Level.WARN, "there is none, so reports wait as due", advice)
    async with client_of(found, account.hash) as client:
        try:
            async for _ in client.statuses(page=1):
                break
        except IdibuUnauthorized as error:
            return Finding(title, Level.FAIL, f"idibu does not take it: {error.detail}", WRONG_HASH)
        except IdibuRefused as error:
            advice = (
                "its words are about this question; look whether reports are confirmed (`list --report-state refused`)"
            )
            return Finding(title, Level.WARN, f"idibu refuses the list of applicants: {error.detail}", advice)
        except IdibuUnreachable as error:
            return Finding(title, Level.FAIL, f"idibu was not reached: {error.detail}", NOT_REACHED)
        except IdibuError as error:
            advice = "what answers there is not idibu's web service, or it is out of order: look at idibu.base_url"
            return Finding(title, Level.FAIL, f"no answer of idibu's: {error.detail}", advice)
    return Finding(title, Level.OK, "idibu takes it")


# --- the Global CC ---------------------------------------------------------------------------------------------------


def _global_cc(found: Settings, name: str, account: Account, patience: float) -> Check:
    title = f"Global CC of {name}"
    return Check(title, lambda: copies(found, title, name, account), NOT_REACHED, network=True, seconds=patience)


async def copies(found: Settings, title: str, name: str, account: Account) -> Finding:
    """Whether one of our recipients is among the addresses that idibu copies the account's applications to. The addresses
    are not told: one may hold a token that lets whoever knows it deliver."""
    if partner_of(found) is None or account.hash is None:
        why = "the account has no hash" if partner_of(found) else "that takes a partner's credentials"
        return Finding(title, Level.OK, f"not looked at: {why}")
    async with client_of(found, account.hash) as client:
        try:
            listed = (await client.service.get_cc_email()).addresses
        except PartnerUnauthorized as error:
            advice = "put idibu.partner_id and idibu.partner_password right"
            return Finding(title, Level.FAIL, f"idibu does not take the partner's credentials: {error.detail}", advice)
        except IdibuError as error:
            return Finding(
                title, Level.WARN, f"it cannot be read: {error.detail}", "look at it in the account at idibu"
            )
    ours = [address for address in listed if leads_here(found, name, address)]
    if ours:
        return Finding(
            title, Level.OK, f"{len(ours)} of its {len(listed)} addresses lead{'s' if len(ours) == 1 else ''} here"
        )
    advice = f"`apptrack-ingest connect --account {name}` adds ours, unless adverts are forwarded here by other ways"
    return Finding(title, Level.WARN, f"none of its {len(listed)} addresses leads here", advice)


def leads_here(found: Settings, name: str, address: str) -> bool:
    """Whether mail to it is this account's: its own recipient, or a shared one that its client id tells apart."""
    owner = directory_of(found).resolve(address, local=False)
    if owner is Special.SHARED:
        return found.known_accounts[name].client_id is not None
    return not isinstance(owner, Special) and name in owner
