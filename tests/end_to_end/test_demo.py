"""`demo --once` ends by itself, with everything where it says it is."""

import subprocess
import sys


def test_demo_once(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "apptrack_ingest", "demo", "--once", "--dir", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "all ten ended as they should" in run.stdout
    assert len(list((tmp_path / "demo" / "candidates" / "demo").glob("*/application.json"))) == 7
    assert str(tmp_path / "demo" / "candidates") in run.stdout
