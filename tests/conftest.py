"""Rules for the whole suite: skips are loud, and with NO_SKIPS=1 (as .ci/run sets it) they fail the run."""

import os

import pytest


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
