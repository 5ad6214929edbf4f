"""`try`: one handler on one saved mail, without SMTP, spool or reports, for those who write or configure handlers."""

import asyncio
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from apptrack_ingest import handoff, settings, to_payload
from apptrack_ingest.cli.common import FAILED, config_option, err, errors_as_exit_codes, json_option, out, run
from apptrack_ingest.cli.orders import known_account
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.sending import with_crlf
from apptrack_ingest.cli.showing import print_json, print_table, text, who
from apptrack_ingest.errors import ConfigError, IngestError, Problem
from apptrack_ingest.handoff import Again, Outcome
from apptrack_ingest.model import Application, Document, HeldReason, Rejected
from apptrack_ingest.parse.mime import parse
from apptrack_ingest.settings import DEFAULT_ACCOUNT, Account
from apptrack_ingest.worker.application import allowed, build_application


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it; `seconds` is how long the handler took."""

    application: Application
    outcome: Outcome
    seconds: float

    @property
    def taken(self) -> bool:
        """Whether the application would be delivered."""
        return not isinstance(self.outcome, Again) and not isinstance(self.outcome.verdict, Rejected)


@click.command("try", short_help="Run a handler on a saved mail.")
@click.argument("handler")
@click.argument("file", metavar="FILE.eml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--account", metavar="NAME", help="The application's account; with --config also where settings come from."
)
@click.option("--applicant-id", type=ID, metavar="N", help="Instead of the mail's X-iTrackID.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting of the handler; repeatable.")
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file with the handler's settings.",
)
@config_option
@json_option
@errors_as_exit_codes
def try_handler(
    handler: str,
    file: Path,
    account: str | None,
    applicant_id: int | None,
    assignments: tuple[str, ...],
    settings_file: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Run HANDLER once on the saved mail FILE.eml, show the application it got and its verdict. It really acts!

    HANDLER is an installed handler's name (folder, webhook, command ...) or package.module:Name. Its settings are those
    of the account in the configuration (with --account, where the account uses this handler), then --settings, then
    --set. Exit code 0: accepted, or a duplicate; 1: anything else.
    """
    chosen = _account(config, account)
    values = (
        _account_settings(handler, account, chosen) | _from_file(settings_file) | dict(map(_assignment, assignments))
    )
    application = _application(file, account or DEFAULT_ACCOUNT, applicant_id, chosen.block_extensions)
    trial = run(_try(handoff.build(handler, values), application, chosen.handler_timeout))
    if as_json:
        print_json({"application": to_payload(application, "names"), "outcome": _shape(trial)})
    else:
        _print(trial)
    if not trial.taken:
        raise SystemExit(FAILED)


# --- what goes in ----------------------------------------------------------------------------------------------------


def _account(config: Path | None, name: str | None) -> Account:
    """The account as configured; the defaults where none was named, or where no file says which there are."""
    if name is None:
        return Account()
    found = settings.load(config)
    if config is None and name not in found.known_accounts:
        return Account()
    return found.known_accounts[known_account(found, name)]


def _account_settings(handler: str, name: str | None, chosen: Account) -> dict[str, Any]:
    if chosen.handler == handler:
        return chosen.handler_settings
    if chosen.handler_settings:
        err.print(f"note: account {name} uses the handler {chosen.handler}; its settings are left out", markup=False)
    return {}


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), "", f"not valid TOML: {error}")]) from None


def _assignment(words: str) -> tuple[str, str]:
    key, equals, value = words.partition("=")
    if not key or not equals:
        raise click.BadParameter("write KEY=VALUE", param_hint="--set")
    return key.strip(), value


def _application(file: Path, account: str, applicant_id: int | None, blocked: Sequence[str]) -> Application:
    """The application as the first attempt would get it."""
    raw = with_crlf(file.read_bytes())
    parsed = allowed(parse(raw), blocked)
    found = applicant_id if applicant_id is not None else parsed.applicant_id
    if found is None:
        missing = parsed.id_problem is HeldReason.NO_APPLICANT_ID
        what = "no X-iTrackID" if missing else "an X-iTrackID that is doubled or is no number"
        raise IngestError(f"{file} has {what}, so no handler would get it; give --applicant-id N to try all the same")
    return build_application(parsed, raw, account=account, applicant_id=found, attempt=1, received_at=datetime.now(UTC))


async def _try(handler: Any, application: Application, timeout: float) -> Trial:
    started = time.monotonic()
    try:
        outcome = await handoff.try_once(handler, application, timeout)
        return Trial(application, outcome, time.monotonic() - started)
    finally:
        await asyncio.shield(handoff.close(handler))


# --- what comes out --------------------------------------------------------------------------------------------------


def _shape(trial: Trial) -> dict[str, Any]:
    outcome, seconds = trial.outcome, round(trial.seconds, 3)
    if isinstance(outcome, Again):
        return {"result": outcome.code, "detail": outcome.detail, "after": outcome.after, "seconds": seconds}
    verdict = outcome.verdict
    told = {"reason": verdict.reason} if isinstance(verdict, Rejected) else {"remote_id": verdict.remote_id}
    return {"result": type(verdict).__name__.lower(), **told, "note": outcome.note, "seconds": seconds}


def _print(trial: Trial) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(trial.application):
        table.add_row(name, text(value))
    print_table(table)
    shaped = _shape(trial)
    style = "bold green" if trial.taken else "bold red"
    result = text(shaped.pop("result"), style)
    told = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in shaped.items() if value is not None)
    out.print(result.append_text(text(f"  {told}")))
    if isinstance(trial.outcome, Again):
        out.print("no verdict: in service it would be called again", style="dim")


def _facts(application: Application) -> list[tuple[str, object]]:
    candidate, job, source, owner = application.candidate, application.job, application.source, application.owner
    return [
        ("account", application.account),
        ("applicant id", application.applicant_id),
        ("idempotency key", application.idempotency_key),
        ("candidate", who(candidate.name, candidate.email)),
        *((f"hint: {hint.kind}", f"{hint.value} ({hint.source})") for hint in candidate.hints),
        ("client reference", application.client_reference),
        ("job", _known(job.id, job.title, job.reference, job.type)),
        ("source", _known(source.portal_id, source.portal_name, source.post_log_id)),
        ("owner", _known(owner.id, who(owner.name, owner.email), owner.office, owner.team)),
        ("subject", application.subject),
        ("text", _length(application.text)),
        ("html", _length(application.html)),
        *(("document", _document(document)) for document in application.documents),
        *(("warning", warning) for warning in application.warnings),
    ]


def _known(*values: object) -> str:
    return ", ".join(str(value) for value in values if value not in (None, ""))


def _length(body: str | None) -> str | None:
    return None if body is None else f"{len(body)} characters"


def _document(document: Document) -> str:
    kind = document.sniffed_type or document.claimed_type
    return f"{document.name} ({document.role}: {document.why}; {kind}, {document.size} bytes)"


COMMANDS = (try_handler,)
"""Commands."""
