"""JSON for people: what the standard library makes of it, to the byte."""

import json
from typing import Any

import pytest
from apptrack_handlers.readable_json import readable_json
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest import to_payload
from apptrack_ingest.testing import a_hostile_application, an_application

SCALARS = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(VALUES)
def test_it_is_what_json_dumps_makes(value: Any) -> None:
    assert readable_json(value) == json.dumps(value, ensure_ascii=False, indent=2).encode()


def test_an_application_holds_no_floats() -> None:
    def found(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [value] if isinstance(value, float) else [one for part in inner for one in found(part)]

    assert found([1, {"a": 0.5}]) == [0.5]
    assert found(to_payload(an_application())) == found(to_payload(a_hostile_application())) == []


@pytest.mark.parametrize("application", [an_application(), a_hostile_application()], ids=["usual", "hostile"])
def test_an_application_is_what_json_dumps_makes(application: Any) -> None:
    payload = to_payload(application)
    assert readable_json(payload) == json.dumps(payload, ensure_ascii=False, indent=2).encode()
