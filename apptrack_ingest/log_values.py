"""What of a value may stand in a log line, and how: secrets masked, control characters escaped, what is too long cut."""

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import isfinite
from typing import Any

MASK = "********"
_LONGEST = 1000
"""Characters of one value; what is longer is cut, so that a peer cannot fill the log with one line."""

_NAMES = r"(?:hash|partner-password|password|passwd|secret|token|signature|api[_-]?key|authorization)"
_BEFORE = r"(?:\b|(?<=_)|(?<=%3F)|(?<=%26))"
_SECRET_PAIR = re.compile(rf"""(?i){_BEFORE}({_NAMES}["']?\s*(?:=|:|%3D|>)\s*["']?(?:(?:bearer|basic)\s+)?)[^&\s<]+""")
_SECRET_PATH = re.compile(r"(?i)(/REMOTE/V\d+/)[^/?\s\"']+")
_USER_INFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^/\s@]{1,500}@")
_SECRET_KEY = re.compile(rf"(?i){_NAMES}")
# Without one of these none of the three above finds anything.
_SIGNS = re.compile("[=:%>/]")


def redact(text: str) -> str:
    """Masks what follows `hash=` and the like, the hash in the path of idibu's posting service (its URL ends in
    `/REMOTE/V3/:hash`), and user names and passwords in URLs. Masks rather too much than too little."""
    if not _SIGNS.search(text):
        return text
    text = _SECRET_PAIR.sub(rf"\1{MASK}", text)
    text = _SECRET_PATH.sub(rf"\1{MASK}", text)
    return _USER_INFO.sub(rf"\1{MASK}@", text)


def escape(text: str) -> str:
    """Control characters, line and paragraph separators, direction marks and lone surrogates as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_value(value: Any) -> Any:
    """The value as it may stand in a line, and all that is in it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {_safe_key(str(key)): MASK if _is_secret(str(key)) else safe_value(v) for key, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [safe_value(item) for item in value]
    return _safe_text(type_name(value) if isinstance(value, BaseException) else value)


@lru_cache(256)
def _is_secret(key: str) -> bool:
    return bool(_SECRET_KEY.fullmatch(key))


@lru_cache(256)
def _safe_key(key: str) -> str:
    return _safe_text(key)


def _safe_text(value: object) -> str:
    # Redacted before the cut that shows, so that it cannot leave a secret without the name it is known by.
    text = redact(str(value)[: 16 * _LONGEST])
    return escape(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")


def type_name(error: BaseException) -> str:
    """What may be said of any exception."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# --- as JSON ---------------------------------------------------------------------------------------------------------

encoded = json.JSONEncoder(check_circular=False, default=str).encode
"""What structlog's own renderer gives, by an encoder that is not made anew for each line."""


def members(fields: Mapping[str, Any]) -> str:
    """The fields as members of a JSON object; their names have no character that JSON escapes."""
    # `as_json`, without the call: each mail has some thirty.
    return ", ".join([f'"{key}": {_AS_JSON.get(type(value), _any_as_json)(value)}' for key, value in fields.items()])


def as_json(value: Any) -> str:
    """What `encoded(safe_value(value))` gives, for a tenth of the cost where it is a number or a word in common use."""
    return _AS_JSON.get(type(value), _any_as_json)(value)


def _any_as_json(value: Any) -> str:
    return encoded(safe_value(value))


def _float_as_json(value: float) -> str:
    return repr(value) if isfinite(value) else encoded(value)


def _list_as_json(values: list[Any]) -> str:
    return f"[{', '.join([_AS_JSON.get(type(value), _any_as_json)(value) for value in values])}]"


_AS_JSON: dict[type, Callable[[Any], str]] = {
    str: lru_cache(1000)(_any_as_json),
    int: int.__repr__,
    float: _float_as_json,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
    list: _list_as_json,
}
