"""Intake and worker as a whole: they show life from the start, and a reload pulls no handler from under a hand-over."""

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
from apptrack_ingest.service import intake_role, worker_role
from apptrack_ingest.service.intake_role import run_intake
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


WAITING = """
import asyncio, threading
from apptrack_ingest import Accepted

answered, looked_up = threading.Event(), []

async def handle(application):
    silent = [asyncio.create_task(asyncio.to_thread(answered.wait)) for _ in range(40)]
    try:
        looked_up.append(await asyncio.wait_for(asyncio.to_thread(int, 7), 20))
    finally:
        answered.set()
        await asyncio.wait(silent)
    return Accepted()
"""


async def test_names_that_nobody_resolves_keep_no_other_look_up_waiting(tmp_path, monkeypatch):
    """asyncio looks names up in its threads; forty that hang must not be all there are."""
    (tmp_path / "waiting_handler.py").write_text(WAITING)
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, "unused")
    path.write_text(
        path.read_text()
        .partition("[accounts.acme.handler_settings]")[0]
        .replace("slow_handler:Slow", "waiting_handler:handle")
    )
    found, link = settings.load(path), Patient()
    spool = open_spool(found.database)
    await put(spool, 1)
    worker = asyncio.create_task(run_worker(path, found, link, own_web=False))
    handler = importlib.import_module("waiting_handler")
    await until(lambda: worker.done() or handler.answered.is_set())
    link.gone()
    await asyncio.wait_for(worker, 60)
    await spool.close()
    assert handler.looked_up == [7]


class Patient(ChildLink):
    """Says when it began to beat, and when all is up."""

    def __init__(self):
        super().__init__(None)
        self.began, self.up, self.gone = asyncio.Event(), asyncio.Event(), None

    def start(self, parent_gone):
        self.gone = parent_gone
        self.began.set()

    def ready(self, **details):
        self.up.set()


@pytest.mark.parametrize(("module", "run"), [(intake_role, run_intake), (worker_role, run_worker)])
async def test_a_child_shows_life_while_the_spools_schema_is_brought_up_to_date(tmp_path, monkeypatch, module, run):
    """That may take longer than a silent child is let live; killed, it would begin anew each time and never end."""
    path = tmp_path / "c.toml"
    path.write_text(
        f"data_dir = {json.dumps(str(tmp_path / 'data'))}\n[smtp]\nport = 0\n[worker]\nparse_processes = 1\n"
    )
    found, upgraded, link, opened = settings.load(path), asyncio.Event(), Patient(), module.spool_of

    def old(found):
        spool = opened(found)
        monkeypatch.setattr(spool, "prepare", upgraded.wait)
        return spool

    monkeypatch.setattr(module, "spool_of", old)
    role = asyncio.create_task(run(path, found, link, own_web=False))
    async with asyncio.timeout(60):
        await asyncio.wait([role, asyncio.create_task(link.began.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert not link.up.is_set()
        upgraded.set()
        await asyncio.wait([role, asyncio.create_task(link.up.wait())], return_when=asyncio.FIRST_COMPLETED)
        link.gone()
        await role


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
