"""Hands each application to a program: JSON on its standard input, the documents as files, its exit code as the verdict."""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, DirectoryPath, Field, field_validator

from apptrack_handlers.file_names import file_names
from apptrack_ingest import Accepted, Application, Rejected, RetryLater, to_payload

# sysexits.h: EX_DATAERR and EX_NOPERM are the program's no, EX_TEMPFAIL its "not now".
REJECTED = {65, 77}
TEMPORARY = 75
MAX_OUTPUT = 64 * 1024
TERM_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
PIPE_GRACE = 1.0
"""Seconds that output of a program which has ended is waited for, should a child of its keep the pipe open."""
PREFIX = "apptrack-command-"
DOCUMENTS = "APPTRACK_DOCUMENTS"


class Command:
    """Runs `argv` for each application, in a private directory that holds the documents and is removed afterwards."""

    class Settings(BaseModel):
        """`argv`: the program, found now, and its arguments (its directory is not ours: give absolute paths).
        `timeout` in seconds. `environment`: names of our variables it may see, no others are passed on.
        `directory`: where the private directories are made, the system's place for temporary files by default."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        argv: list[str] = Field(min_length=1)
        timeout: float = Field(default=60.0, gt=0)
        environment: list[str] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"]
        directory: DirectoryPath | None = None

        @field_validator("argv")
        @classmethod
        def _found(cls, argv: list[str]) -> list[str]:
            program = shutil.which(argv[0])
            if program is None:
                raise ValueError("its first entry must be a program that exists and may be executed")
            return [str(Path(program).absolute()), *argv[1:]]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._parent = settings.directory or Path(tempfile.gettempdir())
        _sweep(self._parent)

    async def handle(self, application: Application) -> Accepted | Rejected:
        """Run the program. Exit 0 accepts (first line of stdout: the remote id), 65 and 77 reject, all else is retried."""
        with _private_directory(self._parent) as directory:
            message = _write_documents(application, directory)
            talk = await self._talk(message, directory)
        return _verdict(talk)

    def check(self) -> str:
        """Whether the program is still there, and a private directory can be made; it is not run. OSError where not."""
        program = self.settings.argv[0]
        if not os.access(program, os.X_OK):
            raise FileNotFoundError(f"{program} is not there, or may not be executed")
        with _private_directory(self._parent):
            return f"{program} may be executed"

    async def _talk(self, message: bytes, directory: Path) -> "_Talk":
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await _run(self.settings.argv, message, directory, self._environment(directory))
        except TimeoutError:
            raise RetryLater(f"the program did not end within {self.settings.timeout:g} seconds") from None
        except OSError as error:
            raise RetryLater(f"the program could not be started: {error.strerror}") from None

    def _environment(self, directory: Path) -> dict[str, str]:
        passed = {name: os.environ[name] for name in self.settings.environment if name in os.environ}
        return passed | {DOCUMENTS: str(directory)}


def _verdict(talk: "_Talk") -> Accepted | Rejected:
    said = talk.last_line()
    if talk.code == 0:
        return Accepted(talk.first_line() or None)
    if talk.code in REJECTED:
        return Rejected(said or f"the program refused it (exit code {talk.code})")
    if talk.code < 0:
        raise RetryLater(f"the program was killed by signal {-talk.code}{said and ': ' + said}")
    how = "asked to be run again" if talk.code == TEMPORARY else f"ended with exit code {talk.code}"
    raise RetryLater(f"the program {how}{said and ': ' + said}")


# --- the program ------------------------------------------------------------------------------------------------------


class _Talk(asyncio.SubprocessProtocol):
    """What a running program says, within bounds, and when it has ended. (asyncio's own Process.wait() waits, on some
    versions of Python, for children that keep a pipe open.)"""

    def __init__(self) -> None:
        self.code = 0
        self.ended = asyncio.Event()
        self.silent = asyncio.Event()
        self._head = bytearray()
        self._tail = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep the beginning of stdout and the end of stderr."""
        if fd == 1:
            self._head += data[: MAX_OUTPUT - len(self._head)]
        else:
            self._tail = (self._tail + data)[-MAX_OUTPUT:]

    def process_exited(self) -> None:
        self.code = self._transport.get_returncode()
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.silent.set()

    def first_line(self) -> str:
        return self._head.decode(errors="replace").partition("\n")[0].strip()

    def last_line(self) -> str:
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


async def _run(argv: list[str], message: bytes, directory: Path, environment: dict[str, str]) -> _Talk:
    """Until the program has ended and nothing of its process group is left that holds on to its output."""
    loop = asyncio.get_running_loop()
    start = loop.subprocess_exec(_Talk, *argv, cwd=directory, env=environment, start_new_session=True)
    starting = loop.create_task(start)
    try:
        transport, talk = await asyncio.shield(starting)
        stdin: Any = transport.get_pipe_transport(0)
        if not stdin.is_closing():  # what has ended already reads nothing
            stdin.write(message)
            stdin.close()
        await talk.ended.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(talk.silent.wait(), PIPE_GRACE)
        return talk
    finally:
        await _surely(_end(starting))


async def _end(starting: asyncio.Task[tuple[asyncio.SubprocessTransport, _Talk]]) -> None:
    """End what is left of the process group, politely first; what TERM leaves of it gets KILL.

    It may be starting only now: cancelling that would lose sight of a program that runs already.
    """
    try:
        transport, talk = await starting
    except OSError:
        return
    if not talk.silent.is_set():
        try:
            _signal(transport.get_pid(), signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(talk.silent.wait(), TERM_GRACE)
        finally:
            _signal(transport.get_pid(), signal.SIGKILL)
        await talk.ended.wait()
    transport.close()


_ending: set[asyncio.Task[None]] = set()


async def _surely(ending: Coroutine[Any, Any, None]) -> None:
    """Wait for `ending`; it goes on even if the waiting is cancelled once more."""
    task = asyncio.create_task(ending)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    await asyncio.shield(task)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


# --- the documents ----------------------------------------------------------------------------------------------------


def _write_documents(application: Application, directory: Path) -> bytes:
    """The JSON for the program; each document's `path` is the file it was written to."""
    payload = to_payload(application, documents="names")
    names = file_names(document.name for document in application.documents)
    for name, document, described in zip(names, application.documents, payload["documents"], strict=True):
        (directory / name).write_bytes(document.content)
        described["path"] = str(directory / name)
    return json.dumps(payload | {"directory": str(directory)}).encode()


@contextmanager
def _private_directory(parent: Path) -> Iterator[Path]:
    """Only for us (0700) and locked while it is in use, so that what a killed process left behind can be told apart."""
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove the documents that killed processes of our user left behind."""
    for directory in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)
