"""Every setting: its type, default, meaning and validation; read from one TOML file, the environment and secret files.

The environment wins over the file. Names are `APPTRACK_` and the path with double underscores between its parts:
`[accounts.acme] hash_file` is `APPTRACK_ACCOUNTS__ACME__HASH_FILE`.
"""

from apptrack_ingest.settings.reading import MASK, inspect, is_loopback, load
from apptrack_ingest.settings.sections import (
    DEFAULT_ACCOUNT,
    Account,
    Digest,
    Idibu,
    Log,
    Settings,
    Smtp,
    Web,
    Worker,
)
from apptrack_ingest.settings.showing import accounts_without_hash, masked

__all__ = [
    "DEFAULT_ACCOUNT",
    "MASK",
    "Account",
    "Digest",
    "Idibu",
    "Log",
    "Settings",
    "Smtp",
    "Web",
    "Worker",
    "accounts_without_hash",
    "inspect",
    "is_loopback",
    "load",
    "masked",
]
