"""Every metric on one page: name, meaning and labels, the functions that record it, and the exposition of all of them.

`docs/metrics.md` says what a rise of each means. Labels are bounded: accounts (empty: unrouted) and handlers by their
configured names, the rest by the fixed words typed here. Under `serve` the children write to files of one directory
(prometheus_client's multi-process mode, chosen by PROMETHEUS_MULTIPROC_DIR in their environment) and the supervisor
adds them up; a process that runs alone exposes its own registry. A child's counts outlive it.
"""

import atexit
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from apptrack_ingest import metric_files
from apptrack_ingest.metric_files import Distribution
from apptrack_ingest.model import Backlog, HeldReason, PausedBy, ReportState, Stage, State

HandOffResult = Literal[
    "delivered", "duplicate", "rejected", "postponed", "failed", "held", "no-verdict", "interrupted"
]
ReportResult = Literal["confirmed", "refused", "unauthorized", "not-reached", "superseded"]

multiprocess_dir, child_exited = metric_files.multiprocess_dir, metric_files.child_exited

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that every Prometheus reads."""

CATALOGUE: dict[str, tuple[str, ...]] = {}
"""Every metric's name, as exposed, and its labels; a test holds docs/metrics.md to it."""

# The library's _created series exist in one mode only and would double the number of series.
disable_created_metrics()  # type: ignore[no-untyped-call]

_PROCESS = CollectorRegistry()
"""What a process records of its own work; in files when it is a supervisor's child."""

_SUPERVISOR = CollectorRegistry()
"""What whoever supervises records of the processes; never in files."""


def _counter(name: str, text: str, *labels: str, registry: CollectorRegistry = _PROCESS) -> Counter:
    CATALOGUE[name] = labels
    return Counter(name, text, labels, registry=registry)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Distribution:
    CATALOGUE[name] = labels
    return Distribution(name, text, labels, registry=_PROCESS, buckets=buckets)


def _gauge(name: str, text: str, *labels: str, mode: Literal["livesum", "max", "mostrecent"]) -> Gauge:
    """`mode` is how the gauge adds up over processes: the sum over those alive, the greatest ever set, or the last set."""
    CATALOGUE[name] = labels
    return Gauge(name, text, labels, registry=_PROCESS, multiprocess_mode=mode)


def _derived(name: str, text: str, *labels: str) -> tuple[str, str, tuple[str, ...]]:
    """A gauge that is not recorded but worked out at each scrape."""
    CATALOGUE[name] = labels
    return name, text, labels


# --- the metrics -----------------------------------------------------------------------------------------------------

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
_HANDLER = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_LONG = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0)

_messages = _counter("apptrack_messages_received_total", "Mails spooled and answered 250.", "trusted")
_applications = _counter("apptrack_applications_received_total", "Applications those mails yielded.", "account")
_replies = _counter("apptrack_smtp_replies_total", "SMTP replies by their basic code.", "code")
_sessions = _gauge("apptrack_smtp_sessions", "SMTP connections open now.", mode="livesum")
_ungreeted = _counter("apptrack_smtp_ungreeted_total", "Connections whose peer was gone before it was greeted.")
_limited = _counter("apptrack_smtp_limited_total", "Times a limit of the intake was met.", "limit")
_in_flight = _gauge("apptrack_smtp_bytes_in_flight", "Bytes of mails being received now.", mode="livesum")
_verdicts = _counter(
    "apptrack_trust_verdicts_total", "Verdicts on senders by the rule that decided.", "account", "rule"
)
_expiry = _gauge(
    "apptrack_tls_certificate_expiry_timestamp_seconds", "When the certificate in use ends; 0: no TLS.", mode="livesum"
)
_accept = _histogram("apptrack_accept_seconds", "From the end of DATA to its 250.", buckets=_QUICK)
_last_received = _gauge(
    "apptrack_last_received_timestamp_seconds", "When the newest application came in.", "account", mode="max"
)
_hand_off_attempts = _counter(
    "apptrack_hand_off_attempts_total", "Finished hand-off attempts.", "account", "handler", "result"
)
_hand_off = _histogram("apptrack_hand_off_seconds", "The handler's own time.", "handler", buckets=_HANDLER)
_receive_to_hand_off = _histogram(
    "apptrack_receive_to_hand_off_seconds", "From the receipt to the handler's verdict.", buckets=_LONG
)
_breaker = _gauge("apptrack_breaker_open", "Workers whose breaker for the account is open.", "account", mode="livesum")
_breaker_opened = _counter(
    "apptrack_breaker_opened_total", "Times a breaker opened, or stayed open.", "account", "code"
)
_rationed = _gauge("apptrack_rate_used_up", "Workers that wait for the account's rate.", "account", mode="livesum")
_in_work = _gauge("apptrack_bytes_in_work", "Bytes set aside for mails that workers work on now.", mode="livesum")
_report_attempts = _counter("apptrack_report_attempts_total", "Finished report attempts.", "account", "result")
_receive_to_report = _histogram(
    "apptrack_receive_to_report_seconds", "From the receipt to idibu's confirmation.", buckets=_LONG
)
_findings = _gauge(
    "apptrack_reconcile_findings",
    "What ledger and idibu did not agree on when last held against each other.",
    *("account", "finding"),
    mode="mostrecent",
)
_reconciled = _gauge(
    "apptrack_reconcile_timestamp_seconds", "When they last were, to the end.", "account", mode="mostrecent"
)
_restarts = _counter(
    "apptrack_process_restarts_total", "Processes started again after an unexpected end.", "role", registry=_SUPERVISOR
)

_UP = _derived("apptrack_process_up", "1 while a process of the role runs.", "role")
_BUILD = _derived("apptrack_build_info", "What runs here; always 1.", "version", "python")
_SCRAPE_OK = _derived("apptrack_scrape_ok", "1 when the spool could be counted for this scrape.")
_APPLICATIONS = _derived("apptrack_applications", "Applications in the spool.", "account", "state")
_HELD = _derived("apptrack_applications_held", "Held applications by reason.", "account", "reason")
_REPORTS = _derived("apptrack_reports", "Reports in the spool.", "account", "state")
_OLDEST = _derived("apptrack_oldest_seconds", "Age of the oldest that waits in a stage; 0: none.", "stage", "account")
_BACKLOG = _derived("apptrack_backlog", "How many wait in a stage.", "stage", "account")
_PAUSED = _derived("apptrack_paused", "1 while a stage of the account is paused.", "account", "stage", "by")
_NO_HASH = _derived("apptrack_reporting_without_hash", "1 while the account has no hash to report with.", "account")
_SIZE = _derived("apptrack_spool_size_bytes", "What the spool takes on disk.")
_FREE = _derived("apptrack_spool_free_bytes", "Free space where the spool is.")
_FREE_INODES = _derived(
    "apptrack_spool_free_inodes", "Free inodes where the spool is; none where they are not counted."
)

# --- recording -------------------------------------------------------------------------------------------------------

_unwritten = metric_files.Unwritten()
atexit.register(_unwritten.write)


@cache
def _counter_of(metric: Counter, *labels: str) -> Counter:
    """The counter for these labels, which the library looks up under a lock each time; there are few."""
    return metric.labels(*labels)


@cache
def _gauge_of(metric: Gauge, *labels: str) -> Gauge:
    return metric.labels(*labels)


@cache
def _histogram_of(metric: Distribution, *labels: str) -> Distribution:
    return metric.labels(*labels)


def received(accounts: Iterable[str | None], *, trusted: bool, at: float) -> None:
    """One mail was spooled at `at` (epoch seconds); `accounts` are those of its applications, None: unrouted."""
    _unwritten.add(_counter_of(_messages, "yes" if trusted else "no"))
    for account in accounts:
        _unwritten.add(_counter_of(_applications, account or ""))
        _unwritten.set(_gauge_of(_last_received, account or ""), at)


def replied(code: int) -> None:
    """An SMTP reply went out; `code` is its basic code (RFC 5321, 4.2), counted as 0 where it is none."""
    _unwritten.add(_counter_of_reply(code))


@lru_cache(100)
def _counter_of_reply(code: int) -> Counter:
    return _counter_of(_replies, str(code if 200 <= code <= 599 else 0))


def session_opened() -> None:
    """A peer connected."""
    _unwritten.add(_sessions)


def session_closed() -> None:
    """A peer's connection ended."""
    _unwritten.add(_sessions, -1.0)


def ungreeted() -> None:
    """A peer was gone before it could be greeted."""
    _unwritten.add(_ungreeted)


def limited(limit: str) -> None:
    """A limit of the intake was met; `limit` is one of the fixed words of `receive.rates.Limit`."""
    _unwritten.add(_limited.labels(limit))


def bytes_in_flight(count: int) -> None:
    """So many bytes of mails are being received now."""
    _unwritten.set(_in_flight, count)


def judged(account: str, rule: str) -> None:
    """A sender was judged for an account ("": none) by one of the fixed words of `trust.Rule`."""
    _unwritten.add(_counter_of(_verdicts, account, rule))


def certificate_ends(at: float) -> None:
    """The TLS certificate in use ends `at` (epoch seconds)."""
    _expiry.set(at)


def accepted(seconds: float) -> None:
    """A mail was answered 250, `seconds` after the end of its DATA."""
    _unwritten.observe(_accept, max(seconds, 0.0))


def hand_off_attempted(
    account: str | None, handler: str, result: HandOffResult, *, handler_seconds: float | None = None
) -> None:
    """A hand-off attempt ended; `handler` is empty and `handler_seconds` None where no handler was called."""
    _unwritten.add(_counter_of(_hand_off_attempts, account or "", handler, result))
    if handler_seconds is not None:
        _unwritten.observe(_histogram_of(_hand_off, handler), max(handler_seconds, 0.0))


def handed_off(seconds: float) -> None:
    """A handler gave its final verdict, `seconds` after the application's receipt."""
    _unwritten.observe(_receive_to_hand_off, max(seconds, 0.0))


def breaker(account: str, *, is_open: bool) -> None:
    """This worker's breaker for the account is open now, or not."""
    _unwritten.set(_gauge_of(_breaker, account), is_open)


def breaker_opened(account: str, code: str) -> None:
    """It opened, or its probe failed; `code` is one of the fixed words of `worker.breaker.Code`."""
    _unwritten.add(_breaker_opened.labels(account, code))


def rationed(account: str, *, is_rationed: bool) -> None:
    """This worker waits until the account's rate allows more, or not."""
    _unwritten.set(_gauge_of(_rationed, account), is_rationed)


def bytes_in_work(count: int) -> None:
    """So many bytes are set aside for the mails this worker works on."""
    _unwritten.set(_in_work, count)


def report_attempted(account: str, result: ReportResult) -> None:
    """An attempt to report to idibu ended."""
    _unwritten.add(_counter_of(_report_attempts, account, result))


def reported(seconds: float) -> None:
    """idibu confirmed an application's outcome, `seconds` after the application's receipt."""
    _unwritten.observe(_receive_to_report, max(seconds, 0.0))


def reconciled(account: str, findings: Mapping[str, int], at: float) -> None:
    """Ledger and idibu were held against each other `at` (epoch seconds): how many findings of each kind
    (`reconcile.Kind`), those that were not found among them as 0."""
    for kind, number in findings.items():
        _findings.labels(account, kind).set(number)
    _reconciled.labels(account).set(at)


def process_restarted(role: str) -> None:
    """A process of that role ended unexpectedly and is started again (recorded by its supervisor)."""
    _unwritten.add(_restarts.labels(role))


# --- exposing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a scrape needs beside the backlog: the configured accounts (their series show even at zero), those without a
    hash, which roles run, where the spool is, and the directory of the children's files (None: no children)."""

    accounts: tuple[str, ...] = ()
    without_hash: frozenset[str] = frozenset()
    up: Mapping[str, bool] | None = None
    data_dir: Path | None = None
    children: Path | None = None


def exposition(backlog: Backlog | None, now: float, surroundings: Surroundings | None = None) -> tuple[bytes, str]:
    """All metrics in Prometheus's text format, and its content type; `now` is in epoch seconds.

    Without a backlog (the spool could not be counted) its gauges are missing and apptrack_scrape_ok is 0.
    """
    _unwritten.write()
    around = surroundings or Surroundings()
    registry = CollectorRegistry()
    registry.register(_SUPERVISOR)
    registry.register(_AtScrape(backlog, now, around))
    if around.children is None:
        registry.register(_PROCESS)
        return generate_latest(registry), CONTENT_TYPE
    with metric_files.files:
        metric_files.Children(registry, str(around.children))  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE


class _AtScrape(Collector):
    """The gauges that are worked out at each scrape."""

    def __init__(self, backlog: Backlog | None, now: float, around: Surroundings) -> None:
        self._backlog = backlog
        self._now = now
        self._around = around

    def collect(self) -> Iterator[Metric]:
        yield _build_info()
        yield _family(_SCRAPE_OK, {(): self._backlog is not None})
        yield _family(_UP, {(role,): up for role, up in (self._around.up or {}).items()})
        without = self._around.without_hash
        yield _family(_NO_HASH, {(a,): a in without for a in {*self._around.accounts, *without}})
        yield from _free_space(self._around.data_dir)
        if self._backlog is not None:
            yield from _of_backlog(self._backlog, self._now, self._around.accounts)


def _family(spec: tuple[str, str, tuple[str, ...]], values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    name, text, labels = spec
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in sorted(values.items()):
        family.add_metric(label_values, float(value))
    return family


def _build_info() -> InfoMetricFamily:
    name, text, _ = _BUILD
    return InfoMetricFamily(
        name.removesuffix("_info"), text, value={"version": _version(), "python": platform.python_version()}
    )


def _version() -> str:
    try:
        return version("apptrack-ingest")
    except PackageNotFoundError:
        return "unknown"


def _free_space(data_dir: Path | None) -> Iterator[Metric]:
    """What an unprivileged process may still write; nothing when it cannot be known."""
    if data_dir is None:
        return
    try:
        found = os.statvfs(data_dir)
    except OSError:
        return
    yield _family(_FREE, {(): found.f_bavail * found.f_frsize})
    if found.f_files:  # btrfs counts none
        yield _family(_FREE_INODES, {(): found.f_favail})


def _of_backlog(backlog: Backlog, now: float, configured: Iterable[str]) -> Iterator[Metric]:
    accounts = {*configured, *_accounts_in(backlog)}
    yield _family(_APPLICATIONS, {(a, s): backlog.applications.get((a, s), 0) for a in accounts for s in State})
    yield _family(_HELD, {(a, r): backlog.held.get((a, r), 0) for a in accounts for r in HeldReason})
    yield _family(_REPORTS, {(a, s): backlog.reports.get((a, s), 0) for a in accounts for s in ReportState})
    yield _family(_OLDEST, _oldest(backlog, now, accounts))
    yield _family(_BACKLOG, _waiting(backlog, accounts))
    yield _family(_PAUSED, _paused(backlog, accounts))
    yield _family(_SIZE, {(): backlog.size_bytes})


def _accounts_in(backlog: Backlog) -> set[str]:
    counted = [*backlog.applications, *backlog.held, *backlog.reports, *backlog.paused]
    return {account for account, _ in counted} | {*backlog.oldest_hand_off, *backlog.oldest_report}


def _paused(backlog: Backlog, accounts: Iterable[str]) -> dict[tuple[str, ...], float]:
    return {(a, s, by): backlog.paused.get((a, s)) is by for a in accounts for s in Stage for by in PausedBy}


def _oldest(backlog: Backlog, now: float, accounts: Iterable[str]) -> dict[tuple[str, ...], float]:
    stages = {Stage.HAND_OFF: backlog.oldest_hand_off, Stage.REPORT: backlog.oldest_report}
    return {
        (stage, account): max(now - since.get(account, now), 0.0)
        for stage, since in stages.items()
        for account in accounts
    }


def _waiting(backlog: Backlog, accounts: Iterable[str]) -> dict[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = {}
    for account in accounts:
        counts["hand-off", account] = backlog.applications.get((account, State.RECEIVED), 0)
        counts["report", account] = backlog.reports.get((account, ReportState.DUE), 0)
    return counts
