"""Handing an application off: find a handler by name, build it, run it once and say what came of it."""

from apptrack_ingest.handoff.configure import build, describe
from apptrack_ingest.handoff.loading import GROUP, known_names, load
from apptrack_ingest.handoff.running import Again, Done, Outcome, close, run, try_once

__all__ = [
    "GROUP",
    "Again",
    "Done",
    "Outcome",
    "build",
    "close",
    "describe",
    "known_names",
    "load",
    "run",
    "try_once",
]
