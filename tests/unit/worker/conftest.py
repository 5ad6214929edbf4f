"""A worker for two accounts, with a clock that is moved, a real spool and the sandbox."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from worlds import World

from apptrack_ingest.idibu.sandbox import Sandbox, running


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(Sandbox({"hash-a": "acme", "hash-b": "beta"}, None)) as sandbox:
        made = World(tmp_path, sandbox)
        yield made
        await made.close()
