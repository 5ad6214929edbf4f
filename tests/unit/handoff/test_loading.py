"""Handlers are found by entry point or by module:Name, and whoever misspells one is told what would be right."""

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from apptrack_handlers.folder import Folder

from apptrack_ingest.errors import HandlerError
from apptrack_ingest.handoff import loading
from apptrack_ingest.handoff.loading import GROUP, known_names, load

MODULE = """
class Mine:
    async def handle(self, application): ...
class Nested:
    class Inner:
        def handle(self, application): ...
class Static:
    @staticmethod
    def handle(application): ...
class NoHandle: ...
class TakesTwo:
    def handle(self, application, more): ...
def function(application): ...
def no_parameters(): ...
number = 5
"""

Write = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Write:
    """Writes an importable module with a name of its own and returns that name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str) -> str:
        name = f"mod_{abs(hash(request.node.nodeid))}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def test_ours_are_entry_points() -> None:
    assert set(known_names()) >= {"folder", "webhook", "command", "demo"}
    assert load("folder") is Folder


@pytest.mark.parametrize("name", ["Mine", "Nested.Inner", "Static", "function"])
def test_own_handlers_by_module_and_name(module: Write, name: str) -> None:
    assert load(f"{module(MODULE)}:{name}").__name__ == name.rpartition(".")[2]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("foldr", "did you mean folder?"),
        ("nothing-like-it", "known: command, demo, folder, webhook"),
        ("no_such_package.handlers:Mine", "there is no module no_such_package"),
        ("apptrack_handlers.foldr:Folder", "there is no module apptrack_handlers.foldr"),
        ("apptrack_handlers.folder:Foldr", "has no Foldr; did you mean Folder?"),
        ("apptrack_handlers.folder:", "package.module:Name"),
        ("../folder:Folder", "package.module:Name"),
        (":Folder", "package.module:Name"),
    ],
)
def test_what_is_not_there(name: str, says: str) -> None:
    with pytest.raises(HandlerError) as caught:
        load(name)
    assert repr(name) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NoHandle", "no handler"),
        ("number", "no handler"),
        ("TakesTwo", "exactly one application"),
        ("no_parameters", "exactly one application"),
    ],
)
def test_what_is_no_handler(module: Write, name: str, says: str) -> None:
    with pytest.raises(HandlerError, match=says):
        load(f"{module(MODULE)}:{name}")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import a_library_nobody_has\n", "needs the module a_library_nobody_has"),
        ("1 / 0\n", r"ZeroDivisionError: division by zero \(mod_\d+\.py:1\)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("def broken(:\n", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported(module: Write, source: str, says: str) -> None:
    with pytest.raises(HandlerError, match=says):
        load(f"{module(source)}:Mine")


def test_a_name_claimed_twice_is_not_decided_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = [EntryPoint("x", value, GROUP) for value in ("a.b:C", "d.e:F", "a.b:C")]
    monkeypatch.setattr(loading, "entry_points", lambda group: claims)
    with pytest.raises(HandlerError, match=r"one of a\.b:C, d\.e:F"):
        load("x")
