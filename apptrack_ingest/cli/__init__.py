"""The commands, thin: parse the words, call the parts, print what they say."""

import click

from apptrack_ingest.cli import (
    config,
    demonstrating,
    explaining,
    listing,
    mails,
    making,
    operate,
    sending,
    serving,
    show,
    trying,
)
from apptrack_ingest.cli.common import version


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version(), prog_name="apptrack-ingest")
def main() -> None:
    """Receives the applications that idibu AppTrack forwards by e-mail, hands them to your ATS, reports back to idibu.

    Commands with settings take --config FILE (or APPTRACK_CONFIG); without a file the defaults hold. Exit codes: 0 done,
    1 failed, 2 wrong words on the command line, 3 no such thing, 4 not allowed in its present state, 69 the spool cannot
    be used, 78 the configuration is wrong.
    """


for command in (
    *serving.COMMANDS,
    *demonstrating.COMMANDS,
    *config.COMMANDS,
    *sending.COMMANDS,
    *listing.COMMANDS,
    *show.COMMANDS,
    *operate.COMMANDS,
    *mails.COMMANDS,
    *trying.COMMANDS,
    *explaining.COMMANDS,
    *making.COMMANDS,
):
    main.add_command(command)
