"""The ports that tests give their servers: each once, whoever asks beside, and none of outgoing connections."""

import socket
import subprocess
import sys
from pathlib import Path

import ports
import pytest


def test_none_is_given_twice_to_processes_side_by_side() -> None:
    asks = "import ports; print(*ports.free_ports(50))"
    at = Path(ports.__file__).parent
    asking = [
        subprocess.Popen([sys.executable, "-c", asks], cwd=at, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    given = [int(port) for one in asking for port in one.communicate(timeout=60)[0].split()]
    assert len(given) == len(set(given)) == 200


@pytest.mark.parametrize(
    ("low", "high", "choice"),
    [
        (32768, 60999, range(10000, 32768)),
        (16000, 65535, range(10000, 16000)),
        (10240, 40000, range(40001, 65536)),
        (1024, 65535, range(10000, 65536)),
    ],
)
def test_no_outgoing_connection_gets_one_where_others_are_left(low: int, high: int, choice: range) -> None:
    assert ports._choice(low, high) == choice


def test_one_that_is_taken_is_passed_over() -> None:
    after = ports.free_port()
    with socket.create_server(("127.0.0.1", after)):
        assert ports._next_free(range(after, after + 100), after) > after
    assert ports._next_free(range(after, after + 1), after) == after
