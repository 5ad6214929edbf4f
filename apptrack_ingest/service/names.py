"""What a worker calls itself in leases, and which workers before it are dead for certain: nobody need wait for theirs."""

import contextlib
import os
import secrets
import socket
from pathlib import Path

from apptrack_ingest import logs
from apptrack_ingest.service.part import WHOLE, Part
from apptrack_ingest.settings import MOST_PROCESSES

log = logs.get("service")

BOOT = Path("/proc/sys/kernel/random/boot_id")

MOST = 50
"""Names remembered; there are more only where so many workers died before the spool could be asked."""


class Names:
    """A worker's own name, `own`, given once; and those of workers before it that are dead for certain, `before`.

    Host names, process ids and data directories may be the same on another machine or in another container, whose worker
    lives. So a name is random in part, and a file in the data directory remembers it: who holds the role's lock on that
    directory knows that all who wrote there before are dead. Of several processes under one lock each has a file of its
    own, for its siblings live, and the first takes over the files of numbers that there are no more. A directory may have
    been copied from a machine that runs, or be shared with one, so that only names count which were written down under this
    very system, not restarted since; all of them do where the spool itself is in the directory (`own_spool`). Leases of the
    others run out by themselves.
    """

    def __init__(self, data_dir: Path, *, own_spool: bool, boot: Path = BOOT, part: Part = WHOLE) -> None:
        self._file = _file(data_dir, part.number)
        self._left = _beyond(data_dir, part.of) if part.number == 1 else []
        self._system = _first_line(boot)
        known = [line.split() for file in (*self._left, self._file) for line in _lines(file)]
        here = [words for words in known if len(words) == 2 and (own_spool or words[0] == self._system)]
        self.before = tuple(name for _, name in here[-MOST:])
        self.own = f"{_host()}/worker-{os.getpid()}-{secrets.token_hex(4)}"
        self._remember()

    def forget(self) -> None:
        """Their leases are ended: only our own name must be remembered."""
        self.before = ()
        self._remember()
        for file in self._left:
            with contextlib.suppress(OSError):
                file.unlink()

    def _remember(self) -> None:
        """Where that cannot be done, the next worker waits for our leases to run out."""
        new = self._file.with_suffix(".new")
        text = "".join(f"{self._system or '-'} {name}\n" for name in (*self.before, self.own))
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_text(text, encoding="utf-8")
            new.replace(self._file)
        except OSError as error:
            log.warning("the worker's name cannot be remembered", **logs.exception_fields(error))


def _file(data_dir: Path, number: int) -> Path:
    return data_dir / ("worker.names" if number == 1 else f"worker-{number}.names")


def _beyond(data_dir: Path, of: int) -> list[Path]:
    """The files of processes that were started where there were more of them."""
    return [file for number in range(of + 1, MOST_PROCESSES + 1) if (file := _file(data_dir, number)).is_file()]


def _host() -> str:
    return "".join(letter if letter.isalnum() or letter in ".-_" else "-" for letter in socket.gethostname()) or "host"


def _first_line(file: Path) -> str:
    return next(iter(_lines(file)), "").strip()


def _lines(file: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    return []
