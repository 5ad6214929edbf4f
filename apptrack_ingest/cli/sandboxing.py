"""`sandbox`: idibu, played on this machine."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from apptrack_ingest.cli.common import err, errors_as_exit_codes, out
from apptrack_ingest.idibu import sandbox as idibu_sandbox


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8425, show_default=True, type=click.IntRange(0, 65535), help="The port; 0: a free one.")
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="Keeps what it was told; made when missing."
)
@click.option("--hash", "hashes", multiple=True, metavar="HASH[=ACCOUNT]", help="A hash it accepts; several possible.")
@errors_as_exit_codes
def sandbox(host: str, port: int, file: Path | None, hashes: tuple[str, ...]) -> None:
    """Play idibu: all its web services spoken to here, over real HTTP, and a page that shows what it was told.

    Without --hash it accepts the hash `sandbox`; its partner has the id 1 and the password `sandbox`. Point
    `idibu.base_url` at it.
    """
    accepted = dict(_hash_and_account(text) for text in hashes) or {"sandbox": "sandbox"}

    def ready(url: str) -> None:
        out.print(f"idibu's sandbox listens on {url} (its page is there too); stop it with Ctrl-C", markup=False)

    try:
        asyncio.run(_until_terminated(idibu_sandbox.serve(host, port, file, accepted, ready)))
    except OSError as error:
        where = f"keep {error.filename}" if error.filename else f"listen on {host}:{port}"
        err.print(f"error: the sandbox cannot {where}: {error.strerror}; choose another --port or --file", markup=False)
        raise SystemExit(1) from None


def _hash_and_account(text: str) -> tuple[str, str]:
    value, _, account = text.partition("=")
    return value, account or "default"


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """Runs until done, SIGTERM or SIGINT."""
    task = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


COMMANDS = (sandbox,)
