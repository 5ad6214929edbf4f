"""The settings as every process needs them: checked with all that they name, and as they may be shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apptrack_ingest import handoff, settings
from apptrack_ingest.errors import ConfigError, HandlerError, Problem
from apptrack_ingest.metrics import Surroundings
from apptrack_ingest.service import intake
from apptrack_ingest.service.place import where
from apptrack_ingest.settings import Account, Settings
from apptrack_ingest.spool.opening import need_driver


def checked(path: Path | None) -> Settings:
    """The settings with every handler built once on trial, so that one that cannot be used stops the start. Raises
    ConfigError with every mistake found."""
    found, problems = settings.inspect(path)
    if found is not None:
        wrong = {problem.key for problem in problems}
        for name, account in found.known_accounts.items():
            # A handler whose settings were left out as wrong is not asked what it thinks of the rest.
            if not any(key.startswith(f"accounts.{name}.handler") for key in wrong):
                problems += _handler_problems(name, account)
        problems += intake.problems_of(found)
        problems += _spool_problems(found)
    if found is None or problems:
        raise ConfigError(problems)
    return found


def _handler_problems(name: str, account: Account) -> tuple[Problem, ...]:
    try:
        handoff.build(account.handler, account.handler_settings)
    except ConfigError as error:
        return tuple(Problem(f"accounts.{name}.{p.key}", p.value, p.advice) for p in error.problems)
    except HandlerError as error:
        return (Problem(f"accounts.{name}.handler", repr(account.handler), str(error)),)
    return ()


def _spool_problems(found: Settings) -> tuple[Problem, ...]:
    try:
        need_driver(where(found))
    except ConfigError as error:
        return error.problems
    return ()


def surroundings_of(found: Settings, up: Mapping[str, bool], children: Path | None) -> Surroundings:
    """What a scrape needs beside the backlog."""
    return Surroundings(
        accounts=tuple(found.known_accounts),
        without_hash=frozenset(settings.accounts_without_hash(found)),
        up=up,
        data_dir=found.data_dir if found.spool_url is None else None,
        children=children,
    )


def effective(found: Settings) -> dict[str, Any]:
    """The effective configuration with secrets masked; handlers say themselves what of their settings may be shown."""
    values = settings.masked(found)
    for name, account in found.known_accounts.items():
        values["accounts"][name]["handler_settings"] = handoff.describe(account.handler, account.handler_settings)
    return values


NEEDS_RESTART = ("data_dir", "spool", "intake_processes", "worker_processes", "web", "dns", "worker", "log")

SMTP_NEEDS_RESTART = ("host", "port", "listeners", "hostname", "tls", "tls_certificate", "tls_key")


def needing_restart(before: Settings, after: Settings) -> list[str]:
    """What changed and is not taken up by a reload."""
    changed = [section for section in NEEDS_RESTART if getattr(before, section) != getattr(after, section)]
    return changed + [
        f"smtp.{key}" for key in SMTP_NEEDS_RESTART if getattr(before.smtp, key) != getattr(after.smtp, key)
    ]
