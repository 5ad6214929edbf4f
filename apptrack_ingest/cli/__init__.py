"""The commands, thin: parse the words, call the parts, print what they say."""

import importlib

import click

from apptrack_ingest.cli.common import version

WHERE = {
    "serve": "serving",
    "sandbox": "sandboxing",
    "demo": "demonstrating",
    "check-config": "config",
    "migrate": "config",
    "send": "sending",
    "list": "listing",
    "show": "show",
    "retry": "operate",
    "discard": "operate",
    "hold": "operate",
    "release": "operate",
    "route": "operate",
    "pause": "pausing",
    "resume": "pausing",
    "pauses": "pausing",
    "forget": "forgetting",
    "history": "history",
    "reparse": "mails",
    "export": "mails",
    "try": "trying",
    "explain": "explaining",
    "address": "making",
    "user": "making",
    "spool": "spool",
    "doctor": "doctor",
    "reconcile": "reconciling",
    "connect": "connecting",
    "disconnect": "connecting",
    "idibu": "idibu",
}
"""The module of each command. It is loaded with its command: `serve` starts three processes, and a script may call
`list` often; neither waits for what the others need."""


class Commands(click.Group):
    """A group that loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help page."""
        return sorted(WHERE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in WHERE:
            return None
        module = importlib.import_module(f"apptrack_ingest.cli.{WHERE[cmd_name]}")
        commands: tuple[click.Command, ...] = module.COMMANDS
        return next(command for command in commands if command.name == cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version(), prog_name="apptrack-ingest")
def main() -> None:
    """Receives the applications that idibu AppTrack forwards by e-mail, hands them to your ATS, reports back to idibu.

    Commands with settings take --config FILE (or APPTRACK_CONFIG); without a file the defaults hold. Exit codes: 0 done,
    1 failed, 2 wrong words on the command line, 3 no such thing, 4 not allowed in its present state, 69 the spool cannot
    be used, 78 the configuration is wrong.
    """
