"""The kinds of values that settings have: durations, recipients, addresses, schedules, each checked where it is written."""

import json
import re
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    NoDecode,
)

from apptrack_ingest.lifecycle import parse_schedule

# --- types ---------------------------------------------------------------------------------------------------------

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    """A number is seconds; text may carry a unit: 90s, 5m, 1h, 7d."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip())):
        return float(match[1]) * _UNIT_SECONDS[match[2] or "s"]
    if isinstance(value, str):
        raise ValueError("write seconds, or a number with s, m, h or d, like 30s or 5m")
    return value


def _comma_separated(value: object) -> object:
    if isinstance(value, str) and value.lstrip().startswith("["):
        return json.loads(value)  # a JSON list is understood too; ValueError says what is wrong with it
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _recipient(value: str) -> str:
    """An address (`applications@acme.example`) or a whole domain (`acme.example` or `@acme.example`)."""
    domain_only = "@" not in value.removeprefix("@")
    try:
        _validate(f"probe@{value.removeprefix('@')}" if domain_only else value)
    except EmailNotValidError as error:
        raise ValueError(f"no address and no domain ({error})") from None
    return value


def _mail_address(value: str) -> str:
    try:
        _validate(value)
    except EmailNotValidError as error:
        raise ValueError(f"no mail address ({error})") from None
    return value


def _validate(address: str) -> None:
    """Raises EmailNotValidError. The library refuses names that the Internet does not know; ours need not go there: an
    Exchange beside us may well be called .local."""
    probe = re.sub(r"(?<=[.@])local(host)?$", "local.example", address, flags=re.IGNORECASE)
    validate_email(probe, check_deliverability=False, test_environment=True, allow_quoted_local=True)


def _schedule(value: str) -> str:
    parse_schedule(value)
    return value


def _host_name(value: str) -> str:
    """A name or an address literal: it stands in replies, in `Received:` and in SMTP dialogues of our own."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+", value):
        raise ValueError("no host name; write letters, digits, dots and hyphens, like mx.acme.example")
    return value


def is_web_address(value: SecretStr) -> bool:
    """Whether it is an http or https URL; told without showing it, for the URLs of chat webhooks are secrets."""
    try:
        HttpUrl(value.get_secret_value())
    except ValidationError:
        return False
    return True


def _web_address(value: SecretStr) -> SecretStr:
    if not is_web_address(value):
        raise ValueError("no http or https URL")
    return value


def _without_user(value: HttpUrl) -> HttpUrl:
    if value.username or value.password or value.query or value.fragment:
        raise ValueError("write the root alone, like https://ws.idibu.com, without user, password or query")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; write a name like UTC or Europe/London") from None
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Recipient = Annotated[str, AfterValidator(_recipient)]
Recipients = Annotated[tuple[Recipient, ...], BeforeValidator(_comma_separated), NoDecode]
"""In the environment a comma-separated list; without NoDecode pydantic-settings would ask for JSON."""
RetrySchedule = Annotated[str, AfterValidator(_schedule)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
HostName = Annotated[str, AfterValidator(_host_name)]
MailAddresses = Annotated[tuple[MailAddress, ...], BeforeValidator(_comma_separated), NoDecode]
RootUrl = Annotated[HttpUrl, AfterValidator(_without_user)]
SecretUrl = Annotated[SecretStr, AfterValidator(_web_address)]
