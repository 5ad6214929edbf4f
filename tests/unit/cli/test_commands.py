"""Every command explains itself, in its --help and in docs/cli.md."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from apptrack_ingest.cli import WHERE, main

DOC = Path(__file__).parents[3] / "docs" / "cli.md"
COMMANDS = {name: command for name in WHERE if (command := main.get_command(click.Context(main), name)) is not None}


def sections() -> dict[str, str]:
    """The part of docs/cli.md on each command, by the command's name."""
    parts = re.split(r"^### `([a-z-]+)[^`\n]*`.*$", DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: part.split("\n## ")[0] for name, part in zip(parts[1::2], parts[2::2], strict=True)}


def with_subcommands(name: str) -> list[click.Command]:
    """The command, and those below it where it is a group (`address new`, `idibu cc show`)."""
    found: list[click.Command] = [COMMANDS[name]]
    for command in found:
        found += command.commands.values() if isinstance(command, click.Group) else []
    return found


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    for command in with_subcommands(name):
        assert command.help
        assert not [p.name for p in command.params if isinstance(p, click.Option) and not p.help]


def test_the_documented_commands_are_those_there_are() -> None:
    assert set(sections()) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_documented(name: str) -> None:
    options = {
        option
        for command in with_subcommands(name)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
        if option.startswith("--")
    } - {"--config"}
    documented = set(re.findall(r"--[a-z][a-z-]*", sections()[name]))
    assert options <= documented, f"undocumented: {options - documented}"
    assert documented - {"--config", "--help"} <= options, f"no such options: {documented - options}"


def test_every_command_but_the_standalone_ones_takes_a_configuration() -> None:
    without = {n for n, c in COMMANDS.items() if not any("--config" in p.opts for p in c.params)}
    assert without == {"sandbox", "demo", "address", "idibu", "spool", "user"}  # the last four are groups
