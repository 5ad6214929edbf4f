"""The commands of docs/idibu.md run as written, one after the other, with the files it shows."""

import re
import shlex
from pathlib import Path

import pytest

from .conftest import Idibu

PAGE = (Path(__file__).parents[4] / "docs" / "idibu.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
FILES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_they_do_what_is_said(idibu: Idibu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in zip(("newby.toml", "job.toml"), FILES, strict=True):
        Path(name).write_text(content, encoding="utf-8")
    Path("newby.password").write_text("l0gin-pa55")
    shown = {}
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "apptrack-ingest"
        shown[line] = idibu.run(*words).output
    assert len(shown) == 21 and Path("newby.hash").stat().st_mode & 0o777 == 0o600
    assert [one.username for one in idibu.sandbox.accounts()] == ["acme", "globex", "newby"]
    assert idibu.cc == ("archive@acme.example",)
    assert idibu.sandbox.accounts()[1].credits == 15
    (job,) = idibu.sandbox.jobs()
    assert (job.client_reference, job.title) == ("VAC-1042", "Lead .Net Developer")
