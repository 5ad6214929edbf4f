"""Sockets that systemd opened: taken over by name, refused in words where they cannot be listened on."""

import json
import os
import socket
import subprocess
import sys

import pytest

from apptrack_ingest.receive import activation
from apptrack_ingest.receive.activation import activated_sockets

PROGRAM = """
import json, os
from apptrack_ingest.receive.activation import activated_sockets
found = activated_sockets(os.environ, os.getpid())
print(json.dumps({name: [[sock.getsockname()[1], sock.proto, sock.get_inheritable()] for sock in sockets]
                  for name, sockets in found.items()}))
"""

STARTER = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[2:]]
for target, descriptor in enumerate(high, start=3):
    os.dup2(descriptor, target)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES="smtp:smtps:smtp")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def listening(family=socket.AF_INET, protocol=0) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, protocol)
    made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    made.listen()
    return made


def test_a_process_started_by_systemd_finds_its_sockets():
    """As systemd does it: descriptors from 3 on, and the process id known only once it runs."""
    with listening() as one, listening(socket.AF_INET6) as two, listening() as three:
        sockets = (one, two, three)
        numbers = [sock.fileno() for sock in sockets]
        command = [sys.executable, "-c", STARTER, PROGRAM, *map(str, numbers)]
        ran = subprocess.run(command, pass_fds=numbers, capture_output=True, text=True, timeout=60, check=True)
        ports = [sock.getsockname()[1] for sock in sockets]
    tcp = socket.IPPROTO_TCP
    assert json.loads(ran.stdout) == {
        "smtp": [[ports[0], tcp, False], [ports[2], tcp, False]],
        "smtps": [[ports[1], tcp, False]],
    }


@pytest.fixture
def given(monkeypatch):
    """Hands over one descriptor, as if it were the third."""

    def give(descriptor: int) -> dict[str, list[socket.socket]]:
        monkeypatch.setattr(activation, "FIRST_DESCRIPTOR", descriptor)
        return activated_sockets({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7)

    return give


async def test_nagles_algorithm_is_off_on_what_is_accepted(intake, given, mail):
    ((sock,),) = given(listening().detach()).values()
    await intake.listener.serve(sock)
    assert len(intake.listener.addresses) == 2
    client = await intake.connect(port=sock.getsockname()[1])
    accepted = intake.session.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert (await client.deliver(mail)).startswith("250 ")


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}])
def test_what_is_not_meant_for_us_is_left_alone(environ):
    assert activated_sockets(environ, 7) == {}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "LISTEN_FDS='' is not a number"),
        ({"LISTEN_FDS": "x"}, "LISTEN_FDS='x' is not a number"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS='-1' is not a number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "smtp"}, "1 names for 2 sockets"),
    ],
)
def test_variables_that_make_no_sense_are_told(environ, words):
    with pytest.raises(ValueError, match=words):
        activated_sockets({"LISTEN_PID": "7", **environ}, 7)


def no_socket() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def not_open() -> int:
    descriptor = no_socket()
    os.close(descriptor)
    return descriptor


def datagram() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


def local() -> int:
    one, _ = socket.socketpair()
    return one.detach()


def bound_only() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_socket, "is no socket"),
        (not_open, "is no socket"),
        (datagram, "not a listening TCP socket"),
        (local, "not a listening TCP socket"),
        (bound_only, "not a listening TCP socket .*Accept=no"),
    ],
)
def test_what_cannot_be_listened_on_is_told(given, make, words):
    with pytest.raises(ValueError, match=words):
        given(make())
