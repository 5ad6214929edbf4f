"""The supervisor's own promises where the system fails it: no new process, time that stood still, a stop at the start."""

import asyncio
import errno
import os
import types

import pytest

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
