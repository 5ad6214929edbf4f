"""`serve`: the service itself, and each of its processes."""

import asyncio
import os
import signal
import time
from pathlib import Path

import click

from apptrack_ingest import logs
from apptrack_ingest.cli.common import config_option, errors_as_exit_codes, run
from apptrack_ingest.service import activated, build, lock
from apptrack_ingest.service.activated import Activated
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.settings import Settings

ROLES = ("intake", "worker")


@click.command()
@config_option
@click.option("--only", type=click.Choice(ROLES), help="Run this role alone.")
@click.option("--supervised-by", type=int, hidden=True, help="The descriptor on which the supervisor listens.")
@click.option("--part", default="1/1", hidden=True, help="Which of how many processes of the role it is: 2/3.")
@click.option("--sockets", default="", hidden=True, help="The sockets from systemd that the supervisor passes on.")
@click.option("--neighbours", default="", hidden=True, help="What intakes pass connections on by.")
@errors_as_exit_codes
def serve(
    config: Path | None, only: str | None, supervised_by: int | None, part: str, sockets: str, neighbours: str
) -> None:
    """Receive mail, hand candidates to the ATS, report to idibu; until SIGTERM or Ctrl-C.

    Starts and supervises the intake and the worker, processes of their own, or several of each (intake_processes,
    worker_processes). SIGHUP takes up added and changed accounts.
    """
    os.umask(0o077)
    # Until the handler stands: a reload asked for during the start must not end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    found = build.checked(config)
    number, _, of = part.partition("/")
    logs.configure(found.log, _called(only, number, of))
    logs.log_uncaught()
    handed = activated.from_words(sockets) if sockets else activated.from_systemd()
    own = supervised_by is None
    if only is None or (own and _several(found, only)):
        # Not on uvloop: nothing is in a hurry there, and asyncio watches each child by a descriptor of its own.
        asyncio.run(_supervise(config, found, handed, only))
        return
    held = lock.take(found.data_dir, only) if own else None
    link = ChildLink(supervised_by)
    if only == "intake":
        run(_take_in(config, found, link, own, handed, (int(number), int(of)), neighbours))
    else:
        run(_work(config, found, link, own, part))
    if held is not None:
        os.close(held)


# Each process loads its own role alone: it starts sooner, and takes less memory.


async def _supervise(config: Path | None, found: Settings, handed: Activated, only: str | None) -> None:
    from apptrack_ingest.service.supervisor import ROLES as BOTH
    from apptrack_ingest.service.supervisor import Supervisor

    await Supervisor(config, found, handed, BOTH if only is None else (only,)).run()


async def _take_in(
    config: Path | None,
    found: Settings,
    link: ChildLink,
    own_web: bool,
    handed: Activated,
    part: tuple[int, int],
    neighbours: str,
) -> None:
    from apptrack_ingest.service import neighbourhood
    from apptrack_ingest.service.intake_role import run_intake
    from apptrack_ingest.service.scheduling import keep_to_share, without_haste

    number, of = part
    keep_to_share(number, of)
    without_haste()
    others = neighbourhood.from_words(neighbours, time.monotonic)
    await run_intake(config, found, link, own_web=own_web, sockets=handed, of=of, neighbours=others)


async def _work(config: Path | None, found: Settings, link: ChildLink, own_web: bool, part: str) -> None:
    from apptrack_ingest.service.part import Part
    from apptrack_ingest.service.scheduling import without_haste
    from apptrack_ingest.service.worker_role import run_worker

    without_haste()
    await run_worker(config, found, link, own_web=own_web, part=Part.read(part))


def _several(found: Settings, role: str) -> bool:
    """Whether a role is several processes, which need somebody who watches over them."""
    return {"intake": found.intake_processes, "worker": found.worker_processes}[role] > 1


def _called(only: str | None, number: str, of: str) -> str:
    """What the process is called in its log."""
    if only is None:
        return "serve"
    return only if of == "1" else f"{only}-{number}"


COMMANDS = (serve,)
