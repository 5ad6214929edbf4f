"""Several intakes and workers on one spool, killed at random under load, cut off from it, their database stopped hard: each
mail answered 250 is delivered, once unless a kill fell between the handler's effect and its commit, and idibu is told so."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from chaos import HASH, Clients, Plan, Role, besiege, calls_file, running, wait_for
from ledger import Ledger
from postgres import Server, own

from apptrack_ingest.model import State
from apptrack_ingest.testing import ScriptedIdibu

SECONDS, SEED = 20, 20261122


@pytest.fixture
def stoppable() -> Iterator[Server]:
    server = own()
    yield server
    server.remove()


@pytest.mark.slow
def test_three_intakes_and_three_workers_on_postgres_are_killed_and_the_server_too(
    stoppable: Server, tmp_path: Path
) -> None:
    plan = Plan(3, 3, SECONDS, seed=SEED)
    result = besiege(tmp_path, plan, url=stoppable.url(stoppable.make()), database=stoppable)
    print(f"seed {SEED}: {result}")
    assert result.problems == []
    assert result.taken >= 20 and sum(result.kills.values()) >= 3


@pytest.mark.slow
def test_an_intake_and_a_worker_on_sqlite_are_killed(tmp_path: Path) -> None:
    result = besiege(tmp_path, Plan(1, 1, SECONDS, every=2.0, seed=SEED))
    print(f"seed {SEED}: {result}")
    assert result.problems == []
    assert result.taken >= 20 and sum(result.kills.values()) >= 2


# --- cut off ------------------------------------------------------------------------------------------------------


class Line:
    """A TCP port that passes everything on to a server's socket until it is cut: then it keeps connections and is silent,
    as a network that loses its packets."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self._whole = threading.Event()
        self._whole.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._server))
                self._open += [near, far]
                for here, there in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(here, there), daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                self._whole.wait()
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)


@contextmanager
def line_to(server: Server) -> Iterator[Line]:
    line = Line(server.directory / ".s.PGSQL.5432")
    yield line
    line.close()


def test_a_worker_cut_off_from_the_database_cannot_settle_what_another_took_over(
    postgres_server: Server, postgres_url: str, tmp_path: Path
) -> None:
    database = postgres_url.partition("?")[0].rpartition("/")[2]
    gate, ledger = tmp_path / "gate", Ledger(postgres_url)
    with ScriptedIdibu({HASH: "acme"}) as idibu, line_to(postgres_server) as line:

        def role(name: str, url: str, **environment: str) -> Role:
            lease = "[worker]\nlease = 5"
            return Role(name, tmp_path, tmp_path / name, idibu.base_url, url, lease, environment)

        through = f"postgresql://owner@127.0.0.1:{line.port}/{database}"
        intake, first = role("intake-1", postgres_url), role("worker-1", through, GATE=str(gate))
        second = role("worker-2", postgres_url)
        with running([intake, first]):
            clients = Clients([intake.port], count=1, pause=3600)
            wait_for(lambda: calls_file(tmp_path).exists(), first.log.read_text)
            line.cut()
            with running([second]):
                wait_for(lambda: ledger.has_settled(), second.log.read_text)
                gate.touch()
                line.mend()
                wait_for(lambda: '"lease lost"' in first.log.read_text(), first.log.read_text)
            clients.finish()
        [row] = ledger.applications()
        story = ledger.story(row.application_id)
        calls = [json.loads(one) for one in calls_file(tmp_path).read_text().splitlines()]
        assert [(applicant, attempt) for applicant, attempt, _ in calls] == [(1, 1), (1, 2)]
        assert calls[0][2] == calls[1][2]
        assert (row.state, row.attempts) == (State.DELIVERED, 2)
        assert [one.code for one in story.attempts if one.report_id is None] == ["no-verdict", "delivered"]
        assert len({one.worker for one in story.attempts}) == 2
        assert len(story.reports) == 1
        assert [(one.status, one.posts) for one in idibu.applicants()] == [("success", 1)]
