"""Takes over listening sockets that systemd opened for us (socket activation, sd_listen_fds(3))."""

import os
import socket
from collections.abc import Mapping
from typing import Final

FIRST_DESCRIPTOR: Final = 3
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def activated_sockets(environ: Mapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """The sockets handed to the process `pid`, by their names (`FileDescriptorName=`, else the unit's name, and
    "unknown" where systemd gave none); empty when there are none, or they are meant for another process.

    They are not inherited by programs we start. The variables are left to the caller, who takes them out of the
    environment. ValueError, in words, for a socket that is no listening TCP socket, or variables that make no sense.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    found: dict[str, list[socket.socket]] = {}
    for descriptor, name in enumerate(_names(environ), start=FIRST_DESCRIPTOR):
        found.setdefault(name, []).append(_listening(descriptor, name))
    return found


def _names(environ: Mapping[str, str]) -> list[str]:
    """A name for each descriptor."""
    text = environ.get("LISTEN_FDS", "")
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise ValueError(f"socket activation: LISTEN_FDS={text!r} is not a number of sockets")
    names = environ.get("LISTEN_FDNAMES", "").split(":") if environ.get("LISTEN_FDNAMES") else ["unknown"] * int(text)
    if len(names) != int(text):
        raise ValueError(f"socket activation: LISTEN_FDNAMES has {len(names)} names for {text} sockets")
    return names


def _listening(descriptor: int, name: str) -> socket.socket:
    """The descriptor as a socket of IPPROTO_TCP by name: with protocol 0 asyncio leaves Nagle's algorithm on."""
    try:
        os.set_inheritable(descriptor, False)
        given = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ValueError(
            f"socket activation: descriptor {descriptor} ({name}) is no socket: {error.strerror}"
        ) from None
    family, kind = given.family, given.type
    accepts = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    given.detach()
    if family not in _INTERNET or kind != socket.SOCK_STREAM or not accepts:
        raise ValueError(
            f"socket activation: descriptor {descriptor} ({name}) is not a listening TCP socket"
            " (ListenStream= with an address and port, and Accept=no)"
        )
    return socket.socket(family, kind, socket.IPPROTO_TCP, fileno=descriptor)
