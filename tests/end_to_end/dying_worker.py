"""Runs `apptrack-ingest` as it is, but kills its own process (SIGKILL) around one commit of the spool, at the n-th time.

Usage: dying_worker.py before|after METHOD N [words of the command line]. What happened before that commit is as real as
in any crash; nothing is told to the process's other parts.
"""

import os
import signal
import sys

from apptrack_ingest.spool.sqlite import SqliteSpool


def arm(when: str, method: str, number: int) -> None:
    original = getattr(SqliteSpool, method)
    calls = 0

    async def deadly(self, *args, **kwargs):
        nonlocal calls
        result = None
        if when == "after":
            result = await original(self, *args, **kwargs)
        counts = method not in ("claim", "claim_reports") or when == "before" or bool(result)
        calls += counts
        if counts and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if when == "after" else await original(self, *args, **kwargs)

    setattr(SqliteSpool, method, deadly)


if __name__ == "__main__":
    when, method, number, *words = sys.argv[1:]
    arm(when, method, int(number))
    sys.argv = ["apptrack-ingest", *words]
    from apptrack_ingest.cli import main

    main()
