"""JSON for people, at the price of JSON for programs."""

from typing import Any

from pydantic import TypeAdapter

_ANY = TypeAdapter(Any)


def readable_json(value: Any) -> bytes:
    """What `json.dumps(value, ensure_ascii=False, indent=2)` gives, in UTF-8, of what an application holds: all but floats.

    With an indentation the standard library's is generators in generators, a step for every comma; this is pydantic's.
    """
    return _ANY.dump_json(value, indent=2)
