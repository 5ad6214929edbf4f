"""Commands are loaded when they are asked for: none is missing, and a light one does not load what it does not need."""

import importlib
import pkgutil
import subprocess
import sys

import click

from apptrack_ingest import cli


def test_every_command_of_every_module_has_its_place():
    found = {}
    for module in pkgutil.iter_modules(cli.__path__):
        if module.name.startswith("idibu_"):
            continue  # below the group `idibu`
        for command in getattr(importlib.import_module(f"apptrack_ingest.cli.{module.name}"), "COMMANDS", ()):
            found[command.name] = module.name
    assert found == cli.WHERE
    assert all(cli.main.get_command(click.Context(cli.main), name).name == name for name in cli.WHERE)


def test_a_word_that_is_no_command_is_none():
    assert cli.main.get_command(click.Context(cli.main), "sevre") is None


def loaded(words):
    """The modules that a command has loaded when it knows what it is to do."""
    code = (
        f"import sys\nfrom apptrack_ingest.cli import main\nmain({words!r}, standalone_mode=False)\nprint(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_looking_at_the_spool_loads_no_listener_no_parser_and_no_client():
    modules = loaded(["list", "--help"])
    assert not modules & {"aiosmtpd", "dns", "mailparser", "httpx", "lxml", "apptrack_ingest.parse.mime"}
