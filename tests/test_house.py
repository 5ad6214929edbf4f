"""The house's own rules: who may import whom, one door for each library, short functions, a small public catalogue."""

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pytest

import apptrack_ingest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "apptrack_ingest"
HANDLERS = ROOT / "handlers" / "apptrack_handlers"
FILES = sorted([*PACKAGE.rglob("*.py"), *HANDLERS.rglob("*.py")])

DOORS = {
    "aiosmtpd": ("apptrack_ingest/receive/",),
    "sqlite3": ("apptrack_ingest/spool/",),
    "asyncpg": ("apptrack_ingest/spool/",),
    "mailparser": ("apptrack_ingest/parse/",),
    "prometheus_client": ("apptrack_ingest/metrics.py", "apptrack_ingest/metric_files.py"),
    "httpx": ("apptrack_ingest/idibu/", "apptrack_ingest/report/digest.py", "handlers/apptrack_handlers/"),
}
"""One library, one door: the places that may import it."""

LONGEST_FILE = 400
LONGER_FOR_A_REASON = {
    "apptrack_ingest/testing.py": "what handler authors test with is imported from one module",
}

CATALOGUE = {
    "Accepted",
    "Application",
    "Candidate",
    "Document",
    "Duplicate",
    "Hint",
    "Job",
    "Owner",
    "Person",
    "Previous",
    "Rejected",
    "RetryLater",
    "Role",
    "Source",
    "Verdict",
    "to_payload",
}


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imports_of(file: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it; a relative import would hide its place and counts as one of '.'."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "" if node.level == 0 else "."


def functions_of(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name_of(file)}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_there_is_a_house_to_look_at() -> None:
    assert len(FILES) > 30


def test_imports_point_down() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if "importlinter" not in settings.get("tool", {}):
        pytest.skip("NOT TESTED: the layers (pyproject.toml has no [tool.importlinter])")
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if program is None or find_spec("importlinter") is None:
        pytest.skip("NOT TESTED: the layers (import-linter is not installed)")
    run = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    users = {name_of(file) for file in FILES if any(name.split(".")[0] == library for name in imports_of(file))}
    assert {user for user in users if not user.startswith(DOORS[library])} == set()


def test_the_package_knows_no_handler_and_nothing_relative() -> None:
    for file in PACKAGE.rglob("*.py"):
        names = set(imports_of(file))
        assert "." not in names, name_of(file)
        assert not {name for name in names if name.split(".")[0] == "apptrack_handlers"}, name_of(file)


def test_handlers_use_the_public_catalogue_alone() -> None:
    for file in HANDLERS.rglob("*.py"):
        ours = {name for name in imports_of(file) if name.split(".")[0] == "apptrack_ingest"}
        assert ours <= {"apptrack_ingest"}, name_of(file)
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ImportFrom) and node.module == "apptrack_ingest":
                assert {alias.name for alias in node.names} <= CATALOGUE, name_of(file)


def test_the_public_catalogue_is_what_handler_authors_were_promised() -> None:
    assert set(apptrack_ingest.__all__) == CATALOGUE
    assert sorted(apptrack_ingest.__all__) == list(apptrack_ingest.__all__)
    assert all(hasattr(apptrack_ingest, name) for name in CATALOGUE)


def test_functions_are_short() -> None:
    lengths = dict(function for file in FILES for function in functions_of(file))
    assert {name: length for name, length in lengths.items() if length > 50} == {}
    assert median(lengths.values()) < 10


def test_files_are_short_or_have_a_reason() -> None:
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    long = {name for name, length in lengths.items() if length > LONGEST_FILE}
    assert long == set(LONGER_FOR_A_REASON)


def test_every_file_opens_with_its_reason_to_exist() -> None:
    silent = {name_of(file) for file in FILES if tree_of(file).body and not ast.get_docstring(tree_of(file))}
    assert silent == set()
