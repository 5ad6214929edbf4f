"""The limits page names every limit, with its settings, their defaults and the reply, as the code has them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apptrack_ingest.receive import policy
from apptrack_ingest.receive.pressure import Floors, Room, shortages
from apptrack_ingest.receive.rates import Limit
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Load

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "limits.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \| `([^`]+)` \| .+ \|$", PAGE, re.MULTILINE)


def defaults() -> Iterator[tuple[str, str]]:
    """Each setting of the page with the default the page gives it."""
    for _, settings, values, _ in ROWS:
        paths = re.findall(r"`([a-z_.0-9]+)`", settings)
        if paths and "listeners" not in paths[0]:
            yield from zip(paths, values.split(", "), strict=True)
    for setting, value in re.findall(r"`([a-z_]+\.[a-z_]+)` \((\d+)[ )]", PAGE):
        if setting == "untrusted.retention":
            yield setting, f"{value}d"
        elif setting == "smtp.commit_timeout":
            yield setting, f"{value}s"


def value_of(settings: Settings, path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_every_limit_has_its_row() -> None:
    assert sorted(name for name, *_ in ROWS) == sorted(Limit)


@pytest.mark.parametrize(("path", "written"), list(dict.fromkeys(defaults())))
def test_the_default_is_the_codes_default(path: str, written: str) -> None:
    section, name = path.split(".")
    assert value_of(Settings.model_validate({section: {name: written}}), path) == value_of(Settings(), path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_reply_is_one_of_ours(row: tuple[str, str, str, str]) -> None:
    assert row[3] in {reply.render() for reply in policy.REPLIES.values()}


def test_the_codes_of_readyz_are_those_there_are() -> None:
    nothing_left = shortages(Floors(free_bytes=1, free_inodes=1, backlog=1), Room(0, 0), Load(1, 0, 0))
    assert re.findall(r"^\| `no-room-([a-z-]+)` \|", PAGE, re.MULTILINE) == [str(limit) for limit in nothing_left]


def test_what_counts_as_a_network_is_the_default() -> None:
    limits = Settings().limits
    assert re.search(r"the first (\d+) bits of an IPv4 address, the first (\d+) of", PAGE)
    assert f"the first {limits.network_bits_v4} bits of an IPv4 address, the first {limits.network_bits_v6} of" in PAGE
