"""The supervisor's own promises where the system fails it: no new process, time that stood still, a stop at the start."""

import asyncio
import errno
import os
import types

import pytest

from apptrack_ingest.errors import ChildFailed
from apptrack_ingest.service import supervisor
from apptrack_ingest.service.supervisor import SILENCE, Child, Supervisor
from apptrack_ingest.settings import Settings


@pytest.fixture
def over(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_WAIT", 0.001)
    return Supervisor(None, Settings(data_dir=tmp_path / "data"))


def sleeping(monkeypatch, *faults):
    """Lets the supervisor start `sleep` in a child's place, after these faults."""
    left, real = list(faults), asyncio.create_subprocess_exec

    async def start(*_command, **_options):
        if left:
            raise left.pop(0)
        return await real("sleep", "600")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)


async def test_a_process_that_cannot_be_started_again_is_tried_until_it_can(over, monkeypatch):
    child = Child("worker", was_ready=True)
    sleeping(monkeypatch, OSError(errno.EMFILE, "no descriptors"), OSError(errno.ENOMEM, "no memory"))
    before = len(os.listdir("/proc/self/fd"))
    keeper = asyncio.create_task(over._keep(child))
    async with asyncio.timeout(30):
        while child.process is None:
            await asyncio.sleep(0.01)
    over._stop.set()
    child.process.terminate()
    await asyncio.wait_for(keeper, 30)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # a poller of asyncio's own, perhaps


@pytest.mark.parametrize(("seconds", "gives_up"), [(59.0, True), (61.0, False)])
async def test_a_process_that_does_not_stay_up_ends_the_service(over, monkeypatch, seconds, gives_up):
    """Each start lasts so many seconds; one that lasts a minute is a good one."""
    time, ran = [1000.0], []

    async def run_once(child):
        ran.append(time[0])
        time[0] += seconds
        if len(ran) == 40:
            over._stop.set()
        return -9

    monkeypatch.setattr(over, "_run_once", run_once)
    monkeypatch.setattr(supervisor, "time", types.SimpleNamespace(monotonic=lambda: time[0]))
    monkeypatch.setattr(supervisor, "LONGEST_WAIT", 0.001)
    keeping = over._keep(Child("intake", 2, 3, was_ready=True))
    if not gives_up:
        await keeping
        assert len(ran) == 40
        return
    with pytest.raises(ChildFailed, match="intake-2 does not stay up") as found:
        await keeping
    assert found.value.code == 1
    assert len(ran) == 11 and time[0] - 1000.0 >= supervisor.GIVE_UP_AFTER


async def test_many_ends_in_a_short_time_are_no_reason_to_give_up(over, monkeypatch):
    """A handful of mails that kill their worker must not end the intake."""
    ran = []

    async def run_once(child):
        ran.append(child)
        if len(ran) == 30:
            over._stop.set()
        return 1

    monkeypatch.setattr(over, "_run_once", run_once)
    monkeypatch.setattr(supervisor, "LONGEST_WAIT", 0.001)
    await asyncio.wait_for(over._keep(Child("worker", was_ready=True)), 30)
    assert len(ran) == 30


def test_there_are_as_many_intakes_as_are_wanted(tmp_path):
    found = Settings(data_dir=tmp_path, intake_processes=3)
    assert list(Supervisor(None, found)._children) == ["worker", "intake-1", "intake-2", "intake-3"]
    assert list(Supervisor(None, found, roles=("intake",))._children) == ["intake-1", "intake-2", "intake-3"]
    assert list(Supervisor(None, Settings(data_dir=tmp_path))._children) == ["worker", "intake"]


def test_there_are_as_many_workers_as_are_wanted(tmp_path):
    found = Settings(data_dir=tmp_path, worker_processes=2)
    assert list(Supervisor(None, found)._children) == ["worker-1", "worker-2", "intake"]
    assert list(Supervisor(None, found, roles=("worker",))._children) == ["worker-1", "worker-2"]


async def test_counts_that_cannot_be_kept_do_not_end_the_service(over, monkeypatch):
    def full(path, pid):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(supervisor.metrics, "child_exited", full)
    sleeping(monkeypatch)
    over._stop.set()
    assert await asyncio.wait_for(over._run_once(Child("worker")), 30) < 0


async def test_a_child_being_started_when_told_to_stop_is_ended(over, monkeypatch):
    sleeping(monkeypatch)
    over._stop.set()
    assert await asyncio.wait_for(over._run_once(Child("worker")), 30) == -15


async def test_a_silent_child_is_killed_but_not_when_the_supervisor_stood_still_itself(over, monkeypatch):
    time, killed = [1000.0], []
    steps = iter([SILENCE * 3, *[1.0] * int(SILENCE), 1.0])

    async def sleep(_seconds):
        time[0] += next(steps)

    process = types.SimpleNamespace(returncode=None, kill=lambda: killed.append(time[0]))
    monkeypatch.setattr(supervisor, "time", types.SimpleNamespace(monotonic=lambda: time[0]))
    monkeypatch.setattr(supervisor, "asyncio", types.SimpleNamespace(sleep=sleep))
    child = Child("worker", process=process, last_beat=1000.0)
    with pytest.raises(RuntimeError):  # of the steps there are no more
        await over._watch(child)
    assert killed == [1000.0 + SILENCE * 3 + SILENCE + 1]
