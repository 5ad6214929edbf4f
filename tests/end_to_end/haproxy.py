"""A HAProxy of the test's own: one port in front of a listener, in TCP mode, in the foreground."""

import subprocess
from pathlib import Path
from types import TracebackType

from end_to_end.programs import program

CONFIGURATION = """
defaults
    mode tcp
    timeout connect 5s
    timeout check 10s
    timeout client 60s
    timeout server 60s
listen smtp
    bind 127.0.0.1:{port}
    {check}
    server intake 127.0.0.1:{behind} {how}
"""


class HAProxy:
    """Passes `port` on to the port `behind`; `how` are the words of its server line, `check` an option for its checks."""

    def __init__(self, directory: Path, port: int, behind: int, how: str, check: str = "") -> None:
        self._program = program("haproxy")
        self._configuration = directory / f"haproxy-{port}.cfg"
        self._log = directory / f"haproxy-{port}.log"
        self._configuration.write_text(CONFIGURATION.format(port=port, behind=behind, how=how, check=check))

    def __enter__(self) -> "HAProxy":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, "-db", "-f", str(self._configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    @property
    def said(self) -> str:
        """What it told: which server is up or down, and why."""
        return self._log.read_text()
