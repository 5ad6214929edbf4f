"""What a forwarder's ARC-Authentication-Results say of a mail as it came in (RFC 8601, section 2.2; RFC 8617, 4.1.1)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from apptrack_ingest.trust.names import domain_name

_DEEPEST_COMMENT = 5
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_METHOD = re.compile(r"([a-z0-9-]+)(?:/[0-9]+)?=([a-z]+)", re.IGNORECASE)
_PROPERTY = re.compile(r'([a-z]+\.[a-z0-9_-]+|reason)=("[^"]*"|[^\s"();,<>\\]+)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Results:
    """The domains whose DKIM signature passed, and the domain for which SPF passed, as the forwarder saw them."""

    dkim: frozenset[str] = frozenset()
    spf: str | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    method: str
    result: str
    properties: dict[str, str]


def read_results(value: bytes) -> Results | None:
    """Read the header's value, or None when anything in its structure is odd; never raises.

    Odd is also a quote or backslash in a comment: forwarders quote a stranger's address there, which could otherwise
    end the comment and add results of its own. An entry that is odd in itself does not count, the others do.
    """
    try:
        parts = list(_split(value.decode("utf-8")))
    except ValueError:
        return None
    entries = [entry for part in parts[2:] if (entry := _entry(part)) is not None]
    passed = [entry for entry in entries if entry.result == "pass"]
    policies = [part for part in parts[2:] if part.strip().lower().startswith("spf")]
    return Results(
        dkim=frozenset(domain for entry in passed if entry.method == "dkim" and (domain := _signer(entry))),
        spf=next((_sender(entry) for entry in passed if entry.method == "spf" and len(policies) == 1), None),
    )


def _split(text: str) -> Iterator[str]:
    """The parts between semicolons, comments replaced by a blank; raises ValueError when quotes or comments are odd."""
    part: list[str] = []
    depth, quoted = 0, False
    for character in text:
        if character == "\\" or (depth and character == '"'):
            raise ValueError(character)
        if character == '"':
            quoted = not quoted
        if not quoted and character in "()":
            depth = _deeper(depth, character)
            part.append(" ")
        elif not quoted and not depth and character == ";":
            yield "".join(part)
            part = []
        elif not depth:
            part.append(character)
    if depth or quoted:
        raise ValueError(text[-1:])
    yield "".join(part)


def _deeper(depth: int, parenthesis: str) -> int:
    depth += 1 if parenthesis == "(" else -1
    if not 0 <= depth <= _DEEPEST_COMMENT:
        raise ValueError(parenthesis)
    return depth


def _entry(part: str) -> _Entry | None:
    words = _WORD.findall(part)
    method = _METHOD.fullmatch(words[0]) if words else None
    found = [_PROPERTY.fullmatch(word) for word in words[1:]]
    properties = {match[1].lower(): match[2].strip('"') for match in found if match}
    if method is None or len(properties) < len(found):  # no property, or one given twice
        return None
    return _Entry(method[1].lower(), method[2].lower(), properties)


def _signer(entry: _Entry) -> str | None:
    identity = entry.properties.get("header.i", "").rpartition("@")[2]
    return domain_name(entry.properties.get("header.d", identity))


def _sender(entry: _Entry) -> str | None:
    return domain_name(entry.properties.get("smtp.mailfrom", "").rpartition("@")[2])
