"""What a log line shows, what it never shows, and that no peer can forge one."""

import asyncio
import contextlib
import io
import json
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest import logs
from apptrack_ingest.log_values import as_json, encoded, safe_value
from apptrack_ingest.settings import Log

SECRET = "s3cr3t-H4sh"
PERSON = "Jane Doe <jane@example.org>"


class Captured:
    """What was written to the log."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


@contextlib.contextmanager
def configured(format: str = "json", level: str = "info") -> Iterator[Captured]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    captured = Captured()
    logs.configure(Log.model_validate({"format": format, "level": level}), "tested", captured.stream)
    try:
        yield captured
    finally:
        root.handlers[:], root.level, logging.raiseExceptions = before
        logging.captureWarnings(False)


@pytest.fixture
def log() -> Iterator[Captured]:
    with configured() as captured:
        yield captured


# --- the lines ---------------------------------------------------------------------------------------------------------


def test_a_finished_hand_off_is_one_line_of_ids(log: Captured) -> None:
    logs.hand_off_finished(
        application_id=7,
        account="acme",
        applicant_id=33139609,
        handler="folder",
        attempt=2,
        result="delivered",
        code="accepted",
        seconds=0.123456,
    )
    line = log.line
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "role": "tested",
        "event": "hand-off finished",
        "level": "info",
        "logger": "apptrack_ingest.hand-off",
        "application": 7,
        "account": "acme",
        "applicant": 33139609,
        "handler": "folder",
        "attempt": 2,
        "result": "delivered",
        "code": "accepted",
        "seconds": 0.1235,
    }


def test_a_finished_report_is_one_line_of_ids(log: Captured) -> None:
    logs.report_finished(
        report_id=3,
        application_id=7,
        account="acme",
        applicant_id=9,
        attempt=1,
        result="refused",
        code="refused",
        seconds=1.0,
    )
    assert (log.line["report"], log.line["application"], log.line["level"]) == (3, 7, "warning")


def test_a_received_mail_is_one_line_of_ids(log: Captured) -> None:
    logs.received(message_id=5, accounts=["acme", None], applicant_ids=[9, None], trusted=True, size=1234, seconds=0.01)
    assert (log.line["accounts"], log.line["applicants"], log.line["bytes"]) == (["acme", ""], [9, None], 1234)


@pytest.mark.parametrize("words", [PERSON, "the ATS said: no such job", "x" * 81, "", "two\nlines"])
def test_words_given_as_a_code_are_not_logged(log: Captured, words: str) -> None:
    logs.hand_off_finished(
        application_id=1,
        account=None,
        applicant_id=None,
        handler="",
        attempt=1,
        result="held",
        code=words,
        seconds=0,
    )
    assert log.line["code"] == "other"


def test_the_level_of_the_settings_decides() -> None:
    with configured(level="warning") as log:
        logs.get("part").info("not shown")
        logs.get("part").warning("shown")
    assert log.line["event"] == "shown"


def test_a_second_configure_replaces_the_first() -> None:
    with configured() as first, configured() as second:
        logs.get("part").info("once")
    assert (first.text, second.line["event"]) == ("", "once")


def test_the_console_is_for_people(log: Captured) -> None:
    with configured("console") as console:
        logs.get("part").info("drained", applications=3)
    assert "drained" in console.text
    assert "applications=3" in console.text
    assert not console.text.lstrip().startswith("{")


def test_auto_is_json_where_there_is_no_terminal() -> None:
    with configured("auto") as log:
        logs.get("part").info("hello")
    assert log.line["event"] == "hello"


# --- the lines that every mail has are written by a short way, where nobody could see the difference -----------------------

AT = 1_700_000_000_123_456_789


@contextlib.contextmanager
def alone(format: str = "json", level: str = "info") -> Iterator[Captured]:
    """Without pytest's own handlers, as in the service."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        with configured(format, level) as captured:
            yield captured
    finally:
        root.handlers = before


class Records(logging.Handler):
    """Somebody else's handler."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def tell_all(account: str | None = "acme", code: str = "accepted", seconds: float = 0.123456) -> None:
    logs.received(
        message_id=5, accounts=[account, None], applicant_ids=[9, None], trusted=True, size=1234, seconds=seconds
    )
    for result in ("delivered", "held"):
        logs.hand_off_finished(
            application_id=7,
            account=account,
            applicant_id=None,
            handler=account or "",
            attempt=2,
            result=result,
            code=code,
            seconds=seconds,
        )
    logs.report_finished(
        report_id=3,
        application_id=7,
        account=account or "",
        applicant_id=33139609,
        attempt=1,
        result="confirmed",
        code=code,
        seconds=seconds,
    )


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The loggers whose records went it."""
    gone: list[str] = []
    handle = logging.Logger.handle

    def handled(self: logging.Logger, record: logging.LogRecord) -> None:
        gone.append(self.name)
        handle(self, record)

    monkeypatch.setattr(logging.Logger, "handle", handled)
    return gone


@pytest.mark.parametrize("account", ["acme", None, 'f\u00fcr ?hash=s3cr3t \n\u202e\udc80"', "x" * 2000])
@pytest.mark.parametrize("seconds", [0.123456, 0, 1e-9, 1e22, float("nan"), float("inf")])
def test_both_ways_write_the_same(
    account: str | None, seconds: float, long_way: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: AT)
    with alone() as short:
        tell_all(account, "a\nb", seconds)
    assert not long_way
    with alone() as long:
        logging.getLogger().addHandler(Records())
        tell_all(account, "a\nb", seconds)
    assert len(long_way) == 4
    assert short.text == long.text
    assert len(short.lines) == 4


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_a_value_is_the_same_json_both_ways(value: Any) -> None:
    assert as_json(value) == encoded(safe_value(value))


@pytest.mark.parametrize("where", ["", "apptrack_ingest", "apptrack_ingest.report"])
def test_handlers_of_others_get_the_records(where: str) -> None:
    others = Records()
    with alone() as log:
        logging.getLogger(where).addHandler(others)
        try:
            tell_all()
        finally:
            logging.getLogger(where).removeHandler(others)
    assert len(log.lines) == 4
    assert "report finished" in [dict(record.msg)["event"] for record in others.records]  # type: ignore[call-overload]


@pytest.mark.parametrize("of_handler", [True, False])
def test_filters_of_others_are_asked(of_handler: bool) -> None:
    logger = logging.getLogger("apptrack_ingest.report")
    with alone() as log:
        filtering: logging.Filterer = logging.getLogger().handlers[0] if of_handler else logger
        filtering.addFilter(none := lambda record: record.name != logger.name)
        try:
            tell_all()
        finally:
            filtering.removeFilter(none)
    assert [line["event"] for line in log.lines] == ["received", "hand-off finished", "hand-off finished"]


def test_a_logger_that_is_cut_off_or_raised_is_silent() -> None:
    logger = logging.getLogger("apptrack_ingest.report")
    with alone(level="warning") as log:
        tell_all()
        logger.propagate = False
        try:
            logs.report_finished(
                report_id=3,
                application_id=7,
                account="acme",
                applicant_id=9,
                attempt=1,
                result="refused",
                code="refused",
                seconds=1,
            )
        finally:
            logger.propagate = True
    assert (log.line["result"], log.line["level"]) == ("held", "warning")


def test_the_console_shows_them_as_it_does_others() -> None:
    with alone("console") as console:
        tell_all()
    assert len(console.text.splitlines()) == 4
    assert "applicants=[9, None]" in console.text


def test_a_line_that_cannot_be_written_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with alone() as log:
        log.stream.close()
        tell_all(PERSON)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("at", [0, 1, AT, 1_700_000_000_000_000_999, 1_700_000_001_999_999_999])
def test_times_are_written_in_iso_8601(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: at)
    moment = datetime.fromtimestamp(at // 10**9, UTC) + timedelta(microseconds=at // 1000 % 10**6)
    with alone() as log:
        tell_all()
    assert log.lines[0]["timestamp"] == moment.isoformat().replace("+00:00", "Z")


# --- nothing can be forged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_peer_cannot_forge_a_line(format: str) -> None:
    with configured(format) as log:
        logs.get("part").info("greeted", helo='x\r\n{"event": "forged"}\x1b[2J\u2028\u202ey\udc80', raw=b"\n\x00")
        logging.getLogger("library").warning("peer said %s", "a\nforged b")
    assert len(log.text.splitlines()) == 2
    plain = log.text.replace("\x1b[0m", "").replace("\n", "")
    assert not any(hostile in plain for hostile in ("\x1b[2J", "\u2028", "\u202e", "\x00", "\udc80", "\r"))


@given(st.text(), st.text())
def test_escaped_text_is_printable_and_of_one_line(start: str, end: str) -> None:
    assert logs.escape(start + "\n" + end).isprintable()


def test_a_huge_value_is_cut(log: Captured) -> None:
    logs.get("part").info("greeted", helo="a." * 5_000_000)
    assert len(log.text) < 2000


def test_nested_values_and_keys_are_made_safe_too(log: Captured) -> None:
    logs.get("part").info("settings", values={"a\nb": [f"?hash={SECRET}"], "password": SECRET})
    assert log.line["values"] == {"a\\nb": ["?hash=********"], "password": "********"}


# --- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"https://ws.idibu.com/ws/rest/v1/applicant-status/1?hash={SECRET}",
        f"GET /applicant-status?id=1&HASH={SECRET}&count=3 HTTP/1.1",
        f"https%3A%2F%2Fws.idibu.com%2F%3Fhash%3D{SECRET}",
        f"<partner-password>{SECRET}</partner-password>",
        f"{{'hash': '{SECRET}'}}",
        f'{{"token": "{SECRET}"}}',
        f"https://ws.idibu.com/clients/api/REMOTE/V3/{SECRET}",
        f"https://user:{SECRET}@example.org/",
        f"Authorization: Bearer {SECRET}",
        f"APPTRACK_ACCOUNTS__ACME__HASH={SECRET}",
    ],
)
def test_secrets_in_what_looks_like_a_url_are_masked(text: str) -> None:
    assert SECRET not in logs.redact(text)
    assert logs.redact(logs.redact(text)) == logs.redact(text)


def test_text_without_secrets_stays_as_it_is() -> None:
    text = "accounts without hash wait; a token of thanks, see https://example.org/a?b=c"
    assert logs.redact(text) == text


async def test_httpx_does_not_log_its_urls(log: Captured) -> None:
    logging.getLogger("httpx").info("HTTP Request: POST https://ws.idibu.com?hash=%s", SECRET)
    logging.getLogger("mail.log").info("Data: %s", PERSON)
    url = f"http://127.0.0.1:1/applicant-status/1?hash={SECRET}"
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(url)
    except httpx.ConnectError:
        logs.get("report").warning("not reached", exc_info=True)
    assert SECRET not in log.text
    assert log.line["error"] == "httpx.ConnectError"


# --- exceptions --------------------------------------------------------------------------------------------------------


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_shows_its_type_and_our_frames_but_not_its_text(log: Captured) -> None:
    try:
        logs.safe_code(PERSON.encode())  # type: ignore[arg-type]
    except TypeError:
        logs.get("parse").exception("not parsed", application=4)
    assert log.line["error"] == "TypeError"
    assert log.line["at"].startswith("apptrack_ingest/logs.py:")
    assert log.line["frames"][-1].endswith(" safe_code")
    assert "cannot use a string pattern" not in log.text
    assert PERSON not in log.text


def test_fields_of_an_exception_name_the_reason_and_what_caused_it() -> None:
    try:
        try:
            raise OSError(28, "No space left on device", "/data/Jane Doe.pdf")
        except OSError as error:
            raise ValueError(PERSON) from error
    except ValueError as error:
        fields = logs.exception_fields(error)
    assert fields["error"] == "ValueError"
    assert fields["caused_by"].startswith("OSError ENOSPC ")
    assert "Jane" not in str(fields)


def test_a_suppressed_cause_is_not_named() -> None:
    try:
        try:
            raise OSError(28, "")
        except OSError:
            raise ValueError from None
    except ValueError as error:
        assert "caused_by" not in logs.exception_fields(error)


def test_sqlite_and_groups_are_named() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE t (a UNIQUE)")
        with pytest.raises(sqlite3.Error) as caught:
            database.execute("INSERT INTO t VALUES (1), (1)")
    assert logs.exception_fields(caught.value)["reason"] == "SQLITE_CONSTRAINT_UNIQUE"
    group = raised(ExceptionGroup(PERSON, [ValueError(PERSON)]))
    fields = logs.exception_fields(group)
    assert (fields["error"], fields["caused_by"]) == ("ExceptionGroup", "ValueError")


async def test_asyncio_does_not_print_a_task_and_its_exception(log: Captured) -> None:
    loop = asyncio.get_running_loop()

    async def fails() -> None:
        raise ValueError(PERSON)

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    loop.call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "future": task}
    )
    assert log.line["event"] == "Task exception was never retrieved"
    assert log.line["error"] == "ValueError"
    assert PERSON not in log.text


def test_libraries_that_log_an_exception_show_its_type(log: Captured) -> None:
    logging.getLogger().error(ValueError(PERSON))
    logging.getLogger("handler").error("failed: %s", ValueError(PERSON))
    assert [line["event"] for line in log.lines] == ["ValueError", "failed: ValueError"]


def test_a_log_that_cannot_be_written_stops_nothing_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with configured() as log:
        log.stream.close()
        logs.get("part").info("lost", name=PERSON)
    assert PERSON not in "".join(capsys.readouterr())


UNCAUGHT = f"""
import sys, threading
from apptrack_ingest import logs
from apptrack_ingest.settings import Log
logs.configure(Log(format="json"), "tested")
logs.log_uncaught()

def fails():
    raise ValueError({PERSON!r})

thread = threading.Thread(target=fails)
thread.start()
thread.join()
fails()
"""


def test_what_nobody_caught_is_logged_without_its_text() -> None:
    ended = subprocess.run([sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert [(line["event"], line["error"]) for line in lines] == [
        ("uncaught exception in a thread", "ValueError"),
        ("uncaught exception", "ValueError"),
    ]
    assert PERSON not in ended.stderr


def test_many_threads_write_whole_lines(log: Captured) -> None:
    def write() -> None:
        for number in range(50):
            logs.get("part").info("line", number=number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.lines) == 200
