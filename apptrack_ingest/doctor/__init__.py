"""Looks at everything an installation needs before mail comes, each thing by itself: `apptrack-ingest doctor`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from apptrack_ingest import settings
from apptrack_ingest.doctor import at_idibu, doors, handlers, machine, names, spool
from apptrack_ingest.doctor.finding import Check, Finding, Level
from apptrack_ingest.errors import ConfigError, NotFound
from apptrack_ingest.settings import Settings

__all__ = ["Finding", "Level", "Wanted", "examine"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be looked at: the settings' file; one account alone (None: all); without what needs the network."""

    config: Path | None = None
    account: str | None = None
    offline: bool = False


async def examine(wanted: Wanted) -> AsyncIterator[Finding]:
    """What was found, in a fixed order; everything is looked at side by side. With mistakes in the settings nothing else is:
    what they leave out would be asked at the wrong place. Raises NotFound for an account that the settings do not know."""
    found, findings = configuration(wanted.config)
    for finding in findings:
        yield finding
    if found is None:
        return
    if wanted.account is not None and wanted.account not in found.known_accounts:
        raise NotFound(f"there is no account {wanted.account}; known: {', '.join(found.known_accounts)}")
    looking = [asyncio.create_task(check.findings()) for check in checks(found, wanted)]
    try:
        for task in looking:
            for finding in await task:
                yield finding
    finally:
        for task in looking:
            task.cancel()


def configuration(config: Path | None) -> tuple[Settings | None, list[Finding]]:
    """The settings, None where they are wrong, and what is to be said of them."""
    name = "configuration"
    try:
        found, problems = settings.inspect(config)
    except ConfigError as error:
        found, problems = None, list(error.problems)
    if found is None or problems:
        advice = "put it right (docs/configuration.md); everything else is looked at after that"
        return None, [Finding(name, Level.FAIL, str(problem), advice) for problem in problems]
    read = f"{config} can be used" if config is not None else "no file; the defaults and APPTRACK_… hold"
    return found, [Finding(name, Level.OK, f"{read}, accounts: {', '.join(found.known_accounts)}"), *_notes(found)]


def _notes(found: Settings) -> Iterator[Finding]:
    """What is allowed, and hardly meant where mail comes from idibu."""
    if found.any_recipient:
        advice = "give each account its recipients, and listen on an address that mail reaches (docs/deployment.md)"
        yield Finding("recipients", Level.WARN, "none are set: mail is taken from this machine only", advice)


def checks(found: Settings, wanted: Wanted) -> Iterator[Check]:
    """All that is to be looked at."""
    known = found.known_accounts
    accounts = {name: known[name] for name in ([wanted.account] if wanted.account is not None else known)}
    every = [
        *machine.checks(found),
        *spool.checks(found),
        *doors.checks(found),
        *names.checks(found, wanted.account),
        *at_idibu.checks(found, accounts),
        *handlers.checks(accounts, offline=wanted.offline),
    ]
    return (check for check in every if not (check.network and wanted.offline))
