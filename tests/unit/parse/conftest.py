"""Sample mails for the parser's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

MAILS = Path(__file__).parents[2] / "mails"


@pytest.fixture
def sample() -> Callable[[str], bytes]:
    """Reads one of tests/mails by name."""
    return lambda name: (MAILS / f"{name}.eml").read_bytes()
