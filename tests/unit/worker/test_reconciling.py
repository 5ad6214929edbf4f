"""The schedule: one worker at a time, when its time has come, with numbers and one line, and nothing is changed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from reconciled import HOUR, Reconciled, opened

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.metrics import exposition, reconciled
from apptrack_ingest.model import ReportState
from apptrack_ingest.reconcile import Kind
from apptrack_ingest.settings import Settings
from apptrack_ingest.worker import reconciling
from apptrack_ingest.worker.reconciling import ROUND, TAKEN_FOR, Reconciling

DAILY = Settings(idibu={"reconcile": "24h"})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Reconciled]:
    async with opened(tmp_path) as made:
        yield made


def worker(world: Reconciled, settings: Settings = DAILY, *names: str) -> Reconciling:
    accounts = [world.accounts[name] for name in names or ("acme",)]
    return Reconciling(world.spool, world.clock, settings, lambda: accounts)


def lists_read(world: Reconciled) -> int:
    return sum(one.call == "applicants" for one in world.sandbox.requests())


def metrics() -> dict[str, float]:
    lines = [line.rpartition(" ") for line in exposition(None, 0.0)[0].decode().splitlines()]
    return {name: float(value) for name, _, value in lines if name.startswith("apptrack_reconcile")}


@pytest.mark.parametrize(("written", "every"), [("off", None), ("24h", 86400.0), (3600, 3600.0), ("7d", 604800.0)])
def test_the_interval_as_it_is_written(written: object, every: float | None) -> None:
    assert Settings(idibu={"reconcile": written}).idibu.reconcile_every == every


@pytest.mark.parametrize("written", ["59m", "never", "", 0, True, None, "800d", "nan"])
def test_what_is_no_interval(written: object) -> None:
    with pytest.raises(ValidationError, match=r"idibu\.reconcile"):
        Settings(idibu={"reconcile": written})


async def test_off_by_default(world: Reconciled) -> None:
    await worker(world, Settings()).round()
    assert world.sandbox.requests() == []


async def test_what_is_found_is_counted_and_logged_and_left_as_it_is(
    world: Reconciled, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await world.told(1, 2, 3)
    world.write(1, "fail", "eaten by a dog")
    world.sandbox.store.lose("acme", 2)
    await worker(world).round()
    found = metrics()
    assert found['apptrack_reconcile_findings{account="acme",finding="different"}'] == 1
    assert found['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 1
    assert found['apptrack_reconcile_findings{account="acme",finding="not-ours"}'] == 0
    assert abs(found['apptrack_reconcile_timestamp_seconds{account="acme"}'] - world.clock.now()) < 60
    (line,) = [record for record in caplog.records if record.name.endswith("reconcile")]
    said = str(line.msg)
    assert "'event': 'reconciled'" in said and "'different': 1" in said and "'missing': 1" in said
    assert "dog" not in said and "remote" not in said
    assert {one.state for one in await world.spool.outcomes("acme", (1, 2, 3))} == {ReportState.CONFIRMED}
    assert world.shown(1) == ("fail", "", "eaten by a dog")


async def test_what_is_gone_counts_as_none_the_next_time(world: Reconciled) -> None:
    await world.told(1)
    world.sandbox.store.lose("acme", 1)
    await worker(world).round()
    await world.fix()
    await world.work()
    world.clock.time += 25 * HOUR
    await worker(world).round()
    assert metrics()['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 0


async def test_what_was_found_is_shown_again_after_a_restart(world: Reconciled) -> None:
    await world.told(1, 2)
    world.sandbox.store.lose("acme", 1)
    world.sandbox.store.lose("acme", 2)
    await worker(world).round()
    before = metrics()
    for kind in Kind:
        reconciled("acme", {kind: 99}, at=1.0)  # what nobody has set is 0 in this process, and not missing
    world.clock.time += HOUR
    await worker(world).round()
    assert metrics() == before and before['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 2
    assert lists_read(world) == 1, "nothing was asked anew"


async def test_who_has_to_look_at_one_account_shows_the_others_first(world: Reconciled) -> None:
    await world.told(1)
    world.sandbox.store.lose("acme", 1)
    await worker(world).round()
    world.clock.time += HOUR
    reconciled("acme", {Kind.MISSING: 99}, at=1.0)
    asked = len(world.sandbox.requests())
    world.sandbox.misbehave(Step(fault=Fault.HANG))
    long = asyncio.create_task(worker(world, DAILY, "beta", "acme").round())
    await world.sandbox.wait_until(lambda sandbox: len(sandbox.requests()) > asked)
    assert metrics()['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 1
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)


async def test_what_was_kept_by_half_is_not_shown(world: Reconciled, monkeypatch: pytest.MonkeyPatch) -> None:
    await worker(world).round()
    set_mark = world.spool.set_mark

    async def failing(key: str, at: float) -> None:
        if "different" in key:
            raise SpoolUnavailable("the disk is full")
        await set_mark(key, at)

    world.clock.time += 25 * HOUR
    with monkeypatch.context() as patched, pytest.raises(SpoolUnavailable):
        patched.setattr(world.spool, "set_mark", failing)
        await worker(world).round()
    reconciled("acme", {Kind.MISSING: 99}, at=1.0)
    await worker(world).round()
    assert metrics()['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 99, "no half of it"
    world.clock.time += TAKEN_FOR + 1
    await worker(world).round()
    assert metrics()['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 0


async def test_a_process_shows_the_last_time_once_and_after_that_what_it_finds(world: Reconciled) -> None:
    await worker(world).round()
    other = worker(world)
    await other.round()
    reconciled("acme", {Kind.MISSING: 99}, at=1.0)
    await other.round()
    assert metrics()['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 99, "not read every minute"
    await world.told(1)
    world.sandbox.store.lose("acme", 1)
    world.clock.time += 25 * HOUR
    await other.round()
    assert metrics()['apptrack_reconcile_findings{account="acme",finding="missing"}'] == 1


async def test_once_in_the_interval_each_account_and_by_one_of_several_workers(world: Reconciled) -> None:
    workers = [worker(world, DAILY, "acme", "beta") for _ in range(3)]
    await asyncio.gather(*(one.round() for one in workers))
    assert lists_read(world) == 2
    world.clock.time += 23 * HOUR
    await asyncio.gather(*(one.round() for one in workers))
    assert lists_read(world) == 2
    world.clock.time += 2 * HOUR
    await asyncio.gather(*(one.round() for one in workers))
    assert lists_read(world) == 4


async def test_one_that_died_amid_it_is_followed_by_another_before_long(world: Reconciled) -> None:
    asked = len(world.sandbox.requests())
    world.sandbox.misbehave(Step(fault=Fault.HANG))
    dying = asyncio.create_task(worker(world).round())
    await world.sandbox.wait_until(lambda sandbox: len(sandbox.requests()) > asked)
    await worker(world).round()
    assert lists_read(world) == 0, "the first is still at it"
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    world.sandbox.misbehave()
    world.clock.time += TAKEN_FOR + 1
    await worker(world).round()
    assert lists_read(world) == 1


async def test_one_that_takes_long_keeps_the_others_away(world: Reconciled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page tells the others that it is still being done."""
    kept = []
    set_mark = world.spool.set_mark

    async def keeping(key: str, at: float) -> None:
        kept.append((key, at))
        await set_mark(key, at)

    monkeypatch.setattr(world.spool, "set_mark", keeping)
    await world.told(1)
    now = world.clock.now()
    await worker(world).round()
    *meanwhile, last = (at for key, at in kept if key == "reconcile acme")
    assert meanwhile and all(now - 24 * HOUR + TAKEN_FOR <= at < now for at in meanwhile)
    assert last == now


async def test_idibu_away_is_tried_again_and_says_so_without_numbers(
    world: Reconciled, caplog: pytest.LogCaptureFixture
) -> None:
    world.sandbox.misbehave(Step(fault=Fault.ERROR, times=None))
    before = metrics().get('apptrack_reconcile_timestamp_seconds{account="beta"}')
    await worker(world, DAILY, "beta").round()
    assert "not reconciled to the end" in caplog.text and "not-understood" in caplog.text
    assert metrics().get('apptrack_reconcile_timestamp_seconds{account="beta"}') == before
    world.sandbox.misbehave()
    await worker(world, DAILY, "beta").round()
    assert lists_read(world) == 0, "not at once"
    world.clock.time += TAKEN_FOR + 1
    await worker(world, DAILY, "beta").round()
    assert lists_read(world) == 1


async def test_a_fault_in_one_round_does_not_end_the_rounds(world: Reconciled) -> None:
    rounds = []

    class Clock:
        def now(self) -> float:
            return world.clock.now()

        async def sleep(self, seconds: float) -> None:
            rounds.append(seconds)
            if len(rounds) == 2:
                raise asyncio.CancelledError

    def accounts() -> list[reconciling.Account]:
        raise ValueError("unforeseen")

    with pytest.raises(asyncio.CancelledError):
        await Reconciling(world.spool, Clock(), DAILY, accounts).run()
    assert rounds == [ROUND, ROUND]
