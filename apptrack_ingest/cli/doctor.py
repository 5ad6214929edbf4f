"""`doctor`: whether everything an installation needs is there, a line each, with what to do where it is not."""

import contextlib
import os
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

import click
from rich.text import Text

from apptrack_ingest.cli.common import FAILED, config_option, errors_as_exit_codes, json_option, out, run
from apptrack_ingest.cli.showing import print_json, safe
from apptrack_ingest.doctor import Finding, Level, Wanted, examine

LEAVING = 0.2
"""Seconds that a thread which is about to end may still take."""

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command()
@config_option
@click.option("--account", metavar="NAME", help="Look at this account alone, beside what all have in common.")
@click.option("--offline", is_flag=True, help="Leave out DNS, idibu, and the handlers' own checks.")
@json_option
@errors_as_exit_codes
def doctor(config: Path | None, account: str | None, offline: bool, as_json: bool) -> None:
    """Look whether everything is in order, before mail comes and whenever something is odd.

    Settings, data directory, spool, clocks, addresses, certificate, DNS, idibu, handlers: a line each, ok, warn or fail, and
    what to do. Nothing is changed, and no mail or report is sent. Exit code 1 when something fails; a warning is none.
    """
    before = threading.enumerate()
    # What a handler prints while it is built or asked must not stand in the JSON.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        findings = run(_looked(Wanted(config, account, offline), as_json))
    if as_json:
        print_json(findings)
    _end(FAILED if any(finding.level is Level.FAIL for finding in findings) else 0, before)


def _end(code: int, before: Collection[threading.Thread]) -> NoReturn:
    """Ends with this exit code, even where a handler's check left a thread behind that hangs: Python would wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(LEAVING)
    if any(thread.is_alive() for thread in left):
        os._exit(code)
    sys.exit(code)


async def _looked(wanted: Wanted, as_json: bool) -> list[Finding]:
    """All findings; each is printed as it comes."""
    findings = []
    async for finding in examine(wanted):
        findings.append(finding)
        if not as_json:
            _say(finding)
    return findings


def _say(finding: Finding) -> None:
    """One line, and what to do in the next where there is something."""
    line = Text.assemble((f"{finding.level.value:<4}", STYLES[finding.level]), "  ", safe(finding.check), ": ")
    line.append(safe(finding.found))
    out.print(line)
    if finding.advice and finding.level is not Level.OK:
        out.print(Text(f"      -> {safe(finding.advice)}"))


COMMANDS = (doctor,)
