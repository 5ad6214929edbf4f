"""Sockets from systemd find their listeners by name, on both sides of the supervisor."""

import socket

import pytest

from apptrack_ingest.errors import ConfigError
from apptrack_ingest.service import activated
from apptrack_ingest.settings import Listener, Settings, Smtp


@pytest.fixture
def listening():
    made = []

    def make() -> socket.socket:
        made.append(socket.create_server(("127.0.0.1", 0)))
        return made[-1]

    yield make
    for sock in made:
        sock.close()


def test_a_single_listener_takes_whatever_there_is(listening) -> None:
    one, two = listening(), listening()
    ((listener, sockets),) = activated.by_listener(Settings(), {"smtp": [one], "other": [two]})
    assert (listener, sockets) == (Listener(), [one, two])


def test_several_listeners_take_their_own(listening) -> None:
    one = listening()
    listeners = (Listener(socket="smtp"), Listener(port=2526))
    places = activated.by_listener(Settings(smtp=Smtp(listeners=listeners)), {"smtp": [one]})
    assert places == [(listeners[0], [one]), (listeners[1], [])]


def test_a_name_without_a_socket_and_a_socket_without_a_name_stop_the_start(listening) -> None:
    found = Settings(smtp=Smtp(listeners=(Listener(socket="smtp"), Listener(port=2526))))
    with pytest.raises(ConfigError, match=r"'smtp'.*given: none"):
        activated.by_listener(found, {})
    with pytest.raises(ConfigError, match="socket tls, but no listener"):
        activated.by_listener(found, {"smtp": [listening()], "tls": [listening()]})


def test_sockets_opened_for_several_intakes_find_their_listeners_by_number(listening) -> None:
    listeners = (Listener(port=2525), Listener(socket="smtp"), Listener(port=2526))
    one, two, three = listening(), listening(), listening()
    words = activated.numbered([[one, two], [three], []])
    found = Settings(smtp=Smtp(listeners=listeners))
    assert activated.by_listener(found, words) == [
        (listeners[0], [one, two]),
        (listeners[1], [three]),
        (listeners[2], []),
    ]
    assert activated.as_words(words) == f":0={one.fileno()},:0={two.fileno()},:1={three.fileno()}"


def test_what_the_supervisor_says_the_intake_understands(listening) -> None:
    one, two = listening(), listening()
    words = activated.as_words({"smtp": [one], "tls": [two]})
    found = activated.from_words(words)
    try:
        assert {name: [s.getsockname() for s in sockets] for name, sockets in found.items()} == {
            "smtp": [one.getsockname()],
            "tls": [two.getsockname()],
        }
        assert all(s.proto == socket.IPPROTO_TCP for sockets in found.values() for s in sockets)
    finally:
        for sock in (one, two):
            sock.detach()
        for sockets in found.values():
            for sock in sockets:
                sock.close()


def test_without_systemd_there_are_none_and_the_variables_are_gone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp", "HOME": "/"}
    assert activated.from_systemd(environ) == {}
    assert environ == {"HOME": "/"}


def test_variables_that_make_no_sense_stop_the_start() -> None:
    import os

    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}
    with pytest.raises(ConfigError, match="LISTEN_FDS"):
        activated.from_systemd(environ)
