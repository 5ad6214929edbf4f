"""`idibu`: all that its web services can do, from the command line."""

import click

from apptrack_ingest.cli import idibu_accounts, idibu_applicants, idibu_cc, idibu_jobs, idibu_statuses


@click.group("idibu", short_help="idibu's web services.")
def idibu() -> None:
    """idibu's web services: applicants and their status, a partner's accounts, their services, credits and Global CC, jobs.

    `--dry-run` prints what would be sent, with secrets masked. What another command does not simply take back asks first,
    or takes --yes.
    """


for command in (
    *idibu_statuses.COMMANDS,
    *idibu_applicants.COMMANDS,
    *idibu_accounts.COMMANDS,
    *idibu_cc.COMMANDS,
    *idibu_jobs.COMMANDS,
):
    idibu.add_command(command)

COMMANDS = (idibu,)
"""Commands."""
