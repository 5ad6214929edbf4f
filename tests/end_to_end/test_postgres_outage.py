"""PostgreSQL stopped hard under a `serve`, absent at a start, upgraded beside it: 451 meanwhile, recovery, nothing twice."""

import contextlib
import json
import smtplib
import subprocess
import sys

import pytest
from postgres import Server, own

from apptrack_ingest.model import ReportState, State
from apptrack_ingest.spool.contract import Filter
from apptrack_ingest.testing import an_email


@pytest.fixture(scope="module")
def server_of_ours():
    """A PostgreSQL that nobody else uses."""
    server = own()
    yield server
    server.remove()


@pytest.fixture
def server_to_stop(server_of_ours: Server):
    """The same; it runs when the next test begins."""
    yield server_of_ours
    server_of_ours.stop(immediate=True)
    server_of_ours.start()


@pytest.fixture
def on_postgres(server_to_stop: Server, deployment):
    deployment.spool = server_to_stop.url(server_to_stop.make())
    deployment.smtp = 'commit_timeout = "8s"\n'
    return deployment


def attempt(deployment, number: int) -> int:
    """The code of the answer to one mail."""
    try:
        deployment.send(an_email(number))
    except smtplib.SMTPResponseException as error:
        assert b"postgres" not in error.smtp_error.lower()
        return error.smtp_code
    return 250


def settled(deployment, ids: set[int]) -> bool:
    rows = deployment.applications()
    return {row.applicant_id for row in rows} >= ids and all(
        row.state in (State.DELIVERED, State.DUPLICATE)
        and (row.report is ReportState.CONFIRMED or row.state is State.DUPLICATE)
        for row in rows
    )


def test_a_postgresql_that_crashes_and_comes_back_costs_nothing(on_postgres, server_to_stop, sandbox, wait):
    server = on_postgres.start()
    on_postgres.up(server)
    for number in range(1, 11):
        assert attempt(on_postgres, number) == 250
    server_to_stop.stop(immediate=True)
    assert attempt(on_postgres, 11) == 451
    wait(lambda: on_postgres.page("/readyz")[0] == 503)
    assert json.loads(on_postgres.page("/readyz")[1])["failed"] == ["spool-not-writable"]
    assert on_postgres.page("/livez")[0] == 200
    assert on_postgres.cli("list", check=False).exit_code == 69
    server_to_stop.start()
    wait(lambda: attempt(on_postgres, 12) == 250)
    wait(lambda: settled(on_postgres, {*range(1, 11), 12}), 180, on_postgres.log.read_text)
    wait(lambda: on_postgres.page("/readyz")[0] == 200)
    rows = on_postgres.applications()
    delivered = [row.applicant_id for row in rows if row.state is State.DELIVERED]
    assert sorted(delivered) == sorted(set(delivered)), "delivered once each"
    assert set(on_postgres.candidates()) == set(delivered) >= {*range(1, 11), 12}
    assert all(applicant.contents == 1 for applicant in sandbox.applicants())
    assert server.poll() is None and "process ended unexpectedly" not in on_postgres.log.read_text()
    assert on_postgres.stop(server) == 0


def test_a_start_without_postgresql_goes_on_when_it_is_there(on_postgres, server_to_stop, wait):
    server_to_stop.stop()
    server = on_postgres.start()
    on_postgres.up(server)
    assert attempt(on_postgres, 1) == 451
    assert on_postgres.page("/readyz")[0] == 503
    server_to_stop.start()
    wait(lambda: attempt(on_postgres, 2) == 250, why=on_postgres.log.read_text)
    wait(lambda: 2 in on_postgres.candidates(), why=on_postgres.log.read_text)
    assert "the spool cannot be used yet" in on_postgres.log.read_text()
    assert "process ended unexpectedly" not in on_postgres.log.read_text()


STEP = """
import asyncio, sys
from apptrack_ingest.spool.postgres import migrations, open_spool

async def main(url, needs):
    step = migrations.Step("ALTER TABLE applications ADD COLUMN colour text NOT NULL DEFAULT 'blue'", int(needs))
    migrations.MIGRATIONS = (*migrations.MIGRATIONS, step)
    spool = open_spool(url)
    await spool.prepare()
    await spool.close()

asyncio.run(main(*sys.argv[1:]))
"""


def upgrade(url: str, *, needs: int) -> None:
    """What the first process of the next release does to the spool."""
    subprocess.run([sys.executable, "-c", STEP, url, str(needs)], check=True, timeout=60)


def test_a_release_goes_on_beside_the_next_and_is_refused_only_where_it_cannot(on_postgres, sandbox, wait):
    server = on_postgres.start()
    on_postgres.up(server)
    assert attempt(on_postgres, 1) == 250
    upgrade(on_postgres.spool, needs=1)
    assert attempt(on_postgres, 2) == 250
    wait(lambda: settled(on_postgres, {1, 2}), why=on_postgres.log.read_text)
    assert on_postgres.stop(server) == 0
    again = on_postgres.start()
    on_postgres.up(again)
    assert attempt(on_postgres, 3) == 250
    assert on_postgres.stop(again) == 0
    # Made for nobody but a much later release.
    subprocess.run([sys.executable, "-c", RAISE, on_postgres.spool], check=True, timeout=60)
    refused = on_postgres.start()
    assert refused.wait(90) == 1
    assert "run the newer release again" in on_postgres.log.read_text()


RAISE = """
import asyncio, sys, asyncpg

async def main(url):
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE schema_steps SET needs = 999 WHERE number = (SELECT max(number) FROM schema_steps)")
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_two_machines_share_the_work_and_only_the_dead_ones_leases_end(
    on_postgres, server_to_stop, sandbox, wait, tmp_path
):
    """Two supervisors, each with a data directory of its own, on one database."""
    from end_to_end.conftest import Deployment

    other = Deployment(tmp_path / "other", sandbox.base_url, spool=on_postgres.spool)
    other.directory.mkdir()
    other.smtp = on_postgres.smtp
    with contextlib.ExitStack() as stack:
        stack.callback(other.stop_all)
        for one in (on_postgres, other):
            one.up(one.start())
        for number in range(1, 21):
            assert attempt((on_postgres, other)[number % 2], number) == 250
        wait(lambda: settled(on_postgres, {*range(1, 21)}), 120, on_postgres.log.read_text)
        names = {a.worker for row in other.applications() for a in other.story(row.application_id).attempts}
        assert len(names) >= 1 and all("/worker-" in name for name in names)
        rows = other._ask(lambda spool: spool.find(Filter(limit=100)))
        assert sorted(row.applicant_id for row in rows) == list(range(1, 21))
        assert {*on_postgres.candidates(), *other.candidates()} == set(range(1, 21))
        assert not {*on_postgres.candidates()} & {*other.candidates()}
