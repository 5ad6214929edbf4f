"""Each account's handler: whether it can be built from its settings, and what its own `check` says."""

from collections.abc import Iterator

from apptrack_ingest.doctor.finding import PATIENCE, Check, Finding, Level, apart
from apptrack_ingest.errors import ConfigError, HandlerError, IngestError
from apptrack_ingest.handoff.checking import check
from apptrack_ingest.settings import Account

CANNOT_WORK = "put that right: until then its applications are retried, and fail when the schedule is used up"


def checks(accounts: dict[str, Account], *, offline: bool) -> Iterator[Check]:
    """One for each account. Offline a handler is built, but not asked: it may ask its ATS."""
    for name, account in accounts.items():
        yield _check(name, account, offline=offline)


def _check(name: str, account: Account, *, offline: bool) -> Check:
    title = f"handler of {name}"
    advice = "its `check` hangs; see what it waits for"
    return Check(title, lambda: apart(lambda: stands(title, account, offline=offline)), advice, seconds=PATIENCE + 5.0)


def stands(title: str, account: Account, *, offline: bool) -> Finding:
    """How the handler stands."""
    seconds = min(account.handler_timeout, PATIENCE)
    try:
        said = check(account.handler, account.handler_settings, seconds, ask=not offline)
    except ConfigError as error:
        found = "; ".join(f"{one.key}: {one.advice}" for one in error.problems)
        return Finding(title, Level.FAIL, f"{account.handler}: {found}", "put its settings right (docs/handlers.md)")
    except HandlerError as error:
        return Finding(title, Level.FAIL, str(error), "install it, or put `handler` right")
    except IngestError as error:
        return Finding(title, Level.FAIL, f"{account.handler}: {error}", CANNOT_WORK)
    if said is None:
        why = "not asked" if offline else "it has no check of its own"
        return Finding(title, Level.OK, f"{account.handler} can be built; {why}")
    return Finding(title, Level.OK, f"{account.handler}: {said}")
