"""The operators' pages: what they link to exists, and the commands they name are commands."""

import re
from pathlib import Path

import click
import pytest

from apptrack_ingest.cli import WHERE, main

ROOT = Path(__file__).resolve().parents[3]
NAMES = (
    "deployment",
    "reaching-us",
    "trust",
    "limits",
    "backup",
    "configuration",
    "lifecycle",
    "cli",
    "idibu",
    "runbook",
    "reconcile",
)
PAGES = [ROOT / "docs" / f"{name}.md" for name in NAMES]
DEPLOYED = ("compose.yaml", "compose.toml", "apptrack-ingest.toml")
CONTEXT = click.Context(main)
TEXTS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "README.md", *(ROOT / "deploy" / name for name in DEPLOYED)]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_it_names_only_commands_and_options_that_exist(page: Path) -> None:
    quoted = re.findall(r"`(?:apptrack-)?ingest ([a-z][a-z-]+)", page.read_text(encoding="utf-8"))
    assert set(quoted) <= set(WHERE)
    named = re.findall(r"(?:\bingest|`…) ([a-z][a-z-]+)((?: (?:--?)?[\w…-]+)*)", page.read_text(encoding="utf-8"))
    for command, rest in named:
        if command not in WHERE:
            continue  # prose, such as "apptrack-ingest is"
        found, words = main.get_command(CONTEXT, command), rest.split()
        while isinstance(found, click.Group):
            found = found.commands[words.pop(0)]
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known | {"--help"}, command + rest


def test_the_runbooks_table_is_of_commands_that_exist() -> None:
    table = re.findall(
        r"^\| `ingest ([a-z-]+)", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(table) >= 10
    assert set(table) <= set(WHERE)


def test_every_file_of_deploy_is_spoken_of() -> None:
    spoken = "".join(text.read_text(encoding="utf-8") for text in TEXTS)
    for file in (ROOT / "deploy").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts and file != ROOT / "deploy" / "alerts_test.yml":
            assert file.name in spoken, file
