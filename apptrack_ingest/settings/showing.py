"""The settings as they may be shown: complete, with secrets masked."""

from typing import Any, cast

from pydantic import (
    BaseModel,
    SecretStr,
)

from apptrack_ingest.settings.sections import Settings
from apptrack_ingest.settings.spool_url import MASK, SpoolPlace

# --- showing ---------------------------------------------------------------------------------------------------------


def accounts_without_hash(settings: Settings) -> list[str]:
    """Accounts whose outcomes wait as due because there is no hash to report them with."""
    return [name for name, account in settings.known_accounts.items() if account.reporting and account.hash is None]


def masked(settings: Settings) -> dict[str, Any]:
    """The effective settings as plain values, secrets masked. Handler settings are all masked here: only the handler
    knows which of them are secret (`handoff`)."""
    values = cast(dict[str, Any], _plain(settings))
    values["accounts"] = {name: _plain(account) for name, account in settings.known_accounts.items()}
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, SpoolPlace):
        return value.shown
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, dict):
        return {key: MASK if not isinstance(item, BaseModel) else _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
