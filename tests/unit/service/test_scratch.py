"""The children's metrics lie in memory, and only where the directory is ours alone."""

import os

from apptrack_ingest.service.scratch import metrics_home


def test_it_is_in_memory_and_the_same_at_every_start(tmp_path):
    memory, data = tmp_path / "shm", tmp_path / "data"
    memory.mkdir()
    home = metrics_home(data, memory)
    assert home.parent == memory and home.stat().st_mode & 0o777 == 0o700
    assert metrics_home(data, memory) == home != metrics_home(tmp_path / "other", memory)
    assert len({home, *(metrics_home(data, memory, role=role) for role in ("intake", "worker"))}) == 3, "side by side"


def test_a_directory_that_others_can_enter_or_a_link_is_not_used(tmp_path):
    memory, data = tmp_path / "shm", tmp_path / "data"
    memory.mkdir()
    home = metrics_home(data, memory)
    home.chmod(0o755)
    assert metrics_home(data, memory) == data / "metrics"
    home.rmdir()
    os.symlink(tmp_path, home)
    assert metrics_home(data, memory) == data / "metrics"


def test_without_memory_it_is_beside_the_spool(tmp_path):
    assert metrics_home(tmp_path / "data", tmp_path / "missing") == tmp_path / "data" / "metrics"
