"""The worker's process holds ledger and idibu against each other when the settings say so, and stops when they say off."""

import asyncio
import json
import os
import signal
from pathlib import Path

from apptrack_ingest import settings
from apptrack_ingest.idibu.http import Http
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.service.link import ChildLink
from apptrack_ingest.service.reconciling import accounts_of
from apptrack_ingest.service.worker_role import run_worker

SETTINGS = """
data_dir = {data}
[idibu]
base_url = "{url}"
reconcile = "24h"
timezone = "Europe/London"
[worker]
parse_processes = 1
[accounts.acme]
recipients = ["acme.example"]
hash = "hash-a"
[accounts.beta]
recipients = ["beta.example"]
[accounts.quiet]
recipients = ["quiet.example"]
hash = "hash-q"
reporting = false
"""


async def test_a_worker_asks_about_each_account_that_can_be_asked_about(tmp_path: Path) -> None:
    async with running(Sandbox({"hash-a": "acme", "hash-q": "quiet"})) as sandbox:
        path = tmp_path / "c.toml"
        path.write_text(SETTINGS.format(data=json.dumps(str(tmp_path / "data")), url=sandbox.base_url))
        worker = asyncio.create_task(run_worker(path, settings.load(path), ChildLink(None), own_web=False))
        await sandbox.wait_until(lambda one: worker.done() or bool(one.requests()), timeout=60)
        await sandbox.wait_until(lambda one: one.requests()[-1].call == "applicants", timeout=60)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(worker, 60)
        assert {one.account for one in sandbox.requests()} == {"acme"}
        assert [one.call for one in sandbox.requests()] == ["applicant-status", "applicants"]


async def test_whom_it_asks_about(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(SETTINGS.format(data=json.dumps(str(tmp_path / "data")), url="http://127.0.0.1:9"))
    found, http = settings.load(path), Http()
    (account,) = accounts_of(found, http)
    assert (account.name, str(account.zone)) == ("acme", "Europe/London")
    assert accounts_of(found, http, ["beta", "quiet"]) == []
    assert [one.name for one in accounts_of(found, http, ["acme", "beta"])] == ["acme"]
    await http.close()
