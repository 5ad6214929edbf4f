"""From settings to a worker's parts: desks with handlers, destinations of reports, the parser, the judge of inner mails."""

import hashlib
from collections.abc import Mapping

from apptrack_ingest import handoff
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.report.reporter import Destination
from apptrack_ingest.service import intake
from apptrack_ingest.service.part import WHOLE, Part
from apptrack_ingest.settings import Account, Settings
from apptrack_ingest.trust import Connection, Mail, Rules, Verdict
from apptrack_ingest.worker.breaker import Caution
from apptrack_ingest.worker.desk import Desk, Options


def fingerprint(account: Account) -> str | None:
    """Tells one hash from the next without holding it; None where there is none."""
    if account.hash is None:
        return None
    return hashlib.sha256(b"apptrack-ingest\n" + account.hash.get_secret_value().encode()).hexdigest()[:16]


def desks_of(
    found: Settings, present: Mapping[str, tuple[Account, Desk]] | None = None, part: Part = WHOLE
) -> dict[str, tuple[Account, Desk]]:
    """A desk for each account, as this part of the worker serves it; one whose account did not change is kept with its
    handler. Raises ConfigError and HandlerError."""
    desks: dict[str, tuple[Account, Desk]] = {}
    for name, account in found.known_accounts.items():
        kept = (present or {}).get(name)
        desks[name] = (
            kept if kept is not None and kept[0] == account else (account, part.restrained(name, _desk(account)))
        )
    return desks


def _desk(account: Account) -> Desk:
    return Desk(
        handler=handoff.build(account.handler, account.handler_settings),
        handler_name=account.handler,
        timeout=account.handler_timeout,
        schedule=account.schedule,
        concurrency=account.concurrency,
        rates=account.rates,
        caution=Caution(account.breaker.failures, account.breaker.schedule),
        reporting=account.reporting,
        early=account.early,
        hash_fingerprint=fingerprint(account),
        block_extensions=account.block_extensions,
        client_id=account.client_id,
    )


def options_of(found: Settings, name: str, part: Part = WHOLE) -> Options:
    """How a worker called `name` works; what there is for all of them is divided."""
    return Options(
        name=name,
        concurrency=part.some(found.worker.concurrency),
        report_concurrency=part.some(found.worker.report_concurrency),
        lease=found.worker.lease,
        drain_timeout=found.worker.drain_timeout,
        memory=int(found.worker.memory) // part.of,
        parsers=part.some(found.worker.parse_processes),
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


def parser_of(found: Settings, part: Part = WHOLE) -> ParserPool:
    """The processes that read mails."""
    return ParserPool(
        deadline=found.worker.parse_deadline,
        memory_bytes=int(found.worker.parse_memory),
        processes=part.some(found.worker.parse_processes),
    )


def destinations_of(found: Settings) -> dict[str, Destination]:
    """Where each account's reports go; accounts without a hash, or not reported, have none."""
    return {
        name: Destination(str(found.idibu.base_url), account.hash, found.idibu.timeout, found.idibu.zone)
        for name, account in found.known_accounts.items()
        if account.reporting and account.hash is not None
    }
