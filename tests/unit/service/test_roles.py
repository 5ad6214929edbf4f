"""The worker as a whole: a reload under way does not pull the handler from under what is being handed over."""

import asyncio
import importlib
import json
import os
import signal
import sys
import time

import pytest

from apptrack_ingest import settings
from apptrack_ingest.model import Arrival, Envelope, Message
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.service.worker_role import run_worker
from apptrack_ingest.spool.sqlite import open_spool
from apptrack_ingest.testing import an_email

HANDLER = """
import asyncio
import pydantic
from apptrack_ingest import Accepted

said, go = [], asyncio.Event()

class Slow:
    class Settings(pydantic.BaseModel):
        name: str

    def __init__(self, settings):
        self.name = settings.name

    async def handle(self, application):
        said.append(("begin", self.name))
        await go.wait()
        said.append(("end", self.name))
        return Accepted()

    async def close(self):
        said.append(("close", self.name))
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    (tmp_path / "slow_handler.py").write_text(HANDLER)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("slow_handler")
    sys.modules.pop("slow_handler", None)


def write(tmp_path, name):
    path = tmp_path / "c.toml"
    data_dir = json.dumps(str(tmp_path / "data"))
    path.write_text(
        f"data_dir = {data_dir}\n[worker]\nparse_processes = 1\n"
        '[accounts.acme]\nrecipients = ["acme.example"]\nhandler = "slow_handler:Slow"\n'
        f'[accounts.acme.handler_settings]\nname = "{name}"\n'
    )
    return path


async def put(spool, number):
    envelope = Envelope("", ("x@acme.example",), "127.0.0.1")
    await spool.put(Message(envelope, time.time(), an_email(number)), [Arrival("acme", number, True)])


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_reload_closes_a_handler_only_when_nothing_is_at_it_any_more(tmp_path, slow):
    path = write(tmp_path, "old")
    found = settings.load(path)
    spool = open_spool(found.database)
    await put(spool, 1)
    worker = asyncio.create_task(run_worker(path, found, ChildLink(None), own_web=False))
    await until(lambda: worker.done() or slow.said == [("begin", "old")])
    write(tmp_path, "new")
    os.kill(os.getpid(), signal.SIGHUP)
    # The reload is asked for and the mail put: whichever the worker sees first, the new handler is called at last.
    number = 2
    while ("begin", "new") not in slow.said and not worker.done():
        await put(spool, number)
        number += 1
        await asyncio.sleep(0.1)
    assert ("close", "old") not in slow.said
    slow.go.set()
    await until(lambda: worker.done() or ("close", "old") in slow.said)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(worker, 60)
    await spool.close()
    assert ("end", "old") in slow.said[: slow.said.index(("close", "old"))]
    assert slow.said[-1] == ("close", "new")
