"""The parser's process from the inside: takes one mail after the other from a socket and answers what it says.

On the wire, both ways: a head (whether the parcel holds it, and its length), then the bytes unless the parcel holds them.
Beside answers the child sends READY once. For each mail it adds a byte to a tally as soon as it has all of it: a child that
dies before that died of something else than this mail. (Sent, the byte would wake the worker's loop for each mail.)
"""

import ctypes
import os
import pickle
import resource
import signal
import socket
import struct
import threading
from dataclasses import dataclass
from multiprocessing import parent_process

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.model import Parsed
from apptrack_ingest.parse.limits import Limits
from apptrack_ingest.parse.parcel import Packed, Parcel, Place, pack

READY = b"r"
HEAD = struct.Struct("!?Q")

_STATM_BYTES = 128  # seven numbers
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Refusal:
    """An `Unreadable` on its way out of the child: the exception itself would not survive pickling."""

    code: str
    detail: str


def serve(
    channel: socket.socket, parcel: Parcel, taken: Parcel, parent: int, limits: Limits, memory_bytes: int
) -> None:
    """Reads mails until the other side closes the channel."""
    import apptrack_ingest.parse.mime  # noqa: F401 - loaded before it says that it is ready

    _leave_the_ending_to(parent)
    memory = _MemoryLimit(memory_bytes)
    channel.sendall(READY)
    while head := _received(channel, HEAD.size):
        in_parcel, size = HEAD.unpack(head)
        raw = parcel.take(Place(0, size)) if in_parcel else _received(channel, size)
        taken.tally()
        if in_parcel:
            parcel.empty()
        answer = pickle.dumps(_answer(raw, parcel, limits, memory), pickle.HIGHEST_PROTOCOL)
        del raw
        channel.sendall(HEAD.pack(False, len(answer)) + answer)


def _answer(raw: bytes, parcel: Parcel, limits: Limits, memory: "_MemoryLimit") -> Packed | Refusal:
    outcome = _work(raw, limits, memory)
    return outcome if isinstance(outcome, Refusal) else pack(outcome, parcel)


def _received(channel: socket.socket, size: int) -> bytes:
    """So many bytes; none where the channel is closed."""
    found = channel.recv(size, socket.MSG_WAITALL)
    while 0 < len(found) < size:  # a signal came in between
        more = channel.recv(size - len(found), socket.MSG_WAITALL)
        if not more:
            return b""
        found += more
    return found


def _work(raw: bytes, limits: Limits, memory: "_MemoryLimit") -> Parsed | Refusal:
    from apptrack_ingest.parse.mime import parse  # here, not above: the worker imports this module, and reads no mail

    try:
        with memory:
            return parse(raw, limits)
    except Unreadable as error:
        return Refusal(error.code, error.detail)


class _MemoryLimit:
    """Holds the address space while parsing only: moving mails in and results out costs what they are long, no more."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._usual = resource.getrlimit(resource.RLIMIT_AS)
        self._page = resource.getpagesize()
        self._statm = _statm()

    def __enter__(self) -> None:
        _, hard = self._usual
        wanted = self._address_space() + self._memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))

    def __exit__(self, *failure: object) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self._usual)

    def _address_space(self) -> int:
        """Bytes of address space in use (proc(5), statm); 0 where the system does not tell."""
        if self._statm is None:
            return 0
        return int(os.pread(self._statm, _STATM_BYTES, 0).split()[0]) * self._page


def _statm() -> int | None:
    """Kept open: to open it costs ten times what it takes to read it."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None


def _leave_the_ending_to(parent: int) -> None:
    """A terminal's Ctrl-C and a service manager's SIGTERM go to every process of the service, and a child that obeyed would
    make the mail being drained look unreadable. It ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _killed_with_parent():
        threading.Thread(target=_watch_parent, daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _killed_with_parent() -> bool:
    """Ask the kernel for SIGKILL when the parent ends (prctl(2)); False where there is no such call."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    except (AttributeError, OSError):
        return False


def _watch_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
