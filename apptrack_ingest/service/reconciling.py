"""From settings to the accounts that can be held against idibu: those that are reported for, and have a hash."""

from collections.abc import Collection

from apptrack_ingest.idibu.http import Http
from apptrack_ingest.reconcile import Account
from apptrack_ingest.service.asking import client_of
from apptrack_ingest.settings import Settings


def accounts_of(found: Settings, http: Http, names: Collection[str] | None = None) -> list[Account]:
    """Those of these names (None: all), over connections that they share."""
    return [
        Account(name, client_of(found, account.hash, http), found.idibu.zone)
        for name, account in found.known_accounts.items()
        if account.reporting and account.hash is not None and (names is None or name in names)
    ]
