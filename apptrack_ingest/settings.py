"""Every setting: its type, default, meaning and validation; read from one TOML file, the environment and secret files.

The environment wins over the file. Names are `APPTRACK_` and the path with double underscores between its parts:
`[accounts.acme] hash_file` is `APPTRACK_ACCOUNTS__ACME__HASH_FILE`.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import tzinfo
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from apptrack_ingest.errors import ConfigError, Problem
from apptrack_ingest.lifecycle import DEFAULT_RETRY, Schedule, parse_schedule

PREFIX = "APPTRACK_"
OWN_VARIABLES = frozenset({"APPTRACK_CONFIG", "APPTRACK_DOCUMENTS"})
"""Variables with our prefix that are no settings: the configuration file's path, and what the command handler gives to its
program (which may well call us)."""

DEFAULT_ACCOUNT = "default"
MASK = "********"

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
    try:
        domain_only = "@" not in value.removeprefix("@")
        probe = f"probe@{value.removeprefix('@')}" if domain_only else value
        # The library refuses .local as not reachable from the Internet; an Exchange beside us may well send there.
        probe = re.sub(r"\.local$", ".example", probe, flags=re.IGNORECASE)
        validate_email(probe, check_deliverability=False, test_environment=True, allow_quoted_local=True)
    except EmailNotValidError as error:
        raise ValueError(f"no address and no domain ({error})") from None
    return value


def _schedule(value: str) -> str:
    parse_schedule(value)
    return value


def _mail_address(value: str) -> str:
    try:
        validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(f"no mail address ({error})") from None
    return value


def _host_name(value: str) -> str:
    """A name or an address literal: it stands in replies, in `Received:` and in SMTP dialogues of our own."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+", value):
        raise ValueError("no host name; write letters, digits, dots and hyphens, like mx.acme.example")
    return value


def _web_address(value: SecretStr) -> SecretStr:
    """Checked without being shown: the URLs of chat webhooks are secrets."""
    try:
        HttpUrl(value.get_secret_value())
    except ValidationError:
        raise ValueError("no http or https URL") from None
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


def _no_truth_value(cls: type[BaseModel], value: object, info: ValidationInfo) -> object:
    """pydantic reads `true` as the number 1: a port, a size or a time that nobody meant."""
    if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
        raise ValueError("true and false are no values here")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    _truth = field_validator("*", mode="before")(_no_truth_value)


# --- sections ------------------------------------------------------------------------------------------------------


class Account(_Section):
    """One idibu account: who its mail is for, which handler takes its candidates, and the hash to report with."""

    hash: SecretStr | None = Field(None, description="the account's API hash at idibu; without it reports wait as due")
    hash_file: Path | None = Field(None, description="a file that holds the hash, instead of `hash`")
    client_id: int | None = Field(None, gt=0, description="the account's id at idibu (X-iTrackID-ClientID)")
    recipients: Annotated[Recipients, NoDecode] = Field(
        (), description="addresses or domains whose mail belongs to this account"
    )
    handler: str = Field("folder", min_length=1, description="a handler's name, or package.module:Name")
    handler_settings: dict[str, Any] = Field({}, repr=False, description="the handler's own settings")
    handler_timeout: Duration = Field(60.0, description="how long one hand-off may take")
    concurrency: int = Field(4, ge=1, le=1000, description="hand-offs of this account at a time, in each worker")
    retry: RetrySchedule = Field(DEFAULT_RETRY, description="waits between hand-off attempts; their sum ends in failed")
    reporting: bool = Field(True, description="off: idibu is told nothing of this account's applications")
    report_first_failure: bool = Field(False, description="tell idibu of a first failure before retrying")

    @property
    def schedule(self) -> Schedule:
        """The retry schedule, parsed."""
        return parse_schedule(self.retry)

    @model_validator(mode="after")
    def _one_hash(self) -> Self:
        if self.hash is not None and self.hash_file is not None:
            raise ValueError("set hash or hash_file, not both")
        if self.hash is not None and not self.hash.get_secret_value().strip():
            raise ValueError("hash is empty; leave it out, or set the account's API hash")
        return self


class Smtp(_Section):
    """The listener that idibu's mail reaches."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(2525, ge=0, le=65535, description="the port to listen on; 0 takes a free one")
    hostname: HostName | None = Field(
        None, description="our name in the greeting and in Received; the machine's by default"
    )
    max_size: ByteSize = Field(ByteSize(30_000_000), gt=0, description="the largest mail, announced as SIZE")
    max_recipients: int = Field(100, ge=1, le=10_000, description="recipients of one mail")
    idle_timeout: Duration = Field(300.0, description="how long a peer may be silent (RFC 5321, 4.5.3.2: five minutes)")
    data_timeout: Duration = Field(180.0, description="how long a peer may be silent inside DATA (RFC 5321, 4.5.3.2)")
    commit_timeout: Duration = Field(25.0, description="past this a mail is answered 451, never a late 250")
    drain_timeout: Duration = Field(25.0, description="how long open transactions may take to finish at the end")
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate chain; offers STARTTLS")
    tls_key: Path | None = Field(None, description="PEM file of its key")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set both tls_certificate and tls_key, or neither")
        return self


class Web(_Section):
    """Health and metrics over HTTP."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(9425, ge=0, le=65535, description="the port of /livez, /readyz and /metrics; 0 takes a free one")


class Idibu(_Section):
    """Where and how outcomes are reported."""

    base_url: Annotated[HttpUrl, AfterValidator(_without_user)] = Field(
        HttpUrl("https://ws.idibu.com"), description="the root of idibu's web services"
    )
    timeout: Duration = Field(30.0, le=300, description="one request's time, from look-up to the last byte")
    timezone: TimeZone = Field("UTC", description="time zone of date-processed; idibu's documents name none")
    retry: RetrySchedule = Field(DEFAULT_RETRY, description="waits between attempts; their sum ends in failed")

    @property
    def schedule(self) -> Schedule:
        """The retry schedule, parsed."""
        return parse_schedule(self.retry)

    @property
    def zone(self) -> tzinfo:
        """The time zone, looked up."""
        return ZoneInfo(self.timezone)


class Worker(_Section):
    """How a worker process works."""

    concurrency: int = Field(8, ge=1, le=1000, description="hand-offs at a time")
    report_concurrency: int = Field(4, ge=1, le=100, description="reports at a time")
    lease: Duration = Field(
        60.0, ge=5, description="how long a claim is ours unless renewed (it is, every third of it)"
    )
    drain_timeout: Duration = Field(25.0, description="how long hand-offs under way may take to finish at the end")
    parse_processes: int = Field(2, ge=1, le=64, description="processes that read mails, apart from the worker's own")
    parse_deadline: Duration = Field(30.0, description="a mail that takes longer to read is held as unreadable")
    parse_memory: ByteSize = Field(
        ByteSize(2_000_000_000), ge=200_000_000, description="address space one mail may take to be read"
    )


class Digest(_Section):
    """A note to people about what waits for them, where nobody watches the metrics: ids and reason codes only."""

    every: Duration = Field(86400.0, ge=60, description="the least time between two digests")
    webhook_url: Annotated[SecretStr, AfterValidator(_web_address)] | None = Field(
        None, description="gets the digest as JSON by POST (its `text` suits chats)"
    )
    webhook_url_file: Path | None = Field(None, description="a file that holds webhook_url")
    smtp_host: HostName | None = Field(None, description="a mail server that takes the digest as a mail")
    smtp_port: int = Field(25, ge=1, le=65535, description="its port")
    mail_from: MailAddress = Field("apptrack-ingest@localhost", description="the digest's sender")
    mail_to: Annotated[tuple[MailAddress, ...], BeforeValidator(_comma_separated), NoDecode] = Field(
        (), description="its recipients"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.smtp_host is None) != (not self.mail_to):
            raise ValueError("a digest by mail needs both smtp_host and mail_to")
        if self.webhook_url is not None and self.webhook_url_file is not None:
            raise ValueError("set webhook_url or webhook_url_file, not both")
        return self

    @property
    def wanted(self) -> bool:
        """Whether the digest goes anywhere."""
        return self.webhook_url is not None or self.smtp_host is not None


class Log(_Section):
    """The structured log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least level shown")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")


class Settings(BaseSettings):
    """All settings. No file and no variable at all is a valid configuration: loopback, SQLite, the folder handler."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(Path("apptrack-data"), description="the spool's directory, made with mode 0700")
    recipients: Recipients = Field((), description="shared: mail goes by X-iTrackID-ClientID")
    retention: Duration = Field(30 * 86400.0, description="raw mails and candidates' data of what is finished go then")
    accounts: dict[str, Account] = Field({}, description="the idibu accounts, by name")
    smtp: Smtp = Smtp()
    web: Web = Web()
    idibu: Idibu = Idibu()
    worker: Worker = Worker()
    digest: Digest = Digest()
    log: Log = Log()

    _truth = field_validator("*", mode="before")(_no_truth_value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what `load` read from the file."""
        return env_settings, init_settings

    @field_validator("accounts")
    @classmethod
    def _account_names(cls, accounts: dict[str, Account]) -> dict[str, Account]:
        for name in accounts:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
                raise ValueError(
                    f"account name {name!r}: write lower-case letters, digits, - and _, at most 64, so that the"
                    " environment, folders and metrics can carry it"
                )
        return accounts

    @property
    def any_recipient(self) -> str | None:
        """The account that takes every recipient, on loopback: `default`, when it is the only one and no mail is told to
        be its own, neither by its recipients nor by its client id."""
        only = dict(self.known_accounts)
        account = only.pop(DEFAULT_ACCOUNT, None)
        if only or account is None or account.recipients or (account.client_id and self.recipients):
            return None
        return DEFAULT_ACCOUNT

    @property
    def known_accounts(self) -> Mapping[str, Account]:
        """The accounts, or the one named `default` where none is configured."""
        return self.accounts or {DEFAULT_ACCOUNT: Account()}

    @property
    def database(self) -> Path:
        """The SQLite file of the spool."""
        return self.data_dir / "spool.sqlite3"


# --- reading ---------------------------------------------------------------------------------------------------------


def load(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads file, environment and secret files; raises ConfigError with every mistake found.

    `environ` is only looked through for unknown names; pydantic-settings itself reads os.environ.
    """
    settings, problems = inspect(path, environ)
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def inspect(path: Path | None, environ: Mapping[str, str] = os.environ) -> tuple[Settings | None, list[Problem]]:
    """What could be read, and every mistake found; what is wrong is left out so that the rest can be looked at too.

    The settings are None where nothing can be said of the rest. Raises ConfigError where the file cannot be read at all.
    """
    problems = list(_wrong_variables(environ))
    values = _read_toml(path) if path is not None else {}
    settings, wrong = _validated(values)
    problems += wrong
    if settings is None:
        return None, problems
    settings, secret_problems = _read_secret_files(settings)
    # What was left out as wrong must not be called missing.
    named = tuple(problem.key for problem in problems)
    return settings, [
        *problems,
        *secret_problems,
        *(found for found in _contradictions(settings) if not any(key.startswith(found.key) for key in named)),
    ]


def _validated(values: dict[str, Any]) -> tuple[Settings | None, list[Problem]]:
    """Validates again and again, each time without what was wrong the time before."""
    problems: dict[str, Problem] = {}
    for _ in range(10):
        try:
            return Settings(**values), list(problems.values())
        except SettingsError as error:
            return None, [*problems.values(), Problem("environment", "", str(error))]
        except ValidationError as error:
            found = error.errors(include_url=False)
            for mistake in found:
                problem = _problem(mistake)
                problems.setdefault(problem.key, problem)
            pruned = [_pruned(values, [str(part) for part in mistake["loc"]]) for mistake in found]
            if not any(pruned):
                break
    return None, list(problems.values())


def _pruned(values: dict[str, Any], location: list[str]) -> bool:
    """Removes what `location` leads to, or the nearest thing around it that the file holds; False where it holds none
    (it came from the environment)."""
    holder: Any = values
    for depth, part in enumerate(location):
        if not isinstance(holder, dict) or part not in holder:
            return False
        if depth == len(location) - 1 or not isinstance(holder[part], dict):
            del holder[part]
            return True
        holder = holder[part]
    return False


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(str(path), "", f"not valid TOML: {error}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), "", "not valid TOML: write it in UTF-8")]) from None
    except OSError as error:
        raise ConfigError([Problem(str(path), "", f"cannot be read: {error.strerror}")]) from None


_SERVICE_LINK = re.compile(
    r"APPTRACK_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes injected the variable for a service whose name begins like ours (docs/configuration.md)."""
    return bool(_SERVICE_LINK.fullmatch(name)) or (name.endswith("_PORT") and "://" in value)


def _wrong_variables(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Variables of our prefix that pydantic-settings would pass over in silence, or stop at without naming them."""
    for name, value in environ.items():
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in OWN_VARIABLES or _is_service_link(upper, value):
            continue
        top, *rest = upper.removeprefix(PREFIX).lower().split("__")
        if top not in Settings.model_fields:
            yield Problem(
                name,
                "",
                f"no such setting; sections and settings are {', '.join(Settings.model_fields)}"
                " (two underscores between the parts of a name)",
            )
        elif rest and not _is_section(top):
            yield Problem(name, "", f"{top} has no parts; write {PREFIX}{top.upper()}")
        elif _is_section(top, *rest) and not _is_json_object(value):
            yield Problem(name, MASK, f"write one variable for each setting, {name}__…, or a JSON object")


def _is_section(top: str, *rest: str) -> bool:
    """Whether a path of names leads to a section rather than to one value."""
    if top == "accounts":
        return len(rest) < 2 or rest[1:] == ("handler_settings",)
    annotation = Settings.model_fields[top].annotation
    return not rest and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


_SECRET_KEYS = re.compile(r"hash|secret|password|token|webhook_url|handler_settings", re.IGNORECASE)


def _problem(error: Any) -> Problem:
    """One of pydantic's findings in our words; a value is shown only where its key cannot be a secret's."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "settings"
    if error["type"] == "extra_forbidden":
        return Problem(key, "", f"no such setting here; {_known_here(location[:-1])}")
    if error["type"] in ("model_type", "dict_type"):
        # Whatever stands where a section belongs: it may well be the secret that belongs into the section.
        return Problem(key, MASK, f"write a section, [{key}]")
    shown = MASK if _SECRET_KEYS.search(key) else re.sub(r"://[^/]*@", f"://{MASK}@", repr(error["input"]))
    if isinstance(error["input"], dict | BaseModel):
        shown = ""
    return Problem(key, shown, error["msg"].removeprefix("Value error, "))


def _known_here(path: list[str]) -> str:
    model: Any = Settings
    for part in path:
        if model is Settings and part == "accounts":
            model = dict
        elif model is dict:
            model = Account
        else:
            model = model.model_fields[part].annotation
    return f"known are {', '.join(model.model_fields)}" if model is not dict else "write [accounts.NAME]"


def _read_secret_files(settings: Settings) -> tuple[Settings, list[Problem]]:
    """Reads every `…_file` anew, so that a reload takes up a changed secret."""
    problems: list[Problem] = []

    def secret(path: Path, key: str) -> SecretStr | None:
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            # Without a slash it may be the secret itself, written into the wrong setting.
            shown = repr(str(path)) if "/" in str(path) else MASK
            problems.append(
                Problem(key, shown, f"cannot be read: {reason}; write the path of a file that holds the secret")
            )
            return None
        if not text:
            problems.append(Problem(key, repr(str(path)), "the file is empty; write the secret into it"))
        return SecretStr(text)

    accounts = {
        name: account.model_copy(update={"hash": secret(account.hash_file, f"accounts.{name}.hash_file")})
        if account.hash_file
        else account
        for name, account in settings.accounts.items()
    }
    digest = settings.digest
    if digest.webhook_url_file:
        url = secret(digest.webhook_url_file, "digest.webhook_url_file")
        digest = digest.model_copy(update={"webhook_url": url})
    return settings.model_copy(update={"accounts": accounts, "digest": digest}), problems


def _contradictions(settings: Settings) -> Iterator[Problem]:
    """What is wrong only in combination."""
    if settings.any_recipient and not is_loopback(settings.smtp.host):
        yield Problem(
            "smtp.host",
            repr(settings.smtp.host),
            "without an account's recipients any recipient is taken, which is allowed on loopback only: add"
            " [accounts.NAME] with recipients, or listen on 127.0.0.1",
        )
    yield from _recipients_twice(settings)
    seen: dict[int, str] = {}
    for name, account in settings.accounts.items():
        if not account.recipients and not (account.client_id and settings.recipients) and not settings.any_recipient:
            yield Problem(
                f"accounts.{name}.recipients",
                "",
                "no mail can reach this account: set recipients, or client_id here and shared recipients at the top",
            )
        if account.client_id is not None and (other := seen.setdefault(account.client_id, name)) != name:
            yield Problem(f"accounts.{name}.client_id", str(account.client_id), f"accounts.{other} has the same one")


def _recipients_twice(settings: Settings) -> Iterator[Problem]:
    """One recipient belongs to one account: otherwise one customer's candidate would be handed to another."""
    owners: dict[str, str] = {}
    listed = [("recipients", settings.recipients)]
    listed += [(f"accounts.{name}.recipients", account.recipients) for name, account in settings.accounts.items()]
    for key, recipients in listed:
        for recipient in recipients:
            owner = owners.setdefault(recipient.removeprefix("@").casefold(), key)
            if owner != key:
                advice = (
                    f"stands in {owner} too: list it once, at the top as shared, and tell the accounts by client_id"
                )
                yield Problem(key, repr(recipient), advice)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


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
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, dict):
        return {key: MASK if not isinstance(item, BaseModel) else _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


LOG_LEVELS = get_args(Log.model_fields["level"].annotation)
