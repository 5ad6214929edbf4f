"""The spool: whether it opens, whether this release can use it, and whether its server's clock is ours."""

import time
from collections.abc import Iterator

from apptrack_ingest.doctor.finding import Check, Finding, Level, apart
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.examining import Examined, examine_file, examine_server

NOTHING = 3.0
"""Seconds between two clocks that an answer on its way, and a time in whole seconds, explain."""

ADVICE = "docs/runbook.md has what to do when the spool cannot be used"


def checks(found: Settings) -> Iterator[Check]:
    """One look at the spool, which may tell of the clock, too."""
    yield Check("spool", lambda: _look(found), ADVICE)


async def _look(found: Settings) -> list[Finding]:
    url = found.spool_url
    asked = time.time()
    seen = await (examine_server(url) if url is not None else apart(lambda: examine_file(found.database)))
    findings = [stands(found.spool_shown, seen)]
    if seen.now is not None:
        apart_by = seen.now - (asked + time.time()) / 2
        findings.append(clock("clock of the database", apart_by, most=30.0))
    return findings


def stands(shown: str, seen: Examined) -> Finding:
    """How the spool stands for this release."""
    if seen.schema == 0:
        return Finding("spool", Level.OK, f"{shown}: there is none yet; `serve` makes it")
    if seen.unfinished:
        advice = "run the same `apptrack-ingest spool copy` again, to its end"
        return Finding("spool", Level.FAIL, f"{shown} is a copy that was not finished", advice)
    if seen.needs > seen.known:
        found = (
            f"{shown} has schema {seen.schema} and needs a release that knows {seen.needs}; this one knows {seen.known}"
        )
        return Finding("spool", Level.FAIL, found, "install the newer release again")
    if seen.schema < seen.known:
        advice = "make a backup first (docs/backup.md); `serve` or `migrate` brings it up to date"
        found = f"{shown} opens; it has schema {seen.schema}, this release brings it to {seen.known}"
        return Finding("spool", Level.WARN, found, advice)
    return Finding("spool", Level.OK, f"{shown} opens, schema {seen.schema}")


def clock(name: str, behind: float, most: float) -> Finding:
    """What another's clock says of ours, which is so many seconds behind it (negative: ahead); with `most` it goes wrong."""
    if abs(behind) <= NOTHING:
        return Finding(name, Level.OK, "agrees with ours")
    found = f"ours is {abs(behind):.0f} seconds {'behind' if behind > 0 else 'ahead of'} it"
    advice = "switch on NTP on both machines (timedatectl set-ntp true)"
    return Finding(name, Level.FAIL if abs(behind) > most else Level.WARN, found, advice)
