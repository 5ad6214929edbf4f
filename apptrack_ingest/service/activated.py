"""Listening sockets that systemd opened: taken over once, handed from the supervisor to its intake, and found by name."""

import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

from apptrack_ingest.errors import ConfigError, Problem
from apptrack_ingest.receive.activation import activated_sockets
from apptrack_ingest.settings import Listener, Settings

Activated = Mapping[str, list[socket.socket]]
"""Sockets by their FileDescriptorName."""

_NUMBER = ":"
"""Before a listener's number; no FileDescriptorName holds it (systemd.socket(5))."""

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def from_systemd(environ: MutableMapping[str, str] = os.environ) -> Activated:
    """The sockets meant for this process, whose variables are then gone (sd_listen_fds(3)). Raises ConfigError."""
    try:
        return activated_sockets(environ, os.getpid())
    except ValueError as error:
        raise ConfigError([Problem("LISTEN_FDS", "", str(error))]) from None
    finally:
        for name in _VARIABLES:
            environ.pop(name, None)


def as_words(sockets: Activated) -> str:
    """How the supervisor tells them to its intake, which inherits the descriptors: `name=3,name=4`."""
    return ",".join(f"{name}={one.fileno()}" for name, several in sockets.items() for one in several)


def from_words(words: str) -> Activated:
    """The sockets that the supervisor told of."""
    found: dict[str, list[socket.socket]] = {}
    for word in words.split(","):
        name, _, descriptor = word.rpartition("=")
        if name:
            given = socket.socket(fileno=int(descriptor))
            # Of IPPROTO_TCP by name: with protocol 0 asyncio leaves Nagle's algorithm on.
            made = socket.socket(given.family, given.type, socket.IPPROTO_TCP, fileno=given.detach())
            found.setdefault(name, []).append(made)
    return found


def by_listener(found: Settings, sockets: Activated) -> list[tuple[Listener, list[socket.socket]]]:
    """Each listener with the sockets that are its own; one without any opens its address itself. What the supervisor opened
    for several intakes is named by the listener's number (`numbered`).

    Where the settings name no socket, a single listener takes all there are. Raises ConfigError for a name that systemd
    does not know, and for a socket that no listener wants: mail sent there would wait for ever.
    """
    listeners = found.smtp.all_listeners
    if any(name.startswith(_NUMBER) for name in sockets):
        return [(one, sockets.get(f"{_NUMBER}{number}", [])) for number, one in enumerate(listeners)]
    if sockets and len(listeners) == 1 and listeners[0].socket is None:
        return [(listeners[0], [one for several in sockets.values() for one in several])]
    wanted = {one.socket for one in listeners if one.socket}
    problems = [
        Problem("smtp.listeners.socket", repr(name), f"systemd gave no socket of this name; given: {_named(sockets)}")
        for name in sorted(wanted - set(sockets))
    ]
    problems += [
        Problem("smtp.listeners", "", f"systemd gave a socket {name}, but no listener has socket = {name!r}")
        for name in sorted(set(sockets) - wanted)
    ]
    if problems:
        raise ConfigError(problems)
    return [(one, sockets[one.socket] if one.socket else []) for one in listeners]


def numbered(places: Sequence[Sequence[socket.socket]]) -> Activated:
    """The sockets of each listener, in the order of the listeners, under names that only `by_listener` knows."""
    return {f"{_NUMBER}{number}": list(several) for number, several in enumerate(places)}


def _named(sockets: Activated) -> str:
    return ", ".join(sorted(sockets)) or "none (is the .socket unit started?)"
