"""The kinds of values that settings have: durations, recipients, addresses, schedules, each checked where it is written."""

import json
import re
from datetime import UTC, date, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal
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

from apptrack_ingest.lifecycle import parse_rates, parse_schedule

# --- types ---------------------------------------------------------------------------------------------------------

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    """A number is seconds; text may carry a unit: 90s, 5m, 1h, 7d."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip())):
        return float(match[1]) * _UNIT_SECONDS[match[2] or "s"]
    if isinstance(value, str):
        raise ValueError("write seconds, or a number with s, m, h or d, like 30s or 5m")
    return value


def _off_or_interval(value: object) -> object:
    seconds = value if value == "off" else _seconds(value)
    if seconds != "off" and not (isinstance(seconds, int | float) and 3600 <= seconds <= 366 * 86400):
        raise ValueError("write off, or an hour to a year, like 24h")
    return seconds


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


def _rates(value: str) -> str:
    parse_rates(value)
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


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(
            f"no network ({error}); write an address or a CIDR like 192.0.2.0/24 or 2001:db8::/32"
        ) from None


def _server_name(value: str) -> str:
    """A name of servers: one, or `.example.com` and `*.example.com` for all below."""
    name = value.removeprefix("*")
    _domain(name.removeprefix("."))
    return name.lower().rstrip(".")


def _domain(value: str) -> str:
    domain = value.lower().rstrip(".")
    label = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
    if len(domain) > 253 or not re.fullmatch(rf"{label}(?:\.{label})+", domain):
        raise ValueError("no domain; write it like example.com")
    return domain


def _name_server(value: str) -> str:
    address, colon, port = value.rpartition(":") if value.count(":") == 1 else (value, "", "")
    try:
        ip_network(address)
    except ValueError:
        raise ValueError("no address of a name server; write 192.0.2.53, 192.0.2.53:5353 or 2001:db8::53") from None
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("the port after the colon must be a number up to 65535")
    return value


def _fingerprint_or_name(value: str) -> str:
    """A certificate's SHA-256 in hex, with or without colons, as lower-case hex; any other text is a name."""
    plain = value.lower().removeprefix("sha256:").removeprefix("sha256/").replace(":", "").replace(" ", "")
    if re.fullmatch("[0-9a-f]{64}", plain):
        return plain
    if value.lower().startswith("sha256") or not re.fullmatch(r"\*|[\w*.-]+", value):
        raise ValueError("write a SHA-256 fingerprint of 64 hex digits, a name in the certificate, or * for any")
    return value.lower()


def _extension(value: str) -> str:
    plain = value.strip().removeprefix(".").lower()
    if not re.fullmatch("[a-z0-9]{1,16}", plain):
        raise ValueError("no extension; write it like gif or .gif")
    return plain


def _token(value: str) -> str:
    digest, _, rest = value.strip().partition(" ")
    words = rest.split()
    if not re.fullmatch("[0-9a-f]{64}", digest) or (words and (len(words) != 2 or words[0] != "until")):
        raise ValueError(_HOW_TO_WRITE_ONE)
    if words:
        try:
            date.fromisoformat(words[1])
        except ValueError:
            raise ValueError(_HOW_TO_WRITE_ONE) from None
    return value


_HOW_TO_WRITE_ONE = (
    "write what `apptrack-ingest address new` printed (64 hex digits), perhaps with a last day: … until 2027-01-31"
)


def token_parts(value: str) -> tuple[str, float | None]:
    """A token setting's digest, and the epoch second at which it ends (the end of its last day, UTC), if any."""
    digest, _, rest = value.strip().partition(" ")
    if not rest.strip():
        return digest, None
    last_day = date.fromisoformat(rest.split()[1])
    return digest, datetime(last_day.year, last_day.month, last_day.day, tzinfo=UTC).timestamp() + 86400.0


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; write a name like UTC or Europe/London") from None
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Interval = Annotated[float | Literal["off"], BeforeValidator(_off_or_interval)]
Recipient = Annotated[str, AfterValidator(_recipient)]
Recipients = Annotated[tuple[Recipient, ...], BeforeValidator(_comma_separated), NoDecode]
"""In the environment a comma-separated list; without NoDecode pydantic-settings would ask for JSON."""
RetrySchedule = Annotated[str, AfterValidator(_schedule)]
Rates = Annotated[str, AfterValidator(_rates)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
HostName = Annotated[str, AfterValidator(_host_name)]
MailAddresses = Annotated[tuple[MailAddress, ...], BeforeValidator(_comma_separated), NoDecode]
RootUrl = Annotated[HttpUrl, AfterValidator(_without_user)]
SecretUrl = Annotated[SecretStr, AfterValidator(_web_address)]

_LISTED = (BeforeValidator(_comma_separated), NoDecode)
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Networks = Annotated[tuple[Network, ...], *_LISTED]
ServerNames = Annotated[tuple[Annotated[str, AfterValidator(_server_name)], ...], *_LISTED]
Domains = Annotated[tuple[Annotated[str, AfterValidator(_domain)], ...], *_LISTED]
NameServers = Annotated[tuple[Annotated[str, AfterValidator(_name_server)], ...], *_LISTED]
Certificates = Annotated[tuple[Annotated[str, AfterValidator(_fingerprint_or_name)], ...], *_LISTED]
Tokens = Annotated[tuple[Annotated[str, AfterValidator(_token)], ...], *_LISTED]
Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], *_LISTED]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Extensions = Annotated[tuple[Annotated[str, AfterValidator(_extension)], ...], *_LISTED]
