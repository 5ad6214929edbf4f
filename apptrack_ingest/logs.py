"""The structured log on standard error: one line per unit of work, ids and reason codes only, nothing a peer can forge.

Secrets and candidates' data are kept out where they arise; what stands here is the second line of defence: secrets in
anything that looks like a URL's query are masked, control characters are escaped, and an exception shows its type and
where in our code it passed, never its text (httpx puts URLs into exceptions, parsers put mail text there).
"""

import errno
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from apptrack_ingest import log_values
from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.log_values import as_json, encoded, members, safe_value, type_name
from apptrack_ingest.settings import Log

redact, escape = log_values.redact, log_values.escape

ROOT = "apptrack_ingest"
"""All our loggers are below this one of the standard library's."""

_QUIET = ("httpx", "httpcore", "mail.log", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "pebble")
"""Loggers whose INFO and DEBUG lines hold URLs (httpx), the SMTP dialogue (aiosmtpd's mail.log) or mere noise."""


def configure(log: Log, role: str, stream: TextIO | None = None) -> None:
    """Sends every logger of this process, ours and others', to standard error (or `stream`) as `log` says.

    `role` (intake, worker, serve …) stands in every line. May be called again, after a reload.
    """
    target = stream or sys.stderr
    console = log.format == "console" or (log.format == "auto" and target.isatty())
    handler = _Handler(target, role, writes_json=not console)
    handler.setFormatter(_Formatter(role, _renderer(console, colours=target.isatty())))
    root = logging.getLogger()
    root.handlers = [kept for kept in root.handlers if not isinstance(kept, _Handler)] + [handler]
    root.setLevel(log.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    # Of a record no more is found out than stands in our lines (the standard library's "Optimization" how-to).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # On a log that cannot be written, the standard library would print the record's raw arguments.
    logging.raiseExceptions = False


def get(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one part of the package: `get("worker").info("drained", applications=3)`."""
    logger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{name}"), processors=_OWN, wrapper_class=structlog.stdlib.BoundLogger
    )
    return cast(structlog.stdlib.BoundLogger, logger)


def log_uncaught() -> None:
    """Lets exceptions that nobody caught end in the log too, instead of being printed with their text and source."""

    def uncaught(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            get("process").critical("uncaught exception", exc_info=error)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        # SystemExit ends a thread in silence by default, too.
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            get("process").critical("uncaught exception in a thread", exc_info=args.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = lambda args: get("process").error("exception that nobody could catch", exc_info=args.exc_value)


# --- one line per finished unit of work ------------------------------------------------------------------------------


def received(
    *,
    message_id: int,
    accounts: Sequence[str | None],
    applicant_ids: Sequence[int | None],
    trusted: bool,
    size: int,
    seconds: float,
) -> None:
    """A mail of `size` bytes was spooled and answered 250, `seconds` after the end of its DATA."""
    _tell(
        "receive",
        logging.INFO,
        "received",
        message=message_id,
        accounts=[account or "" for account in accounts],
        applicants=list(applicant_ids),
        trusted=trusted,
        bytes=size,
        seconds=round(seconds, 4),
    )


def hand_off_finished(
    *,
    application_id: int,
    account: str | None,
    applicant_id: int | None,
    handler: str,
    attempt: int,
    result: str,
    code: str,
    seconds: float,
) -> None:
    """A hand-off attempt ended; `code` is its reason code, `seconds` how long the attempt took."""
    level = logging.WARNING if result in ("failed", "held", "no-verdict") else logging.INFO
    _tell(
        "hand-off",
        level,
        "hand-off finished",
        application=application_id,
        account=account or "",
        applicant=applicant_id,
        handler=handler,
        attempt=attempt,
        result=safe_code(result),
        code=safe_code(code),
        seconds=round(seconds, 4),
    )


def report_finished(
    *,
    report_id: int,
    application_id: int,
    account: str,
    applicant_id: int,
    attempt: int,
    result: str,
    code: str,
    seconds: float,
) -> None:
    """An attempt to report to idibu ended."""
    level = logging.WARNING if result in ("refused", "unauthorized") else logging.INFO
    _tell(
        "report",
        level,
        "report finished",
        report=report_id,
        application=application_id,
        account=account,
        applicant=applicant_id,
        attempt=attempt,
        result=safe_code(result),
        code=safe_code(code),
        seconds=round(seconds, 4),
    )


def _tell(name: str, level: int, event: str, **fields: Any) -> None:
    """The same line as `get(name).log(level, event, **fields)`, at a fraction of the cost: every mail has some."""
    logger = _logger(name)
    if not logger.isEnabledFor(level):
        return
    if (ours := _sole_handler(logger, level)) is not None:
        ours.tell(_WORDS[level], event, fields, logger.name)
        return
    safe = {key: safe_value(value) for key, value in fields.items()}
    line = {**safe, "event": event, "level": _WORDS[level], "logger": logger.name}
    # Made and handed over by ourselves: `logger.log` would walk the stack for the place in the code it came from.
    record = logger.makeRecord(logger.name, level, "", 0, cast(str, line), (), None)
    record._logger, record._name = logger, _WORDS[level]
    logger.handle(record)


_WORDS = {logging.INFO: "info", logging.WARNING: "warning"}


@lru_cache(10)
def _logger(name: str) -> logging.Logger:
    return logging.getLogger(f"{ROOT}.{name}")


def _sole_handler(logger: logging.Logger, level: int) -> "_Handler | None":
    """Ours, if it writes JSON and no other handler or filter could miss the logger's records."""
    found: logging.Handler | None = None
    at: logging.Logger | None = logger
    while at is not None:
        for handler in at.handlers:
            if found is not None:
                return None
            found = handler
        at = at.parent if at.propagate else None
    if not isinstance(found, _Handler) or not found.writes_json:
        return None
    return None if logger.filters or found.filters or found.level > level else found


_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,79}")


def safe_code(code: str) -> str:
    """A reason code as it is; anything that is none (words, an address) becomes `other`, for words stay in the spool."""
    return code if _CODE.fullmatch(code) else "other"


# --- exceptions ------------------------------------------------------------------------------------------------------

_OURS = re.compile(r"(?:^|[/\\])((?:apptrack_ingest|apptrack_handlers)[/\\].*)$")


def exception_fields(error: BaseException) -> dict[str, str]:
    """What may be logged of any exception: its type, the system's or SQLite's name of the error, the types that caused
    it, and `at`, the innermost line of our code it passed (of foreign code where it passed none of ours)."""
    fields = {"error": type_name(error), "at": _innermost(error)}
    if reason := _reason(error):
        fields["reason"] = reason
    if causes := _causes(error):
        fields["caused_by"] = " < ".join(causes)
    return {key: value for key, value in fields.items() if value}


def _reason(error: BaseException) -> str:
    """A short name that tells a full disk from a lost connection, and a wrong password from both."""
    name = getattr(error, "sqlite_errorname", None) or errno.errorcode.get(getattr(error, "errno", None) or 0)
    return str(name or (error.code if isinstance(error, SpoolUnavailable) else ""))


def _causes(error: BaseException) -> list[str]:
    """Type, reason and place of up to three errors behind this one; of a group's members the first stands for all."""
    causes: list[str] = []
    following = _cause(error)
    while following is not None and len(causes) < 3:
        causes.append(" ".join(filter(None, (type_name(following), _reason(following), _innermost(following)))))
        following = _cause(following)
    return causes


def _cause(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        first: BaseException = error.exceptions[0]
        return first
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _own_frames(error: BaseException) -> list[str]:
    """`package/file.py:line function` of our code, outermost first; no source line, no variables."""
    return [
        f"{match[1]}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (match := _OURS.search(frame.f_code.co_filename))
    ]


def _innermost(error: BaseException) -> str:
    if own := _own_frames(error):
        return own[-1].split(" ")[0]
    foreign = [
        f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return foreign[-1] if foreign else ""


# --- processors ------------------------------------------------------------------------------------------------------


def _exceptions(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replaces exc_info by what may be logged of it."""
    info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error = info[1] if isinstance(info, tuple) else sys.exc_info()[1] if info is True else info
    if isinstance(error, BaseException):
        event.update(exception_fields(error))
        event["frames"] = _own_frames(error)[-12:]
    return event


def _safe(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    meta = {key: event.pop(key) for key in ("_record", "_from_structlog") if key in event}
    return {**cast(dict[str, Any], safe_value(event)), **meta}


_OWN: list[Any] = [
    structlog.stdlib.filter_by_level,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    _exceptions,
    _safe,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]
_FOREIGN: list[Any] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, _exceptions, _safe]


# --- output ----------------------------------------------------------------------------------------------------------


def _arranged(role: str, event: Mapping[str, Any]) -> EventDict:
    """When, how bad, who and what stand first in every line, so that a person can read down the left edge."""
    return {"timestamp": _now(), "level": "", "role": role, "event": "", **event}


def _now() -> str:
    """The time in UTC as ISO 8601 writes it."""
    second, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(second)}.{micros:06}Z" if micros else f"{_second(second)}Z"


@lru_cache(1)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().removesuffix("+00:00")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second `configure` can tell it from others'."""

    def __init__(self, target: TextIO, role: str, *, writes_json: bool) -> None:
        super().__init__(target)
        self.writes_json = writes_json
        self._role = as_json(role)

    def tell(self, level: str, event: str, fields: Mapping[str, Any], logger: str) -> None:
        """Writes what it would write of a record of these (names without a character that JSON escapes), without one."""
        line = (
            f'{{"timestamp": "{_now()}", "level": "{level}", "role": {self._role}, "event": "{event}", '
            f'{members(fields)}, "logger": "{logger}"}}\n'
        )
        self.acquire()
        try:
            self.stream.write(line)
            self.stream.flush()
        except Exception:  # noqa: BLE001, S110 - as for a record: a log that cannot be written stops nothing
            pass
        finally:
            self.release()


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Ends the same chain for our records and for those of the libraries, which are tamed first."""

    def __init__(self, role: str, renderer: Any) -> None:
        self._role, self._render = role, renderer

        def arrange(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
            return _arranged(role, event)

        super().__init__(processors=[self.remove_processors_meta, arrange, renderer], foreign_pre_chain=_FOREIGN)

    def format(self, record: logging.LogRecord) -> str:
        if not hasattr(record, "_logger"):
            return super().format(_tamed(record))
        # Ours are events already: what else structlog does with a record, copies of it above all, is not needed.
        return str(self._render(None, record.levelname, _arranged(self._role, cast(dict[str, Any], record.msg))))


def _tamed(record: logging.LogRecord) -> logging.LogRecord:
    """A library's record without the text of exceptions (pebble logs one as its message, others as an argument) and,
    from asyncio, without the reprs of tasks and callbacks, which hold their exceptions and arguments."""
    tamed = logging.makeLogRecord(record.__dict__)
    if isinstance(record.msg, BaseException):
        tamed.msg, tamed.args = type_name(record.msg), ()
    elif record.name == "asyncio":
        tamed.msg, tamed.args = re.split(r"[\n<(%]", str(record.msg), maxsplit=1)[0].strip(), ()
    elif isinstance(record.args, tuple):
        tamed.args = tuple(type_name(arg) if isinstance(arg, BaseException) else arg for arg in record.args)
    return tamed


def _as_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return encoded(event)


def _renderer(console: bool, *, colours: bool) -> Any:
    if console:
        return structlog.dev.ConsoleRenderer(colors=colours)
    return _as_json
