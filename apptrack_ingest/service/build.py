"""From settings to parts: what each process needs to know of accounts, limits, handlers and destinations."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apptrack_ingest import handoff, logs, settings
from apptrack_ingest.errors import ConfigError, HandlerError, Problem
from apptrack_ingest.metrics import Surroundings
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.report.reporter import Destination
from apptrack_ingest.service import intake
from apptrack_ingest.settings import Account, Settings
from apptrack_ingest.spool.contract import Spool
from apptrack_ingest.spool.sqlite import open_spool
from apptrack_ingest.trust import Connection, Mail, Rules, Verdict
from apptrack_ingest.worker.desk import Desk, Options

log = logs.get("service")


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


def spool_of(found: Settings) -> Spool:
    """The spool, opened, its missing migrations taken."""
    return open_spool(found.database)


# --- worker ----------------------------------------------------------------------------------------------------------


def fingerprint(account: Account) -> str | None:
    """Tells one hash from the next without holding it; None where there is none."""
    if account.hash is None:
        return None
    return hashlib.sha256(b"apptrack-ingest\n" + account.hash.get_secret_value().encode()).hexdigest()[:16]


def desks_of(
    found: Settings, present: Mapping[str, tuple[Account, Desk]] | None = None
) -> dict[str, tuple[Account, Desk]]:
    """A desk for each account; one whose account did not change is kept with its handler. Raises ConfigError and
    HandlerError."""
    desks: dict[str, tuple[Account, Desk]] = {}
    for name, account in found.known_accounts.items():
        kept = (present or {}).get(name)
        desks[name] = kept if kept is not None and kept[0] == account else (account, _desk(account))
    return desks


def _desk(account: Account) -> Desk:
    return Desk(
        handler=handoff.build(account.handler, account.handler_settings),
        handler_name=account.handler,
        timeout=account.handler_timeout,
        schedule=account.schedule,
        concurrency=account.concurrency,
        reporting=account.reporting,
        report_first_failure=account.report_first_failure,
        hash_fingerprint=fingerprint(account),
        block_extensions=account.block_extensions,
        client_id=account.client_id,
    )


def options_of(found: Settings, name: str) -> Options:
    """How a worker called `name` works."""
    return Options(
        name=name,
        concurrency=found.worker.concurrency,
        report_concurrency=found.worker.report_concurrency,
        lease=found.worker.lease,
        drain_timeout=found.worker.drain_timeout,
    )


class InnerJudge:
    """Judges mails attached to others by the DKIM rules in force, for the worker."""

    def __init__(self, found: Settings) -> None:
        self._trust = intake.trust_of(found)
        self._judge = intake.judge_of(found, spf=False)

    def configure(self, found: Settings) -> None:
        """Use these rules from now on (a reload)."""
        self._trust = intake.trust_of(found)

    async def __call__(self, account: str | None, raw: bytes) -> Verdict:
        """The verdict of the account's DKIM rules; where the outer mail came from counts for nothing."""
        rules = [Rules(dkim=own.dkim, unsigned_ids=own.unsigned_ids) for own in self._trust.rules_for(account)]
        mail = Mail(Connection(""), "", {account: frozenset()}, raw)
        return (await self._judge.judge(mail, {account: rules})).verdicts[account]

    async def close(self) -> None:
        """Ends the processes that verify."""
        await self._judge.close()


def parser_of(found: Settings) -> ParserPool:
    """The processes that read mails."""
    return ParserPool(
        deadline=found.worker.parse_deadline,
        memory_bytes=int(found.worker.parse_memory),
        processes=found.worker.parse_processes,
    )


def destinations_of(found: Settings) -> dict[str, Destination]:
    """Where each account's reports go; accounts without a hash, or not reported, have none."""
    return {
        name: Destination(str(found.idibu.base_url), account.hash, found.idibu.timeout, found.idibu.zone)
        for name, account in found.known_accounts.items()
        if account.reporting and account.hash is not None
    }


# --- showing ---------------------------------------------------------------------------------------------------------


def surroundings_of(found: Settings, up: Mapping[str, bool], children: Path | None) -> Surroundings:
    """What a scrape needs beside the backlog."""
    return Surroundings(
        accounts=tuple(found.known_accounts),
        without_hash=frozenset(settings.accounts_without_hash(found)),
        up=up,
        data_dir=found.data_dir,
        children=children,
    )


def effective(found: Settings) -> dict[str, Any]:
    """The effective configuration with secrets masked; handlers say themselves what of their settings may be shown."""
    values = settings.masked(found)
    for name, account in found.known_accounts.items():
        values["accounts"][name]["handler_settings"] = handoff.describe(account.handler, account.handler_settings)
    return values


NEEDS_RESTART = ("data_dir", "web", "dns", "worker", "log")

SMTP_NEEDS_RESTART = ("host", "port", "listeners", "hostname", "tls", "tls_certificate", "tls_key")


def needing_restart(before: Settings, after: Settings) -> list[str]:
    """What changed and is not taken up by a reload."""
    changed = [section for section in NEEDS_RESTART if getattr(before, section) != getattr(after, section)]
    return changed + [
        f"smtp.{key}" for key in SMTP_NEEDS_RESTART if getattr(before.smtp, key) != getattr(after.smtp, key)
    ]
