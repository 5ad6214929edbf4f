"""Rules for the whole suite: skips are loud, and with NO_SKIPS=1 (as .ci/run sets it) they fail the run."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator

import hypothesis
import pytest
import uvloop

_HTTPCORE = (f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks"))
_SHARED_LOGGERS = ("httpx", "httpcore", "mail.log", "asyncio", "pebble", *_HTTPCORE)


# An example that was interrupted for long is no slow example; what has to be quick is held to CPU time by its own test.
# In CI the same examples are tried each time, as what a change is held to must not be a matter of luck.
hypothesis.settings.register_profile("any machine", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """Clients and `logs.configure` quieten loggers of the whole process, as they must; no other test may depend on it."""
    loggers = [logging.getLogger(name) for name in _SHARED_LOGGERS]
    before = [(logger, logger.level, list(logger.filters), list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, filters, handlers in before:
        logger.setLevel(level)
        logger.filters[:], logger.handlers[:] = filters, handlers


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asynchronous tests run on the loop that intake and worker run on, but where a module says LOOP = "asyncio": its tests
    look inside the loop."""
    name = getattr(item.module, "LOOP", "uvloop")
    return {name: {"uvloop": uvloop, "asyncio": asyncio}[name].new_event_loop}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("NO_SKIPS") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        verdict = "which fails this run (NO_SKIPS)" if os.environ.get("NO_SKIPS") else "see the reasons above"
        terminalreporter.write_sep("!", f"{len(skipped)} tests were skipped, {verdict}", red=True)
