"""Where the spool is: `sqlite`, or the URL of a PostgreSQL database, of which nobody may see the user's password."""

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr

SQLITE = "sqlite"
MASK = "********"

HOW_TO_WRITE = (
    "write postgresql://user:password@host:5432/database, with the characters :/?#[]@% of user and password"
    " percent-encoded"
)

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SESSIONS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Parameters of the URL as libpq names them (its manual, 34.1.2) and asyncpg takes them."""

_SHOWN = re.compile(
    rf"host=[\w.,/%-]*|sslmode=(?:{'|'.join(SSL_MODES)})|target_session_attrs=(?:{'|'.join(SESSIONS)})", re.ASCII
)
_PLACE = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?(?::\d+)?"
_PLACES = re.compile(rf"{_PLACE}(?:,{_PLACE})*(?:/[\w.-]*)?", re.ASCII)


def is_url(text: str) -> bool:
    """Whether it is meant to be a URL, of whatever it is."""
    return "://" in text


def problem_of(url: str) -> str | None:
    """What is wrong with a URL, repeating nothing of it (a password may stand anywhere in it); None: nothing is."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres"):
            return HOW_TO_WRITE
        for place in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{place}").port
        asked = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        return HOW_TO_WRITE
    return _problem_in(asked)


def _problem_in(asked: dict[str, str]) -> str | None:
    for name, values in (("sslmode", SSL_MODES), ("target_session_attrs", SESSIONS)):
        if name in asked and asked[name] not in values:
            return f"{name} in the URL must be one of {', '.join(values)}"
    for name in FILES:
        if name in asked and not os.access(asked[name], os.R_OK):
            return f"{name} in the URL names no file that can be read"
    if asked.get("sslmode", "").startswith("verify-") and not _has_root_certificate(asked):
        return "sslmode=verify-… needs the certificate authority's file: add sslrootcert=/path/ca.pem to the URL"
    return None


def _has_root_certificate(asked: dict[str, str]) -> bool:
    """Where asyncpg looks for it: the URL, the environment, the home directory."""
    if "sslrootcert" in asked or os.environ.get("PGSSLROOTCERT"):
        return True
    try:
        return (Path.home() / ".postgresql" / "root.crt").exists()
    except (RuntimeError, OSError):
        return False


def without_secrets(text: str) -> str:
    """As it may be shown to anybody: no user, no password, of the parameters only those that say where; masked where it is
    not certain what is what."""
    if text == SQLITE:
        return text
    scheme, colon, rest = text.partition("://")
    if not colon or not re.fullmatch("[a-z]{1,12}", scheme):
        return MASK
    place, _, query = rest.rpartition("@")[2].partition("?")
    if not _PLACES.fullmatch(place):
        return f"{scheme}://{MASK}"
    hidden = f"{MASK}@" if "@" in rest else ""
    return f"{scheme}://{hidden}{place}{_shown_query(query)}"


def _shown_query(query: str) -> str:
    shown = [pair for pair in query.split("&") if _SHOWN.fullmatch(pair)]
    return f"?{'&'.join(shown)}" if shown else ""


class SpoolPlace(SecretStr):
    """`sqlite` or a URL; shown without user and password, whoever prints it."""

    def _display(self) -> str:
        return without_secrets(self._secret_value)

    @property
    def shown(self) -> str:
        """As it may be shown to anybody."""
        return self._display()


def checked(place: SpoolPlace) -> SpoolPlace:
    """The place, if it can be one; ValueError in words that repeat nothing of it."""
    text = place.get_secret_value()
    if text == SQLITE:
        return place
    if not is_url(text):
        raise ValueError('write "sqlite" (the file spool.sqlite3 in data_dir) or postgresql://…')
    problem = problem_of(text)
    if problem is not None:
        raise ValueError(problem)
    return place


Place = Annotated[SpoolPlace, AfterValidator(checked)]
