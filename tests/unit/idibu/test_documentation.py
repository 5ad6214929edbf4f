"""The examples of docs/idibu.md run as written, against the sandbox; what the package shows is what it names."""

import ast
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest

import apptrack_ingest.idibu as package
from apptrack_ingest.idibu.sandbox import Sandbox

HASH = "0123456789abcdef-s3cr3t/+ü"
PAGE = (Path(__file__).parents[3] / "docs" / "idibu.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


async def run(source: str, names: dict[str, Any]) -> None:
    code = compile(source, "docs/idibu.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await types.FunctionType(code, names)()


async def test_the_examples_run(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as a reader goes through the page: later ones use what earlier ones imported."""
    monkeypatch.setenv("IDIBU_HASH", HASH)
    monkeypatch.setenv("IDIBU_PARTNER_PASSWORD", "p4rtner <w0rd> & /+ü")
    names: dict[str, Any] = {}
    for example in [*EXAMPLES, EXAMPLES[-1]]:
        assert '"https://ws.idibu.com"' in example
        await run(example.replace("https://ws.idibu.com", sandbox.base_url), names)
    assert len(EXAMPLES) == 4
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["success R-1", "33139609 2023-11-14 22:13:20"]
    assert printed[2:5] == ["True ('ats@example.com',)", "1001 acme ()", "1002 other ()"]
    assert printed[5:7] == [f"POST {sandbox.base_url}/ws/rest/v1/service/setccemail", "<idibu>"]
    assert "  <client-hash>********</client-hash>" in printed
    assert printed[-2:] == ["517 pending None", "517 pending None"]
    assert sandbox.accounts()[0].cc == ("ats@example.com",)
    assert [job.client_reference for job in sandbox.jobs()] == ["OUR-REF-1"]


def test_all_that_the_package_names_is_there() -> None:
    assert sorted(package.__all__) == list(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


def test_every_call_names_its_source() -> None:
    """idibu's method, or the seed it is from."""
    calls = {
        f"{kind.__name__}.{name}": inspect.getdoc(call) or ""
        for kind in (package.Client, package.client.Applicants, package.client.ServiceManagement, package.client.Jobs)
        for name, call in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(call) and name != "close"
    }
    assert len(calls) == 4 + 1 + 12 + 8
    silent = [name for name, text in calls.items() if not re.search(r"\(POST /|\(GET /|\([A-Z]+[);]|seed-", text)]
    assert silent == []
