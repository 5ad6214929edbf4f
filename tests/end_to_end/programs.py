"""Finds the programs that tests run as real peers; a test whose program is not installed is skipped, and says so."""

import os
import shutil

import pytest

PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


def program(name: str, package: str | None = None) -> str:
    """The path of a program; `package` is Debian's, where it is called otherwise."""
    found = shutil.which(name, path=PLACES)
    if found is None:
        pytest.skip(f"NOT TESTED: {name} is not installed (apt-get install {package or name})")
    return found
