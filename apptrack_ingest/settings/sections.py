"""Every setting: its section, type, default and meaning, and what must fit together within a section."""

import re
from collections.abc import Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    ByteSize,
    Field,
    HttpUrl,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from apptrack_ingest.lifecycle import (
    DEFAULT_PROBES,
    DEFAULT_RETRY,
    EarlyRule,
    Rate,
    Schedule,
    parse_rates,
    parse_schedule,
)
from apptrack_ingest.settings.intake import Dns, Limits, Rules, Smtp, Trust, Untrusted, UntrustedMail
from apptrack_ingest.settings.kinds import (
    Duration,
    Extensions,
    HostName,
    Interval,
    MailAddress,
    MailAddresses,
    Rates,
    Recipients,
    RetrySchedule,
    RootUrl,
    SecretUrl,
    TimeZone,
)
from apptrack_ingest.settings.section import Section, no_truth_value
from apptrack_ingest.settings.spool_url import SQLITE, Place, SpoolPlace

PREFIX = "APPTRACK_"
DEFAULT_ACCOUNT = "default"
SPOOL_FILE = "spool.sqlite3"
"""What a SQLite spool is called in its data directory."""

MOST_PROCESSES = 64
"""Of one role under one `serve`."""

# --- sections ------------------------------------------------------------------------------------------------------


class Breaker(Section):
    """When an account's hand-offs rest because its ATS seems to be away, and how it is asked again."""

    failures: int = Field(
        5, ge=0, le=1000, description="different applications in a row without a verdict open it; 0: never"
    )
    wait: RetrySchedule = Field(
        DEFAULT_PROBES, description="waits before a single application is tried; the last stays"
    )

    @property
    def schedule(self) -> Schedule:
        """The waits, parsed."""
        return parse_schedule(self.wait)


class Account(Section):
    """One idibu account: who its mail is for, which handler takes its candidates, and the hash to report with."""

    hash: SecretStr | None = Field(None, description="the account's API hash at idibu; without it reports wait as due")
    hash_file: Path | None = Field(None, description="a file that holds the hash, instead of `hash`")
    client_id: int | None = Field(None, gt=0, description="the account's id at idibu (X-iTrackID-ClientID)")
    recipients: Annotated[Recipients, NoDecode] = Field(
        (), description="addresses or domains whose mail belongs to this account"
    )
    handler: str = Field("folder", min_length=1, description="a handler's name, or package.module:Name")
    handler_settings: dict[str, Any] = Field({}, repr=False, description="the handler's own settings")
    block_extensions: Extensions = Field((), description="documents with these extensions are left out")
    handler_timeout: Duration = Field(60.0, description="how long one hand-off may take")
    concurrency: int = Field(4, ge=1, le=1000, description="hand-offs of this account at a time, in each `serve`")
    rate: Rates = Field("", description="hand-offs the ATS takes, in each `serve`: 100/1m, 5000/d; empty: no limit")
    breaker: Breaker = Field(Breaker(), description="resting while the ATS is away")
    retry: RetrySchedule = Field(DEFAULT_RETRY, description="waits between hand-off attempts; their sum ends in failed")
    trust: Rules = Field(Rules(), description="who may deliver for this account, beside those in [trust]")
    untrusted: Untrusted | None = Field(
        None, description="hold or refuse mail that no rule matches; as [untrusted] says"
    )
    reporting: bool = Field(True, description="off: idibu is told nothing of this account's applications")
    report_first_failure: bool = Field(
        False, description="tell idibu after the first failed hand-off, and until when it is retried"
    )
    report_waiting_after: Duration | None = Field(
        None, description="tell idibu so of what has no outcome after this time; unset: never"
    )
    timezone: TimeZone = Field("UTC", description="time zone of the times that idibu's users read")

    @property
    def schedule(self) -> Schedule:
        """The retry schedule, parsed."""
        return parse_schedule(self.retry)

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The rates, parsed."""
        return parse_rates(self.rate)

    @property
    def early(self) -> EarlyRule:
        """What idibu is told of it before there is an outcome."""
        zone = ZoneInfo(self.timezone)
        return EarlyRule(self.report_first_failure, self.report_waiting_after, self.schedule.window, zone)

    @model_validator(mode="after")
    def _one_hash(self) -> Self:
        if self.hash is not None and self.hash_file is not None:
            raise ValueError("set hash or hash_file, not both")
        if self.hash is not None and not self.hash.get_secret_value().strip():
            raise ValueError("hash is empty; leave it out, or set the account's API hash")
        return self


class Web(Section):
    """Health and metrics over HTTP."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(9425, ge=0, le=65535, description="the port of /livez, /readyz and /metrics; 0 takes a free one")


class Idibu(Section):
    """Where and how idibu is spoken to: outcomes are reported, and service management is for partners."""

    base_url: RootUrl = Field(HttpUrl("https://ws.idibu.com"), description="the root of idibu's web services")
    timeout: Duration = Field(30.0, le=300, description="one request's time, from look-up to the last byte")
    timezone: TimeZone = Field("UTC", description="time zone of date-processed; idibu's documents name none")
    retry: RetrySchedule = Field(DEFAULT_RETRY, description="waits between attempts; their sum ends in failed")
    reconcile: Interval = Field("off", description="how often ledger and idibu are held against each other, like 24h")
    attempts: int = Field(3, ge=1, le=10, description="how often a command asks, where asking again does no harm")
    partner_id: int | None = Field(None, gt=0, description="the partner's id (exempt-id), for service management")
    partner_password: SecretStr | None = Field(None, description="the partner's password, given by idibu with the id")
    partner_password_file: Path | None = Field(None, description="a file that holds it, instead of `partner_password`")

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.partner_password is not None and self.partner_password_file is not None:
            raise ValueError("set partner_password or partner_password_file, not both")
        if self.partner_password is not None and not self.partner_password.get_secret_value().strip():
            raise ValueError("partner_password is empty; leave it out, or set the partner's password")
        return self

    @property
    def schedule(self) -> Schedule:
        """The retry schedule, parsed."""
        return parse_schedule(self.retry)

    @property
    def reconcile_every(self) -> float | None:
        """Seconds between two such comparisons; None: there are none."""
        return None if self.reconcile == "off" else self.reconcile

    @property
    def zone(self) -> tzinfo:
        """The time zone, looked up."""
        return ZoneInfo(self.timezone)


class Worker(Section):
    """How the worker works; with several processes (worker_processes) each takes its part."""

    concurrency: int = Field(8, ge=1, le=1000, description="applications in work at a time")
    report_concurrency: int = Field(4, ge=1, le=100, description="reports at a time")
    lease: Duration = Field(
        60.0, ge=5, description="how long a claim is ours unless renewed (it is, every third of it)"
    )
    drain_timeout: Duration = Field(25.0, description="how long hand-offs under way may take to finish at the end")
    memory: ByteSize = Field(
        ByteSize(100_000_000), ge=1_000_000, description="bytes set aside for mails under way and what is made of them"
    )
    parse_processes: int = Field(2, ge=1, le=64, description="processes that read mails, apart from the worker's own")
    parse_deadline: Duration = Field(30.0, description="a mail that takes longer to read is held as unreadable")
    parse_memory: ByteSize = Field(
        ByteSize(2_000_000_000), ge=200_000_000, description="address space one mail may take to be read"
    )


class Digest(Section):
    """A note to people about what waits for them, where nobody watches the metrics: ids and reason codes only."""

    every: Duration = Field(86400.0, ge=60, description="the least time between two digests")
    webhook_url: SecretUrl | None = Field(None, description="gets the digest as JSON by POST (its `text` suits chats)")
    webhook_url_file: Path | None = Field(None, description="a file that holds webhook_url")
    smtp_host: HostName | None = Field(None, description="a mail server that takes the digest as a mail")
    smtp_port: int = Field(25, ge=1, le=65535, description="its port")
    mail_from: MailAddress = Field("apptrack-ingest@localhost", description="the digest's sender")
    mail_to: MailAddresses = Field((), description="its recipients")

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


class Log(Section):
    """The structured log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least level shown")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")


class Settings(BaseSettings):
    """All settings. No file and no variable at all is a valid configuration: loopback, SQLite, the folder handler."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(Path("apptrack-data"), description="the spool's directory, made with mode 0700")
    spool: Place = Field(SpoolPlace(SQLITE), description="sqlite: a file in data_dir; or postgresql://…")
    spool_file: Path | None = Field(None, description="a file that holds the URL, instead of `spool`")
    intake_processes: int = Field(
        1, ge=1, le=MOST_PROCESSES, description="intakes on the same addresses; limits are for all together"
    )
    worker_processes: int = Field(
        1,
        ge=1,
        le=MOST_PROCESSES,
        description="workers on the spool; [worker] and accounts' limits are for all together",
    )
    recipients: Recipients = Field((), description="shared: mail goes by X-iTrackID-ClientID")
    retention: Duration = Field(30 * 86400.0, description="raw mails and candidates' data of what is finished go then")
    tombstones: Duration = Field(
        400 * 86400.0, description="what is left of them (ids, digests, times), for updates and duplicates, goes then"
    )
    accounts: dict[str, Account] = Field({}, description="the idibu accounts, by name")
    smtp: Smtp = Smtp()
    trust: Trust = Trust()
    untrusted: UntrustedMail = UntrustedMail()
    limits: Limits = Limits()
    dns: Dns = Dns()
    web: Web = Web()
    idibu: Idibu = Idibu()
    worker: Worker = Worker()
    digest: Digest = Digest()
    log: Log = Log()

    _truth = field_validator("*", mode="before")(no_truth_value)

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

    @field_validator("spool_file")
    @classmethod
    def _one_spool(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        # That it is the default itself, and not just equal to it, says that it was not set.
        if file is not None and info.data.get("spool") is not cls.model_fields["spool"].default:
            raise ValueError("set spool or spool_file, not both")
        return file

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
        """The SQLite file of the spool, where it is in one."""
        return self.data_dir / SPOOL_FILE

    @property
    def spool_url(self) -> str | None:
        """The URL of the spool's PostgreSQL database, with its secrets; None: the spool is in a SQLite file."""
        place = self.spool.get_secret_value()
        return None if place == SQLITE else place

    @property
    def spool_shown(self) -> str:
        """Where the spool is, as it may be shown to anybody."""
        return str(self.database) if self.spool_url is None else self.spool.shown
