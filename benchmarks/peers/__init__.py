"""The systems compared: each is started in a directory of its own, told where to listen, and asked for its processes."""

import shutil
import subprocess
from pathlib import Path

import processes

RECIPIENT = "jobs@bench.example"
SENDER = "apptrack@idibu.example"
PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


class Missing(Exception):
    """A system is not installed here; its words say what to install."""


class Peer:
    """One system under load. `name` stands in the tables; `durable` says whether it keeps what it answers 250 to."""

    name = ""
    durable = True

    def __init__(self) -> None:
        self.port = 0
        self.home = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, home: Path) -> None:
        """Starts it below `home` and returns when it listens. Raises Missing."""
        self.home, self.port = home, processes.free_port()
        self.launch()
        try:
            processes.wait_for_port(self.port, self.process)
        except RuntimeError as error:
            output = self.home / "output"
            said = output.read_text(errors="replace")[-2000:] if output.exists() else ""
            raise RuntimeError(f"{self.name}: {error}\n{said}") from None

    def launch(self) -> None:
        """Starts its processes."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stops its processes."""
        processes.stop(self.process)
        self.process = None

    @property
    def roots(self) -> tuple[int, ...]:
        """The processes above all others of it."""
        assert self.process is not None
        return (self.process.pid,)

    def kept(self) -> int | None:
        """How many mails it holds on its disk; None where it holds none by design."""
        return None

    def spawn(self, *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
        """Starts its process, whose output goes to a file in its directory."""
        with (self.home / "output").open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - the systems that are measured
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd or self.home,
                env=env,
            )


def program(name: str, package: str) -> str:
    """The path of a program. Raises Missing with what to install."""
    found = shutil.which(name) or shutil.which(name, path=PLACES)
    if found is None:
        raise Missing(f"{name} is not installed (apt-get install {package})")
    return found
