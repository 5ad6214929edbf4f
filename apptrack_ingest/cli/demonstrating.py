"""`demo`: the whole product on this machine in a minute."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import click

from apptrack_ingest.cli.common import errors_as_exit_codes, out
from apptrack_ingest.demo import Demo


@click.command()
@click.option("--once", is_flag=True, help="End with a summary; exit code 0 when all ten ended as they should.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep it all; by default a new directory under demo-data/.",
)
@errors_as_exit_codes
def demo(once: bool, directory: Path | None) -> None:
    """Start listener, worker and idibu's sandbox, send ten sample applications, show them arriving."""
    chosen = directory or Path("demo-data") / time.strftime("%Y%m%d-%H%M%S")
    shown = Demo(chosen.resolve(), lambda line: out.print(line, soft_wrap=True))
    sys.exit(0 if asyncio.run(_until_interrupted(shown, once)) else 1)


async def _until_interrupted(shown: Demo, once: bool) -> bool:
    task = asyncio.ensure_future(shown.run(once=once))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        out.print("stopped")
        return not once


COMMANDS = (demo,)
