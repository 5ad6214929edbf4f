"""A worker for two accounts, whose ledger is held against the sandbox, all on one clock that is moved."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reconciled import Reconciled, opened


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Reconciled]:
    async with opened(tmp_path) as made:
        yield made
