"""Who was refused stands in the log, one line in ten seconds for each reply."""

import io
import json
import logging

import pytest

from apptrack_ingest import logs
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.refusals import Refusals
from apptrack_ingest.settings import Log


@pytest.fixture
def lines():
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    logs.configure(Log(format="json"), "intake", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def test_one_line_in_ten_seconds_for_each_reply(lines):
    now = [100.0]
    refusals = Refusals(lambda: now[0])
    for _ in range(50):
        refusals.tell(policy.UNKNOWN_RECIPIENT, peer="192.0.2.1", domain="x.example\r\nforged")
    refusals.tell(policy.TOO_BIG, peer="192.0.2.2", size=31_000_000)
    now[0] += 10
    refusals.tell(policy.UNKNOWN_RECIPIENT, peer="192.0.2.1", domain="x.example")
    told = [(line["reply"], line["peer"], line["untold"]) for line in lines()]
    assert told == [(550, "192.0.2.1", 0), (552, "192.0.2.2", 0), (550, "192.0.2.1", 49)]
    assert lines()[0]["domain"] == "x.example\\r\\nforged"
