"""Every setting: its type, default, meaning and validation; read from one TOML file, the environment and secret files.

The environment wins over the file. Names are `APPTRACK_` and the path with double underscores between its parts:
`[accounts.acme] hash_file` is `APPTRACK_ACCOUNTS__ACME__HASH_FILE`.
"""

from apptrack_ingest.settings.contradictions import is_loopback
from apptrack_ingest.settings.intake import Dns, Limits, Listener, Rules, Smtp, Trust, UntrustedMail
from apptrack_ingest.settings.kinds import Duration, token_parts
from apptrack_ingest.settings.reading import inspect, load
from apptrack_ingest.settings.sections import (
    DEFAULT_ACCOUNT,
    MOST_PROCESSES,
    Account,
    Digest,
    Idibu,
    Log,
    Settings,
    Web,
    Worker,
)
from apptrack_ingest.settings.showing import accounts_without_hash, masked
from apptrack_ingest.settings.spool_url import MASK

__all__ = [
    "DEFAULT_ACCOUNT",
    "MASK",
    "MOST_PROCESSES",
    "Account",
    "Digest",
    "Dns",
    "Duration",
    "Idibu",
    "Limits",
    "Listener",
    "Log",
    "Rules",
    "Settings",
    "Smtp",
    "Trust",
    "UntrustedMail",
    "Web",
    "Worker",
    "accounts_without_hash",
    "inspect",
    "is_loopback",
    "load",
    "masked",
    "token_parts",
]
